"""How soon the page answers: real strokes in a real Chromium, timed inside the page.  python -m benchmarks.app

The clock starts when the browser hears that the pen was lifted or a key pressed, and stops at the first frame after the
answer is on the page. Server and browser share the machine, as on a laptop.
"""

import random
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Page, sync_playwright

from benchmarks import write
from tests.conftest import CHROMIUM_ARGS, ONE, SEVEN, ZERO, chromium_path, draw, open_app, serve

DRAWINGS = 40
TAB_DRAWINGS = 7
CHANGES = 9  # of a control; the first does not count, since what it needs is not yet remembered
VIEW = {"width": 1280, "height": 900}
# tab → what must have changed when its answer is there
TABS = {
    "X-ray": "#xray",
    "Chance": "#chance",
    "Why": "#why",
    "Statistics": "#statistics",
    "Faults": "#forgotten",
    "Corruption": "#corruption",
    "Export": "#parity",
}
# tab → a control, the keys that change it, and what must then have changed
SLIDER, RADIO, DROPDOWN = (
    (" input[type=range]", "ArrowRight"),
    (" input", "Space"),
    (" input", "ArrowDown Enter"),
)
CONTROLS = {
    "Your digit": ("#count", SLIDER, "#modes"),
    "Chance": ("#batch-size", RADIO, "#chance"),
    "Why": ("#why-count", SLIDER, "#why"),
    "Statistics": ("#momentum", SLIDER, "#statistics"),
    "Faults": ("#calls", SLIDER, "#forgotten"),
    "Corruption": ("#corruption-kind", RADIO, "#corruption"),
    "Initialise": ("#init-std", SLIDER, "#stack"),
    "Inputs": ("#in-offset", SLIDER, "#inputs"),
    "Gradients": ("#grad-steps", SLIDER, "#gradients"),
    "Convergence": ("#conv-rate", DROPDOWN, "#convergence"),
    "Stopping": ("#stop-patience", SLIDER, "#stopping"),
}
# Notes when a key is pressed, and the first frame after the watched part has changed; once a page
KEY_CLOCK = """(watched) => {
    window.times = { start: 0, shown: 0 };
    document.addEventListener('keydown', () => { times = { start: performance.now(), shown: 0 }; }, true);
    new MutationObserver(() => requestAnimationFrame(() => { times.shown ||= performance.now(); })).observe(
        document.querySelector(watched + ' .html-container > *'), // Gradio changes no more of it than it must
        { childList: true, subtree: true, attributes: true, characterData: true });
}"""
# Notes when the pen is lifted, and the first frame after each change of the pad's answer and of the watched part.
CLOCK = """(watched) => {
    const times = window.times = { up: 0, pad: 0, panel: 0 };
    const note = (name) => requestAnimationFrame(() => { times[name] ||= performance.now(); });
    const watch = (place, name, options) =>
        new MutationObserver(() => note(name)).observe(document.querySelector(place), options);
    document.querySelector('.pad-canvas').addEventListener(
        'pointerup', () => Object.assign(times, { up: performance.now(), pad: 0, panel: 0 }), true);
    watch('.pad', 'pad', { attributes: true, attributeFilter: ['data-settled'] });
    watch(watched + ' .html-container', 'panel', { childList: true, subtree: true }); // not Gradio's sign of waiting
}"""


def main() -> None:
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
        changes = {tab: round(statistics.median(change_times(open_page(), url, tab))) for tab in CONTROLS}
    result: dict[str, Any] = {
        "drawings": DRAWINGS,
        "pen_up_to_answer_ms": quantiles(pad),
        "pen_up_to_eval_train_panel_ms": quantiles(panel),
        "page_usable_s": {"median": round(usable[2], 2), "slowest": round(usable[-1], 2)},
        "pen_up_to_tab_p50_ms": tabs,
        "control_to_picture_p50_ms": changes,
    }
    write("app", result)
    print("\n".join(f"{name}: {value}" for name, value in result.items()))


@contextmanager
def browser() -> Iterator[Any]:
    """A function that opens an empty page, in a window of its own with nothing cached."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=chromium_path(), args=CHROMIUM_ARGS)
        yield lambda: chromium.new_context(viewport=VIEW).new_page()  # type: ignore[arg-type]
        chromium.close()


def seconds_to_usable(page: Page, url: str) -> float:
    """From the request to a pad that can be drawn on beside a first tab that shows its answer."""
    start = time.perf_counter()
    open_app(page, url)
    seconds = time.perf_counter() - start
    page.context.close()
    return seconds


def answer_times(page: Page, place: str, drawings: int) -> tuple[list[float], list[float]]:
    """Milliseconds from pen-up to the answer on the pad, and to the new content of `place`, for each drawing."""
    page.evaluate(CLOCK, place)
    jitter = random.Random(0)
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
        page.wait_for_function("times.panel > 0")  # the example again
        page.wait_for_timeout(200)
    return pad, panel


def change_times(page: Page, url: str, tab: str) -> list[float]:
    """Milliseconds from the last key that changes a tab's control to its new picture, for each change."""
    control, (part, keys), place = CONTROLS[tab]
    open_app(page, url)
    page.get_by_role("tab", name=tab, exact=True).click()
    page.wait_for_selector(f"{place} .sentence")
    page.wait_for_timeout(500)
    page.evaluate(KEY_CLOCK, place)
    times = []
    for change in range(CHANGES):
        inputs = page.locator(control + part)  # of a radio as many as it has choices
        inputs.nth(change % inputs.count()).focus()
        for key in keys.split():
            page.keyboard.press(key)
        page.wait_for_function("times.shown > 0")
        times.append(page.evaluate("times.shown - times.start"))
        page.wait_for_timeout(400)
    page.context.close()
    return times[1:]


def quantiles(times: list[float]) -> dict[str, int]:
    cuts = statistics.quantiles(times, n=20, method="inclusive")
    return {"p50": round(statistics.median(times)), "p95": round(cuts[18])}


if __name__ == "__main__":
    main()
