"""Refitting on all digits, including the validation digits."""

import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from training_helpers import SHORT, same, state_of

import bnmodel.training.fitting as module
from bnmodel import CheckpointError, Digits, SimpleCNN, load_checkpoint
from bnmodel.__main__ import main
from bnmodel.data import load_offline_digits, split
from bnmodel.training import refit, train_from_scratch
from bnmodel.training.calibration import fold_temperature
from bnmodel.training.checkpoint import save_checkpoint

FINAL = replace(SHORT, epochs=2, keeps_last=True, calibrated=True)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_offline_digits(train=True)[torch.arange(150)]


@pytest.fixture(scope="module")
def chosen(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("chosen")
    train_from_scratch(FINAL, *split(digits), "digits", out, progress=False)
    return out


def plain_training(digits: Digits, seed: int) -> SimpleCNN:
    """A training on all digits without calibration."""
    recipe = replace(FINAL, seed=seed, calibrated=False)
    return train_from_scratch(recipe, digits, digits, "digits", progress=False)[0]


@pytest.mark.parametrize("seed", [None, 5])
def test_a_refit_is_a_training_on_all_digits_with_the_temperature_of_the_chosen_one(
    seed: int | None, digits: Digits, chosen: Path, tmp_path: Path
) -> None:
    refit(chosen, digits, tmp_path, seed=seed, progress=False)
    expected = plain_training(digits, seed or 0)
    fold_temperature(expected, load_checkpoint(chosen).results["temperature"])
    assert same(state_of(load_checkpoint(tmp_path).model), state_of(expected))


def test_its_results_and_history_are_those_of_the_chosen_training(digits: Digits, chosen: Path, tmp_path: Path) -> None:
    refit(chosen, digits, tmp_path, progress=False)
    checkpoint, before = load_checkpoint(tmp_path), load_checkpoint(chosen)
    assert checkpoint.results == before.results | {"refitted_on": 150}
    assert checkpoint.recipe == before.recipe
    assert (tmp_path / "history.json").read_bytes() == (chosen / "history.json").read_bytes()


def test_refitting_a_refit_with_another_seed_equals_refitting_the_chosen_training_with_it(
    digits: Digits, chosen: Path, tmp_path: Path
) -> None:
    refit(chosen, digits, tmp_path / "shipped", progress=False)
    refit(tmp_path / "shipped", digits, tmp_path / "again", seed=5, progress=False)
    refit(chosen, digits, tmp_path / "expected", seed=5, progress=False)
    again, expected = load_checkpoint(tmp_path / "again"), load_checkpoint(tmp_path / "expected")
    assert same(state_of(again.model), state_of(expected.model))
    assert again.results == expected.results


def test_an_interrupted_and_resumed_refit_gives_the_same_weights(
    digits: Digits, chosen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        real = module.Training.save

        def once(training: module.Training, out: Path, dataset: str) -> None:
            real(training, out, dataset)
            raise KeyboardInterrupt

        patched.setattr(module.Training, "save", once)
        refit(chosen, digits, tmp_path, progress=False)
    assert "refitted_on" not in load_checkpoint(tmp_path).results
    refit(chosen, digits, tmp_path, resume=True, progress=False)
    refit(chosen, digits, tmp_path / "at once", progress=False)
    once_more = load_checkpoint(tmp_path / "at once")
    assert same(state_of(load_checkpoint(tmp_path).model), state_of(once_more.model))


def test_a_recipe_that_selects_its_epoch_by_validation_loss_is_refused(digits: Digits, tmp_path: Path) -> None:
    train_from_scratch(replace(SHORT, epochs=1), *split(digits), "digits", tmp_path, progress=False)
    with pytest.raises(ValueError, match="expected a recipe that keeps its last epoch, received quick"):
        refit(tmp_path, digits, tmp_path / "out")


def test_a_training_that_is_not_finished_is_refused(digits: Digits, tmp_path: Path) -> None:
    train_from_scratch(replace(FINAL, calibrated=False), *split(digits), "digits", tmp_path, progress=False)
    best = load_checkpoint(tmp_path)
    save_checkpoint(tmp_path / "best.pt", best.model, FINAL.to_dict(), best.results, "digits")  # as Ctrl-C leaves it
    with pytest.raises(ValueError, match=r"expected a finished run .* train --recipe quick --resume"):
        refit(tmp_path, digits, tmp_path / "out")


@pytest.mark.parametrize(
    ("patience", "remedy"), [(9, "--recipe quick --resume"), (1, "--recipe quick --patience 9 --resume")]
)
def test_a_training_that_ended_before_its_last_epoch_is_refused(
    patience: int, remedy: str, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(FINAL, epochs=9, patience=patience, calibrated=False)
    if patience == 1:  # stops early
        monkeypatch.setattr(module.Training, "_train_epoch", lambda _: (1.0, 0.5))
    else:
        monkeypatch.setattr(module.Training, "save", Mock(side_effect=KeyboardInterrupt))
    model, history = train_from_scratch(recipe, *split(digits), "digits", tmp_path, progress=False)
    save_checkpoint(tmp_path / "best.pt", model, recipe.to_dict(), {}, "digits")
    assert history.stopped == ("early" if patience == 1 else "interrupted")
    with pytest.raises(ValueError, match=f"expected a finished run .* received one that was stopped: .*{remedy}"):
        refit(tmp_path, digits, tmp_path / "out")


def test_a_recipe_of_another_version_is_refused(digits: Digits, chosen: Path, tmp_path: Path) -> None:
    shutil.copytree(chosen, tmp_path / "newer")
    best = load_checkpoint(chosen)
    recipe = best.recipe | {"sharpness": 0.1}
    save_checkpoint(tmp_path / "newer/best.pt", best.model, recipe, best.results, "digits")
    with pytest.raises(CheckpointError, match=r"newer: expected a recipe of this version.*sharpness"):
        refit(tmp_path / "newer", digits, tmp_path / "out")


def test_the_folder_of_the_chosen_training_is_not_overwritten(digits: Digits, chosen: Path) -> None:
    for spelling in (chosen, chosen / ".." / chosen.name):
        with pytest.raises(ValueError, match="expected another folder"):
            refit(chosen, digits, spelling)


def test_the_command_refits_and_evaluating_says_that_validation_digits_were_used(
    chosen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["refit", str(chosen), "--out", str(tmp_path), "--seed", "1"]) == 0
    assert (tmp_path / "loss_curves.png").read_bytes().startswith(b"\x89PNG")
    assert main(["evaluate", str(tmp_path)]) == 0
    assert "the validation digits were among the training digits" in capsys.readouterr().out
