"""What the app loads before its page can be used."""

import subprocess
import sys
from pathlib import Path

from benchmarks.running_app import ROOT
from demo.page import DEFAULT, Page
from export.recogniser import load

WHEN_NEEDED = ("matplotlib", "onnx", "scipy", "sklearn", "torchvision", "bnmodel.deploy.certification")


def test_the_app_starts_without_what_only_its_tabs_need() -> None:
    lines = f"""
import sys
from demo.app import CHECKPOINTS, build_app
build_app(CHECKPOINTS)
print(*(name for name in {WHEN_NEEDED!r} if name in sys.modules))
"""
    ended = subprocess.run([sys.executable, "-c", lines], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []


def test_the_numbers_file_is_loaded_when_it_is_first_needed(tmp_path: Path) -> None:
    folder = ROOT / "checkpoints" / DEFAULT
    for name in ("digits.onnx", "sketch.onnx"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "numbers.onnx").write_bytes(b"")
    recognizer = load(tmp_path)
    (tmp_path / "numbers.onnx").write_bytes((folder / "numbers.onnx").read_bytes())
    example = Page(ROOT / "checkpoints").example
    assert recognizer.read_numbers(example).text == str(recognizer.read(example).label)


def test_an_option_that_does_not_exist_is_refused_with_the_variables_that_do() -> None:
    ended = subprocess.run([sys.executable, "-m", "demo", "--port", "80"], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "GRADIO_SERVER_PORT=PORT" in ended.stderr
