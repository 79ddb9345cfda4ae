"""Resuming an interrupted or finished run."""

import dataclasses
from pathlib import Path

import pytest
import torch
from training_helpers import SHORT, interrupt_after, same, scripted_losses, seeded_model, state_of

from bnmodel import CheckpointError, Digits, SimpleCNNConfig, load_checkpoint
from bnmodel.training import fit, train_from_scratch
from bnmodel.training.history import Epoch, History


def without_seconds(history: History) -> list[Epoch]:
    return [dataclasses.replace(epoch, seconds=0.0) for epoch in history.epochs]


@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
@pytest.mark.parametrize("interrupted_after", [1, 3])
def test_an_interrupted_and_resumed_training_equals_an_uninterrupted_one_bit_for_bit(
    interrupted_after: int, schedule: str, few: tuple[Digits, Digits], tmp_path: Path
) -> None:
    recipe = dataclasses.replace(SHORT, schedule=schedule)
    whole = seeded_model(recipe)
    expected = fit(whole, *few, recipe, "digits", tmp_path / "whole", progress=False)

    interrupted = fit(
        seeded_model(recipe), *few, recipe, "digits", tmp_path / "parts", progress=False,
        on_epoch=interrupt_after(interrupted_after),
    )  # fmt: skip
    assert len(interrupted.epochs) == interrupted_after
    resumed = seeded_model(recipe, seed=99)  # as in a new process
    history = fit(resumed, *few, recipe, "digits", tmp_path / "parts", resume=True, progress=False)

    assert without_seconds(history) == without_seconds(expected)
    assert history.stopped == "finished"
    assert same(state_of(resumed), state_of(whole))
    last = [torch.load(tmp_path / folder / "training.pt", weights_only=True)["model"] for folder in ("whole", "parts")]
    assert same(*last)


def test_early_stopping_counts_the_epochs_before_the_interruption(
    few: tuple[Digits, Digits], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_losses([0.5, 0.7, 0.6, 0.6, 0.1], monkeypatch)
    recipe = dataclasses.replace(SHORT, epochs=5, patience=3)
    fit(seeded_model(recipe), *few, recipe, "", tmp_path, progress=False, on_epoch=interrupt_after(2))
    model = seeded_model(recipe)
    history = fit(model, *few, recipe, "", tmp_path, resume=True, progress=False)
    assert (len(history.epochs), history.stopped, history.best.epoch) == (4, "early", 1)
    assert same(state_of(model), state_of(load_checkpoint(tmp_path).model))


def test_a_finished_training_resumed_with_more_epochs_equals_a_longer_training(
    few: tuple[Digits, Digits], tmp_path: Path
) -> None:
    longer, shorter = SHORT, dataclasses.replace(SHORT, epochs=2)
    expected, _ = train_from_scratch(longer, *few, "digits", progress=False)
    train_from_scratch(shorter, *few, "digits", tmp_path, progress=False)
    model, history = train_from_scratch(longer, *few, "digits", tmp_path, resume=True, progress=False)
    assert len(history.epochs) == 4
    assert same(state_of(model), state_of(expected))


def test_a_finished_training_is_not_trained_again(few: tuple[Digits, Digits], tmp_path: Path) -> None:
    first, _ = train_from_scratch(SHORT, *few, "digits", tmp_path, progress=False)
    again, history = train_from_scratch(SHORT, *few, "digits", tmp_path, resume=True, progress=False)
    assert (len(history.epochs), history.stopped) == (4, "finished")
    assert same(state_of(again), state_of(first))


@pytest.mark.parametrize(
    ("field", "value"),
    [("learning_rate", 0.2), ("batch_size", 32), ("seed", 7), ("model", SimpleCNNConfig(norm="before"))],
)
def test_resuming_with_another_recipe_is_refused_by_the_name_of_the_changed_field(
    field: str, value: object, few: tuple[Digits, Digits], tmp_path: Path
) -> None:
    train_from_scratch(dataclasses.replace(SHORT, epochs=1), *few, "digits", tmp_path, progress=False)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match=rf"training\.pt: the run was started with other values of {field};"):
        train_from_scratch(
            dataclasses.replace(SHORT, **{field: value}), *few, "digits", tmp_path, resume=True, progress=False
        )
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_resuming_a_one_cycle_training_with_another_length_is_refused(
    few: tuple[Digits, Digits], tmp_path: Path
) -> None:
    recipe = dataclasses.replace(SHORT, epochs=1, schedule="one_cycle")
    train_from_scratch(recipe, *few, "digits", tmp_path, progress=False)
    with pytest.raises(CheckpointError, match="was started with other values of epochs"):
        train_from_scratch(dataclasses.replace(recipe, epochs=2), *few, "digits", tmp_path, resume=True, progress=False)


def test_a_training_begun_before_a_recipe_had_a_field_is_resumed(few: tuple[Digits, Digits], tmp_path: Path) -> None:
    train_from_scratch(dataclasses.replace(SHORT, epochs=1), *few, "digits", tmp_path, progress=False)
    state = torch.load(tmp_path / "training.pt", weights_only=True)
    del state["recipe"]["channels_last"]
    torch.save(state, tmp_path / "training.pt")
    _, history = train_from_scratch(SHORT, *few, "digits", tmp_path, resume=True, progress=False)
    assert len(history.epochs) == 4


def test_resuming_from_a_damaged_file_is_refused(few: tuple[Digits, Digits], tmp_path: Path) -> None:
    (tmp_path / "training.pt").write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match=r"training\.pt: damaged"):
        train_from_scratch(SHORT, *few, "digits", tmp_path, resume=True, progress=False)


def test_resuming_in_an_empty_folder_starts_a_new_training(few: tuple[Digits, Digits], tmp_path: Path) -> None:
    recipe = dataclasses.replace(SHORT, epochs=1)
    _, history = train_from_scratch(recipe, *few, "digits", tmp_path / "new", resume=True, progress=False)
    assert [epoch.epoch for epoch in history.epochs] == [1]
