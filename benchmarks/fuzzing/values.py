"""Values, paths and URLs of hostile requests, drawn from a seeded generator."""

import json
import random
import string
from dataclasses import dataclass, field
from typing import Any

API = "/gradio_api/"
META = {"_type": "gradio.FileData"}
JSON = {"content-type": "application/json"}
PNG = "data:image/png;base64,"
TEXTS = (
    *("", " ", "\0", "\u202e७७", "é" * 300, "😀", "\ud800", "' OR 1=1 --", "<script>alert(1)</script>", "{{7*7}}"),
    *("%s%n", "../..", "NaN", "-1", "1e999", "null", "$(id)", "__class__", "a" * 5000, "\r\nX: y", "robust", PNG),
)
NUMBERS = (
    *(-1, 0, 1, 9, 10, 255, 256, 257, 2**31, -(2**63), 2**64, 10**30, 10**400, 0.5, 1.5, -0.0, 1e-300, 1e308, -1e308),
    *(float("nan"), float("inf"), float("-inf")),
)
HOSTS = ("127.0.0.1", "localhost", "127.1", "0", "[::1]", "2130706433", "0x7f000001", "a@127.0.0.1")


@dataclass(frozen=True)
class Target:
    """The app as its /config describes it, and what must not be read or called."""

    functions: tuple[dict[str, Any], ...]  # id, name, generator, inputs: the controls with their type and props
    pad: int  # the pad's id
    digit: str  # an uploaded image of a digit
    canvas: str  # a drawing as the pad sends it
    files: tuple[str, ...]  # on this machine, not to be read
    listener: str  # http://host:port, not to be called


@dataclass(frozen=True)
class Case:
    """One request. `then`: what follows: "call", its stream; "join", the queue's stream; "upload", /predict of it."""

    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    then: str = ""
    session: str = ""


def post(route: str, body: Any, then: str = "", session: str = "") -> Case:
    return Case("POST", API + route, json.dumps(body).encode(), JSON, then, session)


def upload(name: str, content: bytes, then: str = "", field: str = "files", headers: str = "") -> Case:
    bound = "hostile"
    head = f'--{bound}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n{headers}\r\n'
    body = head.encode(errors="surrogatepass") + content + f"\r\n--{bound}--\r\n".encode()
    return Case("POST", f"{API}upload", body, {"content-type": f"multipart/form-data; boundary={bound}"}, then)


def session(rng: random.Random) -> str:
    return "".join(rng.choices(string.ascii_lowercase + string.digits, k=11))


def anything(rng: random.Random, target: Target, depth: int = 0) -> Any:
    """Any value that Python's JSON can represent."""
    draw = rng.randrange(12 if depth < 3 else 8)
    if draw < 3:
        return rng.choice(NUMBERS)
    if draw < 5:
        return rng.choice(TEXTS)
    if draw < 7:
        return rng.choice((None, True, False))
    if draw == 7:
        return image(rng, target)
    children = [anything(rng, target, depth + 1) for _ in range(rng.randrange(4))]
    if draw < 10:
        return children
    return {rng.choice(("path", "url", "meta", "value", "__type__", "a")): child for child in children}


def elsewhere(rng: random.Random, target: Target) -> str:
    """A path or URL other than an uploaded file."""
    port, file = target.listener.rpartition(":")[2], rng.choice(target.files)
    up = "../" * rng.randrange(1, 9) + file.lstrip("/")
    urls = (
        f"http://{rng.choice(HOSTS)}:{port}/x.png",
        f"HTTP://127.0.0.1:{port}/x.png",
        f"//127.0.0.1:{port}/x.png",
        f"https://127.0.0.1:{port}/",
        f"ftp://127.0.0.1:{port}/x",
        f"file://{file}",
        "https://huggingface.co/x.png",  # whose addresses Gradio does not check
    )
    paths = (
        file,
        up,
        f"/tmp/gradio/{up}",
        f"{target.digit}/../../{up}",
        f"{file}\0.png",
        f"/proc/self/root{file}",
        "/proc/self/environ",
        "/dev/zero",
        "/tmp/gradio",
        ".",
    )
    return rng.choice((*urls, *paths, rng.choice(TEXTS)))


def image(rng: random.Random, target: Target) -> Any:
    """Something in place of an uploaded image."""
    path = elsewhere(rng, target)
    return rng.choice(
        (
            {"path": path, "meta": META},
            {"path": path},
            {"path": path, "url": target.listener, "meta": META},
            {"path": target.digit, "url": path, "meta": META, "size": rng.choice(NUMBERS), "orig_name": path},
            {"path": path, "meta": META, "is_stream": True},
            {"url": path, "meta": META},
            {"path": [path], "meta": META},
            {"path": target.digit, "meta": rng.choice((None, [], {}, {"_type": path}))},
            path,
            [path],
            [{"path": path, "meta": META}],
            None,
            7,
        )
    )


def sound(rng: random.Random, control: dict[str, Any], target: Target) -> Any:
    """A valid value of `control`: an end of its range, or its default."""
    props = control["props"]
    if control["type"] in ("slider", "number") and "minimum" in props:
        ends = (props["minimum"], props.get("maximum"), props["value"])
        return rng.choice([end for end in ends if end is not None])
    if control["type"] in ("dropdown", "radio"):
        return rng.choice(props["choices"])[1]
    if control["type"] == "html":
        return rng.choice(("", target.canvas))
    return {"path": target.digit, "meta": META} if control["type"] == "file" else props.get("value")


def beyond(rng: random.Random, control: dict[str, Any], target: Target) -> Any:
    """A value just outside of what `control` can have."""
    props = control["props"]
    if control["type"] in ("slider", "number") and props.get("minimum") is not None:
        low, high = props["minimum"], props.get("maximum") or 1e300
        return rng.choice((low - 1e-3, high * 1.001 + 1, low + 1e-7, str(high), [high], None))
    if control["type"] in ("dropdown", "radio"):
        choice = rng.choice(props["choices"])[1]
        return rng.choice(([choice], f"{choice} ", {"value": choice}, True, None))
    if control["type"] == "html":
        return rng.choice((target.canvas[:300], target.canvas + "A" * 1_000_000, f"{PNG}AAAA", target.listener))
    return anything(rng, target)
