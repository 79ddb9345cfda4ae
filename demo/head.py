"""The top of the page: what it is about, the teacher's mode, the glossary."""

from pathlib import Path

import gradio as gr

from demo import glossary

HEAD_JS = (Path(__file__).parent / "head.js").read_text(encoding="utf-8")
TITLE = "What batch normalisation does to your digit"
LEAD = "Draw one. A network reads it at once; the tabs show what batch normalisation does to it."


def build_head() -> gr.HTML:
    return gr.HTML(
        f'<a class="skip" href="#path">Skip to the tabs</a><h1>{TITLE}</h1><p>{LEAD}</p>'
        '<div class="head-tools"><button type="button" data-do="teach" aria-pressed="false" '
        'title="Large type for a projector">Teacher’s mode</button>'
        '<button type="button" data-do="glossary" aria-haspopup="dialog">Glossary</button></div>'
        '<dialog aria-labelledby="glossary-title"><form method="dialog"><h2 id="glossary-title">Glossary</h2>'
        f"<button>Close</button></form><dl>{glossary.to_html()}</dl></dialog>"
        '<div class="term-note" popover><div aria-live="polite"></div></div>',
        js_on_load=HEAD_JS,
        apply_default_css=False,
        elem_id="intro",
    )
