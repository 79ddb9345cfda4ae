"""Live training: a few runs at once, closed when they are stopped or their page is closed."""

import re
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from benchmarks.running_app import free_port
from bnmodel.experiments import convergence
from bnmodel.experiments.convergence import Convergence, Curve
from bnmodel.experiments.gradients import POSITIONS
from bnmodel.training.history import Epoch
from demo.app import build_app, launch_options
from demo.server import live_training
from tests.windows import new_window, visited

TIMEOUT = 120_000  # ms, for a busy machine
MOST = 2  # runs at once in the app of these tests, instead of MAX_TRAININGS: each takes a page


@dataclass
class Trainer:
    """The app in this process, with live runs that continue until they are closed."""

    url: str = ""
    begun: list[int] = field(default_factory=list)  # their seeds
    closed: list[int] = field(default_factory=list)
    fails: bool = False

    def stream(self, rate: float, initializer: str, epochs: int, seed: int) -> Generator[Convergence]:
        self.begun.append(seed)
        done: tuple[Epoch, ...] = ()
        try:
            while True:
                curves = tuple(Curve(position, done) for position in POSITIONS)
                yield Convergence(rate, initializer, epochs, seed, curves)
                time.sleep(0.05)
                if self.fails:
                    raise ArithmeticError
                done = (*done, Epoch(len(done) + 1, 1.0, 0.5, 1.0, 0.5, rate, 0.05))[:20]
        finally:
            self.closed.append(seed)


@pytest.fixture(scope="module")
def trainer() -> Iterator[Trainer]:
    trainer = Trainer()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(convergence, "stream", trainer.stream)
        patched.setattr(live_training, "MAX_TRAININGS", MOST)
        port = free_port()
        app = build_app()
        app.launch(**launch_options(app), server_port=port, prevent_thread_lock=True, quiet=True)
        trainer.url = f"http://127.0.0.1:{port}"
        yield trainer
        app.close()


@pytest.fixture(scope="module")
def windows(trainer: Trainer, browser: Browser) -> Iterator[list[BrowserContext]]:
    """One for each visitor: a browser has six connections to a server, and a page of Gradio keeps two of them open."""
    opened = [new_window(browser, trainer.url) for _ in range(MOST + 1)]
    yield opened
    for window in opened:
        window.close()


def visitor(window: BrowserContext, url: str) -> Page:
    """A page on the tab with live training."""
    page = window.new_page()
    page.set_default_timeout(TIMEOUT)
    page.goto(f"{url}/?tab=convergence", timeout=TIMEOUT)
    page.wait_for_selector("#convergence svg")
    return page


@pytest.fixture
def ready(trainer: Trainer) -> Iterator[Trainer]:
    """The app, without runs before and after."""
    trainer.begun.clear()
    trainer.closed.clear()
    yield trainer
    trainer.fails = False
    wait_until(lambda: len(trainer.closed) == len(trainer.begun), "all trainings are closed")


@pytest.fixture
def pages(ready: Trainer, windows: list[BrowserContext]) -> Iterator[list[Page]]:
    """As many visitors as may train at once, and one more."""
    with ExitStack() as left:
        yield [visitor(left.enter_context(visited(window)), ready.url) for window in windows]


@pytest.fixture
def alone(ready: Trainer, windows: list[BrowserContext]) -> Iterator[Page]:
    with visited(windows[0]) as window:
        yield visitor(window, ready.url)


def wait_until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT / 1000
    while not true():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)


def shows(page: Page, words: str) -> None:
    expect(page.locator("#conv-live")).to_contain_text(words, timeout=TIMEOUT)


def train(page: Page) -> None:
    page.locator("#conv-train").click()
    shows(page, "Training live")


BUSY = f"Busy: {MOST} runs are training here; yours starts when one of them ends."


def test_a_run_beyond_the_limit_waits_with_a_message_and_starts_when_a_page_is_closed(
    pages: list[Page], trainer: Trainer
) -> None:
    *others, last = pages
    for page in others:
        train(page)
    last.locator("#conv-train").click()
    shows(last, BUSY)
    last.wait_for_timeout(500)  # by now it would have begun
    assert len(trainer.begun) == MOST
    others[0].close()
    shows(last, "Training live")
    assert len(trainer.closed) == 1


def test_a_waiting_training_can_be_stopped_before_it_begins(pages: list[Page], trainer: Trainer) -> None:
    *others, last = pages
    for page in others:
        train(page)
    last.locator("#conv-train").click()
    shows(last, BUSY)
    last.locator("#conv-stop").click()
    expect(last.locator("#conv-live")).not_to_contain_text("Busy", timeout=TIMEOUT)
    expect(last.locator("#conv-train")).to_be_enabled(timeout=TIMEOUT)
    others[0].locator("#conv-stop").click()
    shows(others[0], "Stopped")
    wait_until(lambda: len(trainer.closed) == 1, "the first training is closed")
    train(others[0])  # it would be the other's turn
    wait_until(lambda: len(trainer.begun) > MOST, "another training has begun")
    assert len(trainer.begun) == MOST + 1


def test_a_stopped_training_is_closed_says_how_far_it_got_and_can_be_started_again(
    alone: Page, trainer: Trainer
) -> None:
    page = alone
    train(page)
    page.locator("#conv-stop").click()
    shows(page, "Stopped")
    wait_until(lambda: len(trainer.closed) == 1, "the training is closed")
    expect(page.locator("#conv-stop")).to_be_disabled(timeout=TIMEOUT)
    page.wait_for_timeout(1000)  # a picture that was on its way may still arrive; the final one replaces it
    shows(page, "Stopped")
    words = page.locator("#conv-live").inner_text()
    page.wait_for_timeout(1000)
    assert page.locator("#conv-live").inner_text() == words
    train(page)


def test_a_double_click_trains_once(alone: Page, trainer: Trainer) -> None:
    page = alone
    page.locator("#conv-train").dblclick()
    shows(page, "Training live: epoch 1")
    expect(page.locator("#conv-train")).to_be_disabled(timeout=TIMEOUT)
    assert len(trainer.begun) == 1
    page.locator("#conv-stop").click()
    shows(page, "Stopped")
    wait_until(lambda: len(trainer.closed) == 1, "the training is closed")


def test_a_run_started_right_after_stop_continues(alone: Page, trainer: Trainer) -> None:
    for _ in range(3):
        train(alone)
        alone.locator("#conv-stop").click()
        shows(alone, "Stopped")
    train(alone)
    expect(alone.locator("#conv-live")).to_contain_text(re.compile(r"epoch \d\d"), timeout=TIMEOUT)
    expect(alone.locator("#conv-train")).to_be_disabled()
    alone.locator("#conv-stop").click()
    shows(alone, "Stopped")


def test_after_a_training_that_failed_another_can_be_started(alone: Page, trainer: Trainer) -> None:
    trainer.fails = True
    alone.locator("#conv-train").click()
    wait_until(lambda: len(trainer.closed) == 1, "the training has failed")
    expect(alone.locator("#conv-train")).to_be_enabled(timeout=TIMEOUT)
    trainer.fails = False
    train(alone)
    # the figure of the first one says “Training live” too
    wait_until(lambda: len(trainer.begun) == 2, "the other training has begun")


def test_a_page_closed_before_it_asks_for_pictures_leaves_no_training_behind(ready: Trainer, browser: Browser) -> None:
    window = browser.new_context()  # its end is that of the held request; a page's own end would let the request go on
    page = visitor(window, ready.url)
    requests: list[Route] = []

    def never_the_second(route: Route) -> None:
        requests.append(route)
        if len(requests) == 1:  # the answer to the press; the pictures come with the next one
            route.continue_()

    page.route("**/queue/data?*", never_the_second)
    page.locator("#conv-train").click()
    expect(page.locator("#conv-train")).to_be_disabled(timeout=TIMEOUT)
    wait_until(lambda: len(ready.begun) == 1, "the training has begun")
    window.close()
    wait_until(lambda: len(ready.closed) == 1, "the training is closed")


def test_the_gap_between_the_losses_is_trained_live(desktop: BrowserContext, app_url: str) -> None:
    page = desktop.new_page()
    page.goto(f"{app_url}/?tab=stopping&stop-epochs=5&stop-dropout=0", timeout=TIMEOUT)
    page.wait_for_selector("#stopping svg", timeout=TIMEOUT)
    expect(page.locator("#stop-caption")).to_contain_text("for 5 epochs each", timeout=TIMEOUT)
    page.locator("#stop-train").click()
    expect(page.locator("#stop-live")).to_contain_text("Trained live after 5 of 5 epochs", timeout=TIMEOUT)
    expect(page.locator("#stop-live .figure svg").first).to_be_visible()
    page.close()


def open_training(context: BrowserContext, url: str) -> Page:
    """A page on the tab whose live training is longest."""
    page = context.new_page()
    page.goto(f"{url}/?tab=convergence&conv-epochs=30")
    page.wait_for_selector("#convergence svg")
    expect(page.locator("#conv-epochs input[type=number]")).to_have_value("30")
    return page


def test_epoch_by_epoch_with_a_pause_and_a_second_run_beside_the_first(desktop: BrowserContext, app_url: str) -> None:
    page = open_training(desktop, app_url)
    live_place = page.locator("#conv-live")
    page.locator("#conv-step").click()
    expect(live_place).to_contain_text("Paused: epoch 1 of 30", timeout=120_000)
    page.locator("#conv-step").click()
    expect(live_place).to_contain_text("Paused: epoch 2 of 30", timeout=120_000)
    page.locator("#conv-continue").click()
    expect(live_place).to_contain_text(re.compile(r"Training live: epoch ([3-9]|\d\d)"), timeout=120_000)
    page.locator("#conv-stop").click()
    expect(live_place).to_contain_text("Stopped", timeout=120_000)
    page.locator("#conv-step").click()
    expect(live_place).to_contain_text("Paused: epoch 1 of 30", timeout=120_000)
    expect(live_place.locator("tbody tr")).to_have_count(2)


def test_the_height_of_the_live_curves_is_reserved(desktop: BrowserContext, app_url: str) -> None:
    page = open_training(desktop, app_url)
    below = page.locator("#maps-of-rates")
    page.wait_for_selector("#maps-of-rates table")
    before = below.evaluate("e => e.getBoundingClientRect().top + scrollY")
    train(page)
    assert abs(below.evaluate("e => e.getBoundingClientRect().top + scrollY") - before) < 60
    page.close()
