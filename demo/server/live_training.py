"""Trainings on a page while it is watched: one a visitor, few at once, and none that nobody watches any more.

A training is a generator whose every `next` takes an epoch at most. Gradio calls it in a worker thread, and closes it
once its page is closed, after the epoch under way; then its place is free again.
"""

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Literal, TypeVar

import gradio as gr
from gradio.components import Component

MOST = 3  # trainings at once on this machine: they share one core
PACE = 0.3  # seconds between two pictures: drawing one takes time from the training
State = Literal["training", "stopped", "finished"]
T = TypeVar("T")


class Busy(Exception):
    """As many trainings run as may; the message is for the visitor."""


class Trainings:
    """Who trains at the moment."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._running: dict[str, tuple[str, object]] = {}  # visitor → (tab, what no other training has)
        self._lock = threading.Lock()
        self._turn = threading.Lock()

    def __len__(self) -> int:
        return len(self._running)

    def follow(self, visitor: str, tab: str, steps: Generator[T]) -> Generator[tuple[T, State]]:
        """Pass on `steps`, PACE apart, and at last where they ended: "stopped" or "finished". Closes `steps`.

        Another training of the same visitor ends this one; on the same tab it also takes its place on the page, so that
        this one has no last word.

        Raises:
            Busy: at the first `next`; nothing was trained.
        """
        mine = (tab, object())
        try:
            self._enter(visitor, mine)
            latest, shown = None, 0.0
            for latest in self._in_turn(steps):
                if self._running.get(visitor) is not mine:
                    break
                if time.monotonic() - shown >= PACE:
                    yield latest, "training"
                    shown = time.monotonic()
            now = self._running.get(visitor)
            if latest is not None and (now is mine or now is None or now[0] != tab):
                yield latest, "finished" if now is mine else "stopped"
        finally:
            steps.close()
            self._leave(visitor, mine)

    def stop(self, visitor: str) -> None:
        """End this visitor's training, if there is one, after the epoch under way."""
        with self._lock:
            self._running.pop(visitor, None)

    def _in_turn(self, steps: Iterator[T]) -> Iterator[T]:
        """`steps`, while no other training takes one: together they would keep Python's lock from everybody else."""
        while True:
            with self._turn:
                step = next(steps, None)
            if step is None:
                return
            yield step

    def _enter(self, visitor: str, mine: tuple[str, object]) -> None:
        with self._lock:
            if visitor not in self._running and len(self._running) >= self.most:
                raise Busy(f"Busy: {self.most} trainings are running here; try again in a few seconds.")
            self._running[visitor] = mine

    def _leave(self, visitor: str, mine: tuple[str, object]) -> None:
        with self._lock:
            if self._running.get(visitor) is mine:
                del self._running[visitor]


TRAININGS = Trainings()


def buttons(name: str) -> tuple[gr.Button, gr.Button]:
    """“Train live”, and “Stop” beside it."""
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
    """A click on `train` shows `draw` of each step of `stream(*inputs)`; one on `stop` ends that."""

    def start(request: gr.Request, *values: Any) -> Iterator[tuple[str, gr.Button]]:
        try:
            for step, state in TRAININGS.follow(_visitor(request), shown.elem_id or "", stream(*values)):
                yield draw(step, state), gr.Button(interactive=state == "training")
        except Busy as busy:
            yield f'<p class="sentence" role="status">{busy}</p>', gr.Button(interactive=False)

    def end(request: gr.Request) -> None:
        TRAININGS.stop(_visitor(request))

    train.click(
        start,
        list(inputs),
        [shown, stop],
        show_progress="hidden",
        trigger_mode="multiple",  # a second click begins anew
        concurrency_limit=None,  # `Trainings` has its own, which says so
        api_visibility="private",
    )
    # queued too: without, the page would call it by a route that `demo.server.middleware` keeps closed
    stop.click(end, show_progress="hidden", concurrency_limit=None, api_visibility="private")


def _visitor(request: gr.Request) -> str:
    """One page in one browser."""
    return request.session_hash or ""
