"""Response times of the page, measured in Chromium with real strokes.  python -m benchmarks.app

Times are from the browser's event (pen-up, key or click) to the first frame with the answer. Server and browser run on
the same machine, as on a laptop.
"""

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Locator, Page, TimeoutError, sync_playwright

from benchmarks import write
from benchmarks.running_app import CHROMIUM_ARGS, ONE, SEVEN, ZERO, chromium_path, draw, open_app, serve
from bnmodel.experiments.convergence import MOST_EPOCHS
from demo.server.live_training import MAX_TRAININGS

DRAWINGS = 40
TAB_DRAWINGS = 7
CHANGES = 6  # per control; the first is not counted, since nothing is cached yet
LONGEST = 4000  # ms to wait for a picture that may not change
PATIENCE = 120_000  # ms to wait for anything else
VIEW = {"width": 1280, "height": 900}
# tab → selector of the part that changes with the answer
TABS = {
    "X-ray": "#xray",
    "Chance": "#chance",
    "Worked out": "#worked",
    "Why": "#why",
    "Statistics": "#statistics",
    "Faults": "#forgotten",
    "Corruption": "#corruption",
    "Export": "#parity",
}
TABS_WITH_CONTROLS = (
    "Your digit", "Chance", "Worked out", "Why", "Statistics", "Faults", "Corruption", "Initialise", "Inputs",
    "Gradients", "Convergence", "Stopping",
)  # fmt: skip
CONTROLS = "#right .controls .block[id], #right .controls button[id$=reshuffle]"
# Records when a key or button is pressed, and the first frame after the last change of the tab's pictures
KEY_CLOCK = """() => {
    window.times = { start: 0, shown: 0 };
    const start = () => { times = { start: performance.now(), shown: 0 }; };
    document.addEventListener('keydown', start, true);
    const changed = () => requestAnimationFrame(() => { times.shown = performance.now(); });
    for (const shown of document.querySelectorAll('.picture .html-container > *')) { // Gradio reuses elements
        new MutationObserver(changed).observe(
            shown, { childList: true, subtree: true, attributes: true, characterData: true });
    }
}"""
# Records when the pen is lifted, and the first frame after each change of the pad's answer and of the watched part
CLOCK = """(watched) => {
    const times = window.times = { up: 0, pad: 0, panel: 0 };
    const note = (name) => requestAnimationFrame(() => { times[name] ||= performance.now(); });
    const watch = (place, name, options) =>
        new MutationObserver(() => note(name)).observe(document.querySelector(place), options);
    document.querySelector('.pad-canvas').addEventListener(
        'pointerup', () => Object.assign(times, { up: performance.now(), pad: 0, panel: 0 }), true);
    watch('.pad', 'pad', { attributes: true, attributeFilter: ['data-settled'] });
    watch(watched + ' .html-container', 'panel', { childList: true, subtree: true }); // without Gradio's progress
}"""


def main() -> None:
    with browser() as open_page:
        started = [seconds_from_start(open_page) for _ in range(2)]
    with serve() as url, browser() as open_page:
        usable = sorted(seconds_to_usable(open_page(), url) for _ in range(5))
        page = open_page()
        open_app(page, url)
        pad, panel = answer_times(page, "#modes", DRAWINGS)
        tabs = {}
        for tab, place in TABS.items():
            page.get_by_role("tab", name=tab, exact=True).click()
            page.wait_for_selector(f"{place} .sentence")
            page.wait_for_timeout(500)
            tabs[tab] = round(statistics.median(answer_times(page, place, TAB_DRAWINGS)[1]))
        page.context.close()
        changes = {tab: summary(change_times(open_page(), url, tab)) for tab in TABS_WITH_CONTROLS}
        first_point, while_training = live_times(open_page, url)
    result: dict[str, Any] = {
        "drawings": DRAWINGS,
        "pen_up_to_answer_ms": quantiles(pad),
        "pen_up_to_eval_train_panel_ms": quantiles(panel),
        "second_start_to_usable_page_s": round(started[-1], 2),
        "page_usable_s": {"median": round(usable[2], 2), "slowest": round(usable[-1], 2)},
        "pen_up_to_tab_p50_ms": tabs,
        "control_to_picture_p50_ms": changes,
        "live_training_first_point_ms": first_point,
        "pen_up_to_answer_while_three_train_ms": while_training,
    }
    write("app", result)
    print("\n".join(f"{name}: {value}" for name, value in result.items()))


@contextmanager
def browser() -> Iterator[Any]:
    """A function that opens a page in a new context with an empty cache."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=chromium_path(), args=CHROMIUM_ARGS)

        def open_page() -> Page:
            page = chromium.new_context(viewport=VIEW).new_page()  # type: ignore[arg-type]
            page.set_default_timeout(PATIENCE)
            return page

        yield open_page
        chromium.close()


def seconds_from_start(open_page: Callable[[], Page]) -> float:
    """Seconds from `python -m demo` until the pad is usable and the first tab shows its answer."""
    start = time.perf_counter()
    with serve() as url:
        return seconds_to_usable(open_page(), url, start)


def seconds_to_usable(page: Page, url: str, start: float | None = None) -> float:
    """Seconds from the request, or from `start`, until the pad is usable and the first tab shows its answer."""
    start = time.perf_counter() if start is None else start
    open_app(page, url)
    seconds = time.perf_counter() - start
    page.context.close()
    return seconds


def answer_times(page: Page, place: str, drawings: int) -> tuple[list[float], list[float]]:
    """Milliseconds from pen-up to the answer on the pad, and to the new content of `place`, for each drawing.

    Every call draws other strokes, since the server keeps its answers.
    """
    page.evaluate(CLOCK, place)
    jitter = random.Random(f"{place} {drawings}")
    pad, panel = [], []
    for number in range(drawings):
        stroke = (ONE, SEVEN, ZERO)[number % 3]
        draw(page, [(x + jitter.uniform(-0.03, 0.03), y + jitter.uniform(-0.03, 0.03)) for x, y in stroke])
        page.wait_for_function("times.panel > 0")
        times = page.evaluate("times")
        pad.append(times["pad"] - times["up"])
        panel.append(times["panel"] - times["up"])
        page.evaluate("times.panel = 0")
        page.locator("[data-do=clear]").click()
        page.wait_for_function("times.panel > 0")  # shows the example again
        page.wait_for_timeout(200)
    return pad, panel


def change_times(page: Page, url: str, tab: str) -> dict[str, list[float]]:
    """Control → milliseconds from the key or click to the last new picture, for each change.

    Controls that change no picture, such as those of a live training, are left out.
    """
    open_app(page, url)
    page.get_by_role("tab", name=tab, exact=True).click()
    page.wait_for_selector("#right .tabitem:visible .picture svg, #right .tabitem:visible .paired")
    page.wait_for_timeout(1500)
    page.evaluate(KEY_CLOCK)
    times = {}
    visible = page.locator(CONTROLS).filter(visible=True)
    for name in visible.evaluate_all("all => all.map(control => control.id)"):
        changes = [change(page, page.locator(f"#{name}"), number) for number in range(CHANGES)][1:]
        if found := [time for time in changes if time is not None]:
            times[name] = found
    page.context.close()
    return times


def change(page: Page, control: Locator, number: int) -> float | None:
    """Milliseconds of one change of a slider, radio, dropdown or seed; None if no picture changed."""
    page.evaluate("times = { start: 0, shown: 0 }")
    inputs = control.locator("input[type=range], input[type=radio], input:not([type=number])").filter(visible=True)
    if control.evaluate("control => control.tagName") == "BUTTON":
        page.evaluate("times.start = performance.now()")
        control.click()
    elif not inputs.count() or inputs.first.is_disabled():
        return None
    else:
        kind = inputs.first.get_attribute("type")
        inputs.nth(number % inputs.count() if kind == "radio" else 0).focus()
        for key in {"range": ["ArrowRight"], "radio": ["Space"]}.get(str(kind), ["ArrowDown", "Enter"]):
            page.keyboard.press(key)
    try:
        page.wait_for_function("times.shown > 0", timeout=LONGEST)
    except TimeoutError:
        return None
    page.wait_for_function("performance.now() - times.shown > 400")  # until pictures stop changing
    return float(page.evaluate("times.shown - times.start"))


def summary(times: dict[str, list[float]]) -> dict[str, Any]:
    """The median over all changes of a tab, and per control."""
    every = [time for of_control in times.values() for time in of_control]
    controls = {control: round(statistics.median(of_control)) for control, of_control in times.items()}
    return {"all": round(statistics.median(every)), "controls": controls}


def live_times(open_page: Callable[[], Page], url: str) -> tuple[int, dict[str, int]]:
    """Milliseconds from “Train live” to the first point, and from pen-up to the answer during three live runs."""
    drawing = open_page()
    open_app(drawing, url)
    first = []
    for _ in range(MAX_TRAININGS):
        page = open_page()
        page.goto(f"{url}/?tab=convergence&conv-epochs={MOST_EPOCHS}")
        page.wait_for_selector("#convergence svg")
        page.wait_for_timeout(1000)
        started = time.perf_counter()
        page.locator("#conv-train").click()
        page.wait_for_function("document.querySelector('#conv-live').innerText.includes('epoch 1')", polling=20)
        first.append(1000 * (time.perf_counter() - started))
    pad, _ = answer_times(drawing, "#modes", DRAWINGS // 2)
    return round(first[0]), quantiles(pad)


def quantiles(times: list[float]) -> dict[str, int]:
    cuts = statistics.quantiles(times, n=20, method="inclusive")
    return {"p50": round(statistics.median(times)), "p95": round(cuts[18])}


if __name__ == "__main__":
    main()
