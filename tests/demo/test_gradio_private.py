"""The private parts of Gradio that demo/server/gradio_private.py relies on work as it expects.

A failure after an upgrade of Gradio shows what has changed: mend gradio_private.py, then the version in
requirements.txt.
"""

import ast
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import gradio as gr
import httpx
import pytest
from gradio import component_meta
from gradio.routes import App
from gradio.utils import get_upload_folder

from benchmarks import ROOT
from benchmarks.running_app import free_port
from demo.server import gradio_private
from demo.server.gradio_private import (
    Event,
    current_event,
    has_session,
    has_unread_answer,
    is_uploaded,
    without_servers,
)

PRIVATE = ("gradio.blocks", "gradio.context", "gradio.data_classes", "gradio.utils", "gradio.routes", "gradio.queueing")


class Waiting:
    """An app whose only function notes its event and waits."""

    def __init__(self) -> None:
        self.events: list[Event | None] = []
        self.begun, self.go_on = threading.Event(), threading.Event()
        with gr.Blocks() as self.blocks:
            gr.Button().click(self.answer, outputs=gr.Textbox(), api_name="answer")

    def answer(self) -> str:
        self.events.append(current_event())
        self.begun.set()
        self.go_on.wait(30)
        return "done"


def launch(blocks: gr.Blocks) -> str:
    """Its URL."""
    port = free_port()
    blocks.launch(server_port=port, prevent_thread_lock=True, quiet=True, ssr_mode=False)
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def waiting() -> Iterator[tuple[Waiting, str]]:
    app = Waiting()
    yield app, f"{launch(app.blocks)}/gradio_api"
    app.go_on.set()
    app.blocks.close()


def test_a_session_and_an_event_exist_from_the_call_until_the_answer_is_read(waiting: tuple[Waiting, str]) -> None:
    app, url = waiting
    assert not has_session(app.blocks, "somebody")
    call = {"data": [], "fn_index": 0, "session_hash": "somebody"}
    event_id = httpx.post(f"{url}/queue/join", json=call).json()["event_id"]
    assert app.begun.wait(30)
    assert has_session(app.blocks, "somebody")
    assert not has_session(app.blocks, "nobody")
    assert has_unread_answer(app.blocks, event_id)
    assert not has_unread_answer(app.blocks, "another")
    app.go_on.set()
    assert "done" in httpx.get(f"{url}/queue/data", params={"session_hash": "somebody"}, timeout=30).text
    assert not has_unread_answer(app.blocks, event_id)


def test_the_current_event_is_alive_until_its_page_is_closed(waiting: tuple[Waiting, str]) -> None:
    app, url = waiting
    httpx.post(f"{url}/queue/join", json={"data": [], "fn_index": 0, "session_hash": "somebody"})
    assert app.begun.wait(30)
    (event,) = app.events
    assert event is not None
    assert event.alive
    with httpx.stream("GET", f"{url}/queue/data", params={"session_hash": "somebody"}, timeout=30):
        pass  # and closed again
    for _ in range(300):
        if not event.alive:
            break
        threading.Event().wait(0.1)
    assert not event.alive


def test_outside_of_an_event_there_is_none() -> None:
    assert current_event() is None


@pytest.mark.parametrize(
    ("path", "uploaded"),
    [
        ("{folder}/abc/seven.png", True),
        ("{folder}/../seven.png", False),
        ("/etc/passwd", False),
        ("http://127.0.0.1{folder}/abc/seven.png", False),
        ("{folder}/a\0b", False),
    ],
)
def test_only_a_path_below_the_upload_folder_is_an_uploaded_file(path: str, uploaded: bool) -> None:
    assert is_uploaded(path.format(folder=get_upload_folder())) is uploaded


def test_a_files_description_is_refused_without_its_mark() -> None:
    good = {"path": "a.png", "meta": {"_type": "gradio.FileData"}}
    gradio_private.FileData.model_validate(good, context={"validate_meta": True})
    with pytest.raises(ValueError, match="meta"):
        gradio_private.FileData.model_validate({"path": "a.png"}, context={"validate_meta": True})


def test_no_other_module_of_the_server_imports_a_private_module_of_gradio() -> None:
    def imported(file: Path) -> set[str]:
        return {n.module or "" for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.ImportFrom)}

    files = set((ROOT / "demo" / "server").glob("*.py")) - {Path(gradio_private.__file__)}
    assert len(files) > 3
    assert [file.name for file in files if imported(file) & set(PRIVATE)] == []
    assert [file.name for file in files if "._queue" in file.read_text()] == []


def test_a_component_gets_no_type_stub_where_its_source_is_not_found() -> None:  # demo/__main__.py
    with patch("inspect.getfile", side_effect=OSError) as asked, patch.object(component_meta, "create_pyi") as written:
        type("Component", (gr.HTML,), {})
    asked.assert_called_once()
    written.assert_not_called()


def test_an_app_that_was_built_without_servers_serves() -> None:
    with without_servers():
        with gr.Blocks(title="Built without servers") as blocks:
            gr.Button()
        blocks.queue()
    assert not isinstance(blocks.app, App)
    try:
        assert "Built without servers" in httpx.get(launch(blocks)).text
    finally:
        blocks.close()
