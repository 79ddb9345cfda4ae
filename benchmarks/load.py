"""Load test with fifty simultaneous visitors, then a soak test.  python -m benchmarks.load [--soak MINUTES]

A visitor sends the same requests as the page: while drawing, one at a time; after pen-up, a call of the first tab
through Gradio's queue; then it pauses for two seconds. The soak test has no pauses; its visitors keep their sessions,
of which the server stores a limited number (`demo.app.MOST_SESSIONS`). Each answer is compared with the answer to the
same drawing on an idle server. Every request of a pad has a file of its own, so that its answer is not cached. Server
and visitors share the machine.
"""

import argparse
import asyncio
import base64
import itertools
import json
import os
import statistics
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from benchmarks import write
from benchmarks.running_app import serve
from bnmodel.data import load_sample
from demo.images import as_ink, enlarge, png_url

VISITORS = 50
SECONDS = 60
STROKES = 8  # requests per digit while it is drawn
REST = 0.12  # minimum seconds between an answer and the next request while drawing
BACKOFF = 3  # the pause is at least this many times as long as the answer took
PAUSE = 2.0  # seconds between two digits
SOAK_VISITORS = 8  # without pauses
TIMEOUT = 30.0
Answer = dict[str, Any]
Drawings = dict[str, tuple[Answer, str]]  # drawing → its answers on an idle server


@dataclass
class Seen:
    """Measurements: seconds until the answers below the pad and on the tab, and errors."""

    pad: list[float] = field(default_factory=list)
    tab: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class App:
    """The parts of the app's configuration that a page uses."""

    client: httpx.AsyncClient
    pad: int  # the component's id
    model: str  # the default network
    refresh: int  # id of the event that draws the first tab
    others: list[Any]  # default values of the event's other inputs

    @classmethod
    async def open(cls, client: httpx.AsyncClient) -> "App":
        config = (await client.get("/config")).json()
        place = {part["props"].get("elem_id"): part["id"] for part in config["components"]}
        value = {part["id"]: part["props"].get("value") for part in config["components"]}
        (event,) = (
            event
            for event in config["dependencies"]
            if place["modes"] in event["outputs"] and event["inputs"][:1] == [place["pad"]]
        )
        others = [value[part] for part in event["inputs"][1:]]
        return cls(client, place["pad"], value[place["model"]], event["id"], others)

    async def read(self, session: str, drawing: str) -> Answer:
        """The answer below the pad."""
        body = {
            "session_hash": session,
            "component_id": self.pad,
            "fn_name": "recognize",
            "data": {"canvas": drawing, "model": self.model},
        }
        response = await self.client.post("/gradio_api/component_server", json=body)
        response.raise_for_status()
        return response.json()

    async def show(self, session: str, drawing: str) -> str:
        """The first tab's picture (HTML)."""
        body = {"data": [drawing, *self.others], "fn_index": self.refresh, "session_hash": session, "event_data": None}
        (await self.client.post("/gradio_api/queue/join", json=body)).raise_for_status()
        async with self.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
            async for line in stream.aiter_lines():
                message = json.loads(line[5:]) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    if not message["success"]:
                        raise RuntimeError(str(message["output"]))
                    return str(message["output"]["data"][0])
        raise RuntimeError("the stream ended without an answer")

    async def alone(self, count: int) -> Drawings:
        """Some digits with their answers, requested one at a time."""
        found = {}
        for digit in load_sample(train=False).images[:count, 0].numpy():
            drawing = png_url(enlarge(as_ink(digit)))
            found[drawing] = (await self.read("alone", drawing), await self.show("alone", drawing))
        return found


async def visit(
    app: App, session: str, drawings: Drawings, start: int, until: float, hurried: bool, seen: Seen
) -> None:
    """Draw digits until `until`, a time of the monotonic clock, beginning with drawing number `start`."""
    for drawing, (answer, picture) in itertools.islice(itertools.cycle(drawings.items()), start, None):
        if time.monotonic() > until:
            return
        try:
            for _ in range(STROKES):
                latest = with_comment(drawing, uuid4().hex)
                began = time.perf_counter()
                if await app.read(session, latest) != answer:
                    seen.errors.append("another answer than alone")
                seen.pad.append(time.perf_counter() - began)
                await asyncio.sleep(0 if hurried else max(REST, BACKOFF * seen.pad[-1]))
            began = time.perf_counter()
            if await app.show(session, latest) != picture:
                seen.errors.append("another picture than alone")
            seen.tab.append(time.perf_counter() - began)
        except (httpx.HTTPError, RuntimeError) as error:
            seen.errors.append(f"{type(error).__name__}: {error}")
        await asyncio.sleep(0 if hurried else PAUSE)


def with_comment(url: str, comment: str) -> str:
    """A PNG data URL with a comment, inserted before the last chunk, of 12 bytes; not encoded again, to save time."""
    prefix, content = url.split(",")
    png, text = base64.b64decode(content), b"tEXtComment\0" + comment.encode()
    chunk = (len(text) - 4).to_bytes(4, "big") + text + zlib.crc32(text).to_bytes(4, "big")
    return f"{prefix},{base64.b64encode(png[:-12] + chunk + png[-12:]).decode()}"


async def crowd(app: App, sessions: list[str], drawings: Drawings, seconds: float, hurried: bool) -> Seen:
    """One visitor per session at the same time."""
    seen = Seen()
    until = time.monotonic() + seconds
    visits = (visit(app, session, drawings, k, until, hurried, seen) for k, session in enumerate(sessions))
    await asyncio.gather(*visits)
    return seen


def new_sessions(count: int) -> list[str]:
    return [uuid4().hex for _ in range(count)]


async def measure(url: str, process: int, soak_minutes: float) -> dict[str, Any]:
    limits = httpx.Limits(max_connections=2 * VISITORS)
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT, limits=limits) as client:
        app = await App.open(client)
        drawings = await app.alone(VISITORS)
        began = time.perf_counter()
        seen = await crowd(app, new_sessions(VISITORS), drawings, SECONDS, hurried=False)
        result = {
            "visitors": VISITORS,
            "answers_per_s": round(len(seen.pad) / (time.perf_counter() - began)),
            "answers": len(seen.pad),
            "answer_ms": quantiles(seen.pad),
            "tab_ms": quantiles(seen.tab),
            "errors": len(seen.errors),
        }
        print(result, seen.errors[:3], flush=True)
        memory, answers, errors = [resident_mb(process)], 0, list(seen.errors)
        sessions = new_sessions(SOAK_VISITORS)
        for _ in range(max(1, round(soak_minutes))):
            seen = await crowd(app, sessions, drawings, 60, hurried=True)
            answers += len(seen.pad)
            errors += seen.errors
            memory.append(resident_mb(process))
            print(f"soak: {answers:,} answers, {memory[-1]} MB, {len(errors)} errors", flush=True)
    soak = {
        "visitors": SOAK_VISITORS,
        "minutes": len(memory) - 1,
        "answers": answers,
        "memory_mb": memory,
        "errors": len(errors),
        "growth_mb_per_10000_answers": round(growth(memory) / answers * 10_000, 1),
    }
    return {**result, "soak": soak}


def growth(memory: list[int]) -> float:
    """Growth over the whole time by a linear fit, without the first minute, which fills caches."""
    settled = memory[1:] if len(memory) > 2 else memory
    return (len(memory) - 1) * statistics.linear_regression(range(len(settled)), settled).slope


def quantiles(seconds: list[float]) -> dict[str, int]:
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {name: round(1000 * cuts[cut]) for name, cut in (("p50", 49), ("p95", 94), ("p99", 98))}


def resident_mb(process: int) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--soak", type=float, default=10, metavar="MINUTES")
    options = parser.parse_args()
    with serve() as url:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        result = asyncio.run(measure(url, int(children[0]), options.soak))
    write("load", result)
    return 1 if result["soak"]["errors"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
