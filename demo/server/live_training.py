"""Live training on the page: a few runs at once, while further ones wait in Gradio's queue.

A run is a generator that trains for at most an epoch per step. Gradio executes it in a worker thread, limits the number
of simultaneous runs (`concurrency_limit`), and closes a run after the current step when its page is closed. “Stop” sets
a flag that is read after every step. Gradio's `cancels` is not used, since a cancellation arrives late and may end the
next run. Gradio's queue does not notice a page that is closed before it asks for the pictures; `stop_runs_of` does.
"""

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar
from weakref import WeakSet

import gradio as gr
from gradio.components import Component

MAX_TRAININGS = 3  # at once, over all visitors, who share one core
PICTURE_INTERVAL = 0.3  # seconds between two pictures, since drawing slows down training
WAITING = '<p class="waiting">Press “Train live” to draw the curves here.</p>'
MOST_RUNS = 3  # earlier runs drawn with the current one
State = Literal["waiting", "training", "paused", "stopped", "finished"]
T = TypeVar("T")
Draw = Callable[[T, State, Sequence[T]], str]  # step, its state, last steps of earlier runs → picture
_step_lock = threading.Lock()


class Run(Generic[T]):
    """A live run: the generator `steps`, of which each call of `pictures` takes at most `most` steps (None: all).

    It begins in the state "waiting", and can be continued when it is "paused". `session` is the page that started it.
    """

    def __init__(self, steps: Generator[T], most: int | None = None, session: str | None = None) -> None:
        self.steps, self.most, self.session = steps, most, session
        self.latest: T | None = None
        self.state: State = "waiting"
        self.pausing = False
        self.picture = WAITING  # the last one, if it was stopped
        self._lock = threading.Lock()
        with _registering:
            _runs.add(self)

    def unpause(self, most: int | None = None) -> None:
        """Let the next call of `pictures` continue a paused run."""
        self._change("paused", "waiting")
        self.most = most

    def pause(self) -> None:
        """Pause after the current step."""
        self.pausing = True

    def stop(self) -> None:
        """End it now, or after the current step."""
        with self._lock:
            idle = self.state in ("waiting", "paused")
            if self.state != "finished":
                self.state = "stopped"
        if idle:
            self.steps.close()

    def pictures(self) -> Iterator[tuple[T, State]]:
        """Yield the latest step and "training" every PICTURE_INTERVAL, and at the end the last one and the new state.

        Yields nothing unless the state is "waiting", and nothing more once it is "stopped".
        """
        if not self._change("waiting", "training"):
            return
        self.pausing, paused = False, False
        try:
            shown = 0.0
            for number, step in enumerate(_one_at_a_time(self.steps), 1):
                if self.state != "training":
                    return
                self.latest = step
                if self.pausing or number == self.most:
                    paused = self._change("training", "paused")
                    break
                if time.monotonic() - shown >= PICTURE_INTERVAL:
                    yield step, "training"
                    shown = time.monotonic()
            else:
                self._change("training", "finished")
        finally:
            if not paused:
                self._change("training", "stopped")  # its page was closed, or it failed
                self.steps.close()
        if self.latest is not None and self.state in ("paused", "finished"):
            yield self.latest, self.state

    def _change(self, before: State, after: State) -> bool:
        """Set the state to `after` if it is `before`. Returns whether it was."""
        with self._lock:
            fits = self.state == before
            if fits:
                self.state = after
            return fits


_runs: WeakSet[Run[Any]] = WeakSet()
_registering = threading.Lock()


def _all(state: State) -> list[Run[Any]]:
    """The runs of all pages in this state."""
    with _registering:
        return [run for run in _runs if run.state == state]


def stop_runs_of(request: gr.Request) -> None:
    """Stop the runs of a page that was closed."""
    for run in (*_all("waiting"), *_all("training")):
        if run.session == request.session_hash:
            run.stop()


@dataclass(eq=False)
class Runs(Generic[T]):
    """The runs of one page: the one that its buttons control, and the last steps of earlier ones."""

    now: Run[T] | None = None
    earlier: tuple[T, ...] = ()

    @property
    def is_active(self) -> bool:
        return self.now is not None and self.now.state in ("waiting", "training")

    def keep(self) -> None:
        """Add the run's last step to the earlier ones."""
        if self.now is not None and self.now.latest is not None:
            self.earlier = (*self.earlier, self.now.latest)[-MOST_RUNS:]

    def buttons(self) -> list[gr.Button]:
        """Updates of `buttons`: which of them can be pressed now."""
        state = self.now.state if self.now is not None else "finished"
        active, paused = self.is_active, state == "paused"
        return [
            gr.Button(interactive=not active),
            gr.Button(interactive=state == "training", visible=not paused),
            gr.Button(interactive=True, visible=paused),
            gr.Button(interactive=not active),
            gr.Button(interactive=active or paused),
            gr.Button(interactive=bool(self.earlier) and not (active or paused)),
        ]


def _one_at_a_time(steps: Iterator[T]) -> Iterator[T]:
    """`steps`, one run at a time: several would keep other threads from getting the GIL."""
    while True:
        with _step_lock:
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


class Handlers(Generic[T]):
    """Event handlers of the `buttons`. They return updates of the figure and the buttons, or of the buttons."""

    def __init__(self, stream: Callable[..., Generator[T]], draw: Draw[T], networks: int) -> None:
        self.stream, self.draw, self.networks = stream, draw, networks

    def start(self, runs: Runs[T], request: gr.Request, *values: Any) -> list[Any]:
        if runs.is_active:  # a double click
            return [gr.skip(), *runs.buttons()]
        if runs.now is not None:
            runs.now.stop()
        return self._begin(runs, Run(self.stream(*values), session=request.session_hash))

    def resume(self, runs: Runs[T], most: int | None = None) -> list[Any]:
        if runs.now is None or runs.now.state != "paused":
            return [gr.skip(), *runs.buttons()]
        runs.now.unpause(most)
        return self._begin(runs, runs.now)

    def one_epoch(self, runs: Runs[T], request: gr.Request, *values: Any) -> list[Any]:
        if runs.is_active:
            return [gr.skip(), *runs.buttons()]
        if runs.now is not None and runs.now.state == "paused":
            return self.resume(runs, self.networks)
        return self._begin(runs, Run(self.stream(*values), self.networks + 1, request.session_hash))

    def follow(self, runs: Runs[T]) -> Iterator[list[Any]]:
        """Pictures of the run that was begun, until it ends or another one begins."""
        run = runs.now
        if run is not None:
            for latest, state in run.pictures():
                before = runs.earlier
                if runs.now is not run:
                    break
                if state == "finished":
                    runs.keep()
                yield [self.draw(latest, state, before), *runs.buttons()]
        # again, since a picture may have arrived after the answer to “Stop”
        ended = run is not None and run is runs.now and run.state == "stopped"
        yield [run.picture if run is not None and ended else gr.skip(), *runs.buttons()]

    def stop(self, runs: Runs[T]) -> list[Any]:
        run = runs.now
        if run is None or run.state in ("stopped", "finished"):
            return [gr.skip(), *runs.buttons()]
        run.picture = self.draw(run.latest, "stopped", runs.earlier) if run.latest is not None else WAITING
        run.stop()
        runs.keep()
        return [run.picture, *runs.buttons()]

    def pause(self, runs: Runs[T]) -> None:
        if runs.now is not None:
            runs.now.pause()

    def clear(self, runs: Runs[T]) -> list[gr.Button]:
        runs.earlier = ()
        return runs.buttons()

    def failed(self, runs: Runs[T]) -> list[gr.Button]:
        """The queue was full, or a step failed."""
        if runs.now is not None and runs.now.state == "waiting":
            runs.now.stop()
        return runs.buttons()

    def _begin(self, runs: Runs[T], run: Run[T]) -> list[Any]:
        runs.now = run
        busy = len(_all("training")) >= MAX_TRAININGS
        words = f"Busy: {MAX_TRAININGS} runs are training here; yours starts when one of them ends."
        return [f'<p class="sentence" role="status">{words}</p>' if busy else gr.skip(), *runs.buttons()]


def wire(
    pressed: Sequence[gr.Button],
    inputs: Sequence[Component],
    shown: gr.HTML,
    stream: Callable[..., Generator[T]],
    draw: Draw[T],
    networks: int,
) -> None:
    """Let the `buttons` control live runs.

    Args:
        pressed: the buttons of `buttons`.
        inputs: arguments of `stream`, which starts a run.
        shown: receives the picture.
        networks: number of steps per epoch; the first step precedes the first epoch.
    """
    train, pause, resume, step, stop, clear = pressed
    page: gr.State = gr.State(Runs())  # each session gets a copy, which its events share
    outputs = [shown, *pressed]
    handlers = Handlers(stream, draw, networks)

    scroll_to_figure = f"""() => {{
        document.getElementById({shown.elem_id!r})?.scrollIntoView({{ block: 'nearest', behavior: 'smooth' }});
    }}"""
    at_once: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None, "api_visibility": "private"}
    trains: dict[str, Any] = {
        "show_progress": "hidden",
        "trigger_mode": "multiple",  # one that was stopped while it waited is still in the queue
        "concurrency_limit": MAX_TRAININGS,
        "concurrency_id": "trainings",
        "api_visibility": "private",
    }
    for button, press, values in (
        (train, handlers.start, inputs),
        (resume, handlers.resume, []),
        (step, handlers.one_epoch, inputs),
    ):
        button.click(None, None, None, js=scroll_to_figure, api_visibility="private")
        pressing = button.click(press, [page, *values], outputs, **at_once)
        pressing.then(handlers.follow, [page], outputs, **trains).failure(
            handlers.failed, [page], list(pressed), **at_once
        )
    pause.click(handlers.pause, [page], None, **at_once)
    stop.click(handlers.stop, [page], outputs, **at_once)
    clear.click(handlers.clear, [page], list(pressed), **at_once)
