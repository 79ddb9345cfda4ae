"""The commands of `python -m bnmodel`."""

import io
import json
import sys
from dataclasses import asdict, fields
from types import ModuleType

import pytest
import torchvision

from bnmodel import RECIPES, load_checkpoint
from bnmodel.__main__ import FUNCTIONS, main
from bnmodel.experiments import catalogue


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    arguments = ["train", "--recipe", "fast", "--dataset", "digits", "--seed", "3", "--out", str(folder)]
    assert main(arguments) == 0
    return folder


def test_training_writes_the_best_weights_the_history_and_the_curves(trained):
    history = json.loads((trained / "history.json").read_text())
    checkpoint = load_checkpoint(trained)
    assert checkpoint.results["epoch"] == history["best_epoch"]
    assert checkpoint.results["validation_loss"] == history["best_validation_loss"]
    assert (history["recipe"]["seed"], history["dataset"]) == (3, "digits")
    assert (trained / "loss_curves.png").read_bytes().startswith(b"\x89PNG")


def test_evaluating_gives_the_validation_loss_of_the_best_epoch_and_a_confusion_matrix(trained, capsys):
    assert main(["evaluate", str(trained)]) == 0
    printed = capsys.readouterr().out
    best = json.loads((trained / "history.json").read_text())["best_validation_loss"]
    assert f"validation  loss {best:.6f}" in printed
    rows = [line.split() for line in printed.splitlines()[-10:]]
    assert sum(int(count) for row in rows for count in row[1:] if count != "·") == 297  # the test digits


def test_missing_mnist_that_cannot_be_downloaded_is_an_actionable_error(tmp_path, capsys, monkeypatch):
    def offline(self):
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", offline)
    assert main(["train", "--data-root", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    message = capsys.readouterr().err
    assert "train-images-idx3-ubyte" in message
    assert "--data-root" in message
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_checkpoint_is_an_error_that_names_the_command_to_train_one(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path)]) == 1
    assert "python -m bnmodel train" in capsys.readouterr().err


def test_a_folder_with_an_exported_network_is_the_output_folder_only_if_it_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "checkpoints" / "lecture"
    folder.mkdir(parents=True)
    (folder / "certificate.json").write_text("{}")
    arguments = ["train", "--dataset", "digits", "--epochs", "1"]
    assert main(arguments) == 1
    assert "--out build/lecture" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["certificate.json"]
    assert main([*arguments, "--out", "checkpoints/lecture"]) == 0
    assert (folder / "best.pt").exists()


def test_the_help_of_experiment_names_all_of_them(capsys):
    with pytest.raises(SystemExit):
        main(["experiment", "--help"])
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert [name for name in catalogue.EXPERIMENTS if name not in printed] == []
    assert main(["experiment"]) == 1
    assert ", ".join(catalogue.EXPERIMENTS) in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["practise"],
        ["train", "--recipe", "slow"],
        ["train", "--epochs", "many"],
        ["train", "--epochs", "0"],
        ["train", "--dataset", "letters"],
        ["train", "--hurry"],
        ["evaluate"],
        ["refit", "checkpoints/robust"],
    ],
)
def test_a_wrong_command_exits_with_2_and_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_field_of_a_recipe_and_its_network_is_an_option_with_its_default(recipe, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["train", "--recipe", recipe, "--help"])
    assert exit_.value.code == 0
    printed = capsys.readouterr().out
    names = [field.name for field in (*fields(RECIPES[recipe]), *fields(RECIPES[recipe].model))]
    assert [name for name in names if name != "model" and f"--{name.replace('_', '-')}" not in printed] == []
    assert f"(default: {RECIPES[recipe].batch_size})" in printed


def test_a_training_takes_the_fields_that_are_set_and_the_rest_from_its_recipe(tmp_path):
    options = "--batch-size 300 --learning-rate 0.3 --epochs 1 --no-channels-last --norm before --channels 3 4"
    arguments = ["train", "--recipe=fast", "--dataset=digits", "--out", str(tmp_path), *options.split()]
    assert main(arguments) == 0
    expected = asdict(RECIPES["fast"])
    expected.update(batch_size=300, learning_rate=0.3, epochs=1, channels_last=False)
    expected["model"].update(norm="before", channels=(3, 4))
    assert load_checkpoint(tmp_path).recipe == expected


def test_help_lists_every_command_with_one_line(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert [name for name in FUNCTIONS if f"\n  {name} " not in printed] == []


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "diagnose"])
def test_a_command_prints_its_help(name, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([name, "--help"])
    assert exit_.value.code == 0
    assert f"usage: bnmodel {name}" in capsys.readouterr().out


def test_diagnose_passes_its_arguments_to_the_diagnosis(monkeypatch):
    command = ModuleType("command")
    command.main = lambda arguments: len(arguments)
    monkeypatch.setitem(sys.modules, "bnmodel.diagnosis", ModuleType("diagnosis"))
    monkeypatch.setitem(sys.modules, "bnmodel.diagnosis.command", command)
    assert main(["diagnose", "checkpoints/lecture", "--json"]) == 2


def test_inspect_and_verify_report_by_their_exit_status(tmp_path, capsys):
    assert main(["inspect", "examples/onnx/train-mode.onnx"]) == 1
    assert "training-mode" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "missing.onnx")]) == 2
    assert main(["verify", str(tmp_path)]) == 2
    assert "certify a network into this folder first" in capsys.readouterr().err


def test_a_terminal_without_unicode_gets_its_help(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    with pytest.raises(SystemExit) as exit_:
        main(["train", "--help"])
    assert exit_.value.code == 0
    terminal.flush()
    assert b"--learning-rate" in terminal.buffer.getvalue()
