"""Live trainings on the page: a few run at once, further ones wait in Gradio's queue.

A training is a generator whose every `next` takes at most an epoch. Gradio runs it in a worker thread, limits how many
run (`concurrency_limit`), and closes it after the epoch under way when it is stopped (`cancels`) or its page is closed.
"""

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Generic, Literal, TypeVar

import gradio as gr
from gradio.components import Component

MAX_TRAININGS = 3  # at once, over all visitors: they share one core
PICTURE_INTERVAL = 0.3  # seconds: drawing takes time from the training
WAITING = '<p class="waiting">Press “Train live”, and the curves grow here.</p>'
MOST_RUNS = 3  # earlier runs drawn beside the present one
State = Literal["training", "paused", "stopped", "finished"]
T = TypeVar("T")
_running: set[object] = set()
_turn = threading.Lock()


class Run(Generic[T]):
    """A training on one page. `paused`: its steps are open, and nobody takes one."""

    def __init__(self, steps: Generator[T]) -> None:
        self.steps = steps
        self.latest: T | None = None  # the step shown last: a cancelled generator cannot say how far it came
        self.pausing, self.paused = False, False

    def pictures(self, most: int | None = None) -> Iterator[tuple[T, State]]:
        """As the function `pictures`, of the steps from here on; it pauses after `most` of them."""
        self.pausing, self.paused = False, False
        for latest, state in pictures(self.steps, lambda: self.pausing, most):
            self.latest, self.paused = latest, state == "paused"
            yield latest, state


def pictures(
    steps: Generator[T], pausing: Callable[[], bool] = lambda: False, most: int | None = None
) -> Iterator[tuple[T, State]]:
    """Every PICTURE_INTERVAL the latest of `steps` as "training", and the last one as "finished". Closes `steps`.

    Once `pausing()` or after `most` steps the last one is "paused", and `steps` stays open.
    """
    latest, shown, paused = None, 0.0, False
    running = object()
    _running.add(running)
    try:
        for number, latest in enumerate(_one_at_a_time(steps), 1):
            if pausing() or number == most:
                paused = True
                break
            if time.monotonic() - shown >= PICTURE_INTERVAL:
                yield latest, "training"
                shown = time.monotonic()
        if latest is not None:
            yield latest, "paused" if paused else "finished"
    finally:
        _running.discard(running)
        if not paused:
            steps.close()


def _one_at_a_time(steps: Iterator[T]) -> Iterator[T]:
    """`steps`, never two of different trainings at once: together they would keep the GIL from everybody else."""
    while True:
        with _turn:
            step = next(steps, None)
        if step is None:
            return
        yield step


def buttons(name: str) -> list[gr.Button]:
    """“Train live”, “Pause”, “Continue”, “One epoch”, “Stop” and “Clear runs”."""
    titles = {
        "train": "Train live",
        "pause": "Pause",
        "continue": "Continue",
        "step": "One epoch",
        "stop": "Stop",
        "clear": "Clear runs",
    }
    return [
        gr.Button(
            title,
            variant="primary" if key == "train" else "secondary",
            elem_id=f"{name}-{key}",
            min_width=64,
            scale=0,
            interactive=key in ("train", "step"),
            visible=key != "continue",
        )
        for key, title in titles.items()
    ]


def wire(
    pressed: Sequence[gr.Button],
    inputs: Sequence[Component],
    shown: gr.HTML,
    stream: Callable[..., Generator[T]],
    draw: Callable[[T, State, Sequence[T]], str],
    networks: int,
) -> None:
    """Let the `buttons` control trainings; `shown` gets `draw(step, state, earlier runs)`.

    `networks`: how many steps of `stream(*inputs)` make an epoch; the first step is before any.
    """
    train, pause, go_on, step, stop, clear = pressed
    run, earlier = gr.State(), gr.State(())
    outputs = [shown, run, earlier, *pressed]

    def announce() -> list[Any]:
        busy = len(_running) >= MAX_TRAININGS
        words = f"Busy: {MAX_TRAININGS} trainings are running here; yours starts when one of them ends."
        return [f'<p class="sentence" role="status">{words}</p>' if busy else gr.skip(), *_able("training", False)]

    def follow(now: Run[T], before: tuple[T, ...], most: int | None = None) -> Iterator[list[Any]]:
        for latest, state in now.pictures(most):
            runs = (*before, latest)[-MOST_RUNS:] if state == "finished" else before
            yield [draw(latest, state, before), now if state != "finished" else None, runs, *_able(state, bool(runs))]

    def start(now: Run[T] | None, before: tuple[T, ...], *values: Any) -> Iterator[list[Any]]:
        _give_up(now)
        yield from follow(Run(stream(*values)), before)

    def one_epoch(now: Run[T] | None, before: tuple[T, ...], *values: Any) -> Iterator[list[Any]]:
        if now is not None and now.paused:
            yield from follow(now, before, networks)
        else:
            yield from follow(Run(stream(*values)), before, networks + 1)

    def resume(now: Run[T] | None, before: tuple[T, ...]) -> Iterator[list[Any]]:
        if now is not None and now.paused:
            yield from follow(now, before)

    def hold(now: Run[T] | None) -> None:
        if now is not None:
            now.pausing = True

    def stopped(now: Run[T] | None, before: tuple[T, ...]) -> list[Any]:
        _give_up(now)
        if now is None or now.latest is None:
            return [WAITING, None, before, *_able("stopped", bool(before))]
        return [draw(now.latest, "stopped", before), None, (*before, now.latest)[-MOST_RUNS:], *_able("stopped", True)]

    # into sight; a training that is drawn where nobody looks is none
    look = f"""() => {{
        document.getElementById({shown.elem_id!r})?.scrollIntoView({{ block: 'nearest', behavior: 'smooth' }});
    }}"""
    at_once: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None, "api_visibility": "private"}
    trains: dict[str, Any] = {
        "show_progress": "hidden",
        "trigger_mode": "once",
        "concurrency_limit": MAX_TRAININGS,
        "concurrency_id": "trainings",
        "api_visibility": "private",
    }
    for button in (train, go_on, step):
        button.click(None, None, None, js=look, api_visibility="private")
        button.click(announce, None, [shown, *pressed], **at_once)
    trainings: Any = [
        train.click(start, [run, earlier, *inputs], outputs, **trains),
        go_on.click(resume, [run, earlier], outputs, **trains),
        step.click(one_epoch, [run, earlier, *inputs], outputs, **trains),
    ]
    pause.click(hold, [run], None, **at_once)
    stop.click(stopped, [run, earlier], outputs, cancels=trainings, **at_once)
    clear.click(lambda: ((), gr.Button(interactive=False)), None, [earlier, clear], **at_once)


def _give_up(run: Run[T] | None) -> None:
    """Close the steps of a paused training; a running one closes its own."""
    if run is not None and run.paused:
        run.paused = False
        run.steps.close()


def _able(state: State, runs: bool) -> list[gr.Button]:
    """Which of the `buttons` can be pressed."""
    going = state in ("training", "paused")
    return [
        gr.Button(interactive=state != "training"),
        gr.Button(interactive=state == "training", visible=state != "paused"),
        gr.Button(interactive=True, visible=state == "paused"),
        gr.Button(interactive=state != "training"),
        gr.Button(interactive=going),
        gr.Button(interactive=runs and not going),
    ]
