"""Calls of the app's functions: named endpoints, tabs, pad, MCP."""

import json
import random
import string
from collections.abc import Iterator
from typing import Any

from benchmarks.fuzzing.values import (
    API,
    JSON,
    META,
    PNG,
    Case,
    Target,
    anything,
    beyond,
    elsewhere,
    image,
    post,
    session,
    sound,
)

OTHERS: dict[str, tuple[Any, ...]] = {"predict": (), "compare_modes": (3, "random", 1, 0), "batch_spread": (2, 0)}


def images(rng: random.Random, target: Target) -> Iterator[Case]:
    """Named endpoints with something other than an uploaded image."""
    while True:
        name, others = rng.choice(list(OTHERS.items()))
        yield post(f"call/{name}", {"data": [image(rng, target), *others]}, "call")


def arguments(rng: random.Random, target: Target) -> Iterator[Case]:
    """Named endpoints with a valid image and invalid arguments."""
    while True:
        name = rng.choice(("compare_modes", "batch_spread"))
        data: list[Any] = [{"path": target.digit, "meta": META}, *OTHERS[name]]
        for _ in range(rng.choice((1, 1, 2, 9))):
            data[rng.randrange(1, len(data))] = anything(rng, target)
        if rng.random() < 0.1:
            data = data[:2] if rng.random() < 0.5 else data * 3
        body = {"data": data} | ({"session_hash": anything(rng, target)} if rng.random() < 0.1 else {})
        yield post(f"call/{name}", body, "call")


def by_name(rng: random.Random, target: Target) -> Iterator[Case]:
    """Named endpoints with a JSON object of arguments."""
    while True:
        body = {"image": rng.choice(({"path": target.digit, "meta": META}, image(rng, target)))}
        for _ in range(rng.randrange(3)):
            body[rng.choice(("companions", "kind", "seed", "image", "data", "oauth_token"))] = anything(rng, target)
        name = rng.choice(("predict", "compare_modes", "batch_spread", "refresh", "nothing"))
        yield post(f"call/v2/{name}", body, "call")


def tabs(rng: random.Random, target: Target) -> Iterator[Case]:
    """All events of the page, with values that its controls cannot have."""
    while True:
        function = rng.choice(target.functions)
        data = [sound(rng, control, target) for control in function["inputs"]]
        for _ in range(rng.choice((1, 1, 1, 3)) if data else 0):
            place = rng.randrange(len(data))
            hurt = rng.random() < 0.5
            data[place] = beyond(rng, function["inputs"][place], target) if hurt else anything(rng, target)
        body: dict[str, Any] = {"data": data, "fn_index": function["id"], "session_hash": session(rng)}
        for key in ("data", "trigger_id", "event_data", "batched", "fn_index", "session_hash", "simple_format"):
            if rng.random() < 0.03:
                body[key] = anything(rng, target)
        yield post("queue/join", body, "join", str(body["session_hash"]))


def edges(rng: random.Random, target: Target) -> Iterator[Case]:
    """All events with controls at the ends of their ranges, which must be answered."""
    functions = [function for function in target.functions if function["inputs"] and not function["generator"]]
    while True:
        for function in functions:
            data, name = [sound(rng, control, target) for control in function["inputs"]], session(rng)
            yield post("queue/join", {"data": data, "fn_index": function["id"], "session_hash": name}, "join", name)


def unread(rng: random.Random, target: Target) -> Iterator[Case]:
    """Calls whose answers are not read."""
    while True:
        yield post("call/predict", {"data": [{"path": target.digit, "meta": META}]})


def pad(rng: random.Random, target: Target) -> Iterator[Case]:
    """Server functions of components, existing or not."""
    while True:
        canvas = rng.choice(
            (
                target.canvas,
                target.canvas[: rng.randrange(len(target.canvas))],
                PNG + "".join(rng.choices(string.printable, k=rng.randrange(2000))),
                target.canvas.replace(rng.choice("abcdefg"), rng.choice("hijklm")),
                target.canvas.replace("png", rng.choice(("jpeg", "svg+xml", "PNG"))),
                target.canvas + "A" * 1_000_000,
                anything(rng, target),
            )
        )
        data: Any = {"canvas": canvas, "model": rng.choice(("robust", "lecture"))}
        if rng.random() < 0.5:
            data["at"] = rng.choice(([0.5, 0.5], [10**400, 0], [float("nan"), 0], [0], anything(rng, target)))
        if rng.random() < 0.2:
            data = {**data, "model": anything(rng, target)} if rng.random() < 0.5 else anything(rng, target)
        body = {"data": data, "component_id": target.pad, "fn_name": "recognize", "session_hash": session(rng)}
        for key in ("component_id", "fn_name", "session_hash"):
            if rng.random() < 0.1:
                body[key] = rng.choice((anything(rng, target), "__init__", "preprocess", "get_config", 0, 5, 10**9))
        yield post("component_server", body)


def mcp(rng: random.Random, target: Target) -> Iterator[Case]:
    """MCP: URLs as images, wrong types, unknown tools, malformed calls."""
    headers = {**JSON, "accept": "application/json, text/event-stream"}
    lies = {"x-forwarded-host": target.listener.removeprefix("http://"), "x-gradio-server": target.listener}
    while True:
        pictures = (elsewhere(rng, target), target.canvas, f"{PNG}!", PNG + "A" * 99, "data:", anything(rng, target))
        given = {"image": rng.choice(pictures)}
        if rng.random() < 0.5:
            given[rng.choice(("companions", "kind", "seed", "x"))] = anything(rng, target)
        name = rng.choice(("predict", "compare_modes", "batch_spread", "refresh", ""))
        body: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
        body["params"] = {"name": name, "arguments": given}
        if rng.random() < 0.3:
            body[rng.choice(("jsonrpc", "id", "method", "params"))] = anything(rng, target)
        more = lies if rng.random() < 0.3 else {}
        yield Case("POST", f"{API}mcp/", json.dumps(body).encode(), headers | more)
