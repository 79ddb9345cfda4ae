"""python -m bnmodel, as a user types it."""

import json

import pytest
import torchvision

from bnmodel import load_checkpoint
from bnmodel.__main__ import main


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    arguments = ["train", "--recipe", "fast", "--dataset", "digits", "--seed", "3", "--out", str(folder)]
    assert main(arguments) == 0
    return folder


def test_training_leaves_the_best_weights_the_history_and_the_curves(trained):
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


def test_mnist_that_is_not_there_and_cannot_be_downloaded_is_an_error_in_words(tmp_path, capsys, monkeypatch):
    def offline(self):
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", offline)
    assert main(["train", "--data-root", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    message = capsys.readouterr().err
    assert "train-images-idx3-ubyte" in message
    assert "--data-root" in message
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_checkpoint_is_an_error_that_says_how_to_train_one(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path)]) == 1
    assert "python -m bnmodel train" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["train", "--recipe", "slow"], ["train", "--epochs", "many"]])
def test_a_wrong_command_exits_with_2_and_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage" in capsys.readouterr().err
