"""Other apps load the exported files: each example as its reader runs it, and each with a way to fail."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
import torch
from playwright.sync_api import Browser, BrowserContext, Page, Route

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
CHECKPOINT = ROOT / "checkpoints" / "lecture"
TOLERANCE = 1e-5
LINE = re.compile(r"(\w+)\.(\w+): (\d+) golden vectors, largest difference (\S+), labels differing (\d+)")
# Strokes, in shares of the sheet from its top left
ONE = [(0.5, 0.18), (0.5, 0.82)]
SEVEN = [(0.27, 0.2), (0.73, 0.2), (0.45, 0.82)]
# Runs a script as `python script …` would, then says what it imported
SPY = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("imported:", *sorted({name.partition(".")[0] for name in sys.modules}))
"""

Example = Callable[..., subprocess.CompletedProcess[str]]


def run(*command: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=300)


def need(*tools: str) -> None:
    """Skip where a tool is absent; in CI, where all of them should be, fail."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing and os.environ.get("CI"):
        pytest.fail(f"{', '.join(missing)}: not installed, and CI has to have it")
    if missing:
        pytest.skip(f"{', '.join(missing)}: not installed")


def npm_install(folder: Path) -> None:
    """The example's npm packages, kept in its node_modules (which git ignores) for the next run."""
    done = folder / "node_modules" / ".package-lock.json"  # npm writes it last
    if done.exists() and done.stat().st_mtime > (folder / "package.json").stat().st_mtime:
        return
    need("npm")
    installed = run("npm", "--prefix", folder, "install")
    assert installed.returncode == 0, installed.stderr


@pytest.fixture(scope="session")
def cpp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ example, built against Python's torch package."""
    need("cmake", "g++")
    build = tmp_path_factory.mktemp("cpp") / "build"
    configured = run("cmake", "-S", EXAMPLES / "cpp", "-B", build, f"-DTORCH_DIR={torch.__path__[0]}")
    assert configured.returncode == 0, configured.stderr
    built = run("cmake", "--build", build)
    assert built.returncode == 0, built.stdout + built.stderr
    return build / "golden"


@pytest.fixture(scope="session")
def node() -> Path:
    need("node")
    npm_install(EXAMPLES / "node")
    return EXAMPLES / "node" / "main.mjs"


@pytest.fixture(params=["python_onnx", "python_torchscript", "node", "cpp"])
def example(request: pytest.FixtureRequest) -> Example:
    """One of the examples that print: a function from its arguments to what it printed and how it ended."""
    name = request.param
    if name == "node":
        return partial(run, "node", request.getfixturevalue("node"))
    if name == "cpp":
        return partial(run, request.getfixturevalue("cpp"))
    return partial(run, sys.executable, EXAMPLES / f"{name}.py")


def agreed(output: str) -> list[str]:
    """The files whose agreement was printed, each with 20 golden vectors, within the tolerance, no label differing."""
    found = LINE.findall(output)
    for _stem, _ending, cases, largest, differing in found:
        assert (int(cases), int(differing)) == (20, 0)
        assert 0 < float(largest) <= TOLERANCE
    return sorted(stem for stem, *_ in found)


def sabotaged(tmp_path: Path, break_it: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of the checkpoint folder, its golden.json broken."""
    for file in (*CHECKPOINT.glob("*.onnx"), *CHECKPOINT.glob("*.torchscript")):
        shutil.copy(file, tmp_path)
    golden = json.loads((CHECKPOINT / "golden.json").read_text())
    break_it(golden)
    (tmp_path / "golden.json").write_text(json.dumps(golden))
    return tmp_path


def one_number_off(golden: dict[str, Any]) -> None:
    golden["sketch"][19]["outputs"][1]["data"][300] += 1e-4


def another_label(golden: dict[str, Any]) -> None:
    golden["digits"][7]["outputs"][0]["data"].reverse()


def another_drawing(golden: dict[str, Any]) -> None:
    golden["sketch"][3]["input"]["data"][800:1600] = [0] * 800


def not_divided(golden: dict[str, Any]) -> None:
    del golden["digits"][0]["input"]["divide_by"]


def not_a_number(golden: dict[str, Any]) -> None:
    golden["digits"][0]["outputs"][0]["data"][0] = float("nan")


def an_output_less(golden: dict[str, Any]) -> None:
    golden["sketch"][5]["outputs"].pop()


def another_shape(golden: dict[str, Any]) -> None:
    golden["digits"][5]["outputs"][0]["shape"] = [10]


def no_vectors(golden: dict[str, Any]) -> None:
    golden["sketch"] = []


VALUES = (one_number_off, another_label, another_drawing, not_divided, no_vectors)  # measured, and printed
FORMS = (not_a_number, an_output_less, another_shape)  # may also be refused, as NaN is by JavaScript's JSON


def test_an_example_agrees_with_the_golden_vectors_from_any_folder(example: Example, tmp_path: Path) -> None:
    result = example(cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert agreed(result.stdout) == ["digits", "sketch"]
    assert "Warning" not in result.stderr


@pytest.mark.parametrize("name", ["python_onnx", "python_torchscript"])
def test_a_python_example_needs_only_its_own_runtime(name: str, tmp_path: Path) -> None:
    # -I: neither the current folder nor the script's is on the import path, so nothing of ours could be found
    result = run(sys.executable, "-I", "-c", SPY, EXAMPLES / f"{name}.py", cwd=tmp_path)
    imported = set(result.stdout.splitlines()[-1].split()[1:])
    assert agreed(result.stdout) == ["digits", "sketch"]
    assert imported.isdisjoint({"bnmodel", "export", "demo", "gradio", "torchvision"})
    if name == "python_onnx":
        assert {"onnxruntime", "numpy"} <= imported
        assert imported.isdisjoint({"torch", "onnx"})
    else:
        assert "torch" in imported
        assert "onnxruntime" not in imported


# Starting torch takes its time, so that the two with torch get a choice of the sabotages.
@pytest.mark.parametrize(
    ("example", "break_it"),
    [
        *((name, break_it) for name in ("python_onnx", "node") for break_it in (*VALUES, *FORMS)),
        *(("cpp", break_it) for break_it in (one_number_off, no_vectors, *FORMS)),
        ("python_torchscript", one_number_off),
        ("python_torchscript", not_a_number),
    ],
    indirect=["example"],
)
def test_an_example_fails_where_the_golden_vectors_are_others(
    example: Example, break_it: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    result = example(sabotaged(tmp_path, break_it))
    assert result.returncode != 0
    if break_it in VALUES:
        assert [stem for stem, *_ in LINE.findall(result.stdout)] == ["digits", "sketch"]


@pytest.mark.parametrize("example", ["python_onnx", "node", "cpp"], indirect=True)
def test_a_missing_folder_fails(example: Example, tmp_path: Path) -> None:
    result = example(tmp_path / "missing")
    assert result.returncode != 0
    assert "missing" in result.stderr


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*/.npmrc")), ids=lambda file: file.parent.name)
def test_npm_runs_no_install_scripts(file: Path) -> None:
    assert "ignore-scripts=true" in file.read_text().splitlines()


# ---- the browser page


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="session")
def page_url() -> Iterator[str]:
    """The browser example as `python -m http.server` in the repository's root serves it."""
    npm_install(EXAMPLES / "browser")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(ROOT)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/examples/browser/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def contexts(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Makes browser contexts, of which none may have asked anything of any other machine."""
    opened: list[BrowserContext] = []
    requests: list[str] = []

    def make(**options: Any) -> BrowserContext:
        context = browser.new_context(**options)
        context.on("request", lambda request: requests.append(request.url))
        opened.append(context)
        return context

    yield make
    for context in opened:
        context.close()
    assert {urlparse(url).hostname for url in requests if not url.startswith(("data:", "blob:"))} == {"127.0.0.1"}


def open_page(context: BrowserContext, url: str) -> Page:
    page = context.new_page()
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


def test_the_page_says_so_where_the_golden_vectors_are_others(
    contexts: Callable[..., BrowserContext], page_url: str
) -> None:
    golden = json.loads((CHECKPOINT / "golden.json").read_text())
    one_number_off(golden)

    def answer(route: Route) -> None:
        route.fulfill(body=json.dumps(golden), content_type="application/json")

    context = contexts()
    context.route("**/golden.json", answer)
    page = open_page(context, page_url)
    assert [stem for stem, *_ in LINE.findall(page.locator("#golden").inner_text())] == ["sketch", "digits"]
    assert page.locator("#golden").get_attribute("class") == "wrong"


def test_the_page_reads_a_drawing_offline_shows_what_it_saw_and_forgets_it(
    contexts: Callable[..., BrowserContext], page_url: str
) -> None:
    context = contexts()
    page = open_page(context, page_url)
    context.set_offline(True)  # whatever answers now is in the page
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


def test_the_page_takes_a_finger_on_a_dark_phone(contexts: Callable[..., BrowserContext], page_url: str) -> None:
    phone = contexts(viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True, color_scheme="dark")
    page = open_page(phone, page_url)
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
    page = open_page(contexts(), page_url)
    first, *others = points(page, SEVEN)
    page.mouse.move(*first)
    page.mouse.down()
    for point in others:
        page.mouse.move(*point, steps=5)
    wait_for_answer(page, "7")
    page.mouse.up()


def test_the_page_says_what_is_missing(contexts: Callable[..., BrowserContext], page_url: str) -> None:
    context = contexts()
    context.route("**/node_modules/**", lambda route: route.fulfill(status=404))
    page = open_page(context, page_url)
    assert "npm install" in page.locator("#golden").inner_text()
    assert page.locator("#golden").get_attribute("class") == "wrong"
