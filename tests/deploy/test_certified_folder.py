"""Certified folders: several networks, changed files, damaged certificates."""

import json
import shutil
import sys
import typing
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bnmodel.deploy import ExportError, certificate, certification, certify, inspect, load, verify
from bnmodel.deploy.loading import FORMATS
from bnmodel.io import write_checked

X = torch.rand(4, 3, 8, 8)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certified")
    certify(network(), X, folder)
    return folder


@pytest.fixture
def folder(certified: Path, tmp_path: Path) -> Path:
    """A copy of a certified folder, to be changed."""
    return Path(shutil.copytree(certified, tmp_path, dirs_exist_ok=True))


@pytest.mark.parametrize("format", FORMATS)
def test_a_changed_or_swapped_file_is_not_loaded(folder: Path, tmp_path_factory: Any, format: str) -> None:
    other = tmp_path_factory.mktemp("other")
    certify(network(1), X, other, formats=format)
    path = folder / f"model.{format}"
    content = path.read_bytes()
    path.write_bytes((other / path.name).read_bytes())
    with pytest.raises(ExportError, match="not the file that was certified"):
        load(folder, format=format)
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    with pytest.raises(ExportError):
        load(folder, format=format)
    path.write_bytes(content)
    assert load(folder, format=format)(X.numpy())["output"].shape == (4, 4, 6, 6)


def test_the_fields_of_a_torch_export_file_are_looked_up_once_per_class(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[Any] = Counter()

    def counted(owner: Any, *arguments: Any, **options: Any) -> Any:
        asked[owner] += 1
        return get_type_hints(owner, *arguments, **options)

    get_type_hints = typing.get_type_hints
    monkeypatch.setattr(typing, "get_type_hints", counted)
    load(folder, format="pt2")
    of_the_file = [times for owner, times in asked.items() if owner.__module__ == "torch._export.serde.schema"]
    assert len(of_the_file) > 10
    assert set(of_the_file) == {1}


def test_networks_certified_at_the_same_time_into_one_folder_are_both_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model = certification.write_model

    def meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(certification, "write_model", write_model)
        certify(network(1), X, tmp_path, name="second", formats="pt2")
        return write_model(*arguments)

    monkeypatch.setattr(certification, "write_model", meanwhile)
    certify(network(), X, tmp_path, name="first", formats="pt2")
    assert set(certificate.models(tmp_path)) == {"first", "second"}
    assert all(check.passed for check in verify(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        lambda metadata, evidence: metadata.pop("inputs"),
        lambda metadata, evidence: metadata.pop("outputs"),
        lambda metadata, evidence: metadata["outputs"][0].pop("name"),
        lambda metadata, evidence: metadata.update(source={}),
        lambda metadata, evidence: metadata.update(source="https://example.org"),
        lambda metadata, evidence: evidence.update(formats=[]),
        lambda metadata, evidence: evidence.pop("yardsticks"),
        lambda metadata, evidence: evidence.update(yardsticks=[]),
        lambda metadata, evidence: evidence.update(formats="onnx"),
    ],
)
def test_an_incomplete_certificate_is_an_export_error(folder: Path, change: Any) -> None:
    path = folder / certificate.FILE
    content = json.loads(path.read_text())
    change(content["models"]["model"], content["evidence"]["model"])
    del content["checksum"]
    write_checked(path, content)
    for use in (load, verify):
        with pytest.raises(ExportError, match=r"certificate\.json: damaged"):
            use(folder)


@pytest.mark.parametrize("record", [5, {"bytes": 1}])
def test_a_certificate_without_the_checksum_of_a_file_is_an_export_error(folder: Path, record: Any) -> None:
    path = folder / certificate.FILE
    content = json.loads(path.read_text())
    content["files"]["model.onnx"] = record
    del content["checksum"]
    write_checked(path, content)
    for use in (load, verify):
        with pytest.raises(ExportError, match=r"certificate\.json: damaged"):
            use(folder)


def test_an_input_of_another_type_is_refused_with_the_conversion(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"received float64 \(4, 3, 8, 8\); pass array\.astype\(numpy\.float32\)$"):
        load(folder)(X.double().numpy())
    with pytest.raises(ValueError, match=r"received float32 \(3, 8, 8\)$"):
        load(folder)(X[0].numpy())


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"source": "https://example.org"}, "source would replace"),
        ({"inputs": ["x"], "versions": 1}, "inputs, versions would replace"),
        ({"loss": float("nan")}, "expected JSON values"),
    ],
)
def test_metadata_that_would_replace_what_is_measured_is_refused(
    tmp_path: Path, about: dict[str, Any], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        certify(network(), X, tmp_path, about=about)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dynamic", [0, "", True])
def test_dynamic_axes_are_not_a_number_or_text(tmp_path: Path, dynamic: Any) -> None:
    with pytest.raises(ExportError, match="dynamic: expected axes such as"):
        certify(network(), X, tmp_path, dynamic=dynamic)


class Changing(nn.Module):
    """Changes its input in place, and returns it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x.sub_(0.5).div_(0.25)
        return self.norm(x), x


def test_an_input_that_is_changed_in_place_may_be_a_result(tmp_path: Path) -> None:
    certify(Changing().eval(), X, tmp_path)
    expected = Changing().eval()(X.clone())
    for format in FORMATS:
        outputs = load(tmp_path, format=format)(X.numpy())
        for received, wanted in zip(outputs.values(), expected, strict=True):
            torch.testing.assert_close(torch.from_numpy(received), wanted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input": 5}, "input: expected 1 distinct identifiers"),
        ({"output": b"x"}, "output: expected 1 distinct identifiers"),
        ({"input": "é"}, "input: expected 1 distinct identifiers"),
        ({"formats": True}, "formats: expected some of"),
        ({"dynamic": {0: ""}}, "expected a name of axis 0"),
        ({"formats": "onnx", "opset": 9}, r"opset: onnx cannot convert this network to 9 \(No Adapter From Version"),
    ],
)
def test_a_wrong_argument_is_named_and_leaves_no_folder(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        certify(network(), X, tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_a_failure_after_the_folder_was_locked_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(certification.golden, "write", full)
    with pytest.raises(ExportError, match="No space left"):
        certify(network(), X, tmp_path / "new", formats="pt2")
    assert not (tmp_path / "new").exists()


def test_a_failed_export_leaves_no_parent_folders(tmp_path: Path) -> None:
    with pytest.raises(ExportError):
        certify(network(), X, tmp_path / "a" / "b" / "c", formats="onnx", opset=9)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_of_a_file_leaves_the_certificate_as_it_was(folder: Path) -> None:
    (folder / "other.pt2").mkdir()
    with pytest.raises(ExportError, match=r"other\.pt2: expected a file or nothing, received a folder"):
        certify(network(1), X, folder, name="other")
    assert set(certificate.models(folder)) == {"model"}
    assert all(check.passed for check in verify(folder))


@pytest.mark.parametrize("use", [load, verify, inspect, lambda path: certify(network(), X, path)])
@pytest.mark.parametrize("path", [None, 5, "a\0b"])
def test_what_is_no_path_is_named(use: Any, path: Any) -> None:
    with pytest.raises(ExportError, match=f": expected a path, received {path!r}".replace("\\", r"\\")):
        use(path)


def test_a_folder_in_place_of_an_onnx_file_is_named(folder: Path) -> None:
    with pytest.raises(ExportError, match="expected an ONNX file, received a folder"):
        inspect(folder)
    with pytest.raises(ExportError, match="fold_to: expected the path of a file, received the folder"):
        inspect(folder / "model.onnx", fold_to=folder)


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.norm(a) + b


def test_inputs_of_different_batch_sizes_are_refused(tmp_path: Path) -> None:
    certify(Sum().eval(), (X, X), tmp_path, formats=FORMATS)
    for format in FORMATS:
        with pytest.raises(ValueError, match="b: expected N = 4, as before, received 1"):
            load(tmp_path, format=format)(X.numpy(), X[:1].numpy())


def test_tensors_are_taken_as_arrays(folder: Path) -> None:
    predict = load(folder)
    np.testing.assert_array_equal(predict(X.clone().requires_grad_())["output"], predict(X.numpy())["output"])


def test_a_missing_package_is_named_rather_than_a_damaged_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=r'expected to be installed; pip install "batchnorm-lab\[deploy\]"'):
        load(folder, format="onnx")
    with pytest.raises(ExportError, match="expected to be installed"):
        inspect(folder / "model.onnx")
