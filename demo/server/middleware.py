"""The door of the app: what no visitor's page sends is refused here, in words, before Gradio sees it.

Gradio alone answers an unknown function, component or session with a 500 and a traceback in the log, takes a request of
any size, fetches what a URL names, and has routes that this app has no use for.
"""

import inspect
import re
import tempfile
from typing import Any

import gradio as gr
import httpx
from gradio.blocks import BlockFunction
from gradio.components import Component
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from demo.server.request_body import LARGEST_JSON, LARGEST_UPLOAD, Refused, check_upload, give, parse, refused, take
from demo.server.validation import check

LONGEST_URL = 4000  # bytes, path and query
LONGEST_NAME = 255  # bytes of a path between two slashes, as file systems have it
API = "/gradio_api/"
ROUTES = re.compile(
    r"/(health|config/?|theme\.css|favicon\.ico|robots\.txt|manifest\.json|(static|assets|svelte)/.+)?|"
    rf"{API}(info/?|openapi\.json|app_id/?|startup-events|theme\.css|heartbeat/[\w-]+|file=.+|upload|cancel|reset/?|"
    r"queue/(join|data|status)|call/.+|component_server/?|mcp(/.*)?)"
)
SESSION = re.compile(r"[\w-]{1,64}", re.ASCII)


class Door:
    """ASGI middleware in front of the app made of `blocks`."""

    def __init__(self, app: ASGIApp, blocks: gr.Blocks) -> None:
        self.app, self.blocks = app, blocks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        upload = scope["path"] == f"{API}upload"
        try:
            # whole, before Gradio gets any of it: what breaks off would leave a piece in its folder
            with tempfile.SpooledTemporaryFile(max_size=LARGEST_JSON) as body:
                await take(Request(scope, receive), body, LARGEST_UPLOAD if upload else LARGEST_JSON)
                check_request(scope)
                self._check_stream(scope)
                if scope["method"] == "POST":
                    await check_upload(scope, body) if upload else self._check_body(scope["path"], parse(scope, body))
                    body.seek(0)
                await self.app(scope, give(body, receive), send)
        except Refused as no:
            await JSONResponse({"detail": no.detail}, no.status)(scope, receive, send)
        except ClientDisconnect:
            pass  # nobody is left to answer

    def _check_stream(self, scope: Scope) -> None:
        """A stream of answers must be that of somebody who asked."""
        if scope["method"] != "GET":
            return
        path, queue = scope["path"], self.blocks._queue
        if path == f"{API}queue/data":
            session = Request(scope).query_params.get("session_hash", "")
            # a page may have its answer by the stream before, and listens again; so not only those with one to come
            if session not in queue.pending_messages_per_session:
                raise refused(404, "session_hash", "one that asked for something", session, "join the queue first")
        elif path.startswith(f"{API}call/"):
            event = path.rpartition("/")[2]
            if not any(event in events for events in queue.pending_event_ids_session.values()):
                raise refused(404, "event_id", "that of an unread answer", event, "call again")

    def _check_body(self, path: str, body: Any) -> None:
        if path.startswith(f"{API}mcp"):
            return  # its tools call the app as any program does, and come by here again
        if not isinstance(body, dict):
            raise refused(400, "body", "a JSON object", body, "see docs/api.md")
        session = body.get("session_hash")
        if session is not None and not (isinstance(session, str) and SESSION.fullmatch(session)):
            raise refused(400, "session_hash", "1 … 64 letters or digits", session, "choose another")
        if path.startswith(f"{API}component_server"):
            self._check_component(body)
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
        raise refused(404, "endpoint", "one that docs/api.md names", name, "choose one of those")

    def _numbered(self, body: dict[str, Any]) -> BlockFunction:
        number = body.get("fn_index")
        function = self.blocks.fns.get(number) if type(number) is int else None
        if function is None or function.fn is None or body.get("batched"):
            raise refused(404, "fn_index", "that of a function", number, "reload the page")
        return function

    def _check_component(self, body: dict[str, Any]) -> None:
        number, name = body.get("component_id"), body.get("fn_name")
        component = self.blocks.blocks.get(number) if type(number) is int else None
        if not isinstance(name, str) or not getattr(getattr(component, name, None), "_is_server_fn", False):
            raise refused(404, "component_id", "that of a component with this function", number, "reload the page")


def check_request(scope: Scope) -> None:
    """Its address and its headers; drops of these what nobody needs.

    Raises:
        Refused: a route that is closed, or an address that is none.
    """
    path = scope["path"]
    parts = path.encode(errors="replace").split(b"/")
    if len(b"/".join(parts)) + len(scope["query_string"]) > LONGEST_URL or max(map(len, parts)) > LONGEST_NAME:
        raise refused(414, "URL", f"at most {LONGEST_URL:,} bytes, {LONGEST_NAME} a name", path, "shorten it")
    if not ROUTES.fullmatch(path):
        raise refused(404, "URL", "one that docs/api.md names", path, "there is nothing here")
    if path.startswith(f"{API}file=") and "://" in path:
        raise refused(403, "file", "one of this app's", path, "nothing is fetched from elsewhere")
    headers = Headers(scope=scope)
    for name in ("host", "x-forwarded-host", "x-gradio-server"):
        address = headers.get(name, "").split(",")[0].strip()
        try:
            httpx.URL(address if "://" in address else f"http://{address}")
        except (httpx.InvalidURL, ValueError) as error:
            raise refused(400, name, "a host", address, "correct it") from error
    if path == f"{API}upload":
        scope["query_string"] = b""  # an upload_id would be remembered for ever
    # Gradio stumbles over ranges that are none; all of a file is an answer too
    scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"range"]


def by_name(function: BlockFunction, body: dict[str, Any]) -> list[Any]:
    """{argument: value} → the values of all of the function's controls, defaults where none is given.

    Raises:
        Refused: an argument that it has not.
    """
    names = list(inspect.signature(function.fn).parameters)  # type: ignore[arg-type]
    for name in body:
        if name not in names:
            raise refused(400, "body", f"only {', '.join(names)}", name, "leave it out")
    return [
        body.get(name, getattr(control, "value", None)) for name, control in zip(names, function.inputs, strict=True)
    ]


def check_values(function: BlockFunction, values: Any) -> None:
    """Raises:
    Refused: not one value for each of the function's controls, or one that its control cannot have.
    """
    controls = [control for control in function.inputs if isinstance(control, Component)]
    names = [str(getattr(control, "label", None) or control.elem_id) for control in controls]
    if not isinstance(values, list) or len(values) != len(names):
        received = f"{len(values)} values" if isinstance(values, list) else values
        raise refused(400, "data", f"a list of {', '.join(names) or 'nothing'}", received, "see docs/api.md")
    found = []
    for name, control, value in zip(names, controls, values, strict=True):
        words = ""
        try:
            check(control, value)
        except ValueError as error:
            words = str(error).removeprefix(f"{name}: ")
        # as Gradio's clients expect it: the page shows the words at the control
        found.append({"__type__": "validate", "is_valid": not words, "message": words, "parameter_name": name})
    if not all(one["is_valid"] for one in found):
        raise Refused(422, found)
