"""What a visitor leaves behind who closes the page while it waits for answers: nothing.

Of Gradio's own accord what waits in the queue is dropped then, but what runs goes on to its end.
"""

import asyncio
from typing import Any

import gradio as gr
from gradio.context import LocalContext
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from torch.overrides import TorchFunctionMode

PATIENCE = 10  # seconds between a page's question and its listening to the answer; it takes milliseconds
LAST = b'"msg":"close_stream"'  # what a stream of answers ends with that nobody broke off


class Left(Exception):
    """Nobody waits for the answer any more."""


class WhileAwaited(TorchFunctionMode):
    """Within `with WhileAwaited():` torch computes only as long as the page of this event is open.

    The check is at every step of torch, of which the longest takes half a second, so that no experiment need know.

    Raises:
        Left: from within; catch it, or its traceback would keep the tensors.
    """

    def __init__(self) -> None:
        super().__init__()
        blocks, event = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
        self.event = blocks._queue.event_ids_to_events.get(event) if blocks and event else None

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.event is not None and not self.event.alive:
            raise Left
        return function(*args, **(kwargs or {}))


class Listeners:
    """Which pages listen to the answers of the app made of `blocks`; those that do not any more are forgotten."""

    def __init__(self, blocks: gr.Blocks) -> None:
        self.blocks = blocks
        self._listening: set[str] = set()  # sessions
        self._expected: dict[str, asyncio.Task[None]] = {}

    def expect(self, session: str) -> None:
        """A page has a question: closed before it listens, no stream would break off and tell."""
        self._stop_expecting(session)
        if session not in self._listening:
            self._expected[session] = asyncio.create_task(self._wait_for(session))

    async def stream(self, app: ASGIApp, session: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a page's stream of answers on; where it breaks off the page is closed."""
        last = b""

        async def note(message: Message) -> None:
            nonlocal last
            last = message.get("body") or last
            await send(message)

        self._stop_expecting(session)
        self._listening.add(session)
        try:
            await app(scope, receive, note)
        finally:
            self._listening.discard(session)
            if LAST not in last:
                await forget(self.blocks, session)

    async def _wait_for(self, session: str) -> None:
        await asyncio.sleep(PATIENCE)
        del self._expected[session]
        if session in self.blocks._queue.pending_event_ids_session:
            await forget(self.blocks, session)

    def _stop_expecting(self, session: str) -> None:
        if task := self._expected.pop(session, None):
            task.cancel()


async def forget(blocks: gr.Blocks, session: str) -> None:
    """Drop what a closed page has in the queue, end what runs for it, and free what is remembered of its controls."""
    queue, states = blocks._queue, blocks.state_holder
    await queue.clean_events(session_hash=session)
    queue.pending_messages_per_session.pop(session, None)
    queue.pending_event_ids_session.pop(session, None)
    states.session_data.pop(session, None)
    states.time_last_used.pop(session, None)
