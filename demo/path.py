"""The list of tabs: five groups in teaching order, with a tick for each solved task, and a button to the next tab."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from types import ModuleType

import gradio as gr

from demo.scripts import source


@dataclass(frozen=True)
class Group:
    """Tabs with a common aim. Each module has a function `build(page)`."""

    title: str
    aim: str  # one sentence
    tabs: Sequence[ModuleType]


@dataclass(frozen=True)
class Step:
    """One tab on the path."""

    name: str
    title: str
    question: str
    has_task: bool


@dataclass
class Path:
    """The steps of each group, in the order in which the tabs are built."""

    groups: list[tuple[Group, list[Step]]] = field(default_factory=list)

    def begin(self, group: Group) -> None:
        self.groups.append((group, []))

    def add(self, step: Step) -> None:
        self.groups[-1][1].append(step)

    def to_html(self) -> str:
        """The list of tabs. Gradio's own, which has no groups, is hidden; path.js clicks it."""
        groups = "".join(_group(number, *group) for number, group in enumerate(self.groups, 1))
        return (
            f'<nav class="path" aria-label="Tabs">{groups}</nav>'
            '<p class="aim"><span data-aim></span> <span class="progress" data-progress></span></p>'
            '<p id="stale" role="alert">No answer from the server: these are the results for an earlier drawing.</p>'
            '<span class="hidden-text" role="status"></span>'
        )


def build_path() -> gr.HTML:
    """A placeholder for the list; its value is set once the tabs are built."""
    return gr.HTML(js_on_load=source("path.js"), apply_default_css=False, elem_id="path")


def build_next() -> gr.HTML:
    """A placeholder for the button to the next tab, which path.js creates."""
    ready = "document.dispatchEvent(new CustomEvent('next', { detail: element }))"
    return gr.HTML("<span></span>", js_on_load=ready, apply_default_css=False, elem_id="next")


def _group(number: int, group: Group, steps: list[Step]) -> str:
    tabs = "".join(_step(step) for step in steps)
    name = f"path-{number}"
    return (
        f'<div class="group" data-title="{number} · {escape(group.title)}" data-says="{escape(group.aim)}">'
        f'<p id="{name}"><b>{number}</b> {escape(group.title)}</p>'
        f'<div role="tablist" aria-labelledby="{name}">{tabs}</div></div>'
    )


def _step(step: Step) -> str:
    tick = '<i aria-hidden="true"></i>' if step.has_task else ""
    return (
        f'<button type="button" role="tab" id="to-{step.name}" data-tab="{step.name}" aria-selected="false" '
        f'aria-controls="tab-{step.name}" tabindex="-1" title="{escape(step.question)}">{escape(step.title)}{tick}'
        "</button>"
    )
