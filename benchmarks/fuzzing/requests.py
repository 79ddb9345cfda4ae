"""Malformed requests: uploads, bodies, URLs and headers, guessed sessions, raw bytes."""

import json
import random
from collections.abc import Callable, Iterator
from urllib.parse import quote

from benchmarks.fuzzing.files import damaged, encoded, enormous, seven, strange
from benchmarks.fuzzing.values import API, JSON, TEXTS, Case, Target, anything, elsewhere, post, session, upload

WAYS: tuple[Callable[[str], str], ...] = (  # encodings of a path in a URL
    quote,
    lambda path: quote(path, safe=""),
    lambda path: quote(quote(path, safe=""), safe=""),
    lambda path: path.replace("../", "..%2f").replace("\0", "%00"),
    lambda path: quote(path).replace("..", "%2e%2e"),
    lambda path: quote(path).replace("/", "%5c"),
    lambda path: quote(path).replace("../", "....//"),
    lambda path: quote(path).replace("..", "%c0%ae%c0%ae"),
)
PAGES = (
    *("/", "/config", "/login", "/logout", "/docs", "/redoc", "/openapi.json", "/monitoring", "/pwa_icon/9"),
    *("/theme.css", "/robots.txt", "/static/", "/assets/", "/svelte/", "/app.py", "/.git/config", "/?deep_link=x"),
    "/x" * 3000,
)
ROUTES = (
    *("run/predict", "api/predict", "deep_link?session_hash=a", "process_recording", "runs", "run-history/connect"),
    *("run-history/buckets", "custom_component/a/client/b/c", "vibe-code", "dev/reload", "upload_progress?upload_id=a"),
    *("stream/a/b/1/playlist.m3u8", "info", "token", "user", "app_id", "startup-events", "queue/status", "queue/join"),
    *("cancel", "component_server", "upload", "reset", "mcp/schema", "openapi.json", "", "monitoring/summary"),
)
HEADERS = ("x-forwarded-host", "x-gradio-server", "host", "x-forwarded-proto", "origin", "cookie", "range")


def files(rng: random.Random, target: Target) -> Iterator[Case]:
    """Uploads that /predict reads."""
    for name, content in strange().items():
        yield upload(name, content, "upload")
    for name, content in damaged(rng):
        yield upload(name, content, "upload")


def uploads(rng: random.Random, target: Target) -> Iterator[Case]:
    """Malformed uploads and file names."""
    png = encoded(seven(), "PNG")
    kinds = ("multipart/form-data", "multipart/form-data; boundary=", "text/plain", "multipart/form-data; boundary=x")
    while True:
        name = rng.choice((elsewhere(rng, target), *rng.sample(TEXTS, 2), "..", "/", "a/../../b.png", "x" * 3000))
        name = name.replace('"', "")
        case, draw = upload(name, png, "upload"), rng.randrange(7)
        if draw == 0:
            case = upload(name, png, field=rng.choice(("file", "", "files[]", "\u202e")))
        elif draw == 1:
            case = upload(name, png, headers="Content-Type: " + "a" * rng.choice((0, 10, 9000)) + "\r\n")
        elif draw == 2:
            case = Case("POST", case.path, case.body, rng.choice(({"content-type": rng.choice(kinds)}, {})))
        elif draw == 3:
            body = case.body[: rng.randrange(len(case.body))] + rng.randbytes(9)
            case = Case("POST", f"{case.path}?upload_id={session(rng)}", body, case.headers)
        elif draw == 4:
            no_file = case.body.replace(f'; filename="{name}"'.encode(errors="surrogatepass"), b"")
            case = Case("POST", case.path, no_file, case.headers)
        yield case


def bodies(rng: random.Random, target: Target) -> Iterator[Case]:
    """Malformed, deep, long or huge JSON."""
    routes = ("queue/join", "call/predict", "call/compare_modes", "component_server", "cancel", "reset", "mcp/")
    kinds = (*["application/json"] * 20, "text/plain", "application/x-www-form-urlencoded", "", "a/b; charset=x")
    good = '{"data": [null], "fn_index": 84, "session_hash": "a", "component_id": 4, "fn_name": "recognize"}'
    while True:
        depth, cut = rng.choice((10, 19, 30, 500, 100_000)), rng.randrange(len(good))
        texts = (
            good[:cut],
            good[:cut] + rng.choice('{}[]",:\\e-') + good[cut:],
            '{"data": ' + "[" * depth + "]" * depth + "}",
            '{"data":' * depth + "1" + "}" * depth,
            '{"data": [' + "0," * rng.choice((900, 200_000)) + "0]}",
            '{"data": [' + "9" * rng.choice((400, 5000)) + '], "fn_index": ' + "9" * 300 + "}",
            '{"data": [NaN, Infinity, -Infinity, 1e999], "fn_index": NaN}',
            '{"data": ["\\ud800"], "session_hash": "\\udfff"}',
            good.replace("null", '"' + "a" * rng.choice((2000, 3_000_000)) + '"'),
            json.dumps(anything(rng, target)),
            json.dumps({"data": anything(rng, target), "event_id": anything(rng, target), "fn_index": 3}),
        )
        codes = (*["utf-8"] * 12, "utf-8-sig", "utf-16", "utf-32", "utf-7")
        body = rng.choice((*(text.encode(rng.choice(codes)) for text in texts), b"", rng.randbytes(99)))
        kind = rng.choice(kinds)
        yield Case("POST", API + rng.choice(routes), body, {"content-type": kind} if kind else {})


def addresses(rng: random.Random, target: Target) -> Iterator[Case]:
    """Closed and unknown routes, wrong methods, wrong headers."""
    ends = ("/", "//", "%00", "%2e%2e/", ";a", "?a=%ff", "/../", "%0d%0aX:y", "%C3%A9", "?a=" + "b" * 5000)
    methods = ("GET", "GET", "GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW")
    lies = (target.listener, target.listener.removeprefix("http://"), "[", "a b", "Ã©", "bytes=9-1-2", "x" * 7000, "")
    while True:
        path = rng.choice((*PAGES, *(API + route for route in ROUTES)))
        path += rng.choice(ends) if rng.random() < 0.3 else ""
        headers = {name: rng.choice(lies) for name in rng.sample(HEADERS, rng.choice((0, 0, 1, 2)))}
        method = rng.choice(methods)
        body = json.dumps(anything(rng, target)).encode() if method in ("POST", "PUT", "PATCH") else b""
        yield Case(method, path, body, headers | (JSON if body else {}))


def reading(rng: random.Random, target: Target) -> Iterator[Case]:
    """Files outside of the uploads, and URLs to fetch."""
    starts = (
        *[f"{API}file="] * 4,
        *(f"{API}{route}" for route in ("file=/tmp/gradio/", "file/", "proxy=", "stream/", "custom_component/")),
        *("/static/", "/assets/", "/svelte/", f"{API}../static/"),
    )
    ranges = ("bytes=0-9", "bytes=1-2-3", "bytes=9-1", "bytes=-", "x")
    while True:
        path = elsewhere(rng, target).encode(errors="replace").decode()[:3000]
        headers = {"range": rng.choice(ranges)} if rng.random() < 0.2 else {}
        yield Case(rng.choice(("GET", "GET", "HEAD")), rng.choice(starts) + rng.choice(WAYS)(path), b"", headers)


def guesses(rng: random.Random, target: Target) -> Iterator[Case]:
    """Guessed streams, sessions and events."""
    while True:
        guess = rng.choice((session(rng), "", "undefined", "null", "a" * 3000, "../a", "%00", "*", "1"))
        ids = {"session_hash": guess, "fn_index": rng.choice((0, 65, 84, -1, 10**9)), "event_id": guess}
        wrong = {key: anything(rng, target) if rng.random() < 0.5 else value for key, value in ids.items()}
        query = rng.choice(("", f"session_hash={guess}", "session_hash=&session_hash=b", "session_hash%5B%5D=a"))
        yield rng.choice(
            (
                Case("GET", f"{API}queue/data?{query}"),
                Case("GET", f"{API}call/{rng.choice(('predict', 'refresh', 'x', 'v2/predict'))}/{guess}"),
                post("cancel", ids),
                post("cancel", wrong),
                post("reset", wrong),
            )
        )


def no_http(rng: random.Random) -> Iterator[bytes]:
    """Raw bytes that are not HTTP."""
    whole = upload("a.png", encoded(seven(), "PNG"))
    head = f"POST {API}upload HTTP/1.1\r\nHost: a\r\nContent-Type: {whole.headers['content-type']}\r\n"
    while True:
        length = rng.choice(
            ("-1", "0", "1e9", "99999999999999999999", str(10**9), "5\r\nContent-Length: 6", "x", "100")
        )
        broken_off = f"{head}Content-Length: {len(whole.body)}\r\n\r\n".encode() + whole.body
        yield rng.choice(
            (
                rng.randbytes(200),
                b"\x16\x03\x01\x02\x00\x01\x00" + rng.randbytes(200),
                b"GET / HTTP/1.1\r\n\r\n",
                b"GET /config\xff\xfe?\xff HTTP/1.1\r\nHost: a\r\n\r\n",
                b"GET http://a/ HTTP/1.1\r\nHost: [\r\nConnection: close\r\n\r\n",
                b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * rng.choice((10, 3000)) + b"\r\n",
                broken_off[: rng.randrange(len(broken_off))],
                f"{head}Content-Length: {length}\r\n\r\nabc".encode(),
                f"{head}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nzz\r\nabc\r\n0\r\n\r\n".encode(),
                f"{head}Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nabc".encode(),
            )
        )


def large(rng: random.Random, target: Target) -> Iterator[Case]:
    """Bodies above and just below the limits."""
    while True:
        for name, content in enormous().items():
            yield upload(name, content, "upload")
        yield upload("100MB.png", bytes(100_000_000), "upload")
        yield upload("25MB.png", bytes(25_000_000), "upload")
        yield upload("19MB.png", bytes(19_000_000), "upload")
        yield Case("POST", f"{API}queue/join", b'{"data": ["' + b"a" * 100_000_000 + b'"]}', JSON)
        yield Case("POST", f"{API}mcp/", b'{"a": "' + b"a" * 3_000_000 + b'"}', JSON)
        yield Case("PUT", "/config", bytes(30_000_000), JSON)
        part = b'--hostile\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n\r\n'
        yield Case("POST", f"{API}upload", part * 2000 + b"--hostile--\r\n", upload("", b"").headers)
