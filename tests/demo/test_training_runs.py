"""A live run without a browser: its states, pictures and buttons."""

import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import pytest

from demo.server import live_training
from demo.server.live_training import Run, Runs

TIMEOUT = 120_000  # ms, for a busy machine


class Steps:
    """A generator of 1 … `last` that records whether it was closed."""

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
    assert list(Run(Steps(2)()).pictures()) == [(1, "training"), (2, "training"), (2, "finished")]


def test_between_two_pictures_the_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_training, "PICTURE_INTERVAL", 60.0)
    assert list(Run(Steps(50)()).pictures()) == [(1, "training"), (50, "finished")]


def test_closing_the_pictures_closes_the_training_which_no_longer_counts_as_running(no_interval: None) -> None:
    steps = Steps()
    shown = Run(steps()).pictures()
    next(shown)
    assert len(live_training._all("training")) == 1
    shown.close()  # type: ignore[attr-defined]
    assert (steps.taken, steps.closed) == (1, True)
    assert not live_training._all("training")


def test_a_failing_training_no_longer_counts_as_running() -> None:
    def failing() -> Generator[int]:
        yield 1
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        list(Run(failing()).pictures())
    assert not live_training._all("training")


def test_a_paused_training_continues_where_it_was(no_interval: None) -> None:
    steps = Steps(5)
    run: Run[int] = Run(steps(), most=2)
    assert list(run.pictures()) == [(1, "training"), (2, "paused")]
    assert (run.state, steps.closed) == ("paused", False)
    run.unpause()
    assert list(run.pictures()) == [(3, "training"), (4, "training"), (5, "training"), (5, "finished")]
    assert (run.state, steps.closed) == ("finished", True)


def test_a_training_pauses_after_the_current_step(no_interval: None) -> None:
    run: Run[int] = Run(Steps()())
    shown = run.pictures()
    assert next(shown) == (1, "training")
    run.pause()
    assert list(shown) == [(2, "paused")]
    assert not live_training._all("training")  # it takes nobody's place


def test_a_training_stopped_before_it_begins_takes_no_step() -> None:
    steps = Steps()
    run: Run[int] = Run(steps())
    run.stop()
    assert list(run.pictures()) == []
    assert (run.state, steps.taken) == ("stopped", 0)


def test_a_stopped_training_shows_nothing_more_and_is_closed(no_interval: None) -> None:
    steps = Steps()
    run: Run[int] = Run(steps())
    shown = run.pictures()
    assert next(shown) == (1, "training")
    run.stop()
    assert list(shown) == []
    assert (run.latest, run.state, steps.closed) == (1, "stopped", True)


def test_a_training_has_one_follower(no_interval: None) -> None:
    run: Run[int] = Run(Steps(2)())
    shown = run.pictures()
    assert next(shown) == (1, "training")
    assert list(run.pictures()) == []
    assert list(shown) == [(2, "training"), (2, "finished")]


def test_the_buttons_are_those_of_the_current_training() -> None:
    old: Run[int] = Run(Steps()())
    runs = Runs(old)
    old.stop()
    runs.now = Run(Steps()())
    assert [button.interactive for button in runs.buttons()] == [False, False, True, False, True, False]
    runs.now.stop()
    assert [button.interactive for button in runs.buttons()] == [True, False, True, True, False, False]


def test_no_two_runs_take_a_step_at_the_same_time(no_interval: None) -> None:
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
        ends = list(threads.map(lambda _: list(Run(steps()).pictures())[-1], range(3)))
    assert ends == [(5, "finished")] * 3
    assert most == 1
