"""Live trainings on the page: a few run at once, further ones wait in Gradio's queue.

A training is a generator whose every `next` takes at most an epoch. Gradio runs it in a worker thread, limits how many
run (`concurrency_limit`), and closes it after the epoch under way when it is stopped (`cancels`) or its page is closed.
"""

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Literal, TypeVar

import gradio as gr
from gradio.components import Component

MAX_TRAININGS = 3  # at once, over all visitors: they share one core
PICTURE_INTERVAL = 0.3  # seconds: drawing takes time from the training
State = Literal["training", "stopped", "finished"]
T = TypeVar("T")
_running: set[object] = set()
_turn = threading.Lock()


def pictures(steps: Generator[T]) -> Iterator[tuple[T, State]]:
    """Every PICTURE_INTERVAL the latest of `steps` as "training", and the last one as "finished". Closes `steps`."""
    latest, shown = None, 0.0
    running = object()
    _running.add(running)
    try:
        for latest in _one_at_a_time(steps):
            if time.monotonic() - shown >= PICTURE_INTERVAL:
                yield latest, "training"
                shown = time.monotonic()
        if latest is not None:
            yield latest, "finished"
    finally:
        _running.discard(running)
        steps.close()


def _one_at_a_time(steps: Iterator[T]) -> Iterator[T]:
    """`steps`, never two of different trainings at once: together they would keep the GIL from everybody else."""
    while True:
        with _turn:
            step = next(steps, None)
        if step is None:
            return
        yield step


def buttons(name: str) -> tuple[gr.Button, gr.Button]:
    """“Train live” and “Stop”."""
    train = gr.Button("Train live", variant="primary", elem_id=f"{name}-train", min_width=110, scale=0)
    stop = gr.Button("Stop", elem_id=f"{name}-stop", min_width=64, scale=0, interactive=False)
    return train, stop


def wire(
    train: gr.Button,
    stop: gr.Button,
    inputs: Sequence[Component],
    shown: gr.HTML,
    stream: Callable[..., Generator[T]],
    draw: Callable[[T, State], str],
) -> None:
    """A click on `train` shows `draw` of each step of `stream(*inputs)`; a click on `stop` ends it."""
    latest = gr.State()  # the step shown last: a cancelled generator cannot say how far it came

    def announce() -> tuple[Any, None, gr.Button, gr.Button]:
        busy = len(_running) >= MAX_TRAININGS
        words = f"Busy: {MAX_TRAININGS} trainings are running here; yours starts when one of them ends."
        return f'<p class="sentence" role="status">{words}</p>' if busy else gr.skip(), None, *_buttons(training=True)

    def start(*values: Any) -> Iterator[tuple[str, T, gr.Button, gr.Button]]:
        for step, state in pictures(stream(*values)):
            yield draw(step, state), step, *_buttons(state == "training")

    def stopped(step: T | None) -> tuple[str, gr.Button, gr.Button]:
        return draw(step, "stopped") if step is not None else "", *_buttons(training=False)

    outputs = [shown, latest, train, stop]
    # `concurrency_limit=None`: these two answer at once
    train.click(announce, None, outputs, show_progress="hidden", concurrency_limit=None, api_visibility="private")
    training = train.click(
        start,
        list(inputs),
        outputs,
        show_progress="hidden",
        trigger_mode="once",
        concurrency_limit=MAX_TRAININGS,
        concurrency_id="trainings",
        api_visibility="private",
    )
    stop.click(
        stopped,
        [latest],
        [shown, train, stop],
        cancels=[training],
        show_progress="hidden",
        concurrency_limit=None,
        api_visibility="private",
    )


def _buttons(training: bool) -> tuple[gr.Button, gr.Button]:
    return gr.Button(interactive=not training), gr.Button(interactive=training)
