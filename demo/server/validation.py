"""Check the values that controls receive. Gradio checks only part of them, and answers some with a traceback."""

import math
from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.components import Component
from pydantic import ValidationError

from demo.images import LONGEST_DATA_URL
from demo.server.gradio_private import FileData, is_uploaded

LONGEST_TEXT = 1000  # characters


def refusal(message: str) -> gr.Error:
    """An error that is shown to the visitor and leaves no traceback in the log."""
    return gr.Error(message, print_exception=False)


def check(component: Component, value: Any) -> None:
    """Check `value`, which comes from JSON, against what `component` can be set to.

    Raises:
        ValueError: what was expected, what was received, and the remedy.
        TypeError: a kind of component that is not handled here.
    """
    name = label_of(component)
    if isinstance(component, gr.Slider | gr.Number):
        _check_number(name, component, value)
    elif isinstance(component, gr.Dropdown | gr.Radio):
        _check_choice(name, [choice for _, choice in component.choices], value)
    elif isinstance(component, gr.HTML | gr.Textbox):
        _check_text(name, LONGEST_DATA_URL if isinstance(component, gr.HTML) else LONGEST_TEXT, value)
    elif isinstance(component, gr.File):
        _check_file(name, value)
    elif not isinstance(component, gr.State):  # Gradio takes its value from the session
        raise TypeError(f"{component}: expected a known kind of control; add it to demo/server/validation.py")


def label_of(component: Component) -> str:
    return str(getattr(component, "label", None) or component.elem_id)


def _check_number(name: str, component: gr.Slider | gr.Number, value: Any) -> None:
    low, high = component.minimum, component.maximum
    if low is None and high is None and not isinstance(value, list | dict):
        return  # a number of an endpoint, which `demo.api.whole` checks
    whole = component.precision == 0 or (isinstance(component, gr.Slider) and component.step == 1)
    if (
        not is_number(value)
        or (whole and not isinstance(value, int))
        or value < (-math.inf if low is None else low)
        or value > (math.inf if high is None else high)
    ):
        kind = "a whole number" if whole else "a number"
        span = "" if low is None else f" of {low} or more" if high is None else f" {low} … {high}"
        raise ValueError(f"{name}: expected {kind}{span}, received {shown(value)}; send a value in that range")


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number and not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _check_choice(name: str, choices: Sequence[Any], value: Any) -> None:
    # JavaScript sends 1.0 as 1, so a whole number may stand for a float; True must not pass as 1, nor 4.0 as 4
    if not any(value == choice and (type(value) is type(choice) or type(value) is int) for choice in choices):
        options = ", ".join(map(str, choices))
        raise ValueError(f"{name}: expected one of {options}, received {shown(value)}; send one of these")


def _check_text(name: str, longest: int, value: Any) -> None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name}: expected text, received {shown(value)}; send a string")
    if value and len(value) > longest:
        raise ValueError(f"{name}: expected at most {longest:,} characters, received {len(value):,}; shorten it")


def _check_file(name: str, value: Any) -> None:
    if value is None:
        return
    path = value.get("path") if isinstance(value, dict) and value.get("meta") == {"_type": "gradio.FileData"} else None
    try:
        FileData.model_validate(value if path else {}, context={"validate_meta": True})
        uploaded = isinstance(path, str) and is_uploaded(path)
    except ValidationError:  # of its other keys
        uploaded = False
    if not uploaded:
        raise ValueError(
            f"{name}: expected an uploaded file, since URLs are not fetched, received {shown(path or value)}; "
            'POST it to /gradio_api/upload, and send {"path": its answer, "meta": {"_type": "gradio.FileData"}}'
        )


def shown(value: Any, longest: int = 80) -> str:
    """`value` for an error message, cut off after `longest` characters."""
    try:
        text = repr(value)
    except ValueError:  # Python does not convert integers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= longest else f"{text[:longest]}…"
