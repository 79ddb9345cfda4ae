"""The list of files in docs/layout.md: the first sentence of each file's docstring or leading comment."""

import ast
import re
from pathlib import Path

from benchmarks.markdown import table

FOLDERS = ("bnmodel", "export", "demo", "benchmarks", "tests")
OTHERS = {
    "bnmodel/data/mnist_sample.md": "Source and licence of the sample.",
    "bnmodel/data/mnist_sample.npz": "1,000 training and 1,000 test digits of MNIST.",
    "bnmodel/experiments/convergence_sweep.json": "Results of `bnmodel sweep` on MNIST.",
    "bnmodel/py.typed": "Marks the package as typed.",
    "demo/pad.html": "Markup of the drawing pad.",
}  # files without a docstring or comment
IGNORED = ("__pycache__", "results", "locks")
ENDINGS = (".py", ".js", ".css", ".html", ".md", ".npz", ".json", ".typed")


def listing(root: Path) -> str:
    """The folders of `root` as one Markdown table per package, folders before their contents."""
    return "\n\n".join(_table(root, folder) for folder in FOLDERS)


def _table(root: Path, folder: str) -> str:
    rows = [
        (f"`{path.relative_to(root / folder).as_posix()}`", _sentence(path, path.relative_to(root).as_posix()))
        for path in sorted(files(root / folder), key=lambda path: (path.parent, path.name))
    ]
    return f"### {folder}/\n\n{table(('file', 'contents'), rows)}"


def files(folder: Path) -> list[Path]:
    """Everything that is part of the source; empty `__init__.py` files say nothing and are left out."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix in ENDINGS)
    return [path for path in found if not set(path.parts) & set(IGNORED) and (path.stat().st_size or "py" in path.name)]


def _sentence(path: Path, name: str) -> str:
    if name in OTHERS:
        return OTHERS[name]
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    else:
        comment = re.match(r"\s*(?:/\*(.*?)\*/|<!--(.*?)-->|((?://[^\n]*\n)+))", text, flags=re.DOTALL)
        text = next(filter(None, comment.groups())).replace("//", "") if comment else ""
    sentence = " ".join(re.split(r"(?<=[.;])\s+(?=[A-Z`])|\s\s+python -m|\n\n", text)[0].split())
    return sentence.replace("|", "\\|").replace("<", "&lt;").rstrip(".") + "." if sentence else ""
