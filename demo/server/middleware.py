"""Middleware in front of Gradio that answers invalid requests with a message.

Without it, Gradio answers an unknown function, component or session with a 500 and a traceback in the log, accepts
requests of any size, fetches URLs, and serves routes that this app does not use. `benchmarks/fuzzing` tests it.
"""

import inspect
import re
import tempfile
from typing import Any

import gradio as gr
from gradio.components import Component
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from demo.server.gradio_private import BlockFunction, has_session, has_unread_answer
from demo.server.request_body import LARGEST_JSON, LARGEST_UPLOAD, Refused, check_upload, parse, read, refused, replay
from demo.server.validation import check, label_of, shown

LONGEST_URL = 4000  # bytes, path and query
LONGEST_NAME = 255  # bytes of a path between two slashes, as in file systems
API = "/gradio_api/"
ROUTES = re.compile(
    r"/(health|config/?|theme\.css|favicon\.ico|robots\.txt|manifest\.json|(static|assets|svelte)/.+)?|"
    rf"{API}(info/?|openapi\.json|app_id/?|startup-events|theme\.css|heartbeat/[\w-]+|file=.+|upload|cancel|reset/?|"
    r"queue/(join|data|status)|call/.+|component_server/?|mcp(/.*)?)"
)


class RequestGuard:
    """ASGI middleware in front of the app made of `blocks`."""

    def __init__(self, app: ASGIApp, blocks: gr.Blocks) -> None:
        self.app, self.blocks = app, blocks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        upload = scope["path"] == f"{API}upload"
        try:
            # read all of it first: in Gradio an interrupted upload leaves a file behind
            with tempfile.SpooledTemporaryFile(max_size=LARGEST_JSON) as body:
                await read(Request(scope, receive), body, LARGEST_UPLOAD if upload else LARGEST_JSON)
                check_request(scope)
                self._check_stream(scope)
                if scope["method"] == "POST":
                    await check_upload(scope, body) if upload else self._check_body(scope["path"], parse(scope, body))
                    body.seek(0)
                await self.app(scope, replay(body, receive), send)
        except Refused as error:
            await JSONResponse({"detail": error.detail}, error.status)(scope, receive, send)
        except ClientDisconnect:
            pass

    def _check_stream(self, scope: Scope) -> None:
        """Refuse to stream answers to a session or an event that does not exist: Gradio would fail while answering."""
        path = scope["path"]
        if scope["method"] == "GET" and path == f"{API}queue/data":
            session = Request(scope).query_params.get("session_hash", "")
            if not has_session(self.blocks, session):
                raise refused(404, "session_hash", "a known session", session, "join the queue first")
        elif scope["method"] == "GET" and path.startswith(f"{API}call/"):
            event_id = path.rpartition("/")[2]
            if not has_unread_answer(self.blocks, event_id):
                raise refused(404, "event_id", "that of an unread answer", event_id, "call again")

    def _check_body(self, path: str, body: Any) -> None:
        if path.startswith(f"{API}mcp"):
            return  # MCP tools call the app over HTTP, so their calls are checked as well
        if not isinstance(body, dict):
            raise refused(400, "body", "a JSON object", body, "see docs/http-api.md")
        if body.get("session_hash") == "":  # Gradio treats it as missing in one place and as a session in another
            raise refused(400, "session_hash", "at least one character", "", "leave it out")
        if path.startswith(f"{API}component_server"):
            number = body.get("component_id")
            if type(number) is not int or number not in self.blocks.blocks:
                raise refused(404, "component_id", "that of a component", number, "reload the page")
        elif path.startswith(f"{API}call/v2/"):
            function = self._named(path)
            check_values(function, by_name(function, body))
        elif path.startswith(f"{API}call/"):
            check_values(self._named(path), body.get("data"))
        elif path == f"{API}queue/join":
            check_values(self._numbered(body), body.get("data"))

    def _named(self, path: str) -> BlockFunction:
        name = path.rstrip("/").rpartition("/")[2]
        for function in self.blocks.fns.values():
            if function.api_name == name and function.api_visibility == "public":
                return function
        public = [str(each.api_name) for each in self.blocks.fns.values() if each.api_visibility == "public"]
        raise refused(404, "endpoint", f"one of {', '.join(public)}", name, "see docs/http-api.md")

    def _numbered(self, body: dict[str, Any]) -> BlockFunction:
        number = body.get("fn_index")
        function = self.blocks.fns.get(number) if type(number) is int else None
        if function is None or function.fn is None or body.get("batched"):
            raise refused(404, "fn_index", "that of a function", number, "reload the page")
        return function


def check_request(scope: Scope) -> None:
    """Check address and headers, and drop those that Gradio mishandles and the app does not need.

    Raises:
        Refused: a closed route, or a URL that is too long.
    """
    path = scope["path"]
    parts = path.encode(errors="replace").split(b"/")
    if len(b"/".join(parts)) + len(scope["query_string"]) > LONGEST_URL or max(map(len, parts)) > LONGEST_NAME:
        expected = f"at most {LONGEST_URL:,} bytes, {LONGEST_NAME} between two slashes"
        raise refused(414, "URL", expected, path, "shorten it")
    if not ROUTES.fullmatch(path):
        raise refused(404, "URL", "a route of docs/http-api.md", path, "see docs/http-api.md")
    if path == f"{API}upload":
        scope["query_string"] = b""  # Gradio would remember every upload_id
    # Gradio fails on a malformed range; the whole file is a valid answer to any
    scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"range"]


def by_name(function: BlockFunction, body: dict[str, Any]) -> list[Any]:
    """{argument: value} → the values of all of the function's controls, with defaults where none is given.

    Raises:
        Refused: an unknown argument.
    """
    names = list(inspect.signature(function.fn).parameters)  # type: ignore[arg-type]
    for name in body:
        if name not in names:
            raise refused(400, "body", f"only {', '.join(names)}", name, "leave it out")
    return [
        body.get(name, getattr(control, "value", None)) for name, control in zip(names, function.inputs, strict=True)
    ]


def check_values(function: BlockFunction, values: Any) -> None:
    """Check one value for each of the function's controls.

    Raises:
        Refused: another number of values, or a value that its control cannot have.
    """
    controls = [control for control in function.inputs if isinstance(control, Component)]
    names = [label_of(control) for control in controls]
    if not isinstance(values, list) or len(values) != len(names):
        received = f"a list of {len(values)}" if isinstance(values, list) else shown(values)
        raise Refused(400, f"data: expected [{', '.join(names)}], received {received}; see docs/http-api.md")
    found = []
    for name, control, value in zip(names, controls, values, strict=True):
        message = ""
        try:
            check(control, value)
        except ValueError as error:
            message = str(error).removeprefix(f"{name}: ")
        # the form that Gradio's clients expect: the page shows the message at the control
        found.append({"__type__": "validate", "is_valid": not message, "message": message, "parameter_name": name})
    if not all(one["is_valid"] for one in found):
        raise Refused(422, found)
