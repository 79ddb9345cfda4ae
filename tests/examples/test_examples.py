"""The examples: each agrees with the golden vectors when run as a program, and fails if they differ."""

import hashlib
import io
import json
import runpy
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from examples_helpers import CHECKPOINT, EXAMPLES, LINE, agreed, need, npm_install, one_number_off, run
from filelock import FileLock

# Runs a script as `python script …` would, then prints what it imported
SPY = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("imported:", *sorted({name.partition(".")[0] for name in sys.modules}))
"""

Example = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def cpp() -> Path:
    """The C++ example, built against Python's torch package in a folder that git ignores.

    Later sessions compile only what has changed: torch's headers take many seconds.
    """
    need("cmake", "g++")
    source = EXAMPLES / "cpp"
    linked = hashlib.sha256(f"{source} {torch.__path__[0]} {torch.__version__}".encode()).hexdigest()
    build = source / "build" / linked[:12]
    build.mkdir(parents=True, exist_ok=True)
    with FileLock(build / ".lock"):
        configured = run("cmake", "-S", source, "-B", build, f"-DTORCH_DIR={torch.__path__[0]}")
        assert configured.returncode == 0, configured.stderr
        built = run("cmake", "--build", build)
        assert built.returncode == 0, built.stdout + built.stderr
    return build / "golden"


@pytest.fixture(scope="session")
def node() -> Path:
    need("node")
    npm_install(EXAMPLES / "node")
    return EXAMPLES / "node" / "main.mjs"


def run_here(script: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`python script …` in this process, which has already imported torch."""
    output, errors = io.StringIO(), io.StringIO()
    command, status = [str(part) for part in (script, *arguments)], 0
    with patch.object(sys, "argv", command), redirect_stdout(output), redirect_stderr(errors):
        try:
            runpy.run_path(command[0], run_name="__main__")
        except SystemExit as ended:
            status = int(ended.code or 0)
        except Exception:
            traceback.print_exc()
            status = 1
    return subprocess.CompletedProcess(command, status, output.getvalue(), errors.getvalue())


@pytest.fixture(params=["python_onnx", "python_torchscript", "node", "cpp"])
def example(request: pytest.FixtureRequest) -> Example:
    """One of the examples that print: a function from its arguments to what it printed and how it ended."""
    name, _, here = request.param.partition(" ")
    if here:
        return partial(run_here, EXAMPLES / f"{name}.py")
    if name == "node":
        return partial(run, "node", request.getfixturevalue("node"))
    if name == "cpp":
        return partial(run, request.getfixturevalue("cpp"))
    return partial(run, sys.executable, EXAMPLES / f"{name}.py")


def sabotaged(tmp_path: Path, break_it: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of the checkpoint folder, its golden.json broken."""
    for file in (*CHECKPOINT.glob("*.onnx"), *CHECKPOINT.glob("*.torchscript")):
        shutil.copy(file, tmp_path)
    golden = json.loads((CHECKPOINT / "golden.json").read_text())
    break_it(golden)
    (tmp_path / "golden.json").write_text(json.dumps(golden))
    return tmp_path


def another_label(golden: dict[str, Any]) -> None:
    golden["digits"][7]["outputs"][0]["data"].reverse()


def another_drawing(golden: dict[str, Any]) -> None:
    golden["sketch"][3]["input"]["data"][800:1600] = [0] * 800


def not_divided(golden: dict[str, Any]) -> None:
    del golden["digits"][0]["input"]["divide_by"]


def not_a_number(golden: dict[str, Any]) -> None:
    golden["digits"][0]["outputs"][0]["data"][0] = float("nan")


def an_output_less(golden: dict[str, Any]) -> None:
    golden["sketch"][5]["outputs"].pop()


def another_shape(golden: dict[str, Any]) -> None:
    golden["digits"][5]["outputs"][0]["shape"] = [10]


def no_vectors(golden: dict[str, Any]) -> None:
    golden["sketch"] = []


VALUES = (one_number_off, another_label, another_drawing, not_divided, no_vectors)  # measured and printed
FORMS = (not_a_number, an_output_less, another_shape)  # may also raise, as NaN does in JavaScript's JSON


def test_an_example_agrees_with_the_golden_vectors_from_any_folder(example: Example, tmp_path: Path) -> None:
    result = example(cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert agreed(result.stdout) == ["digits", "sketch"]
    assert "Warning" not in result.stderr


@pytest.mark.parametrize("name", ["python_onnx", "python_torchscript"])
def test_a_python_example_needs_only_its_own_runtime(name: str, tmp_path: Path) -> None:
    # -I: neither the current folder nor the script's is on the import path, so bnmodel cannot be found
    result = run(sys.executable, "-I", "-c", SPY, EXAMPLES / f"{name}.py", cwd=tmp_path)
    imported = set(result.stdout.splitlines()[-1].split()[1:])
    assert agreed(result.stdout) == ["digits", "sketch"]
    assert imported.isdisjoint({"bnmodel", "export", "demo", "gradio", "torchvision"})
    if name == "python_onnx":
        assert {"onnxruntime", "numpy"} <= imported
        assert imported.isdisjoint({"torch", "onnx"})
    else:
        assert "torch" in imported
        assert "onnxruntime" not in imported


# Starting the C++ example with torch takes a second, so it gets only some of the changes.
@pytest.mark.parametrize(
    ("example", "break_it"),
    [
        *((name, break_it) for name in ("python_onnx here", "node") for break_it in (*VALUES, *FORMS)),
        *(("cpp", break_it) for break_it in (one_number_off, no_vectors, *FORMS)),
        ("python_torchscript here", one_number_off),
        ("python_torchscript here", not_a_number),
    ],
    indirect=["example"],
)
def test_an_example_fails_if_the_golden_vectors_differ(
    example: Example, break_it: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    result = example(sabotaged(tmp_path, break_it))
    assert result.returncode != 0
    if break_it in VALUES:
        assert [stem for stem, *_ in LINE.findall(result.stdout)] == ["digits", "sketch"]


@pytest.mark.parametrize("example", ["python_onnx here", "node", "cpp"], indirect=True)
def test_a_missing_folder_fails(example: Example, tmp_path: Path) -> None:
    result = example(tmp_path / "missing")
    assert result.returncode != 0
    assert "missing" in result.stderr


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*/.npmrc")), ids=lambda file: file.parent.name)
def test_npm_runs_no_install_scripts(file: Path) -> None:
    assert "ignore-scripts=true" in file.read_text().splitlines()
