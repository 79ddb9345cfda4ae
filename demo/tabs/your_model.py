"""The check-up of a visitor's ONNX file: whether its batch norms are in the right mode."""

import os
import re
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from bnmodel.deploy import ExportError, Inspection, inspect
from bnmodel.deploy.sandbox import Limits
from bnmodel.findings import CODES, Finding, grouped
from demo import components as ui
from demo.page import Page
from demo.server.request_body import LARGEST_FILE

EXAMPLES = Path(__file__).parents[2] / "examples" / "onnx"
NAMES = {"sound": "A sound file", "train-mode": "Exported in train mode", "never-updated": "Statistics never updated"}
LIMITS = Limits(memory=2 * 2**30, seconds=30, file_size=0)
LOOK = f"""
Choose an example, or drop an ONNX file of your own, at most {LARGEST_FILE // 10**6} MB. The file is read and run in a
separate process with limits on memory and time, and deleted afterwards. A sample goes through the network **alone and
in two different batches**: in a sound file its output is the same each time.
"""
EXPLAINED = {
    "training-mode": "your-digit",
    "batch-statistics-in-eval": "why",
    "batch-dependent": "your-digit",
    "never-updated": "statistics",
    "invalid-statistics": "faults",
    "active-dropout": "faults",
    "unfolded": "export",
    "fixed-batch": "export",
}
"""The tab that explains each finding."""
CODE = """
from bnmodel.deploy import inspect
print(inspect("examples/onnx/train-mode.onnx"))
"""
ABOUT = """
From the command line: `bnmodel inspect FILE.onnx`, with `--fold OUT.onnx` to write the file with its batch
norms folded. For a network in PyTorch: `bnmodel diagnose`.

Source: `bnmodel/deploy/onnx_inspection.py`.
"""
CALL = re.compile(r"[\w.]+=?\((?:[^()]|\([^()]*\))*\)")
"""A function call in Python; its arguments may be calls."""
# one file at a time, since each may take gigabytes
SHARED: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "inspection", "show_progress": "minimal"}


def build(page: Page) -> None:
    task = "Find out what is wrong with the second example."
    with page.tab("Your model", "Does your own network treat batch norm correctly?", task=task):
        ui.look(LOOK)
        with gr.Row(elem_classes="controls"):
            buttons = {name: gr.Button(title, elem_id=f"example-{name}") for name, title in NAMES.items()}
        file = gr.File(label="ONNX file", elem_id="your-model", height=150)
        shown = ui.picture(60, "inspection")
        ui.code(CODE)
        ui.fold(ABOUT, "The command and the source")
        for name, button in buttons.items():
            button.click(_example(name), None, [shown], api_visibility="private", **SHARED)
        file.upload(uploaded, [file], [shown, file], api_visibility="private", preprocess=False, **SHARED)


def _example(name: str) -> Callable[[], str]:
    return lambda: report(EXAMPLES / f"{name}.onnx", f"{name}.onnx")


def uploaded(file: dict[str, Any] | None) -> tuple[str, None]:
    """Inspect an uploaded .onnx file and delete it."""
    if file is None:
        return "", None
    path = Path(file["path"])
    name = file.get("orig_name") or path.name
    if path.suffix != ".onnx":  # not deleted: it may be a picture that a tab still needs
        return not_onnx(name), None
    try:
        return report(path, name), None
    finally:
        path.unlink(missing_ok=True)


def not_onnx(name: str) -> str:
    """What to do with another file, most often a PyTorch checkpoint."""
    expected = f"{escape(os.path.basename(name))}: expected an ONNX file, whose name ends in .onnx."
    return ui.sentence(f"<b>Not analysed.</b> {expected}") + (
        "<p>For a network in PyTorch, run <code>bnmodel.diagnose(model, batches)</code>, or export it first: "
        '<code>torch.onnx.export(model.eval(), (example,), "model.onnx")</code>. To have a picture read, drop it on '
        "the pad.</p>"
    )


def report(path: Path, name: str) -> str:
    """The findings of `inspect` (HTML)."""
    try:
        inspection = inspect(path, external_data=False, limits=LIMITS)
    except ExportError as error:
        words = str(error).replace(path.name, os.path.basename(name))
        return ui.sentence(f"<b>Not analysed.</b> {escape(words)}")
    return ui.sentence(_in_words(inspection, name)) + ui.done(not inspection.sound) + _findings(inspection)


def _in_words(inspection: Inspection, name: str) -> str:
    count = inspection.batch_norms
    norms = f"{count} batch norm{'' if count == 1 else 's'}" if count else "no batch norm (or only folded ones)"
    errors = sum(group[0].severity == "error" for group in grouped(inspection.findings))  # as listed
    verdict = "is <b>sound</b>" if not errors else f"is <b>not sound</b>: {errors} error{'' if errors == 1 else 's'}"
    invariance = inspection.batch_invariance
    if not invariance["checked"]:
        batch = f"Whether its output depends on the batch could not be checked: {escape(invariance['reason'])}."
    elif inspection.batch_dependent:
        batch = "The output for a sample depends on the rest of its batch."
    else:
        batch = "The same sample gets the same output alone and in two other batches."
    return f"<b>{escape(os.path.basename(name))}</b>, with {norms}, {verdict}. {batch}"


def _findings(inspection: Inspection) -> str:
    """One item per code and severity: a network may have the same finding in a hundred layers."""
    if not inspection.findings:
        return "<p>Nothing was found.</p>"
    return f'<ul class="findings">{"".join(map(_item, grouped(inspection.findings)))}</ul>'


def _item(findings: list[Finding]) -> str:
    first, others = findings[0], len(findings) - 1
    where = f" in <code>{escape(first.layer)}</code>" if first.layer else ""
    more = f" and {others} more" if others else ""
    tab = EXPLAINED.get(first.code)
    link = f' <a href="?tab={tab}">See it explained.</a>' if tab else ""
    mark = {"error": "✗ Error", "warning": "! Warning", "note": "· Note"}[first.severity]
    message = f"{first.message[:1].upper()}{first.message[1:]}"
    code = f'<span title="{escape(CODES[first.code])}">({escape(first.code)})</span>'
    return (
        f'<li class="{first.severity}"><b>{mark}</b> {code}'
        f"{where}{more}. {escape(message)}.{link}<br>Remedy: {_remedy(first.remedy)}.</li>"
    )


def _remedy(words: str) -> str:
    """Prose with its function calls as code (HTML)."""
    return CALL.sub(r"<code>\g<0></code>", escape(words, quote=False))
