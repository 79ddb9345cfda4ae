"""mkdocs hook: one page of the API reference per package of bnmodel, generated from the docstrings."""

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PACKAGE = Path(__file__).parent.parent / "bnmodel"


def pages() -> dict[str, list[str]]:
    """Title → modules: the public names of bnmodel, then the modules of each folder, then the single modules."""
    folders = {
        f"bnmodel.{folder.parent.name}": [
            f"bnmodel.{folder.parent.name}.{module.stem}"
            for module in sorted(folder.parent.glob("*.py"))
            if not module.stem.startswith("_")
        ]
        for folder in sorted(PACKAGE.glob("*/__init__.py"))
    }
    single = [f"bnmodel.{module.stem}" for module in sorted(PACKAGE.glob("*.py")) if not module.stem.startswith("_")]
    return {"bnmodel": ["bnmodel"], **folders, ", ".join(single): single}


def on_config(config: MkDocsConfig) -> None:
    nav: Any = config.nav
    nav.append({"API reference": [{title: _path(modules)} for title, modules in pages().items()]})


def on_files(files: Files, *, config: MkDocsConfig) -> None:
    for title, modules in pages().items():
        directives = "\n\n".join(f"::: {module}" for module in modules)
        files.append(File.generated(config, _path(modules), content=f"# {title}\n\n{directives}\n"))


def _path(modules: list[str]) -> str:
    return f"reference/{modules[0].split('.')[1] if '.' in modules[0] else 'index'}.md"
