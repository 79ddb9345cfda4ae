"""Allowed imports: demo ─▶ export ─▶ bnmodel, and downwards inside bnmodel."""

import ast
import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("bnmodel", "export", "demo")
LAYERS = ("io", "findings", "nn", "plotting", "data", "training", "deploy", "diagnosis", "experiments")
SIBLINGS = ("diagnosis", "experiments")


def modules(package: str) -> dict[str, Path]:
    """Dotted name → file, of every module of a package."""
    files = sorted((ROOT / package).rglob("*.py"))
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imports(name: str, file: Path, source: str | None = None) -> set[str]:
    """Dotted names imported anywhere in a module's text, functions too; `from a import b` gives a and a.b."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8") if source is None else source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                found.add(str(node.args[0].value))
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def offences(importers: dict[str, Path], forbidden: str) -> list[str]:
    return [
        f"{name} imports {imported}"
        for name, file in importers.items()
        for imported in sorted(imports(name, file))
        if within(imported, forbidden)
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_examined(package: str) -> None:
    assert package in modules(package)
    assert any(
        within(imported, "bnmodel") for name, file in modules(package).items() for imported in imports(name, file)
    )


@pytest.mark.parametrize(
    ("importer", "forbidden"),
    [
        ("bnmodel", "export"),
        ("bnmodel", "demo"),
        ("export", "demo"),
        *[(package, other) for package in PACKAGES for other in ("tests", "benchmarks", "examples", "app")],
        ("bnmodel", "gradio"),
        ("export", "gradio"),
    ],
)
def test_no_import_goes_against_the_arrows(importer: str, forbidden: str) -> None:
    assert not offences(modules(importer), forbidden)


@pytest.mark.parametrize("lower", LAYERS)
def test_a_layer_of_bnmodel_imports_only_those_below(lower: str) -> None:
    importers = {name: file for name, file in modules("bnmodel").items() if within(name, f"bnmodel.{lower}")}
    above = LAYERS[LAYERS.index(lower) + 1 :]
    for higher in (*above, *(name for name in SIBLINGS if lower in SIBLINGS and name != lower)):
        assert not offences(importers, f"bnmodel.{higher}")


@pytest.mark.parametrize("library", ["onnx", "onnxruntime", "onnxscript"])
def test_the_deployment_libraries_are_imported_by_deploy_only(library: str) -> None:
    importers = {name: file for name, file in modules("bnmodel").items() if not within(name, "bnmodel.deploy")}
    assert not offences(importers, library)


def test_no_module_shadows_a_function_of_its_package() -> None:
    for package in PACKAGES:
        for name, file in modules(package).items():
            if file.name != "__init__.py":
                parent = importlib.import_module(name.rpartition(".")[0])
                member = getattr(parent, name.rpartition(".")[2], None)
                assert member is None or isinstance(member, ModuleType), name


@pytest.mark.parametrize("package", ["export", "demo"])
@pytest.mark.parametrize("taken", ["onnx", "gradio", "json", "types"])
def test_no_module_has_the_name_of_one_that_it_would_shadow(taken: str, package: str) -> None:
    assert not [file for file in (ROOT / package).rglob("*") if file.name in (taken, f"{taken}.py")]


@pytest.mark.parametrize(
    ("source", "imported"),
    [
        ("import demo.app", "demo.app"),
        ("from demo import app", "demo.app"),
        ("import export.formats as f, demo", "demo"),
        ("from . import models", "bnmodel.models"),
        ("from .experiments import modes", "bnmodel.experiments.modes"),
        ("def f():\n    from bnmodel.experiments import modes", "bnmodel.experiments"),
        ("if TYPE_CHECKING:\n    import demo", "demo"),
        ("import importlib\nimportlib.import_module('demo.app')", "demo.app"),
    ],
)
def test_every_kind_of_import_is_detected(source: str, imported: str) -> None:
    assert imported in imports("bnmodel.module", Path("bnmodel/module.py"), source)
