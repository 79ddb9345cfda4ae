"""The browser examples: exported files in a page, run by ONNX Runtime Web."""

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from examples_helpers import CHECKPOINT, EXAMPLES, LINE, ROOT, agreed, npm_install, one_number_off
from playwright.sync_api import Browser, BrowserContext, Page, Route

from benchmarks.running_app import ONE, SEVEN
from tests.windows import PATIENCE


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def page_url() -> Iterator[str]:
    """The browser example as `python -m http.server` in the repository's root serves it."""
    npm_install(EXAMPLES / "browser")
    with served(ROOT) as address:
        yield f"{address}examples/browser/"


@pytest.fixture
def static_page(tmp_path: Path) -> Iterator[str]:
    """The page without a bundler, with the exported file and the runtime beside it."""
    npm_install(EXAMPLES / "browser")
    shutil.copy(EXAMPLES / "static" / "index.html", tmp_path)
    shutil.copy(CHECKPOINT / "sketch.onnx", tmp_path)
    (tmp_path / "ort").symlink_to(EXAMPLES / "browser" / "node_modules" / "onnxruntime-web" / "dist")
    with served(tmp_path) as address:
        yield address


@pytest.fixture
def contexts(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Makes browser contexts, none of which may send a request to another machine."""
    opened: list[BrowserContext] = []
    requests: list[str] = []

    def make(**options: Any) -> BrowserContext:
        context = browser.new_context(**options)
        context.set_default_timeout(PATIENCE)
        context.on("request", lambda request: requests.append(request.url))
        opened.append(context)
        return context

    yield make
    for context in opened:
        context.close()
    assert {urlparse(url).hostname for url in requests if not url.startswith(("data:", "blob:"))} == {"127.0.0.1"}


def open_page(context: BrowserContext, url: str, cases: int = 20) -> Page:
    """The page, once it has compared its answers with the first `cases` golden vectors."""
    page = context.new_page()
    if cases < 20:
        golden = {
            stem: vectors[:cases] for stem, vectors in json.loads((CHECKPOINT / "golden.json").read_text()).items()
        }
        page.route("**/golden.json", lambda route: route.fulfill(json=golden))
    page.goto(url)
    page.wait_for_selector("#golden.agrees, #golden.wrong")
    return page


def points(page: Page, stroke: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Shares of the sheet → pixels of the page."""
    box = page.locator("#sheet").bounding_box()
    assert box is not None
    return [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]


def draw(page: Page, stroke: list[tuple[float, float]]) -> None:
    first, *others = points(page, stroke)
    page.mouse.move(*first)
    page.mouse.down()
    for point in others:
        page.mouse.move(*point, steps=5)
    page.mouse.up()


def draw_by_touch(page: Page, stroke: list[tuple[float, float]]) -> None:
    touch = page.context.new_cdp_session(page)
    kinds = ["touchStart"] + ["touchMove"] * (len(stroke) - 1)
    for kind, (x, y) in zip(kinds, points(page, stroke), strict=True):
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def wait_for_answer(page: Page, label: str) -> None:
    page.wait_for_function("label => document.querySelector('#label').textContent === label", arg=label)


def seen(page: Page) -> list[int]:
    """The 28×28 digit that the page shows, row by row, 0 … 255."""
    rgba = "Array.from(document.querySelector('#digit').getContext('2d').getImageData(0, 0, 28, 28).data)"
    return list(page.evaluate(rgba)[::4])


def brightest_ink(page: Page) -> int:
    """The largest red value of what is drawn on the sheet, 0 … 255."""
    return int(
        page.evaluate("""() => {
            const { data } = document.querySelector('#sheet').getContext('2d').getImageData(0, 0, 448, 448)
            return data.reduce((most, value, i) => i % 4 ? most : Math.max(most, value), 0)
        }""")
    )


def test_the_page_agrees_with_the_golden_vectors(contexts: Callable[..., BrowserContext], page_url: str) -> None:
    page = open_page(contexts(), page_url)
    assert agreed(page.locator("#golden").inner_text()) == ["digits", "sketch"]
    assert page.locator("#golden").get_attribute("class") == "agrees"


def test_the_page_reports_golden_vectors_that_differ(contexts: Callable[..., BrowserContext], page_url: str) -> None:
    golden = json.loads((CHECKPOINT / "golden.json").read_text())
    one_number_off(golden)

    def answer(route: Route) -> None:
        route.fulfill(body=json.dumps(golden), content_type="application/json")

    context = contexts()
    context.route("**/golden.json", answer)
    page = open_page(context, page_url)
    assert [stem for stem, *_ in LINE.findall(page.locator("#golden").inner_text())] == ["sketch", "digits"]
    assert page.locator("#golden").get_attribute("class") == "wrong"


def test_the_page_reads_a_drawing_offline_shows_the_networks_input_and_clears_it(
    contexts: Callable[..., BrowserContext], page_url: str
) -> None:
    context = contexts()
    page = open_page(context, page_url, cases=1)
    context.set_offline(True)
    wait_for_answer(page, "–")
    draw(page, SEVEN)
    wait_for_answer(page, "7")
    probabilities = [float(bar.rstrip(" %")) for bar in page.locator("#bars b").all_inner_texts()]
    assert len(probabilities) == 10
    assert sum(probabilities) == pytest.approx(100, abs=5)  # rounded to per cents
    assert probabilities[7] == max(probabilities) > 80
    digit = seen(page)
    assert max(digit) == 255
    assert digit[:28] == [0] * 28  # scaled to 20×20 of the 28×28: the upper row is empty
    page.get_by_role("button", name="Clear").click()
    wait_for_answer(page, "–")
    assert not any(seen(page))
    draw(page, ONE)
    wait_for_answer(page, "1")


def test_the_page_reads_touch_on_a_dark_phone(contexts: Callable[..., BrowserContext], page_url: str) -> None:
    phone = contexts(viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True, color_scheme="dark")
    page = open_page(phone, page_url, cases=1)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert max(int(value) for value in re.findall(r"\d+", background)) < 50
    draw_by_touch(page, [(0.5, 0.82 - 0.064 * step) for step in range(11)])  # upwards, as one would scroll
    wait_for_answer(page, "1")
    assert brightest_ink(page) > 200
    assert page.evaluate("scrollY") == 0  # the sheet was drawn on, not scrolled
    page.evaluate("document.querySelector('#label').textContent = 'waiting'")
    page.emulate_media(color_scheme="light")  # the ink changes its colour with the page: the other polarity
    wait_for_answer(page, "1")
    assert brightest_ink(page) < 50


def test_the_page_answers_while_the_pen_still_moves(contexts: Callable[..., BrowserContext], page_url: str) -> None:
    page = open_page(contexts(), page_url, cases=1)
    first, *others = points(page, SEVEN)
    page.mouse.move(*first)
    page.mouse.down()
    for point in others:
        page.mouse.move(*point, steps=5)
    wait_for_answer(page, "7")
    page.mouse.up()


def test_the_page_names_missing_packages(contexts: Callable[..., BrowserContext], page_url: str) -> None:
    context = contexts()
    context.route("**/node_modules/**", lambda route: route.fulfill(status=404))
    page = open_page(context, page_url)
    assert "npm install" in page.locator("#golden").inner_text()
    assert page.locator("#golden").get_attribute("class") == "wrong"


def test_the_page_without_a_bundler_reads_a_drawing(contexts: Callable[..., BrowserContext], static_page: str) -> None:
    page = contexts().new_page()
    page.goto(static_page)
    wait_for_answer(page, "–")
    draw(page, SEVEN)
    wait_for_answer(page, "7")
    page.get_by_role("button", name="Clear").click()
    wait_for_answer(page, "–")


def test_the_page_without_a_bundler_says_that_the_model_is_missing(
    contexts: Callable[..., BrowserContext], static_page: str
) -> None:
    page = contexts().new_page()
    page.route("**/sketch.onnx", lambda route: route.fulfill(status=404))
    page.goto(static_page)
    wait_for_answer(page, "not loaded")
