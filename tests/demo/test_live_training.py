"""Trainings on the page: few at once, ended when nobody wants them any more, and never in the way of the pad."""

import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from benchmarks.running_app import act
from demo.server import live_training
from demo.server.live_training import MAX_TRAININGS, pictures


class Steps:
    """The numbers 1 … `last`, and a note of whether somebody closed them."""

    def __init__(self, last: int = 100) -> None:
        self.last, self.taken, self.closed = last, 0, False

    def __call__(self) -> Generator[int]:
        try:
            while self.taken < self.last:
                self.taken += 1
                yield self.taken
        finally:
            self.closed = True


@pytest.fixture
def no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_training, "PICTURE_INTERVAL", 0.0)


def test_every_step_is_passed_on_and_the_last_one_is_marked_as_finished(no_interval: None) -> None:
    assert list(pictures(Steps(2)())) == [(1, "training"), (2, "training"), (2, "finished")]


def test_between_two_pictures_the_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_training, "PICTURE_INTERVAL", 60.0)
    assert list(pictures(Steps(50)())) == [(1, "training"), (50, "finished")]


def test_closing_the_pictures_closes_the_training_which_no_longer_counts_as_running(no_interval: None) -> None:
    steps = Steps()
    shown = pictures(steps())
    next(shown)
    assert len(live_training._running) == 1
    shown.close()  # type: ignore[attr-defined]
    assert (steps.taken, steps.closed) == (1, True)
    assert len(live_training._running) == 0


def test_a_failing_training_no_longer_counts_as_running() -> None:
    def failing() -> Generator[int]:
        yield 1
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        list(pictures(failing()))
    assert len(live_training._running) == 0


def test_no_two_trainings_take_a_step_at_the_same_time(no_interval: None) -> None:
    at_once, most = 0, 0

    def steps() -> Generator[int]:
        nonlocal at_once, most
        for number in range(1, 6):
            at_once += 1
            most = max(most, at_once)
            time.sleep(0.005)
            at_once -= 1
            yield number

    with ThreadPoolExecutor(3) as threads:
        ends = list(threads.map(lambda _: list(pictures(steps()))[-1], range(3)))
    assert ends == [(5, "finished")] * 3
    assert most == 1


# ---- in Chromium


def open_training(context: BrowserContext, url: str) -> Page:
    """A page on the tab whose live training is longest."""
    page = context.new_page()
    page.goto(f"{url}/?tab=convergence&conv-epochs=30")
    page.wait_for_selector("#convergence svg")
    expect(page.locator("#conv-epochs input[type=number]")).to_have_value("30")
    return page


def train(*pages: Page) -> None:
    for page in pages:
        page.locator("#conv-train").click()
    for page in pages:
        expect(page.locator("#conv-live")).to_contain_text("Training live", timeout=120_000)


def seconds_to_answer(page: Page, digit: int) -> float:
    started = time.monotonic()
    act(page, f"Load an example of a {digit}")
    return time.monotonic() - started


def test_three_train_while_the_pad_answers_and_a_fourth_is_told_that_it_waits_and_starts_when_a_page_is_closed(
    desktop: BrowserContext, app_url: str
) -> None:
    first, second, third, fourth = (open_training(desktop, app_url) for _ in range(MAX_TRAININGS + 1))
    alone = seconds_to_answer(fourth, 3)
    train(first, second, third)
    fourth.locator("#conv-train").click()
    words = "Busy: 3 trainings are running here; yours starts when one of them ends."
    expect(fourth.locator("#conv-live")).to_contain_text(words, timeout=60_000)
    assert seconds_to_answer(fourth, 7) < max(2, 6 * alone)  # the machine may have other things to do as well

    first.close()
    expect(fourth.locator("#conv-live")).to_contain_text("Training live", timeout=120_000)

    second.locator("#conv-stop").click()
    expect(second.locator("#conv-live")).to_contain_text("Stopped", timeout=120_000)
    expect(second.locator("#conv-stop")).to_be_disabled()
    train(second)  # its place was free again
    for page in (second, third, fourth):
        page.close()


def test_a_stopped_training_goes_no_further_and_can_be_started_again(desktop: BrowserContext, app_url: str) -> None:
    page = open_training(desktop, app_url)
    train(page)
    page.locator("#conv-stop").click()
    live_place = page.locator("#conv-live")
    expect(live_place).to_contain_text("Stopped", timeout=120_000)
    words = live_place.inner_text()
    page.wait_for_timeout(1500)
    assert live_place.inner_text() == words
    train(page)
    page.close()


def test_one_that_waits_can_be_stopped_too(desktop: BrowserContext, app_url: str) -> None:
    pages = [open_training(desktop, app_url) for _ in range(MAX_TRAININGS + 1)]
    train(*pages[:-1])
    waiting = pages[-1]
    waiting.locator("#conv-train").click()
    expect(waiting.locator("#conv-live")).to_contain_text("Busy", timeout=60_000)
    waiting.locator("#conv-stop").click()
    expect(waiting.locator("#conv-live")).not_to_contain_text("Busy", timeout=60_000)
    expect(waiting.locator("#conv-train")).to_be_enabled()
    pages[0].close()
    waiting.wait_for_timeout(1500)  # in which the place of the first is free
    assert waiting.locator("#conv-live").inner_text() == ""
    for page in pages[1:]:
        page.close()


def test_a_double_click_trains_once(desktop: BrowserContext, app_url: str) -> None:
    page = open_training(desktop, app_url)
    page.locator("#conv-train").dblclick()
    expect(page.locator("#conv-live")).to_contain_text("Training live: epoch 1", timeout=120_000)
    expect(page.locator("#conv-train")).to_be_disabled()
    page.locator("#conv-stop").click()
    expect(page.locator("#conv-live")).to_contain_text("Stopped", timeout=120_000)
    words = page.locator("#conv-live").inner_text()
    page.wait_for_timeout(1500)
    assert page.locator("#conv-live").inner_text() == words
    page.close()


def test_the_gap_between_the_losses_is_trained_live(desktop: BrowserContext, app_url: str) -> None:
    page = desktop.new_page()
    page.goto(f"{app_url}/?tab=stopping&stop-epochs=5&stop-dropout=0")
    page.wait_for_selector("#stopping svg")
    expect(page.locator("#stop-caption")).to_contain_text("for 5 epochs each")
    page.locator("#stop-train").click()
    expect(page.locator("#stop-live")).to_contain_text("Trained live after 5 of 5 epochs", timeout=120_000)
    expect(page.locator("#stop-live svg")).to_have_count(2)
    page.close()
