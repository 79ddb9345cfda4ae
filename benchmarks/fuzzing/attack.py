"""Send hostile requests to a running app and check the answers."""

import http.server
import itertools
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlparse

import httpx

from benchmarks import ROOT
from benchmarks.fuzzing import calls, requests
from benchmarks.fuzzing.files import encoded, seven
from benchmarks.fuzzing.values import API, META, Case, Target, post, upload
from benchmarks.running_app import Served
from demo.images import as_ink, enlarge, png_url
from demo.pad import example_digits

T = TypeVar("T")
Kind = Callable[[random.Random, Target], Iterator[Case]]
KINDS: dict[str, tuple[Kind, int]] = {  # with the number of requests
    "edges": (calls.edges, 60),  # first: memory is compared with that after valid requests
    "images": (calls.images, 500),
    "arguments": (calls.arguments, 500),
    "by name": (calls.by_name, 250),
    "tabs": (calls.tabs, 1100),
    "pad": (calls.pad, 600),
    "mcp": (calls.mcp, 150),
    "unread": (calls.unread, 100),
    "files": (requests.files, 450),
    "uploads": (requests.uploads, 400),
    "bodies": (requests.bodies, 600),
    "addresses": (requests.addresses, 700),
    "reading": (requests.reading, 700),
    "guesses": (requests.guesses, 300),
    "large": (requests.large, 16),
}
NO_HTTP = 100  # requests that are not HTTP
VISITORS = 4  # at once
TIME_LIMIT = 60  # seconds per request, including its stream
MARKS = ("Traceback (most recent call last)", "root:x:0:", "def build_app(", "PK\x03\x04", 'File "/')


Property = Literal["answered", "secret", "worded", "sound", "alive", "quiet"]
PROPERTIES: dict[Property, str] = {
    "answered": "every request is answered, and not by a 5xx",
    "secret": "no answer contains a file or code",
    "worded": "a refusal says what was expected",
    "sound": "valid requests are answered, invalid ones refused",
    "alive": "afterwards a 7 is still recognised",
    "quiet": "no traceback is logged",
}


@dataclass
class Report:
    """Results. `broken`: one line per violation of a property."""

    answers: dict[str, Counter[str]] = field(default_factory=dict)  # kind → answer → how often
    slowest: dict[str, float] = field(default_factory=dict)  # kind → seconds
    broken: dict[Property, list[str]] = field(default_factory=lambda: {name: [] for name in PROPERTIES})


@dataclass(frozen=True)
class Answer:
    """`what`: an HTTP status, or how the event ended: "complete", "refused", "hangs" or "cut off"."""

    what: str
    text: str
    seconds: float


class Attack:
    """Sends requests to one target. `secret`: the content of the first of the target's files."""

    def __init__(self, served: Served, target: Target, secret: str) -> None:
        self.served, self.target, self.secret = served, target, secret
        self.report = Report()
        self._own = threading.local()
        self._read = served.log.stat().st_size  # bytes of the log that are checked

    def run(self, name: str, kind: Kind, number: int, seed: int = 0) -> None:
        """Send `number` requests of a kind, then check that the app still works and logged no traceback."""
        cases = itertools.islice(kind(random.Random(f"{name} {seed}"), self.target), number)
        with ThreadPoolExecutor(VISITORS) as visitors:
            for case, answer in visitors.map(lambda case: (case, self.send(case)), cases):
                self.note(name, answer)
                for broken in self.broken_by(name, case, answer):
                    self.report.broken[broken].append(f"{name}: {answer.what} {answer.text[:300]!r}: {brief(case)}")
        self.check(name)

    def run_no_http(self, number: int, seed: int = 0) -> None:
        """Send raw bytes; closing the connection is a valid answer, a 5xx or a timeout is not."""
        for content in itertools.islice(requests.no_http(random.Random(seed)), number):
            answer = self.send_bytes(content)
            self.note("no HTTP", answer)
            if answer.what.startswith("5") or answer.what == "hangs":
                self.report.broken["answered"].append(f"no HTTP: {answer.what}: {content[:200]!r}")
        self.check("no HTTP")

    def note(self, name: str, answer: Answer) -> None:
        self.report.answers.setdefault(name, Counter())[answer.what] += 1
        self.report.slowest[name] = max(self.report.slowest.get(name, 0), answer.seconds)

    def check(self, name: str) -> None:
        """Check that the app runs, answers a 7 with 7, and logged no traceback."""
        answer = self.send(post("call/predict", {"data": [{"path": self.target.digit, "meta": META}]}, "call"))
        if self.served.process.poll() is not None or '"label": 7' not in answer.text:
            self.report.broken["alive"].append(f"after {name}: {answer.what} {answer.text[:200]}")
        printed = self.served.log.read_bytes()[self._read :].decode(errors="replace")
        self._read = self.served.log.stat().st_size
        if "Traceback" in printed:
            self.report.broken["quiet"].append(f"after {name}: {printed[printed.index('Traceback') :][:3000]}")

    def broken_by(self, name: str, case: Case, answer: Answer) -> Iterator[Property]:
        """The properties that an answer violates."""
        if answer.what.startswith("5") or answer.what in ("hangs", "cut off"):
            yield "answered"
        if self.secret in answer.text or any(mark in answer.text for mark in MARKS):
            yield "secret"
        if answer.what == "refused" and "expected" not in answer.text:
            yield "worded"
        if name == "edges" and answer.what != "complete":
            yield "sound"
        uploaded = f'"path": "{self.target.digit}"'.encode()
        if name == "images" and answer.what == "complete" and uploaded not in case.body:
            yield "sound"

    def send(self, case: Case) -> Answer:
        started = time.monotonic()
        try:
            what, text = self._send(case)
        except httpx.TimeoutException:
            what, text = "hangs", ""
        except (httpx.InvalidURL, UnicodeEncodeError):
            what, text = "not sent", ""  # no client can
        except httpx.HTTPError as error:
            what, text = "cut off", str(error)
        return Answer(what, text, time.monotonic() - started)

    def _send(self, case: Case) -> tuple[str, str]:
        with self.client.stream(case.method, case.path, content=case.body, headers=case.headers) as reply:
            text = b"".join(in_time(reply.iter_bytes())).decode(errors="replace")
        if reply.status_code == 200 and case.then == "upload":
            image = {"path": json.loads(text)[0], "meta": META}
            return self._send(post("call/predict", {"data": [image]}, "call"))
        if reply.status_code == 200 and case.then == "call":
            return self._follow(f"{case.path.replace('/v2', '')}/{json.loads(text)['event_id']}")
        if reply.status_code == 200 and case.then == "join":
            return self._follow(f"{API}queue/data?session_hash={case.session}")
        return str(reply.status_code), text

    def _follow(self, path: str) -> tuple[str, str]:
        """The last event of a stream."""
        event = ""
        with self.client.stream("GET", path) as reply:
            for line in in_time(reply.iter_lines()):
                event = line[7:] if line.startswith("event: ") else event
                if event in ("complete", "error") and line.startswith("data: "):
                    return {"complete": "complete", "error": "refused"}[event], line
                if '"msg":"process_completed"' in line:
                    return "complete" if json.loads(line[6:])["success"] else "refused", line
            return str(reply.status_code), "the stream ended early"

    def send_bytes(self, content: bytes) -> Answer:
        started, address = time.monotonic(), urlparse(self.served.url)
        reply = b""
        try:
            with socket.create_connection((address.hostname or "", address.port or 0), timeout=5) as connection:
                connection.sendall(content)
                connection.shutdown(socket.SHUT_WR)
                reply = connection.recv(1000)
        except TimeoutError:
            return Answer("hangs", "", time.monotonic() - started)
        except OSError:
            pass
        what = reply[9:12].decode(errors="replace") if reply.startswith(b"HTTP/") else "closed"
        return Answer(what, reply.decode(errors="replace"), time.monotonic() - started)

    @property
    def client(self) -> httpx.Client:
        """One client per thread."""
        if not hasattr(self._own, "client"):
            self._own.client = httpx.Client(base_url=self.served.url, timeout=TIME_LIMIT)
        return self._own.client


def in_time(stream: Iterator[T]) -> Iterator[T]:
    """Pass on `stream` for TIME_LIMIT seconds at most."""
    started = time.monotonic()
    for part in stream:
        if time.monotonic() - started > TIME_LIMIT:
            raise httpx.ReadTimeout("the answer does not end")
        yield part


def brief(case: Case) -> str:
    return f"{case.method} {case.path[:150]} {case.headers} {case.body[:150]!r}"


@contextmanager
def listening() -> Iterator[tuple[str, list[str]]]:
    """A server that must not be called: its URL, and the calls it received."""
    visits: list[str] = []

    class Noting(http.server.BaseHTTPRequestHandler):
        def handle(self) -> None:
            visits.append(repr(self.rfile.readline(200)))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Noting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", visits
        server.shutdown()


def describe(served: Served, canary: Path, listener: str) -> Target:
    """The public description of the app."""
    config = httpx.get(f"{served.url}/config", timeout=TIME_LIMIT).json()
    controls = {control["id"]: control for control in config["components"]}
    functions = tuple(
        {
            "id": event["id"],
            "name": event["api_name"],
            "generator": event["types"]["generator"],
            "inputs": [controls[number] for number in event["inputs"]],
        }
        for event in config["dependencies"]
        if event["backend_fn"]
    )
    pad = next(number for number, control in controls.items() if control["props"].get("elem_id") == "pad")
    case = upload("seven.png", encoded(seven(), "PNG"))
    digit = httpx.post(served.url + case.path, content=case.body, headers=case.headers, timeout=TIME_LIMIT).json()[0]
    files = (canary, ROOT / "checkpoints" / "lecture" / "best.pt", ROOT / "demo" / "app.py", Path("/etc/passwd"))
    drawing = png_url(enlarge(as_ink(example_digits()[7])))
    return Target(functions, pad, digit, drawing, tuple(map(str, files)), listener)


def memory(served: Served) -> dict[str, int]:
    """Current and peak memory of the app in MB. Linux only."""
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return {name: int(lines[key].split()[0]) // 1024 for name, key in (("now", "VmRSS"), ("peak", "VmHWM"))}
