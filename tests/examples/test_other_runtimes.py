"""The examples for OpenVINO and OpenCV, run as programs."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from examples_helpers import CHECKPOINT, EXAMPLES, agreed, run

RUNTIMES = {"python_openvino.py": ["digits", "sketch"], "python_opencv.py": ["digits"]}


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> tuple[Path, list[str]]:
    return EXAMPLES / request.param, RUNTIMES[request.param]


def test_another_runtime_agrees_with_the_golden_vectors(runtime: tuple[Path, list[str]], tmp_path: Path) -> None:
    example, stems = runtime
    result = run(sys.executable, example, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert agreed(result.stdout) == stems


def test_another_runtime_fails_if_the_golden_vectors_differ(runtime: tuple[Path, list[str]], tmp_path: Path) -> None:
    example, stems = runtime
    golden = json.loads((CHECKPOINT / "golden.json").read_text())
    golden[stems[-1]][7]["outputs"][0]["data"].reverse()
    for stem in stems:
        shutil.copy(CHECKPOINT / f"{stem}.onnx", tmp_path)
    (tmp_path / "golden.json").write_text(json.dumps(golden))
    result = run(sys.executable, example, tmp_path)
    assert result.returncode == 1
    assert f"{stems[-1]}.onnx: 20 golden vectors" in result.stdout
