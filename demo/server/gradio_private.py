"""All private parts of Gradio that the app relies on; tests/demo/test_gradio_private.py fails if one changes.

Gradio has no public way to ask whether a session or an event exists, whether the page of an event is still open, or
where uploads are stored. demo/__main__.py uses one more, before this module can be imported.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol
from unittest.mock import patch

import gradio as gr
from gradio.blocks import BlockFunction
from gradio.context import Context, LocalContext
from gradio.data_classes import FileData
from gradio.routes import App
from gradio.utils import get_upload_folder, is_in_or_equal

__all__ = [
    "BlockFunction",
    "Event",
    "FileData",
    "current_blocks",
    "current_event",
    "has_session",
    "has_unread_answer",
    "is_uploaded",
    "without_servers",
]


class Event(Protocol):
    """A call that is being answered. `alive`: its page is still open."""

    alive: bool


def has_session(blocks: gr.Blocks, session: str) -> bool:
    """Whether this session has called a function, so that there are answers to listen for."""
    return session in blocks._queue.pending_messages_per_session


def has_unread_answer(blocks: gr.Blocks, event_id: str) -> bool:
    """Whether the answer of this event has not been read yet."""
    return any(event_id in events for events in blocks._queue.pending_event_ids_session.values())


def current_event() -> Event | None:
    """The event that this thread answers; None outside of events."""
    blocks, event_id = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    return blocks._queue.event_ids_to_events.get(event_id) if blocks and event_id else None


def current_blocks() -> gr.Blocks:
    """The app that is being built."""
    blocks = Context.root_block
    assert blocks is not None
    return blocks


def is_uploaded(path: str) -> bool:
    """Whether `path` lies in the folder of uploaded files. Gradio would fetch "http://…", wherever it lies."""
    return "\0" not in path and "://" not in path and is_in_or_equal(path, get_upload_folder())


@contextmanager
def without_servers() -> Iterator[None]:
    """Build an app without creating a server: Gradio would create three, and `launch` creates another."""
    with patch.object(App, "create_app"):
        yield
