"""The top of the page: title, teacher's mode with lesson notes, glossary."""

import re
from collections.abc import Iterable
from pathlib import Path

import gradio as gr

from demo import glossary
from demo.scripts import source

TITLE = "What batch normalisation does to your digit"
LEAD = "Draw a digit: a network reads it, and the tabs show what batch norm does to it inside the network."
KNOWN = {"lecture": "is small", "robust": "is larger and also trained on distorted digits"}
"""What the networks of this repository are."""
LESSON = Path(__file__).parents[1] / "docs" / "lesson.md"


def build_head(networks: Iterable[str] = ()) -> None:
    """`networks`: the names that the visitor can choose from."""
    what = "; ".join(f"<b>{name}</b> {KNOWN[name]}" for name in networks if name in KNOWN)
    lead = f"{LEAD} The network {what}." if what else LEAD
    gr.HTML(
        '<a class="skip" href="#path">Skip to the tabs</a>'
        f'<div class="head-bar"><div><h1>{TITLE}</h1><p>{lead}</p></div>'
        '<div class="head-tools"><button type="button" data-do="lesson" aria-haspopup="dialog" '
        'title="A lesson of 10, 20 or 45 minutes, to print">Lesson notes</button>'
        '<button type="button" data-do="teach" aria-pressed="false" '
        'title="Large type for a projector, and the notes of a lesson">Teacher’s mode</button>'
        '<button type="button" data-do="glossary" aria-haspopup="dialog">Glossary</button></div></div>'
        '<dialog aria-labelledby="glossary-title"><form method="dialog"><h2 id="glossary-title">Glossary</h2>'
        f"<button>Close</button></form><dl>{glossary.to_html()}</dl></dialog>"
        '<dialog class="lesson" aria-labelledby="lesson-title"><form method="dialog"><h2 id="lesson-title">Lesson notes'
        '</h2><span><button type="button" data-do="print">Print</button> <button>Close</button></span></form></dialog>'
        '<div class="term-note" popover><div aria-live="polite"></div></div>',
        js_on_load=source("head.js"),
        apply_default_css=False,
        elem_id="intro",
    )
    if LESSON.is_file():
        notes = LESSON.read_text(encoding="utf-8").partition("\n")[2]  # without its title
        notes = re.sub(r"\[([^]]+)\]\((?!glossary)\w+\.md\)", r"\1", notes)  # the app has no other page of the docs
        gr.Markdown(notes, elem_id="lesson")  # head.js moves it into its dialog
