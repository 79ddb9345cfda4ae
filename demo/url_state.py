"""A tab's settings as a link: `?tab=gradients&grad-steps=10` opens that tab with that control set.

Everything happens in the browser (`url_state.js`). Settings that differ from the defaults are in the address, which is
read when the page opens. Unknown keys and choices are ignored; numbers are clamped to their range. A control's key is
its `elem_id`.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import BlockContext
from gradio.components import Component

URL_STATE_JS = (Path(__file__).parent / "url_state.js").read_text(encoding="utf-8")


def start(root: gr.Blocks) -> None:
    """Once a page, before all else of this file."""
    root.load(None, js=f"() => {{ {URL_STATE_JS} }}", api_visibility="private")


def note(name: str, controls: Sequence[Component]) -> None:
    """Write changes of `controls` into the address. `name`: of their tab, or "" for what all tabs share.

    Call this before other events of the controls, or it would wait for their answers.
    """
    if controls:
        keys = [key(control) for control in controls]
        changes = [control.change for control in controls]  # type: ignore[attr-defined]
        tell = f"(...values) => {{ urlState.note({name!r}, {keys}, values); }}"
        gr.on(changes, None, list(controls), js=tell, api_visibility="private")


def restore(root: gr.Blocks, name: str, controls: Sequence[Component], tabs: Sequence[BlockContext] = ()) -> None:
    """What the address asks of `controls`, when the page opens; and of `tabs`, a list of one, to show tab `name`."""
    described = json.dumps(describe(controls))
    outputs = [*tabs, *controls]
    root.load(None, None, outputs, js=f"() => urlState.open({name!r}, {described})", api_visibility="private")


def describe(controls: Sequence[Component]) -> dict[str, dict[str, Any]]:
    """Key → default value, and what else it may be: a range of numbers, or choices (`many`: any number of them)."""
    described: dict[str, dict[str, Any]] = {}
    for control in controls:
        value = control.value
        if isinstance(control, gr.Slider | gr.Number):
            step = control.step if isinstance(control, gr.Slider) else 1 if control.precision == 0 else None
            about = {"minimum": control.minimum, "maximum": control.maximum, "step": step}
        elif isinstance(control, gr.Checkbox):
            about = {"choices": [False, True]}
        else:
            many = isinstance(control, gr.CheckboxGroup) or bool(getattr(control, "multiselect", False))
            about = {"choices": [choice for _, choice in control.choices], "many": many}  # type: ignore[attr-defined]
        described[key(control)] = {"value": value, **about}
    return described


def key(control: Component) -> str:
    """What a control is called in the address.

    Raises:
        ValueError: it has no elem_id.
    """
    if not control.elem_id:
        raise ValueError(f"{control}: expected an elem_id, received none; give it one, or a label")
    return control.elem_id


def slug(text: str) -> str:
    """“Your digit” → “your-digit”."""
    return re.sub(r"\W+", "-", text.lower()).strip("-")
