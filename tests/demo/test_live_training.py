"""Trainings on the page: few at once, ended when nobody wants them any more, and never in the way of the pad."""

import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from benchmarks.running_app import act
from demo.server import live_training
from demo.server.live_training import MOST, Busy, Trainings


@pytest.fixture(autouse=True)
def no_pace(monkeypatch):
    monkeypatch.setattr(live_training, "PACE", 0.0)


class Steps:
    """Numbers, more than are asked for, and a note of whether somebody closed them."""

    def __init__(self, last: int = 100) -> None:
        self.last, self.taken, self.closed = last, 0, False

    def __call__(self) -> Generator[int]:
        try:
            while self.taken < self.last:
                self.taken += 1
                yield self.taken
        finally:
            self.closed = True


# ---- who may train


def test_every_step_is_passed_on_and_the_last_one_is_said_to_be():
    trainings = Trainings()
    shown = list(trainings.follow("a", "tab", Steps(2)()))
    assert shown == [(1, "training"), (2, "training"), (2, "finished")]
    assert len(trainings) == 0


def test_stop_ends_the_training_after_the_step_under_way_and_says_so():
    trainings, steps = Trainings(), Steps()
    shown = trainings.follow("a", "tab", steps())
    assert next(shown) == (1, "training")
    trainings.stop("a")
    assert list(shown) == [(2, "stopped")]
    assert (steps.taken, steps.closed) == (2, True)


def test_one_that_is_not_the_visitors_own_is_not_stopped():
    trainings = Trainings()
    shown = trainings.follow("a", "tab", Steps()())
    next(shown)
    trainings.stop("b")
    assert next(shown) == (2, "training")


def test_closing_what_follows_a_training_closes_the_training_and_frees_its_place():
    trainings, steps = Trainings(), Steps()
    shown = trainings.follow("a", "tab", steps())
    next(shown)
    assert len(trainings) == 1
    shown.close()
    assert steps.closed
    assert len(trainings) == 0


def test_one_more_than_may_train_is_told_so_before_anything_is_trained():
    trainings = Trainings(most=2)
    running = [trainings.follow(visitor, "tab", Steps()()) for visitor in "ab"]
    for one in running:
        next(one)
    steps = Steps()
    with pytest.raises(Busy, match="2 trainings are running here; try again in a few seconds"):
        next(trainings.follow("c", "tab", steps()))
    assert steps.taken == 0
    running[0].close()
    assert next(trainings.follow("c", "tab", steps())) == (1, "training")


def test_a_visitors_second_training_takes_the_place_of_the_first():
    trainings = Trainings(most=1)
    first, second = (trainings.follow("a", "tab", Steps()()) for _ in range(2))
    next(first)
    assert next(second) == (1, "training")
    assert list(first) == []  # it has no last word in a picture that is the second's now
    assert next(second) == (2, "training")
    assert len(trainings) == 1


def test_a_training_that_ends_for_one_on_another_tab_says_that_it_stopped():
    trainings = Trainings()
    first, second = (trainings.follow("a", tab, Steps()()) for tab in ("one", "other"))
    next(first)
    next(second)
    assert list(first) == [(2, "stopped")]


def test_a_failing_training_frees_its_place():
    def failing() -> Generator[int]:
        yield 1
        raise ArithmeticError

    trainings = Trainings()
    with pytest.raises(ArithmeticError):
        list(trainings.follow("a", "tab", failing()))
    assert len(trainings) == 0


def test_pictures_come_no_quicker_than_the_pace(monkeypatch):
    monkeypatch.setattr(live_training, "PACE", 60.0)
    shown = list(Trainings().follow("a", "tab", Steps(50)()))
    assert shown == [(1, "training"), (50, "finished")]


def test_no_two_trainings_take_a_step_at_the_same_time():
    at_once, most = 0, 0

    def steps() -> Generator[int]:
        nonlocal at_once, most
        for number in range(1, 6):
            at_once += 1
            most = max(most, at_once)
            time.sleep(0.005)
            at_once -= 1
            yield number

    trainings = Trainings()
    with ThreadPoolExecutor(3) as threads:
        ends = list(threads.map(lambda visitor: list(trainings.follow(visitor, "tab", steps()))[-1], "abc"))
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


def train(page: Page) -> None:
    page.locator("#conv-train").click()
    expect(page.locator("#conv-live")).to_contain_text("Training live: epoch 1", timeout=60_000)


def seconds_to_answer(page: Page, digit: int) -> float:
    started = time.monotonic()
    act(page, f"Load an example of a {digit}")
    return time.monotonic() - started


def test_three_may_train_while_the_pad_answers_and_a_page_that_is_closed_gives_its_place_to_the_next(
    desktop: BrowserContext, app_url: str
) -> None:
    first, second, third, fourth = (open_training(desktop, app_url) for _ in range(MOST + 1))
    alone = seconds_to_answer(fourth, 3)
    for page in (first, second, third):
        train(page)
    fourth.locator("#conv-train").click()
    expect(fourth.locator("#conv-live")).to_have_text("Busy: 3 trainings are running here; try again in a few seconds.")
    assert seconds_to_answer(fourth, 7) < max(2, 6 * alone)  # the machine may have other things to do as well

    first.close()
    deadline = time.monotonic() + 60
    while "Training live" not in fourth.locator("#conv-live").inner_text() and time.monotonic() < deadline:
        fourth.locator("#conv-train").click()
        fourth.wait_for_timeout(500)
    expect(fourth.locator("#conv-live")).to_contain_text("Training live")

    second.locator("#conv-stop").click()
    expect(second.locator("#conv-live")).to_contain_text("Stopped", timeout=60_000)
    expect(second.locator("#conv-stop")).to_be_disabled()
    train(second)  # its place was free again
    for page in (second, third, fourth):
        page.close()


def test_a_stopped_training_goes_no_further(desktop: BrowserContext, app_url: str) -> None:
    page = open_training(desktop, app_url)
    train(page)
    page.locator("#conv-stop").click()
    live_place = page.locator("#conv-live")
    expect(live_place).to_contain_text("Stopped", timeout=60_000)
    words = live_place.inner_text()
    page.wait_for_timeout(1500)
    assert live_place.inner_text() == words
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
