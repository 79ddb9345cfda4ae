"""bnmodel diagnose: exit status, table, JSON and HTML."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks.diagnosis import networks as zoo
from bnmodel.diagnosis import diagnose
from bnmodel.diagnosis.command import main

FACTORY = "benchmarks.diagnosis.networks:cnn_of_digits"


@pytest.fixture
def data(digits: zoo.Data, tmp_path: Path) -> Path:
    np.savez(tmp_path / "test.npz", x=digits.test[0].numpy(), y=digits.test[1].numpy())
    return tmp_path / "test.npz"


def weights(model: nn.Module, folder: Path, **more: Any) -> Path:
    torch.save({"state_dict": model.state_dict(), **more}, folder / "weights.pt")
    return folder / "weights.pt"


def test_a_sound_network_exits_with_0(cnn: nn.Module, data: Path, tmp_path: Path, capsys: Any) -> None:
    assert main([FACTORY, "--weights", str(weights(cnn, tmp_path)), "--data", str(data)]) == 0
    assert "3 batch norms, 500 samples: no findings" in capsys.readouterr().out


def test_a_network_without_batch_norm_is_not_called_sound(data: Path, tmp_path: Path, capsys: Any) -> None:
    page = tmp_path / "report.html"
    assert main(["tests.diagnosis.test_command:without_norm", "--data", str(data), "--html", str(page)]) == 0
    for text in (capsys.readouterr().out, page.read_text()):
        assert "no batch norm found, 500 samples: nothing was checked" in text
        assert "no findings" not in text


def without_norm() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_errors_exit_with_1_and_are_in_the_files(drifted: nn.Module, data: Path, tmp_path: Path, capsys: Any) -> None:
    arguments = [FACTORY, "--weights", str(weights(drifted, tmp_path)), "--data", str(data)]
    page, report = tmp_path / "report.html", tmp_path / "report.json"
    assert main([*arguments, "--html", str(page), "--json", str(report)]) == 1
    assert "error [stale-statistics] 1:" in capsys.readouterr().out
    assert json.loads(report.read_text())["findings"][0]["code"] == "stale-statistics"
    text = page.read_text()
    assert text.count("<svg") == 2
    assert not re.findall(r'(?:src|href)="(?!#)', text.replace("xlink:href", "xlink"))


def test_json_goes_to_standard_output_alone(cnn: nn.Module, data: Path, tmp_path: Path, capsys: Any) -> None:
    main([FACTORY, "--weights", str(weights(cnn, tmp_path)), "--data", str(data), "--json", "-"])
    assert json.loads(capsys.readouterr().out)["sound"]


def test_a_checkpoint_without_buffers_is_never_updated(cnn: nn.Module, data: Path, tmp_path: Path, capsys: Any) -> None:
    torch.save(dict(cnn.named_parameters()), tmp_path / "weights.pt")
    assert main([FACTORY, "--weights", str(tmp_path / "weights.pt"), "--data", str(data)]) == 1
    assert "never-updated" in capsys.readouterr().out


def test_a_reference_tells_different_data(cnn: nn.Module, digits: zoo.Data, tmp_path: Path, capsys: Any) -> None:
    np.savez(tmp_path / "train.npz", x=digits.train[0].numpy())
    np.savez(tmp_path / "dark.npz", x=0.4 * digits.test[0].numpy() - 0.5)
    arguments = [FACTORY, "--weights", str(weights(cnn, tmp_path)), "--data", str(tmp_path / "dark.npz")]
    assert main([*arguments, "--reference", str(tmp_path / "train.npz"), "--json", "-"]) == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["code"] == "different-data"


def folder_of_digits(digits: zoo.Data, folder: Path) -> Path:
    for index, (image, label) in enumerate(zip(*digits.test, strict=True)):
        pixels = ((image[0] + 1) * 127.5).round().byte().numpy()
        (folder / str(int(label))).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / str(int(label)) / f"{index}.png")
    return folder


def test_a_folder_per_class_is_read(cnn: nn.Module, digits: zoo.Data, tmp_path: Path, capsys: Any) -> None:
    folder = folder_of_digits(digits, tmp_path / "images")
    arguments = [FACTORY, "--weights", str(weights(cnn, tmp_path)), "--data", str(folder)]
    assert main(arguments) == 2
    assert "--size" in capsys.readouterr().err
    assert main([*arguments, "--size", "8", "--mean", "0.5", "--std", "0.5", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["eval"]["accuracy"] > 0.95
    (folder / ".ipynb_checkpoints").mkdir()  # no class
    assert main([*arguments, "--size", "8", "--mean", "0.5", "--std", "0.5", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["eval"]["accuracy"] > 0.95
    (folder / "00 empty").mkdir()
    assert main([*arguments, "--size", "8", "--mean", "0.5", "--std", "0.5"]) == 2
    assert "received none in 00 empty" in capsys.readouterr().err


@pytest.mark.parametrize("prefix", ["module._orig_mod.", "_orig_mod.module.", "net."])
def test_prefixes_of_wrappers_are_removed(cnn: nn.Module, data: Path, tmp_path: Path, prefix: str) -> None:
    torch.save({f"{prefix}{name}": value for name, value in cnn.state_dict().items()}, tmp_path / "wrapped.pt")
    assert main([FACTORY, "--weights", str(tmp_path / "wrapped.pt"), "--data", str(data)]) == 0


def test_inputs_get_the_type_of_the_network(cnn: nn.Module, digits: zoo.Data, tmp_path: Path) -> None:
    np.savez(tmp_path / "half.npz", x=digits.test[0].numpy().astype(np.float16), y=digits.test[1].numpy())
    arguments = ["--data", str(tmp_path / "half.npz"), "--batch-size", str(10**20)]  # that is, all at once
    assert main([FACTORY, "--weights", str(weights(cnn, tmp_path)), *arguments]) == 0


def test_safetensors_are_read(cnn: nn.Module, data: Path, tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file(cnn.state_dict(), tmp_path / "weights.safetensors")
    assert main([FACTORY, "--weights", str(tmp_path / "weights.safetensors"), "--data", str(data)]) == 0


@pytest.mark.parametrize("name", ["cured.safetensors", "cured"])
def test_recalibrated_weights_are_written_and_sound(
    drifted: nn.Module, digits: zoo.Data, data: Path, tmp_path: Path, capsys: Any, name: str
) -> None:
    weights, training, cured = tmp_path / "drifted.pt", tmp_path / "train.npz", tmp_path / name
    torch.save(drifted.state_dict(), weights)
    np.savez(training, x=digits.train[0])
    common = [FACTORY, "--data", str(data), "--reference", str(training)]
    assert main([*common, "--weights", str(weights), "--recalibrated", str(cured)]) == 1
    assert f"{cured}: the weights with new running statistics" in capsys.readouterr().err
    assert main([*common, "--weights", str(cured)]) == 0


def test_torchvisions_models_have_names(tmp_path: Path, capsys: Any) -> None:
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32))
    assert main(["torchvision:resnet18", "--data", str(tmp_path / "x.npz")]) == 1
    assert "20 batch norms" in capsys.readouterr().out


class Pickled:
    def __reduce__(self) -> Any:
        return (print, ("run",))


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        ("nowhere:cnn", {}, "cannot be imported"),
        ("cnn", {}, "MODULE:FACTORY"),
        ("torchvision:resnet1", {}, "has no resnet1"),
        ("json:dumps", {}, "failed"),
        ("json:dumps", {}, "builds the network without arguments"),
        ("./folder/net.py:cnn", {}, "write folder.net:cnn"),
        ("../net.py:cnn", {}, "write net:cnn"),
        ("broken:cnn", {}, "importing broken failed: NameError"),
        ("script:cnn", {}, "importing script failed: SystemExit"),
        ("os:getcwd", {}, "to return an nn.Module"),
        ("sys:exit", {}, "sys:exit failed: SystemExit"),
        ("exits:Net", {}, "SystemExit: 0; the inputs were"),
        (FACTORY, {"--data": "absent.npz"}, "does not exist"),
        (FACTORY, {"--data": "absent.npz"}, "bnmodel.diagnose(model, loader)"),
        (FACTORY, {"--data": "array.npy"}, "np.savez"),
        (FACTORY, {"--data": "bytes.npz"}, "the inputs were uint8 [4, 1, 8, 8]"),
        (FACTORY, {"--data": "bytes.npz"}, "convert them to float32 and scale them as in training"),
        (FACTORY, {"--data": "empty.npz"}, "at least one sample in empty.npz"),
        (FACTORY, {"--data": "words.npz"}, "expected numbers as x in words.npz"),
        (FACTORY, {"--data": "classes.npz"}, "expected numbers as y in classes.npz"),
        (FACTORY, {"--reference": "bytes.npz"}, "those of the reference uint8 [4, 1, 8, 8]"),
        (FACTORY, {"--data": "net.png"}, "expected an .npz file or a folder, received net.png"),
        (FACTORY, {"--data": "pickled.npz"}, "without pickled objects"),
        (FACTORY, {"--data": "other.npz"}, "expected an array x"),
        (FACTORY, {"--data": "single.npz"}, "with a sample per row"),
        (FACTORY, {"--weights": "numbered.pt"}, "expected a state_dict"),
        (FACTORY, {"--weights": "absent.pt"}, "does not exist"),
        (FACTORY, {"--weights": "absent.safetensors"}, "does not exist"),
        (FACTORY, {"--weights": "pickled.pt"}, "objects other than tensors"),
        (FACTORY, {"--weights": "damaged.pt"}, "not a file of tensors"),
        (FACTORY, {"--weights": "damaged.safetensors"}, "not a file of tensors"),
        (FACTORY, {"--weights": "other.pt"}, "does not fit the model"),
        (FACTORY, {"--weights": "wide.pt"}, "expected 0.weight of shape [12, 1, 3, 3], received [16, 1, 3, 3]; build"),
        (FACTORY, {"--json": ""}, "expected the name of a file to write, received none"),
        (FACTORY, {"--recalibrated": "."}, "expected the name of a file to write, received ."),
        (FACTORY, {"--samples": "0"}, "at least 1"),
        (FACTORY, {"--batch-size": "many"}, "expected an integer of at least 1, received many"),
        (FACTORY, {"--mean": "dark"}, "expected a finite number, received dark"),
    ],
)
def test_wrong_use_exits_with_2_and_a_remedy(
    data: Path, tmp_path: Path, capsys: Any, monkeypatch: Any, model: str, change: dict[str, str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[2])])
    np.savez("pickled.npz", x=np.array([Pickled()], dtype=object))
    np.savez("empty.npz", x=np.zeros((0, 1, 8, 8), np.float32))
    np.savez("words.npz", x=np.array([["a"]]))
    np.savez("classes.npz", x=np.zeros((1, 1, 8, 8), np.float32), y=np.array(["a"]))
    Path("net.png").write_bytes(b"")
    np.savez("other.npz", images=np.zeros(3))
    np.savez("single.npz", x=np.float32(1))
    torch.save({0: torch.zeros(1)}, "numbered.pt")
    np.save("array.npy", np.zeros(3))
    np.savez("bytes.npz", x=np.zeros((4, 1, 8, 8), np.uint8))
    Path("broken.py").write_text("undefined_name")
    Path("script.py").write_text("import sys; sys.exit(2)")
    Path("exits.py").write_text(
        "from torch import nn\nclass Net(nn.BatchNorm2d):\n"
        " def __init__(self): super().__init__(1)\n def forward(self, x): raise SystemExit(0)"
    )
    torch.save(Pickled(), "pickled.pt")
    torch.save({"a": torch.zeros(1)}, "other.pt")
    torch.save({"0.weight": torch.zeros(16, 1, 3, 3)}, "wide.pt")
    for name in ("damaged.pt", "damaged.safetensors"):
        Path(name).write_bytes(b"PK\x03\x04 and no more")
    options = {"--data": str(data), **change}
    assert main([model, *(word for pair in options.items() for word in pair)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "weights_only" not in captured.err
    assert "run" not in captured.out


def test_the_report_is_plain_data_text_and_figures(drifted: nn.Module, digits: zoo.Data) -> None:
    report = diagnose(drifted, digits.batches())
    plain = json.loads(report.to_json())
    assert [layer["name"] for layer in plain["layers"]] == ["1", "5", "10"]
    assert "remedy: model = bnmodel.recalibrate(" in str(report)
    assert len(report.figure().axes) == 2


def test_layer_names_cannot_inject_html(digits: zoo.Data) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    model.add_module("<script>", nn.BatchNorm2d(2))
    assert "<script>" not in diagnose(model.eval(), digits.batches()).to_html("<script>")


def test_files_are_written_though_the_reader_of_the_report_has_ended(
    cnn: nn.Module, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    page, report, new = tmp_path / "report.html", tmp_path / "report.json", tmp_path / "new.pt"
    arguments = [FACTORY, "--weights", str(weights(cnn, tmp_path)), "--data", str(data), "--html", str(page)]
    with os.fdopen(writing, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        monkeypatch.setattr(sys, "stderr", closed)
        assert main([*arguments, "--json", str(report), "--recalibrated", str(new)]) == 0
    assert all(path.exists() for path in (page, report, new))


@pytest.mark.parametrize("key", ["net", "model_ema"])
def test_the_only_state_dict_of_a_checkpoint_is_found(cnn: nn.Module, data: Path, tmp_path: Path, key: str) -> None:
    optimizer = torch.optim.SGD(cnn.parameters(), lr=0.1).state_dict()
    torch.save({key: cnn.state_dict(), "acc": 97.5, "epoch": 3, "optimizer": optimizer}, tmp_path / "weights.pt")
    assert main([FACTORY, "--weights", str(tmp_path / "weights.pt"), "--data", str(data)]) == 0
