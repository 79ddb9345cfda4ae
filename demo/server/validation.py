"""What a visitor may set a control to. Gradio checks some of it, and raises what is no answer for the rest."""

import math
from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.data_classes import FileData
from gradio.utils import get_upload_folder, is_in_or_equal
from pydantic import ValidationError

from demo.images import LONGEST_DATA_URL

LONGEST_TEXT = 1000  # characters


def refusal(words: str) -> gr.Error:
    """What tells the visitor, and nobody else: the log is for what we did not expect."""
    return gr.Error(words, print_exception=False)


def check(component: Component, value: Any) -> None:
    """Nothing, if a visitor may have set `component` to `value`, which comes from JSON.

    Raises:
        ValueError: what was expected, what came, what to do.
        TypeError: for a kind of component that no event of the app takes; name it here.
    """
    name = str(getattr(component, "label", None) or component.elem_id)
    if isinstance(component, gr.Slider | gr.Number):
        _check_number(name, component, value)
    elif isinstance(component, gr.Dropdown | gr.Radio):
        _check_choice(name, [choice for _, choice in component.choices], value)
    elif isinstance(component, gr.HTML | gr.Textbox):
        _check_text(name, LONGEST_DATA_URL if isinstance(component, gr.HTML) else LONGEST_TEXT, value)
    elif isinstance(component, gr.File):
        _check_file(name, value)
    else:
        raise TypeError(
            f"{component}: expected a control that can be checked; say in demo/server/validation.py what it may be"
        )


def _check_number(name: str, component: gr.Slider | gr.Number, value: Any) -> None:
    low, high = component.minimum, component.maximum
    if low is None and high is None and not isinstance(value, list | dict):
        return  # an endpoint's, which checks it itself: see `demo.api.whole`
    if value is None and isinstance(component, gr.Number) and component.visible is True:
        return  # a field that the visitor has emptied
    whole = component.precision == 0 or (isinstance(component, gr.Slider) and component.step == 1)
    if (
        not is_number(value)
        or (whole and not isinstance(value, int))
        or value < (-math.inf if low is None else low)
        or value > (math.inf if high is None else high)
    ):
        kind = "a whole number" if whole else "a number"
        span = "" if low is None else f" of {low} or more" if high is None else f" {low} … {high}"
        raise ValueError(f"{name}: expected {kind}{span}, received {shown(value)}; choose another")


def is_number(value: Any) -> bool:
    """A finite number, which a bool is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _check_choice(name: str, choices: Sequence[Any], value: Any) -> None:
    # 1.0 is sent as 1; but True is no 1, and 4.0 no batch size
    if not any(value == choice and (type(value) is type(choice) or type(value) is int) for choice in choices):
        there = ", ".join(map(str, choices))
        raise ValueError(f"{name}: expected one of {there}, received {shown(value)}; choose one of these")


def _check_text(name: str, longest: int, value: Any) -> None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name}: expected text, received {shown(value)}; send a string")
    if value and len(value) > longest:
        raise ValueError(f"{name}: expected at most {longest:,} characters, received {len(value):,}; send fewer")


def _check_file(name: str, value: Any) -> None:
    if value is None:
        return
    path = value.get("path") if isinstance(value, dict) and value.get("meta") == {"_type": "gradio.FileData"} else None
    try:
        FileData.model_validate(value if path else {}, context={"validate_meta": True})
        uploaded = isinstance(path, str) and _is_uploaded(path)
    except ValidationError:  # of its other keys
        uploaded = False
    if not uploaded:
        raise ValueError(
            f"{name}: expected an uploaded file, as nothing else is fetched, received {shown(path or value)}; "
            'POST it to /gradio_api/upload, and send {"path": its answer, "meta": {"_type": "gradio.FileData"}}'
        )


def _is_uploaded(path: str) -> bool:
    # "http://…" would be fetched, wherever it lies
    return "\0" not in path and "://" not in path and is_in_or_equal(path, get_upload_folder())


def shown(value: Any, longest: int = 80) -> str:
    """`value` as an error may repeat it."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of too many digits
        return "a number of thousands of digits"
    return text if len(text) <= longest else f"{text[:longest]}…"
