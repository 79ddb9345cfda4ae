"""The table of docs/runtimes.md."""

from typing import Any

from benchmarks.markdown import table
from benchmarks.runtimes.environments import RUNTIMES

STEMS = ("digits", "sketch", "numbers")
LARGEST_DIFFERENCE = 0.01  # of an output; rounding makes less than 0.001


def runtimes_table(result: dict[str, Any]) -> str:
    """One row per runtime and one column per file, for the worse of the checkpoints; errors below the table."""
    rows, reasons = [], []
    for runtime in RUNTIMES:
        measured = result["runtimes"].get(runtime.name)
        if not measured:
            continue
        cells = []
        for stem in STEMS:
            answers = [stems[stem] for stems in measured.values() if stem in stems]
            cells.append(_cell(answers))
            wrong = [answer for answer in answers if not right(answer)]
            if wrong:
                reasons.append(f"- {runtime.title}, `{stem}`: {_reason(wrong[0])}")
        known = [answer["version"] for stems in measured.values() for answer in stems.values() if "version" in answer]
        rows.append([runtime.title, known[0] if known else "–", *cells])
    return "\n".join([table(["runtime", "version", *(f"`{stem}`" for stem in STEMS)], rows), "", *reasons])


def right(answer: dict[str, Any]) -> bool:
    """Whether the file was converted and, if it could be run, gave the right labels and nearly the right outputs."""
    exact = answer.get("labels_differing", 0) == 0 and answer.get("difference", 0) <= LARGEST_DIFFERENCE
    return "reason" not in answer and exact


def _cell(answers: list[dict[str, Any]]) -> str:
    if not answers:
        return "–"
    if not all(map(right, answers)):
        return "✗"
    measured = [answer for answer in answers if "difference" in answer]
    if not measured:
        return f"converts ({max(answer['bytes'] for answer in answers) / 1e3:.0f} KB)"
    off = max(answer["difference"] for answer in measured)
    slowest = max(answer["times_onnxruntime"] for answer in measured)
    fixed = " 280×280" if any("canvas" in answer for answer in measured) else ""
    return f"✓{fixed} {off:.0e}, {slowest:.1f} ×, {max(answer['bytes'] for answer in measured) / 1e3:.0f} KB"


def _reason(answer: dict[str, Any]) -> str:
    if "reason" not in answer:
        return f"{answer['labels_differing']} of {answer['cases']} labels differ, by up to {answer['difference']:.1g}"
    reason = answer.get("fixed_reason") or answer["reason"]
    return " ".join(reason.replace("|", "/").replace("`", "'").split())[:240]
