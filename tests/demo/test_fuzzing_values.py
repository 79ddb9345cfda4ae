"""Arbitrary values for the functions that check requests: each is accepted, or refused with what was expected."""

import io
import itertools
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from gradio.components import Component
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.fuzzing.files import FORMATS, MODES, can_save, damaged, encoded, enormous, png_of, seven, strange
from benchmarks.fuzzing.values import META
from demo.api import SHORTEST_SIDE, read_canvas, whole
from demo.images import CANVAS_SIDE, decode_canvas, png_url
from demo.server.request_body import MOST_VALUES, Refused, parse
from demo.server.validation import check

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([10**400, -0.0]),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=9,
)
DRAWING = png_url(np.full((CANVAS_SIDE, CANVAS_SIDE, 4), 200, np.uint8))
PROMISED = [form for form in FORMATS if form not in ("ICO", "TGA")]
CONTROLS: dict[str, Component] = {
    "count": gr.Slider(0, 255, 31, step=1, label="count"),
    "momentum": gr.Slider(0.01, 1, 0.1, step=0.01, label="momentum"),
    "channel": gr.Number(0, minimum=0, precision=0, label="channel"),
    "seed": gr.Number(0, minimum=0, maximum=9, precision=0, visible="hidden", label="seed"),
    "free": gr.Number(0, label="free"),
    "choice": gr.Dropdown([1, 10.0, "x"], value=1, label="choice"),
    "radio": gr.Radio(["x", "y"], value="x", label="radio"),
    "drawing": gr.HTML(label="drawing"),
    "text": gr.Textbox(label="text"),
    "file": gr.File(label="file"),
}


def attempt(
    call: Callable[..., Any], *arguments: Any, error: type[Exception] | tuple[type[Exception], ...] = ValueError
) -> tuple[Any, str]:
    """What `call` returns, or the words of the `error` that it raises."""
    try:
        return call(*arguments), ""
    except error as raised:
        return None, raised.message if isinstance(raised, gr.Error) else str(raised)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(list(CONTROLS)), JSON)
@example("count", float("nan"))
@example("channel", 10**400)
@example("file", {"path": "a\0b", "meta": META})
@example("file", {"path": "http://a/b.png", "meta": META})
@example("free", [{"path": "http://a/b.png", "meta": META}])
def test_a_control_accepts_a_value_or_says_what_it_expected(name: str, value: Any) -> None:
    _, words = attempt(check, CONTROLS[name], value)
    assert len(words) < 400
    if words:
        assert re.fullmatch(rf"{name}: expected .+, received .+; .+", words, re.DOTALL)
    else:
        assert not isinstance(value, list | dict)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("count", (31.5, 31.0, -0.0, True, "3", -1, 256, None, float("nan"), [3])),
        ("momentum", (0.0, 1.01, None, float("inf"))),
        ("channel", (-1, 0.5, None)),
        ("seed", (None, 10)),
        ("free", ([], {})),
        ("choice", (True, [1], 10.5, "1", None)),
        ("radio", (None, "z", ["x"])),
        ("drawing", (3, "a" * 1_000_001)),
        ("text", (3, "a" * 1001)),
        ("file", ("a.png", "/etc/passwd", {"path": "/etc/passwd", "meta": META}, {"path": "/tmp/gradio/a.png"})),
    ],
)
def test_a_control_refuses_what_it_cannot_be_set_to(name: str, values: tuple[Any, ...]) -> None:
    assert [value for value in values if not attempt(check, CONTROLS[name], value)[1]] == []


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("count", (0, 255)),
        ("momentum", (0.01, 1, 0.015)),
        ("channel", (0, 10**9)),
        ("choice", (1, 10, 10.0, "x")),
        ("radio", ("y",)),
        ("drawing", (None, "", DRAWING)),
        ("file", (None,)),
    ],
)
def test_a_control_accepts_every_value_that_it_can_be_set_to(name: str, values: tuple[Any, ...]) -> None:
    assert [words for value in values if (words := attempt(check, CONTROLS[name], value)[1])] == []


def test_a_number_of_thousands_of_digits_is_refused_without_them() -> None:
    """Not with hypothesis, which prints its examples: Python cannot print this one."""
    assert "received a number of thousands of digits" in attempt(check, CONTROLS["count"], 10**5000)[1]
    assert "received a number of thousands of digits" in attempt(whole, "seed", 10**5000, 0, 9, error=gr.Error)[1]


def test_an_unknown_kind_of_control_is_a_programming_error() -> None:
    with pytest.raises(TypeError, match=r"add it to demo/server/validation\.py"):
        check(gr.Checkbox(), True)


@settings(deadline=None, max_examples=200)
@given(JSON)
@example(10**400)
@example(float("inf"))
def test_a_number_of_an_endpoint_is_a_whole_number_in_its_range_or_refused(value: Any) -> None:
    number, words = attempt(whole, "seed", value, 0, 9, error=gr.Error)
    assert number in range(10) or words.startswith("seed: expected a whole number 0 … 9, received ")


@st.composite
def changed(draw: st.DrawFn) -> str:
    """A drawing with a few characters put in, changed or left out."""
    place = draw(st.integers(0, len(DRAWING)))
    return DRAWING[:place] + draw(st.text("ABCabc+/=", max_size=9)) + DRAWING[place + draw(st.integers(0, 9)) :]


@settings(deadline=None, max_examples=300)
@given(JSON | st.text().map(lambda text: f"data:image/png;base64,{text}") | changed())
@example(DRAWING)
@example(png_url(np.zeros((281, 280, 4), np.uint8)))
def test_a_drawing_is_decoded_or_refused_with_a_message(url: Any) -> None:
    canvas, words = attempt(decode_canvas, url)
    if words:
        assert words.startswith("drawing: expected a PNG")
    else:
        assert (canvas.shape, canvas.dtype) == ((CANVAS_SIDE, CANVAS_SIDE, 4), np.uint8)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200) | JSON.map(lambda value: repr(value).replace("'", '"').encode(errors="replace")))
@example(b'["\\ud800"]')
@example(b"[1e999]")
@example(b"[" * 100_000)
@example(json.dumps([0] * MOST_VALUES).encode())
def test_a_body_is_json_of_a_reasonable_shape_or_refused(content: bytes) -> None:
    scope: dict[str, Any] = {"type": "http", "headers": [(b"content-type", b"application/json")]}
    parsed, words = attempt(parse, scope, io.BytesIO(content), error=Refused)
    assert words.startswith("body: expected ") or json.dumps(parsed, allow_nan=False).encode()


# ---- images


@pytest.mark.parametrize("form", PROMISED)
def test_an_image_of_every_promised_format_is_read_in_every_mode(tmp_path: Path, form: str) -> None:
    file = tmp_path / "image"
    modes = [mode for mode in MODES if can_save(mode, form)]
    assert modes
    for mode in modes:
        file.write_bytes(encoded(seven(mode), form))
        assert read_canvas(str(file)).shape == (120, 100, 4)


def test_a_damaged_image_is_read_or_refused_with_a_message_without_its_path(tmp_path: Path) -> None:
    file, read = tmp_path / "image", 0
    changed = (content for _, content in itertools.islice(damaged(random.Random(0)), 500))
    for content in (*strange().values(), png_of(50, 50), *changed):
        file.write_bytes(content)
        canvas, words = attempt(read_canvas, str(file), error=gr.Error)
        if words:
            assert words.startswith("image: expected ")
            assert str(tmp_path) not in words
        else:
            assert min(canvas.shape[:2]) >= SHORTEST_SIDE
            read += 1
    assert read > 20


def test_an_image_of_few_bytes_and_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    file, words = tmp_path / "image", {}
    for name, content in enormous().items():
        file.write_bytes(content)
        words[name] = attempt(read_canvas, str(file), error=gr.Error)[1]
    assert [name for name, said in words.items() if not said] == ["7000×7000.png", "7000×7000.jpg"]
    assert sum("expected at most 50 million pixels" in said for said in words.values()) == 4
