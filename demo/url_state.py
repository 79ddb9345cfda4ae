"""The controls of a tab in the address: `?tab=gradients&grad-steps=10` opens that tab with that control set.

Everything happens in the browser (`url_state.js`). The address has the settings that differ from the defaults, and is
read when the page opens. Unknown keys and choices are ignored; numbers are clamped to their range. A control's key is
its `elem_id`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import gradio as gr
from gradio.blocks import BlockContext
from gradio.components import Component

from demo.scripts import source


def start(root: gr.Blocks) -> None:
    """Load url_state.js. Call it once, before the other functions of this file."""
    root.load(None, js=f"() => {{ {source('url_state.js')} }}", api_visibility="private")


def note(name: str, controls: Sequence[Component]) -> None:
    """Write changes of `controls` into the address. `name`: of their tab, or "" for what all tabs share.

    Call this before other events of the controls, or it would wait for their answers.
    """
    if controls:
        keys = [key(control) for control in controls]
        changes = [control.change for control in controls]  # type: ignore[attr-defined]
        tell = f"(...values) => {{ urlState.note({name!r}, {keys}, values); }}"
        gr.on(changes, None, list(controls), js=tell, api_visibility="private")


def restore(root: gr.Blocks, groups: Mapping[str, Sequence[Component]], tabs: BlockContext) -> None:
    """When the page opens, set the controls as the address says, and let `tabs` show the tab that it names.

    `groups`: the controls by the name of their tab, in the order of the tabs; those that all tabs share, by "". One
    event for all of them opens the page sooner than one per tab.
    """
    described = json.dumps({name: describe(controls) for name, controls in groups.items()})
    outputs = [tabs, *chain.from_iterable(groups.values())]
    root.load(None, None, outputs, js=f"() => urlState.open({described})", api_visibility="private")


def describe(controls: Sequence[Component]) -> dict[str, dict[str, Any]]:
    """Key → default value, and its range or choices."""
    described: dict[str, dict[str, Any]] = {}
    for control in controls:
        if isinstance(control, gr.Slider | gr.Number):
            step = control.step if isinstance(control, gr.Slider) else 1 if control.precision == 0 else None
            about = {"minimum": control.minimum, "maximum": control.maximum, "step": step}
        else:
            about = {"choices": [choice for _, choice in control.choices]}  # type: ignore[attr-defined]
        described[key(control)] = {"value": control.value, **about}
    return described


def key(control: Component) -> str:
    """The name of a control in the address.

    Raises:
        ValueError: the control has no elem_id.
    """
    if not control.elem_id:
        raise ValueError(f"{control}: expected an elem_id, received none; give it one, or a label")
    return control.elem_id


def slug(text: str) -> str:
    """“Your digit” → “your-digit”."""
    return re.sub(r"\W+", "-", text.lower()).strip("-")
