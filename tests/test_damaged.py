"""Damaged files in a checkpoint's folder are refused by name, and the app starts with the intact ones."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bnmodel import CheckpointError, DataError
from bnmodel.deploy.errors import ExportError
from bnmodel.experiments import convergence_sweep
from bnmodel.io import read_checked, write_checked
from bnmodel.training.history import History
from demo.app import CHECKPOINTS, build_app, damaged
from demo.models import load_model, load_models
from demo.tabs import convergence
from export.bench import read_rows

EXPORTED = [f"{stem}.{ending}" for stem in ("digits", "sketch") for ending in ("torchscript", "onnx", "pt2")]
CHECKED = ["certificate.json", "history.json", "bench.json"]  # each with a checksum of its own
FILES = ["best.pt", "golden.json", *CHECKED, *EXPORTED]
# 17 digits are more than a float holds: a change of the last one may not change the number
NUMBERS = {"rate": 0.1, "loss": 0.031119611570030733, "small": 1e-05, "rows": [[1, -20], {"share": 0.9821875095367432}]}


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def one_bit_flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :]


def emptied(content: bytes) -> bytes:
    return b""


def of_another_kind(content: bytes) -> bytes:
    return b'{"epochs": [], "rows": [{}], "format": 1}'


def nested_too_deeply(content: bytes) -> bytes:
    return b"[" * 200_000


def digits_changed(text: str, every: int = 1) -> list[str]:
    """`text` with one of its digits raised by 1, a 9 lowered, once for every `every`-th."""
    places = [match.start() for match in re.finditer(r"\d", text)][::every]
    return [f"{text[:place]}{'1234567898'[int(text[place])]}{text[place + 1 :]}" for place in places]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the lecture's folder."""
    return Path(shutil.copytree(CHECKPOINTS / "lecture", tmp_path / "lecture"))


@pytest.mark.parametrize(
    ("name", "damage"),
    [(name, damage) for name in FILES for damage in (truncated, emptied, of_another_kind, one_bit_flipped)]
    + [(name, nested_too_deeply) for name in CHECKED],
)
def test_a_damaged_file_is_refused_by_its_name(name: str, damage: Callable[[bytes], bytes], folder: Path) -> None:
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises((CheckpointError, ExportError), match=name.replace(".", r"\.")):
        load_model(folder)


def test_every_changed_digit_of_a_file_with_a_checksum_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "checked.json"
    write_checked(file, NUMBERS)
    assert read_checked(file) == NUMBERS
    changed = digits_changed(file.read_text())
    assert '"loss": 0.031119611570030734' in "".join(changed)  # which is the same float
    for text in changed:
        file.write_text(text)
        with pytest.raises(ValueError, match=r"expected .*, received .*: changed since"):
            read_checked(file)


def test_a_checksum_is_required_and_independent_of_order_and_formatting(tmp_path: Path) -> None:
    file = tmp_path / "checked.json"
    write_checked(file, NUMBERS)
    backwards = dict(reversed(json.loads(file.read_text()).items()))
    file.write_text(json.dumps(backwards))
    assert read_checked(file) == NUMBERS
    del backwards["checksum"]
    file.write_text(json.dumps(backwards))
    with pytest.raises(ValueError, match="expected a checksum, received none"):
        read_checked(file)


def test_a_file_of_an_older_version_whose_checksum_is_called_seal_still_verifies(tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    file.write_text('{"seal": "92e56bd48a73e4b71d6d1ea4a9b7e4b77b8e0b4a", "rate": 0.1}')
    with pytest.raises(ValueError, match=r"expected checksum .*: changed since it was written"):
        read_checked(file)
    sha256 = hashlib.sha256(b'{"rate": 0.1}').hexdigest()
    file.write_text(f'{{"seal": "{sha256}", "rate": 0.1}}')
    assert read_checked(file) == {"rate": 0.1}


@pytest.mark.parametrize("model", ["lecture", "robust"])
@pytest.mark.parametrize("name", ["history.json", "bench.json"])
def test_a_changed_digit_in_a_shipped_history_or_bench_is_refused_by_the_files_name(
    name: str, model: str, tmp_path: Path
) -> None:
    read = {"history.json": lambda: History.read(tmp_path / name), "bench.json": lambda: read_rows(tmp_path)}[name]
    for text in digits_changed((CHECKPOINTS / model / name).read_text(), every=11):
        (tmp_path / name).write_text(text)
        with pytest.raises((CheckpointError, ExportError), match=rf"{name}: .*expected .*, received .*; .*python -m"):
            read()


def test_a_changed_digit_in_the_shipped_sweep_is_refused_by_the_files_name(tmp_path: Path) -> None:
    file = tmp_path / "sweep.json"
    for text in digits_changed(convergence_sweep.SWEEP_FILE.read_text(), every=211):  # about one digit per training
        file.write_text(text)
        with pytest.raises(DataError, match=r"sweep\.json: .*expected .*, received .*; .*python -m bnmodel sweep"):
            convergence_sweep.read(file)


@pytest.mark.parametrize("damage", [truncated, emptied, of_another_kind, one_bit_flipped, nested_too_deeply])
def test_the_convergence_tab_says_that_its_file_is_damaged(
    damage: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "sweep.json"
    file.write_bytes(damage(convergence_sweep.SWEEP_FILE.read_bytes()))
    monkeypatch.setattr(convergence_sweep, "SWEEP_FILE", file)
    monkeypatch.setattr(convergence, "recorded", lambda *_: str(convergence_sweep.read(file)))
    shown, maps = convergence.show(None, 0.3, "he_normal")
    assert 'role="alert">sweep.json: missing, damaged' in shown
    assert str(tmp_path) not in shown
    assert not maps


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
def test_an_invalid_history_is_refused_by_its_name(change: Callable[[dict], object], folder: Path) -> None:
    file = folder / "history.json"
    history = read_checked(file)
    change(history)
    write_checked(file, history)
    with pytest.raises(CheckpointError, match=r"history\.json: damaged, or not the history of a run"):
        History.read(file)


def test_the_app_starts_with_the_intact_models_and_names_the_damaged_files(folder: Path) -> None:
    names = ("digits.onnx", "history.json", "bench.json")
    for name in names:
        broken = Path(shutil.copytree(folder, folder.parent / f"broken {name}"))
        (broken / name).write_bytes(one_bit_flipped((broken / name).read_bytes()))
    sound, unsound = load_models(folder.parent)
    assert list(sound) == ["lecture"]
    page = str(build_app(folder.parent).get_config_file())
    assert "left out because their files are damaged" in page
    for name in names:
        assert name in unsound[f"broken {name}"]
        assert f"<li><b>broken {name}</b>: broken {name}" in page
    assert "<script>" not in damaged({"broken": "<script>"})


def test_the_app_does_not_start_without_an_intact_model_and_names_the_reason(folder: Path) -> None:
    (folder / "best.pt").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"best\.pt.*python -m export"):
        load_models(folder.parent)
