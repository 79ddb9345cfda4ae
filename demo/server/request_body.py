"""What a request may carry: files, or JSON of a reasonable shape, and not too much of either."""

import json
import math
from typing import IO, Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.types import Message, Receive, Scope

from demo.server.validation import shown

LARGEST_FILE = 20_000_000  # bytes
LARGEST_UPLOAD = LARGEST_FILE + 100_000  # with what multipart adds to it
MOST_FILES = 10  # in an upload
LARGEST_JSON = 4_000_000  # bytes; MCP sends images in it
MOST_VALUES = 1000  # in a JSON body
DEEPEST = 20  # levels of a JSON body
CHUNK = 1 << 16  # bytes


class Refused(Exception):
    """An answer with `status` and `detail`: words, or for 422 Gradio's list of what is wrong with which input."""

    def __init__(self, status: int, detail: str | list[dict[str, Any]]) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


def refused(status: int, name: str, expected: str, received: Any, remedy: str) -> Refused:
    return Refused(status, f"{name}: expected {expected}, received {shown(received)}; {remedy}")


async def take(request: Request, body: IO[bytes], largest: int) -> None:
    """The request's body into `body`, from its beginning.

    Raises:
        Refused: it is larger. Some more of it is let in and dropped, or the visitor would not hear our answer.
        ClientDisconnect: it breaks off.
    """
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= largest:
            body.write(chunk)
        elif size > 10 * largest:
            break
    if size > largest:
        raise Refused(413, f"body: expected at most {largest:,} bytes, received more; send less")
    body.seek(0)


def give(body: IO[bytes], receive: Receive | None = None) -> Receive:
    """What an app receives: `body`, then whatever `receive` has to say, as that the visitor has left."""
    more = True

    async def next_message() -> Message:
        nonlocal more
        if not more and receive is not None:
            return await receive()
        chunk = body.read(CHUNK)
        more = len(chunk) == CHUNK
        return {"type": "http.request", "body": chunk, "more_body": more}

    return next_message


async def check_upload(scope: Scope, body: IO[bytes]) -> None:
    """Before Gradio reads it too, who leaves the files behind that come before what is none.

    Raises:
        Refused: anything but a few files.
    """
    try:
        form = await Request(scope, give(body)).form(max_files=MOST_FILES, max_fields=0)
    except (MultiPartException, HTTPException) as error:
        expected = f"1 … {MOST_FILES} files as multipart/form-data"
        raise refused(400, "upload", expected, str(error), "see docs/api.md") from error
    names = {*form.keys()}
    await form.close()
    if names != {"files"}:
        raise refused(400, "upload", "files as multipart/form-data", sorted(names), "see docs/api.md")


def parse(scope: Scope, body: IO[bytes]) -> Any:
    """JSON of a reasonable shape, with finite numbers and whole characters.

    Raises:
        Refused: something else.
    """
    kind, content = Headers(scope=scope).get("content-type", "nothing"), body.read()
    if not kind.startswith("application/json"):
        raise refused(415, "content-type", "application/json", kind, "send JSON")
    try:
        parsed = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise refused(400, "body", "JSON", content[:40], "correct it") from error
    level, count = [parsed], 1
    for _ in range(DEEPEST):
        for value in level:
            _check_value(value)
        level = [child for value in level for child in _children(value)]
        count += len(level)
        if not level:
            return parsed
        if count > MOST_VALUES:
            break
    raise Refused(400, f"body: expected at most {MOST_VALUES:,} values, {DEEPEST} deep, received more; send fewer")


def _children(value: Any) -> list[Any]:
    return [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []


def _check_value(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):  # which Python's JSON may be, and nobody else's
        raise refused(400, "body", "finite numbers", value, "leave it out")
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise refused(400, "body", "whole characters", value[error.start], "leave it out") from error
