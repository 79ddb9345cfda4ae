"""The report as a self-contained HTML page: text, table and figures as inline SVG."""

import io
import re
from html import escape

from matplotlib.figure import Figure

from bnmodel.diagnosis.figures import layers_figure, outcome_figure
from bnmodel.diagnosis.report import HEAD, LayerRecord, Report, cells, summary
from bnmodel.findings import CODES, Finding, grouped
from bnmodel.plotting import plot_style

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  overflow-wrap: anywhere; }
table { border-collapse: collapse; font-size: 0.85rem; }
.wide { overflow-x: auto; }
th, td { padding: 0.2rem 0.6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #8886; }
th:first-child, td:first-child { text-align: left; }
article { border-left: 0.3rem solid #888; padding: 0.1rem 1rem; margin: 1rem 0; }
article.error { border-color: #d55e00; } article.warning { border-color: #e69f00; }
code { background: #8882; padding: 0.1rem 0.3rem; }
svg { max-width: 100%; height: auto; }
.wide svg { min-width: 40rem; }
figure { background: #fff; margin: 1rem 0; padding: 0.5rem; border-radius: 0.5rem; }
"""


def page(report: Report, title: str) -> str:
    """The whole page."""
    body = [f"<h1>{escape(title)}</h1>"]
    body += [f"<p>{escape(line)}</p>" for line in summary(report).splitlines()]
    body += [f"<figure>{_svg(outcome_figure(report))}</figure>"]
    body += ["<h2>Findings</h2>"] + ([_article(group) for group in grouped(report.findings)] or ["<p>None.</p>"])
    layers = [layer for layer in report.layers if layer.calls]
    if layers:
        body += ["<h2>Layers</h2>", f'<figure class="wide">{_svg(layers_figure(report))}</figure>', _table(layers)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _article(group: list[Finding]) -> str:
    first = group[0]
    layers = ", ".join(f"<code>{escape(finding.layer or '(model)')}</code>" for finding in group)
    messages = "".join(f"<li><code>{escape(f.layer or '(model)')}</code>: {escape(f.message)}</li>" for f in group[:20])
    more = f"<li>and {len(group) - 20} more</li>" if len(group) > 20 else ""
    where = layers if len(group) <= 5 else f"{len(group)} layers"
    return (
        f'<article class="{first.severity}"><h3>{first.severity}: {first.code} ({where})</h3>'
        f"<p>{escape(CODES[first.code])}</p><ul>{messages}{more}</ul>"
        f"<p>Remedy: <code>{escape(first.remedy)}</code></p></article>"
    )


def _table(layers: list[LayerRecord]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in HEAD)
    rows = ["".join(f"<td>{escape(cell)}</td>" for cell in cells(layer)) for layer in layers]
    return f'<div class="wide"><table><tr>{head}</tr>' + "".join(f"<tr>{row}</tr>" for row in rows) + "</table></div>"


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with plot_style():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return re.sub(r"^.*?(?=<svg)", "", buffer.getvalue(), flags=re.DOTALL)
