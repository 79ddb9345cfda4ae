"""Run the app in its own process and operate it in a browser, for tests and benchmarks."""

import math
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from playwright.sync_api import Page

from benchmarks import ROOT

START_SECONDS = 120  # for a busy machine, as the next one
END_SECONDS = 60
# without the update requests that Chromium sends by default
CHROMIUM_ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]

# strokes, in shares of the sheet from its top left
ZERO = [(0.5 + 0.2 * math.sin(t / 12 * math.tau), 0.5 - 0.32 * math.cos(t / 12 * math.tau)) for t in range(13)]
ONE = [(0.5, 0.18), (0.5, 0.82)]
SEVEN = [(0.27, 0.2), (0.73, 0.2), (0.45, 0.82)]


@dataclass(frozen=True)
class Served:
    """A running app: its URL, its process, and the file with its output."""

    url: str
    process: subprocess.Popen[str]
    log: Path


@contextmanager
def serve() -> Iterator[str]:
    """Run the app by `python -m demo` in its own process; yields its URL."""
    with tempfile.TemporaryDirectory() as folder, serve_logged(Path(folder) / "log") as served:
        yield served.url


@contextmanager
def serve_logged(log: Path, program: Sequence[str] = ("-m", "demo")) -> Iterator[Served]:
    """As `serve`, with the output of the process in the file `log`; a pipe would eventually be full and block it.

    program: the arguments of Python that start the app.
    """
    port = free_port()
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1"}
    command = [sys.executable, *program]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True
        )
    served = Served(f"http://127.0.0.1:{port}", process, log)
    try:
        _wait_for(served)
        yield served
    finally:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            printed = log.read_text(errors="replace")
            raise RuntimeError(f"the app did not end within {END_SECONDS} s of SIGTERM:\n{printed}") from None


def free_port() -> int:
    """A port of this machine that no program uses at the moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def chromium_path() -> str | None:
    """The system's Chromium, or None for Playwright's."""
    return shutil.which("chromium")


# Gradio's client aborts its stream when a page that waits for an answer is left, and does not catch the error.
LEFT = "AbortError: signal is aborted without reason"


def watch_errors(page: Page) -> list[str]:
    """A list to which all errors of the page are appended, except LEFT."""
    errors: list[str] = []

    def note(text: str) -> None:
        if LEFT not in text:
            errors.append(text)

    page.on("console", lambda message: note(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: note(str(error)))
    return errors


def open_app(page: Page, url: str) -> None:
    """Open the app and wait until the pad and the first tab are ready."""
    page.goto(url)
    page.wait_for_selector(".pad-canvas")
    page.wait_for_selector(".paired")


def points_on_page(page: Page, stroke: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Shares of the sheet → pixels of the page."""
    box = page.locator(".pad-canvas").bounding_box()
    assert box is not None
    return [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]


def draw(page: Page, stroke: list[tuple[float, float]]) -> None:
    """Draw a stroke with the mouse, and wait for the answer after pen-up."""
    first, *others = points_on_page(page, stroke)
    before = settled(page)
    page.mouse.move(*first)
    page.mouse.down()
    for point in others:
        page.mouse.move(*point, steps=4)
    page.mouse.up()
    wait_for_settled(page, before)


def settled(page: Page) -> int:
    """The version of the drawing whose answer is final."""
    return int(page.locator(".pad").get_attribute("data-settled") or 0)


def wait_for_settled(page: Page, before: int) -> None:
    page.wait_for_function("n => Number(document.querySelector('.pad').dataset.settled || 0) > n", arg=before)


def act(page: Page, button: str) -> None:
    before = settled(page)
    page.get_by_role("button", name=button, exact=True).click()
    wait_for_settled(page, before)


def answer(page: Page) -> str:
    return page.locator(".pad-digit").inner_text()


def _wait_for(served: Served) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if served.process.poll() is not None:
            status, output = served.process.returncode, served.log.read_text(errors="replace")
            raise RuntimeError(f"the app ended with status {status} before it answered:\n{output}")
        try:
            urlopen(served.url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the app did not answer at {served.url} within {START_SECONDS} s")
