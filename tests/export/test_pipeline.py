"""The certificate of this project's files: the shipped files are right, and a broken file fails the right check."""

import functools
import io
import json
import os
import shutil
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import export.__main__
from bnmodel import CheckpointError, CustomBatchNorm, SimpleCNN, load_checkpoint
from bnmodel.data import load_sample
from bnmodel.data.ink import InkFinder
from bnmodel.data.preprocessing import Sketch, SketchClassifier
from bnmodel.deploy import certificate, golden
from bnmodel.deploy.capture import capture
from bnmodel.deploy.certificate import models
from bnmodel.deploy.certification import program_of
from bnmodel.deploy.checks import Check
from bnmodel.deploy.command import report
from bnmodel.deploy.formats import WRITERS
from bnmodel.deploy.loading import FORMATS, load_file
from bnmodel.deploy.signature import FlatNetwork, arguments
from bnmodel.io import checksum
from export import ExportError, certify, export_checkpoint, load, pipeline, verify
from export.inputs import canvas, canvas_inputs, digit_inputs

LECTURE = Path("checkpoints/lecture")
CANVASES = ((8, 8), (200, 280))
OTHERS = ("sketch", "numbers")


recognizer_of = functools.cache(functools.partial(load, LECTURE))  # torch.export's files take seconds to load


@pytest.fixture
def folder(tmp_path):
    """A copy of the shipped folder, to be broken; only `digits`, since the other networks take seconds to load."""
    copied = Path(shutil.copytree(LECTURE, tmp_path / "lecture", ignore=shutil.ignore_patterns(".lock")))
    found = models(copied)
    vectors = golden.read(copied / golden.FILE)
    for stem in OTHERS:
        del found[stem], vectors[stem]
        for path in copied.glob(f"{stem}.*"):
            path.unlink()
    golden.write(copied / golden.FILE, vectors)
    certificate.write(copied, found, [])
    return copied


@pytest.fixture
def digits_only(monkeypatch):
    networks = pipeline.networks_of
    monkeypatch.setattr(pipeline, "networks_of", lambda model: {"digits": networks(model)["digits"]})


def broken(folder: Path) -> set[tuple[str, str]]:
    return {(check.name, check.file) for check in verify(folder, None, CANVASES) if not check.passed}


def update_checksums(folder: Path, change) -> None:
    """Change the certificate and compute its hashes again, as a forger would."""
    found = models(folder)
    change({stem: model.metadata for stem, model in found.items()})
    certificate.write(folder, found, [])


def test_the_shipped_files_pass_every_check():
    assert broken(LECTURE) == set()


@pytest.mark.parametrize("ending", FORMATS)
def test_the_runtime_answers_as_the_network_does(ending):
    network, sample = load_checkpoint(LECTURE).model, load_sample(train=False)
    with torch.no_grad():
        expected = network(sample.images).numpy()
    received = recognizer_of(ending).classify(sample.images.numpy())
    np.testing.assert_allclose(received, expected, atol=1e-5, rtol=0)


def test_the_exported_graph_is_made_of_convolutions_dense_layers_and_their_activations():
    operators = [node.op_type for node in onnx.load(LECTURE / "digits.onnx").graph.node]
    assert sorted(operators) == sorted(
        ["Conv", "MaxPool", "Relu", "Conv", "MaxPool", "Relu", "Reshape", "Gemm", "Relu", "Gemm", "LogSoftmax"]
    )


def test_the_onnx_file_is_one_file_of_at_most_110_kb_with_opset_and_metadata():
    model = onnx.load(LECTURE / "digits.onnx", load_external_data=False)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert (LECTURE / "digits.onnx").stat().st_size <= 110_000
    metadata = json.loads({prop.key: prop.value for prop in model.metadata_props}["metadata.json"])
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", metadata["versions"]["onnx_opset"])]
    assert metadata["classes"] == [str(digit) for digit in range(10)]


def test_the_folded_statistics_stay_readable_in_the_metadata():
    norms = load(LECTURE, "onnx").metadata["batch_norms"]
    for name, norm in load_checkpoint(LECTURE).model.named_modules():
        if isinstance(norm, CustomBatchNorm):
            np.testing.assert_allclose(norms[name]["running_var"], norm.running_var.numpy(), rtol=1e-6)
            np.testing.assert_allclose(norms[name]["gamma"], norm.gamma.detach().numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", [f"digits.{ending}" for ending in FORMATS])
def test_one_flipped_byte_is_found(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 0x10
    (folder / name).write_bytes(content)
    assert ("unchanged", name) in broken(folder)


def test_a_swapped_file_is_found_by_its_hash_its_metadata_and_its_names(folder):
    shutil.copy(LECTURE / "sketch.onnx", folder / "digits.onnx")
    found = broken(folder)
    assert {("unchanged", "digits.onnx"), ("metadata", "digits.onnx"), ("names", "digits.onnx")} <= found


def test_a_missing_file_is_found(folder):
    (folder / "digits.pt2").unlink()
    assert {("unchanged", "digits.pt2"), ("loads", "digits.pt2")} <= broken(folder)


def test_an_edited_certificate_no_longer_matches_its_checksum(folder):
    path = folder / "certificate.json"
    path.write_text(path.read_text().replace('"classes": [\n    "0"', '"classes": [\n    "1"'))
    assert ("checksum", "certificate.json") in broken(folder)


def test_an_edited_certificate_with_a_new_checksum_contradicts_the_files(folder):
    update_checksums(folder, lambda metadata: metadata["digits"]["classes"].reverse())
    assert {("metadata", f"digits.{ending}") for ending in FORMATS} <= broken(folder)


def test_a_certificate_that_leaves_out_a_file_is_incomplete(folder):
    path = folder / "certificate.json"
    content = json.loads(path.read_text())
    del content["files"]["digits.pt2"]
    content["checksum"] = checksum(content)
    path.write_text(json.dumps(content))
    assert ("complete", "certificate.json") in broken(folder)


def test_another_checkpoint_beside_the_files_is_not_their_source(folder):
    content = torch.load(folder / "best.pt", weights_only=True)
    content["state"]["dense2.bias"][0] += 0.5
    torch.save(content, folder / "best.pt")
    found = broken(folder)
    assert {("source", "best.pt"), ("the shipped sample", "digits.onnx")} <= found


def test_edited_golden_vectors_are_found_by_value_even_with_new_checksums(folder):
    path = folder / "golden.json"
    content = json.loads(path.read_text())
    content["digits"][3]["outputs"][0]["data"][0] += 0.001
    path.write_text(json.dumps(content))
    update_checksums(folder, lambda content: None)
    assert ("golden vectors", "digits.onnx") in broken(folder)


class TrainMode(nn.Module):
    """A common mistake: batch statistics in the exported graph."""

    def __init__(self, network: SimpleCNN) -> None:
        super().__init__()
        self.network = network
        for module in network.modules():
            if isinstance(module, CustomBatchNorm):
                module.running_mean = module.running_var = module.num_batches_tracked = None

    def forward(self, images):
        return self.network(images)


@pytest.mark.parametrize("ending", ["torchscript", "onnx"])
def test_a_train_mode_model_put_in_place_with_new_checksums_breaks_batch_invariance(folder, ending):
    metadata = models(folder)["digits"].metadata
    network, example = TrainMode(load_checkpoint(folder).model).eval(), torch.zeros(2, 1, 28, 28)
    flat = FlatNetwork(network, arguments(network, example))
    captured = capture(flat, flat.arguments.tensors, flat.arguments.names, ["log_probs"])
    WRITERS[ending](program_of(captured, flat.arguments), metadata, folder / f"digits.{ending}")
    update_checksums(folder, lambda content: None)
    name = f"digits.{ending}"
    assert {("batch invariance", name), ("batch norm folded", name), ("golden vectors", name)} <= broken(folder)


def test_verify_prints_a_table_and_exits_with_zero_or_with_one(folder, capsys, monkeypatch):
    monkeypatch.setattr("export.verification.CANVASES", CANVASES)
    assert export.__main__.main(["verify", str(folder), "--data-root", "nowhere"]) == 0
    (folder / "digits.onnx").write_bytes(b"not a model")
    assert export.__main__.main(["verify", str(folder), "--data-root", "nowhere"]) == 1
    assert "FAILED  unchanged" in capsys.readouterr().out


def test_a_command_without_its_folder_is_no_folder(capsys):
    with pytest.raises(SystemExit):
        export.__main__.main(["verify"])
    assert "python -m export verify DIR" in capsys.readouterr().err


def test_verify_prints_its_table_in_an_encoding_without_arrows(folder, monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr("export.verification.CANVASES", CANVASES)
    assert export.__main__.main(["verify", str(folder), "--data-root", "nowhere"]) == 0
    terminal.flush()
    assert b"images ? log_probs" in terminal.buffer.getvalue()


def test_verify_prints_the_numbers_as_json(folder, capsys, monkeypatch):
    monkeypatch.setattr("export.verification.CANVASES", CANVASES)
    command = ["verify", str(folder), "--json", "--data-root", "nowhere"]
    assert export.__main__.main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"]
    compared = [check for check in report["checks"] if check["name"] == "golden vectors"]
    assert compared
    assert all(0 <= check["share"] <= 1 and check["difference"] >= 0 for check in compared)
    (folder / "digits.onnx").write_bytes(b"")
    assert export.__main__.main(command) == 1
    assert not json.loads(capsys.readouterr().out)["passed"]


def test_infinite_differences_are_null_in_json(capsys):
    check = Check("golden vectors", "f.onnx", False, "", float("inf"), float("nan"))
    assert report(Path("folder"), [check], as_json=True) == 1
    (check,) = json.loads(capsys.readouterr().out)["checks"]
    assert (check["difference"], check["share"]) == (None, None)


def test_exporting_writes_files_that_verify_and_a_model_card_beside_other_networks(tmp_path, digits_only):
    shutil.copy(LECTURE / "best.pt", tmp_path)
    certify(torch.nn.Linear(2, 3).eval(), torch.rand(4, 2), tmp_path, name="mine", formats="pt2")
    measured = export_checkpoint(tmp_path, None, CANVASES)
    assert all(check.passed for check in measured)
    assert set(models(tmp_path)) == {"digits", "mine"}
    assert broken(tmp_path) == set()
    assert (tmp_path / "README.md").read_text().startswith("---\nlicense: mit\n")
    assert not list(tmp_path.glob(".export-*"))


def test_a_failed_check_exports_nothing_and_leaves_the_earlier_files(folder, digits_only, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("bnmodel.deploy.allowance.ROUNDINGS", 0.0)
    monkeypatch.setattr("bnmodel.deploy.allowance.UNITS", 0.0)
    with pytest.raises(ExportError, match=r"nothing was exported(.*\n.*)*golden vectors"):
        export_checkpoint(folder, None, CANVASES)
    (folder / ".lock").unlink(missing_ok=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere; the next test covers a full disk")
def test_a_read_only_folder_is_refused(folder, digits_only):
    folder.chmod(0o500)
    with pytest.raises(ExportError, match="cannot be written"):
        export_checkpoint(folder, None, CANVASES)


def test_a_full_disk_is_reported_and_leaves_no_partial_files(folder, digits_only, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("export.pipeline.golden.write", full)
    with pytest.raises(ExportError, match=r"cannot be written.*No space left"):
        export_checkpoint(folder, None, CANVASES)
    (folder / ".lock").unlink(missing_ok=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_without_a_checkpoint_says_how_to_train_one(tmp_path, capsys):
    assert export.__main__.main([str(tmp_path / "nothing")]) == 1
    assert "python -m bnmodel train" in capsys.readouterr().err


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    torch.save({"format": 1, "architecture": "ResNet", "config": {}, "state": {}}, tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match=r"expected a checkpoint of SimpleCNN or RobustCNN.*received 'ResNet'"):
        export_checkpoint(tmp_path, None, CANVASES)


def test_any_network_is_certified_from_its_eval_copy_with_a_warning_in_train_mode(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    network(torch.randn(64, 3, 8, 8))  # moves the running statistics
    with pytest.warns(UserWarning, match="is in train mode; its eval copy is exported"):
        certify(network, torch.randn(8, 3, 8, 8), tmp_path, name="tiny", about={"classes": ["a", "b", "c", "d"]})
    assert network.training
    assert broken(tmp_path) == set()
    (tmp_path / "tiny.onnx").write_bytes((LECTURE / "digits.onnx").read_bytes())
    assert ("unchanged", "tiny.onnx") in broken(tmp_path)


def test_inputs_of_the_wrong_shape_or_type_are_refused():
    recognizer = load(LECTURE)
    with pytest.raises(ValueError, match=r"expected uint8 \(H, W, 4\) RGBA, received float64"):
        recognizer.read(np.zeros((28, 28, 4)))
    with pytest.raises(ValueError, match=r"sides of 8 … 4096 pixels, received \(4, 4\)"):
        recognizer.read(np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(ValueError, match=r"expected float32 \(N, 1, 28, 28\)"):
        recognizer.classify(np.zeros((1, 28, 28), np.float32))


def test_two_threads_may_load_at_once():
    with ThreadPoolExecutor(4) as threads:
        assert len(list(threads.map(load_file, [LECTURE / "digits.pt2"] * 4))) == 4


def test_a_blank_drawing_has_no_label_and_a_digit_under_a_sharp_shadow_has_the_networks_in_every_format():
    photo = canvas(digit_inputs()[6][0, 0], 200, 280, dark=True)
    photo[:, :140, :3] //= 2
    assert InkFinder()(torch.from_numpy(photo)).shadow == 1
    with torch.no_grad():
        expected, digit, _ = SketchClassifier(load_checkpoint(LECTURE).model).eval()(torch.from_numpy(photo))
    for ending in FORMATS:
        recognizer = recognizer_of(ending)
        blank, answer = recognizer.read(np.full((50, 60, 4), 255, np.uint8)), recognizer.read(photo)
        assert blank.blank
        assert blank.label is None
        np.testing.assert_allclose(blank.probabilities, 0.1)
        assert answer.label == 3
        np.testing.assert_allclose(answer.probabilities, expected, atol=1e-5, rtol=0)
        np.testing.assert_allclose(answer.digit, digit, atol=1e-5, rtol=0)


@pytest.mark.parametrize("stem", ["sketch", "numbers"])
@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    size=st.tuples(st.integers(8, 400), st.integers(8, 400)),
    dark=st.floats(0, 1),
    levels=st.sampled_from([(0, 255), (0, 1), (250, 255), (60, 180), (255, 255)]),
    blurred=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_picture_has_finite_outputs(stem, size, dark, levels, blurred, seed):
    grey = np.where(np.random.default_rng(seed).random(size) < dark, *levels).astype(np.uint8)
    if blurred:
        grey[1:] = (grey[1:].astype(int) + grey[:-1]) // 2
    picture = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    assert all(np.isfinite(output).all() for output in loaded(stem)(picture))


def test_the_preprocessing_of_a_canvas_of_fixed_size_is_compiled(tmp_path):
    drawing = torch.from_numpy(canvas_inputs((64, 64))[0]).to(torch.float32)
    certify(Sketch().eval(), drawing, tmp_path, name="sketch", formats="torchscript", dynamic=False)
    assert all(check.passed for check in verify(tmp_path))


@pytest.mark.parametrize("stem", ["digits", "sketch", "numbers"])
def test_matrix_products_have_two_matrices(stem):
    """OpenCV cannot multiply by a vector."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(LECTURE / f"{stem}.onnx")).graph
    known = [*graph.value_info, *graph.input, *graph.output]
    axes = {value.name: len(value.type.tensor_type.shape.dim) for value in known}
    axes |= {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMul"]
    assert all(axes[name] >= 2 for node in products for name in node.input)


@functools.cache
def loaded(stem):
    return load_file(LECTURE / f"{stem}.onnx").run


def test_no_file_holds_paths_of_the_machine_it_was_made_on():
    for path in LECTURE.iterdir():
        for content in contents(path):
            for word in (str(Path.cwd()).encode(), b"site-packages", b"/usr/lib/python", b'.py"'):
                assert word not in content, path


def contents(path: Path) -> list[bytes]:
    """A file's bytes, and those of what is packed in it."""
    raw = path.read_bytes()
    if not zipfile.is_zipfile(path):
        return [raw]
    with zipfile.ZipFile(path) as archive:
        return [raw, *(archive.read(name) for name in archive.namelist())]


@pytest.mark.parametrize("ending", ["torchscript", "pt2"])
def test_no_file_holds_the_date_it_was_made(ending):
    with zipfile.ZipFile(LECTURE / f"digits.{ending}") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert not [name for name in archive.namelist() if name.endswith(".debug_pkl")]
