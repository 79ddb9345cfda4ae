"""What a visitor leaves behind who closes the page while it waits for answers: nothing.

Of Gradio's own accord what waits in the queue is dropped then, but what runs goes on to its end.
"""

from typing import Any

import gradio as gr
from gradio.context import LocalContext
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from torch.overrides import TorchFunctionMode

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


async def stream(app: ASGIApp, blocks: gr.Blocks, session: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Pass a page's stream of answers on; where it breaks off the page is closed, and its session forgotten."""
    last = b""

    async def note(message: Message) -> None:
        nonlocal last
        last = message.get("body") or last
        await send(message)

    try:
        await app(scope, receive, note)
    finally:
        if LAST not in last:
            await forget(blocks, session)


async def forget(blocks: gr.Blocks, session: str) -> None:
    """Drop what a closed page has in the queue, end what runs for it, and free what is remembered of its controls."""
    queue, states = blocks._queue, blocks.state_holder
    await queue.clean_events(session_hash=session)
    queue.pending_messages_per_session.pop(session, None)
    queue.pending_event_ids_session.pop(session, None)
    states.session_data.pop(session, None)
    states.time_last_used.pop(session, None)
