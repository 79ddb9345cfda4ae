"""Early stopping, the epoch that is kept, interruptions and divergence."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from training_helpers import SHORT, Spoiler, interrupt_after, same, scripted_losses, seeded_model, state_of

import bnmodel.training.trainer
from bnmodel import Digits, SimpleCNN, load_checkpoint
from bnmodel.training import fit, train_from_scratch
from bnmodel.training.evaluation import evaluate
from bnmodel.training.history import EarlyStopping, Epoch, History
from bnmodel.training.trainer import Training, TrainingError

# --- the best epoch --------------------------------------------------------------------------------------------------


def test_training_past_the_best_epoch_returns_the_model_of_the_best_epoch(few: tuple[Digits, Digits]) -> None:
    model = seeded_model(SHORT)
    spoiler = Spoiler(model, last_good=2)
    history = fit(model, *few, SHORT, progress=False, on_epoch=spoiler)
    assert len(history.epochs) == 4
    assert history.best.epoch <= 2
    assert evaluate(model, few[1])[0] == history.best.validation_loss < history.epochs[3].validation_loss
    assert same(state_of(model), spoiler.states[history.best.epoch - 1])
    assert not same(state_of(model), spoiler.states[3])


def test_the_running_statistics_come_back_with_the_best_weights(few: tuple[Digits, Digits]) -> None:
    model = seeded_model(SHORT)
    spoiler = Spoiler(model, last_good=2)
    best = fit(model, *few, SHORT, progress=False, on_epoch=spoiler).best.epoch
    statistics = [name for name, _ in model.named_buffers()]
    assert len(statistics) == 6
    for name in statistics:
        assert torch.equal(model.state_dict()[name], spoiler.states[best - 1][name])
        assert not torch.equal(model.state_dict()[name], spoiler.states[3][name])


# --- early stopping --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "patience", "stops_after"),
    [
        ([5, 4, 3, 2, 1], 1, None),
        ([1, 2, 3, 4, 5], 1, 2),
        ([1, 2, 3, 4, 5], 3, 4),
        ([3, 4, 2, 3, 3, 3, 1], 3, 6),
        ([3, 4, 4, 2, 3, 3], 3, None),
        ([1, 1, 1], 2, 3),  # as good is not better
        ([1, math.nan, math.nan], 2, 3),
    ],
    ids=str,
)
def test_it_stops_after_patience_epochs_without_improvement(
    losses: list[float], patience: int, stops_after: int | None
) -> None:
    stopping = EarlyStopping(patience)
    stopped = []
    for number, loss in enumerate(losses, start=1):
        stopping.improved(loss)
        if stopping.should_stop:
            stopped.append(number)
    assert (stopped[0] if stopped else None) == stops_after


def test_training_stops_early_and_returns_the_model_of_the_best_epoch(
    few: tuple[Digits, Digits], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_losses([1.0, 0.5, 0.7, 0.6, 0.5, 0.1], monkeypatch)
    recipe = dataclasses.replace(SHORT, epochs=6, patience=3)
    model = seeded_model(recipe)
    spoiler = Spoiler(model, last_good=0)  # only keeps copies
    history = fit(model, *few, recipe, "digits", tmp_path, progress=False, on_epoch=spoiler)
    assert history.stopped == json.loads((tmp_path / "history.json").read_text())["stopped"] == "early"
    assert len(history.epochs) == 5
    assert history.best.epoch == load_checkpoint(tmp_path).results["epoch"] == 2
    assert same(state_of(model), spoiler.states[1])


def test_the_best_of_equal_epochs_is_the_first() -> None:
    epochs = [Epoch(number, 1.0, 0.5, loss, 0.5, 0.1, 1.0) for number, loss in enumerate([2.0, 1.0, 1.0], start=1)]
    assert History(epochs).best.epoch == 2


# --- seeds -----------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights_and_losses_bit_for_bit(few: tuple[Digits, Digits]) -> None:
    results = []
    for other_state in (1, 2):
        torch.manual_seed(other_state)  # the recipe's seed alone must decide
        model, history = train_from_scratch(SHORT, *few, "digits", progress=False)
        results.append((state_of(model), [(epoch.train_loss, epoch.validation_loss) for epoch in history.epochs]))
    assert same(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_another_seed_gives_other_weights(few: tuple[Digits, Digits]) -> None:
    one, other = (
        train_from_scratch(dataclasses.replace(SHORT, epochs=1, seed=seed), *few, "digits", progress=False)[0]
        for seed in (0, 1)
    )
    assert not same(state_of(one), state_of(other))


def test_training_from_scratch_does_not_change_the_global_random_state(few: tuple[Digits, Digits]) -> None:
    before = torch.get_rng_state()
    train_from_scratch(dataclasses.replace(SHORT, epochs=1), *few, "digits", progress=False)
    assert torch.equal(torch.get_rng_state(), before)


# --- interruptions and divergence ------------------------------------------------------------------------------------


def test_ctrl_c_ends_the_training_cleanly_with_the_best_so_far(few: tuple[Digits, Digits], tmp_path: Path) -> None:
    model = seeded_model(SHORT)
    spoiler = Spoiler(model, last_good=2)
    history = fit(model, *few, SHORT, "digits", tmp_path, progress=False, on_epoch=interrupt_after(3, then=spoiler))
    best = spoiler.states[history.best.epoch - 1]
    assert history.stopped == "interrupted"
    assert [epoch.epoch for epoch in history.epochs] == [1, 2, 3]
    assert history.best.epoch <= 2
    assert same(state_of(model), best)
    assert same(state_of(load_checkpoint(tmp_path).model), best)
    assert not model.training
    assert json.loads((tmp_path / "history.json").read_text())["stopped"] == "interrupted"


def test_ctrl_c_within_an_epoch_returns_the_best_of_the_finished_epochs(few: tuple[Digits, Digits]) -> None:
    model, states, batches = seeded_model(SHORT), [], []

    def interrupt(module: SimpleCNN, _: object) -> None:
        if module.training:
            batches.append(1)
        if len(batches) == 4:  # the second of epoch 2
            batches.append(1)
            raise KeyboardInterrupt

    model.register_forward_pre_hook(interrupt)
    history = fit(model, *few, SHORT, progress=False, on_epoch=lambda epoch: states.append(state_of(model)))
    assert [epoch.epoch for epoch in history.epochs] == [1]
    assert same(state_of(model), states[0])


def test_ctrl_c_in_the_first_epoch_is_raised(few: tuple[Digits, Digits], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bnmodel.training.trainer, "evaluate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(seeded_model(SHORT), *few, SHORT, progress=False)


def test_too_high_a_learning_rate_is_an_error_that_names_it(few: tuple[Digits, Digits]) -> None:
    with pytest.raises(TrainingError, match=r"epoch 1: the training diverges at learning rate 1e\+06 .*; lower"):
        train_from_scratch(dataclasses.replace(SHORT, learning_rate=1e6), *few, "digits", progress=False)


def test_a_finite_loss_counts_as_diverged_from_1000_nats_on(
    few: tuple[Digits, Digits], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_losses([990.0, 1000.0], monkeypatch)
    training = Training(seeded_model(SHORT), *few, SHORT, "cpu")
    epochs = training.epochs()
    assert next(epochs).validation_loss == 990
    with pytest.raises(TrainingError, match="epoch 2: the training diverges"):
        next(epochs)


def test_a_loss_that_becomes_nan_keeps_the_best_before(few: tuple[Digits, Digits], tmp_path: Path) -> None:
    model, states = seeded_model(SHORT), []

    def break_after_two(epoch: Epoch) -> None:
        states.append(state_of(model))
        if epoch.epoch == 2:
            with torch.no_grad():
                model.dense1.weight[0, 0] = math.nan

    with pytest.raises(
        TrainingError, match=r"epoch 3: the training diverges at .* 0\.1 \(training loss nan, .*; lower"
    ):
        fit(model, *few, SHORT, "digits", tmp_path, progress=False, on_epoch=break_after_two)
    history = json.loads((tmp_path / "history.json").read_text())
    best = history["best_epoch"]
    assert len(history["epochs"]) == 2
    assert same(state_of(model), states[best - 1])
    assert same(state_of(load_checkpoint(tmp_path).model), states[best - 1])
    assert not model.training
