"""Damaged files in a checkpoint's folder: each is refused by name, and the app goes on with what is sound."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bnmodel import CheckpointError
from bnmodel.history import History
from demo.app import CHECKPOINTS, build_app, damaged
from demo.models import load_model, load_models
from export.freeze import ExportError

EXPORTED = [f"{stem}.{ending}" for stem in ("digits", "sketch") for ending in ("torchscript", "onnx", "pt2")]
SUMMED = ["best.pt", "certificate.json", "golden.json", *EXPORTED]  # a checksum guards each
PLAIN = ["history.json", "bench.json"]


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def one_bit_flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :]


def emptied(content: bytes) -> bytes:
    return b""


def of_another_kind(content: bytes) -> bytes:
    return b'{"epochs": [], "rows": [{}], "format": 1}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the lecture's folder."""
    return Path(shutil.copytree(CHECKPOINTS / "lecture", tmp_path / "lecture"))


@pytest.mark.parametrize(
    ("name", "damage"),
    [(name, damage) for name in SUMMED + PLAIN for damage in (truncated, emptied, of_another_kind)]
    + [(name, one_bit_flipped) for name in SUMMED],
)
def test_a_damaged_file_is_refused_by_its_name(name: str, damage: Callable[[bytes], bytes], folder: Path) -> None:
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises((CheckpointError, ExportError), match=name.replace(".", r"\.")):
        load_model(folder)


@pytest.mark.parametrize(
    ("one", "other"), [("digits.onnx", "sketch.onnx"), ("digits.torchscript", "sketch.torchscript")]
)
def test_files_that_were_swapped_are_refused(one: str, other: str, folder: Path) -> None:
    shutil.copy(CHECKPOINTS / "lecture" / one, folder / other)
    with pytest.raises(ExportError, match=other):
        load_model(folder)


def test_another_models_checkpoint_or_certificate_is_refused(folder: Path) -> None:
    for name in ("best.pt", "certificate.json"):
        shutil.copy(CHECKPOINTS / "robust" / name, folder / name)
        with pytest.raises(ExportError, match="SHA-256"):
            load_model(folder)
        shutil.copy(CHECKPOINTS / "lecture" / name, folder / name)
    assert load_model(folder).name == "lecture"


@pytest.mark.parametrize(
    "change",
    [
        lambda history: history.update(epochs=[]),
        lambda history: history["epochs"][3].update(validation_loss=float("nan")),
        lambda history: history["epochs"][3].update(validation_loss="0.03"),
        lambda history: history["epochs"][3].pop("epoch"),
        lambda history: history.update(recipe=None),
        lambda history: history.clear(),
    ],
)
def test_a_history_that_is_none_is_refused_by_its_name(change: Callable[[dict], object], folder: Path) -> None:
    file = folder / "history.json"
    history = json.loads(file.read_text())
    change(history)
    file.write_text(json.dumps(history))
    with pytest.raises(CheckpointError, match=r"history\.json: damaged, or not the history of a training"):
        History.read(file)


def test_the_app_starts_with_what_is_sound_and_says_what_is_not(folder: Path) -> None:
    broken = Path(shutil.copytree(folder, folder.parent / "broken"))
    (broken / "digits.onnx").write_bytes(b"<script>")
    sound, unsound = load_models(folder.parent)
    assert list(sound) == ["lecture"]
    assert "digits.onnx" in unsound["broken"]
    page = str(build_app(folder.parent).get_config_file())
    assert "Left out, since their files are damaged" in page
    assert "digits.onnx" in page
    assert "<script>" not in damaged({"broken": "<script>"})


def test_the_app_does_not_start_without_a_sound_model_and_says_why(folder: Path) -> None:
    (folder / "best.pt").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"best\.pt.*python -m export"):
        load_models(folder.parent)
