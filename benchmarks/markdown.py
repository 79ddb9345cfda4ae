"""Markdown tables, and text between markers in Markdown files."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with one line per row."""
    return "\n".join((_row(head), "|---" * len(head) + "|", *map(_row, rows)))


def _row(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def replaced(text: str, name: str, content: str) -> str:
    """`text` with `content` between `<!-- name -->` and `<!-- end -->`."""
    before, _, rest = text.partition(f"<!-- {name} -->\n")
    _, _, after = rest.partition("<!-- end -->")
    return f"{before}<!-- {name} -->\n{content}\n<!-- end -->{after}"
