"""Limits on the body of a request: size, number and depth of values, number of files."""

import json
import math
from typing import IO, Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.types import Message, Receive, Scope

from demo.server.validation import shown

LARGEST_FILE = 100_000_000  # bytes
LARGEST_UPLOAD = LARGEST_FILE + 100_000  # with multipart's headers
MOST_FILES = 10  # per upload
LARGEST_JSON = 4_000_000  # bytes; MCP sends images in it
MOST_VALUES = 1000  # in a JSON body
DEEPEST = 20  # levels of a JSON body
CHUNK = 1 << 16  # bytes


class Refused(Exception):
    """A request answered with `status` and `detail`: a message, or Gradio's list of wrong inputs for 422."""

    def __init__(self, status: int, detail: str | list[dict[str, Any]]) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


def refused(status: int, name: str, expected: str, received: Any, remedy: str) -> Refused:
    return Refused(status, f"{name}: expected {expected}, received {shown(received)}; {remedy}")


async def read(request: Request, body: IO[bytes], largest: int) -> None:
    """Copy the request's body into `body` and rewind it.

    Raises:
        Refused: it has more than `largest` bytes. Up to ten times as many are read and dropped first, or the client
            would not see the answer.
        ClientDisconnect: the request ends early.
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


def replay(body: IO[bytes], receive: Receive | None = None) -> Receive:
    """An ASGI `receive` that gives `body`, then the messages of the real `receive`, such as a disconnect."""
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
    """Check a multipart body before Gradio parses it, which answers some bodies with a 500 and leaves files behind.

    Raises:
        Refused: anything but 1 … MOST_FILES files named "files".
    """
    try:
        form = await Request(scope, replay(body)).form(max_files=MOST_FILES, max_fields=0)
    except (MultiPartException, HTTPException) as error:
        expected = f"1 … {MOST_FILES} files as multipart/form-data"
        raise refused(400, "upload", expected, str(error), "see docs/http-api.md") from error
    names = {*form.keys()}
    await form.close()
    if names != {"files"}:
        raise refused(400, "upload", "files as multipart/form-data", sorted(names), "see docs/http-api.md")


def parse(scope: Scope, body: IO[bytes]) -> Any:
    """Parse a JSON body.

    Raises:
        Refused: not JSON, too many or too deep values, a number that is not finite, or half a surrogate pair.
    """
    kind, content = Headers(scope=scope).get("content-type", "nothing"), body.read()
    if not kind.startswith("application/json"):
        raise refused(415, "content-type", "application/json", kind, "send JSON")
    try:
        parsed = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise refused(400, "body", "JSON", content[:40], "see docs/http-api.md") from error
    level, count = [parsed], 1
    for _ in range(DEEPEST):
        for value in level:
            _check_scalar(value)
        level = [child for value in level for child in _children(value)]
        count += len(level)
        if not level:
            return parsed
        if count > MOST_VALUES:
            break
    raise Refused(400, f"body: expected at most {MOST_VALUES:,} values, {DEEPEST} deep, received more; send fewer")


def _children(value: Any) -> list[Any]:
    return [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []


def _check_scalar(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):  # Python accepts NaN and infinity, JSON does not
        raise refused(400, "body", "finite numbers", value, "leave it out")
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise refused(400, "body", "whole characters", value[error.start], "leave it out") from error
