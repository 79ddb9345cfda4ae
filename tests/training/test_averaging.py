"""Recipes with `averaging`, whose network is the mean over the last epochs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_helpers import SHORT, interrupt_after, same, seeded_model, state_of

from bnmodel import CheckpointError, Digits, load_checkpoint
from bnmodel.training import fit
from bnmodel.training.evaluation import evaluate
from bnmodel.training.trainer import Training

LAST_TWO = replace(SHORT, epochs=4, patience=4, schedule="one_cycle", averaging=2, keeps_last=True)
Parts = tuple[Digits, Digits]


def test_the_network_is_the_mean_of_its_weights_and_statistics_before_and_after_every_step(few: Parts) -> None:
    training = Training(seeded_model(LAST_TWO), *few, LAST_TWO, "cpu")
    epochs = training.epochs()
    next(epochs), next(epochs)
    seen = [state_of(training.model)]
    real = training.optimizer.step

    def step() -> None:
        real()
        seen.append(state_of(training.model))

    training.optimizer.step = step  # type: ignore[method-assign]
    next(epochs), next(epochs)
    training.finish()
    for name, value in training.model.state_dict().items():
        if value.is_floating_point():
            mean = torch.stack([state[name].double() for state in seen]).mean(0)
            torch.testing.assert_close(value.double(), mean, rtol=1e-6, atol=1e-7)


def test_the_epochs_before_are_those_of_a_training_without_averaging(few: Parts) -> None:
    shorter = replace(LAST_TWO, epochs=2, averaging=0)
    losses = [fit(seeded_model(recipe), *few, recipe, progress=False).epochs for recipe in (LAST_TWO, shorter)]
    assert [e.validation_loss for e in losses[0][:2]] == [e.validation_loss for e in losses[1]]


def test_the_learning_rate_is_then_a_tenth_of_the_peak_and_momentum_the_recipes(few: Parts) -> None:
    training = Training(seeded_model(LAST_TWO), *few, LAST_TWO, "cpu")
    list(training.epochs())
    (group,) = training.optimizer.param_groups
    assert group["lr"] == pytest.approx(LAST_TWO.learning_rate / 10)
    assert group["momentum"] == LAST_TWO.momentum


def test_the_average_is_evaluated_saved_and_returned(few: Parts, tmp_path: Path) -> None:
    model = seeded_model(LAST_TWO)
    history = fit(model, *few, LAST_TWO, out=tmp_path, progress=False)
    assert evaluate(model, few[1])[0] == history.best.validation_loss
    assert same(state_of(load_checkpoint(tmp_path).model), state_of(model))


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_an_interrupted_and_resumed_training_equals_an_uninterrupted_one_bit_for_bit(
    stop: int, few: Parts, tmp_path: Path
) -> None:
    whole, parts = seeded_model(LAST_TWO), seeded_model(LAST_TWO)
    fit(whole, *few, LAST_TWO, progress=False)
    fit(parts, *few, LAST_TWO, out=tmp_path, progress=False, on_epoch=interrupt_after(stop))
    again = seeded_model(LAST_TWO, seed=1)
    fit(again, *few, LAST_TWO, out=tmp_path, resume=True, progress=False)
    assert same(state_of(again), state_of(whole))


def test_resuming_a_file_without_the_average_is_an_actionable_error(few: Parts, tmp_path: Path) -> None:
    fit(seeded_model(LAST_TWO), *few, LAST_TWO, out=tmp_path, progress=False, on_epoch=interrupt_after(3))
    state = torch.load(tmp_path / "training.pt", weights_only=True)
    del state["averaged"]
    torch.save(state, tmp_path / "training.pt")
    with pytest.raises(CheckpointError, match="expected a run that this version can resume"):
        fit(seeded_model(LAST_TWO), *few, LAST_TWO, out=tmp_path, resume=True, progress=False)
