"""A few hundred of the hostile requests of `python -m benchmarks.fuzzing`, and the limits of requests."""

import re
import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from benchmarks import ROOT
from benchmarks.fuzzing.attack import KINDS, PROPERTIES, Attack, Property, describe, listening
from benchmarks.fuzzing.files import encoded, seven
from benchmarks.fuzzing.values import META, Case, post, upload
from benchmarks.running_app import Served
from demo import api, app
from demo.images import CANVAS_SIDE, LONGEST_DATA_URL
from demo.server import live_training, middleware, request_body, validation

NUMBERS = {  # requests of each kind
    "images": 40, "arguments": 40, "by name": 20, "tabs": 60, "pad": 40, "mcp": 8, "files": 50, "uploads": 30,
    "bodies": 40, "addresses": 40, "reading": 50, "guesses": 20,
}  # fmt: skip


@pytest.fixture(scope="module")
def attacked(app: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Attack, list[str]]]:
    """The app after all attacks, and the calls that another server received."""
    secret, canary = secrets.token_hex(16), tmp_path_factory.mktemp("canary") / "canary.png"
    canary.write_bytes(encoded(seven(), "PNG") + secret.encode())
    with listening() as (listener, visits):
        attack = Attack(app, describe(app, canary, listener), secret)
        for name, number in NUMBERS.items():
            attack.run(name, KINDS[name][0], number, seed=1)
        attack.run_no_http(20, seed=1)
        yield attack, visits


@pytest.mark.parametrize("name", PROPERTIES, ids=str)
def test_no_hostile_request_breaks_the_property(attacked: tuple[Attack, list[str]], name: Property) -> None:
    attack, _ = attacked
    assert sum(answers.total() for answers in attack.report.answers.values()) == sum(NUMBERS.values()) + 20
    assert attack.report.broken[name] == [], PROPERTIES[name]


def test_no_request_makes_the_app_call_another_server(attacked: tuple[Attack, list[str]]) -> None:
    _, visits = attacked
    assert visits == []


def test_a_url_in_place_of_a_file_is_refused_before_its_host_is_looked_up(attacked: tuple[Attack, list[str]]) -> None:
    attack, _ = attacked
    for url in (attack.target.listener, "https://huggingface.co/x.png"):
        answer = attack.send(post("call/predict", {"data": [{"path": url, "meta": META}]}, "call"))
        assert answer.what == "422"
        assert "expected an uploaded file, since URLs are not fetched" in answer.text
        assert attack.send(Case("GET", f"/gradio_api/file={url}")).what == "403"


def test_an_empty_session_is_refused(attacked: tuple[Attack, list[str]]) -> None:
    attack, _ = attacked
    call = {"data": [{"path": attack.target.digit, "meta": META}], "session_hash": ""}
    answer = attack.send(post("call/predict", call, "call"))
    assert answer.what == "400"
    assert "session_hash: expected at least one character" in answer.text


# ---- the limits of docs/http-api.md


def nested(depth: int) -> list[Any]:
    return [] if depth == 1 else [nested(depth - 1)]


def test_the_documentation_states_the_limits_of_the_code() -> None:
    text = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8").split("## Limits")[1]
    stated = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE))
    sides = f"the longest side is reduced to {api.LONGEST_SIDE}"
    assert stated == {
        "what": "limit",
        "an uploaded file, and all files of an upload together": f"{request_body.LARGEST_FILE // 10**6} MB",
        "files of an upload": str(request_body.MOST_FILES),
        "an image": f"{api.MOST_PIXELS // 10**6} million pixels; {sides}",
        "the shorter side of an image, after this reduction": f"at least {api.SHORTEST_SIDE} pixels",
        "any other request": f"{request_body.LARGEST_JSON // 10**6} MB, {request_body.MOST_VALUES:,} values, "
        f"{request_body.DEEPEST} levels",
        "a drawing, as a data URL": f"{LONGEST_DATA_URL:,} characters, {CANVAS_SIDE} × {CANVAS_SIDE} pixels",
        "other text": f"{validation.LONGEST_TEXT:,} characters",
        "a URL": f"{middleware.LONGEST_URL:,} bytes, {middleware.LONGEST_NAME} between two slashes",
        "simultaneous calls of the endpoints; others wait": str(api.AT_ONCE),
        "waiting calls; others are refused with 503": str(app.MOST_WAITING),
        "simultaneous live training runs; others wait": str(live_training.MAX_TRAININGS),
        "visitors whose controls are stored, at 0.4 MB each": str(app.MOST_SESSIONS),
    }


@pytest.mark.parametrize(
    ("case", "status", "words"),
    [
        (upload("a.png", bytes(request_body.LARGEST_FILE)), 200, ""),
        (upload("a.png", bytes(request_body.LARGEST_UPLOAD + 1)), 413, "expected at most 100,100,000 bytes"),
        (upload("a.png", bytes(2 * request_body.LARGEST_UPLOAD)), 413, "expected at most 100,100,000 bytes"),
        (post("queue/join", {"data": ["a" * request_body.LARGEST_JSON]}), 413, "expected at most 4,000,000 bytes"),
        (post("call/predict", {"data": [0] * request_body.MOST_VALUES}), 400, "at most 1,000 values, 20 deep"),
        (post("call/predict", nested(21)), 400, "at most 1,000 values, 20 deep"),
        (post("call/compare_modes", {"data": [None, 1, "a" * 1001, 1, 1]}), 422, "kind"),
        (
            post("call/compare_modes", {"data": [None, 1]}),
            400,
            "[image, companions, kind, digit_class, seed], received a list of 2",
        ),
        (post("call/predict", {}), 400, "expected [image], received None"),
        (post("call/nothing", {"data": []}), 404, "expected one of predict, compare_modes, batch_spread"),
        (Case("GET", "/?" + "a" * middleware.LONGEST_URL), 414, "expected at most 4,000 bytes"),
        (Case("GET", "/static/" + "a" * (middleware.LONGEST_NAME + 1)), 414, "255 between two slashes"),
        (Case("POST", "/gradio_api/run/predict", b"{}"), 404, "expected a route of docs/http-api.md"),
        (Case("POST", "/gradio_api/call/predict", b"{}", {"content-type": "text/plain"}), 415, "application/json"),
    ],
    ids=lambda value: f"{value.path[:30]} {len(value.body)}" if isinstance(value, Case) else "",
)
def test_requests_beyond_the_limits_are_refused(app_url: str, case: Case, status: int, words: str) -> None:
    reply = httpx.request(case.method, app_url + case.path, content=case.body, headers=case.headers, timeout=60)
    assert reply.status_code == status
    assert words in reply.text


def test_too_many_files_in_one_upload_are_refused_and_none_is_kept(app_url: str) -> None:
    for number, status in ((request_body.MOST_FILES, 200), (request_body.MOST_FILES + 1, 400)):
        files = [("files", (f"{k}.png", secrets.token_bytes(9))) for k in range(number)]
        assert httpx.post(f"{app_url}/gradio_api/upload", files=files, timeout=60).status_code == status
