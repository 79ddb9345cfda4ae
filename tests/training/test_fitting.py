"""Training on the offline digits: accuracy, effect of the recipe, and files."""

import copy
import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from training_helpers import QUICK, SHORT, same, seeded_model, state_of

import bnmodel.training.evaluation
from bnmodel import CustomBatchNorm, Digits, SimpleCNN, SimpleCNNConfig, load_checkpoint
from bnmodel.data import load_offline_digits, load_sample
from bnmodel.training import fit, train_from_scratch
from bnmodel.training.evaluation import evaluate, predict_log_probs
from bnmodel.training.history import Epoch, History
from bnmodel.training.recipes import FAST, LECTURE, RECIPES, SPRINT, Recipe
from bnmodel.training.trainer import Training

# --- end to end ------------------------------------------------------------------------------------------------------


def test_four_epochs_on_the_offline_digits_give_90_percent(
    trained: tuple[SimpleCNN, History, Path],
) -> None:
    _, history, _ = trained
    assert history.best.validation_accuracy > 0.9
    assert history.best.train_loss < history.epochs[0].train_loss / 2


def test_the_trained_network_recognises_test_digits(trained: tuple[SimpleCNN, History, Path]) -> None:
    loss, accuracy = evaluate(trained[0], load_offline_digits(train=False))
    assert accuracy > 0.9
    assert loss < 0.5


def test_the_history_has_a_record_per_epoch(trained: tuple[SimpleCNN, History, Path]) -> None:
    _, history, _ = trained
    assert history.stopped == "finished"
    assert [epoch.epoch for epoch in history.epochs] == [1, 2, 3, 4]
    for epoch in history.epochs:
        assert 0 < epoch.train_loss < 5
        assert 0 < epoch.validation_loss < 5
        assert 0 < epoch.train_accuracy <= 1
        assert 0 < epoch.validation_accuracy <= 1
        assert epoch.learning_rate == 0.1
        assert epoch.seconds > 0
    assert history.best.validation_loss == min(epoch.validation_loss for epoch in history.epochs)


def test_the_model_is_returned_in_eval_mode_on_the_cpu(trained: tuple[SimpleCNN, History, Path]) -> None:
    model, _, _ = trained
    assert not any(module.training for module in model.modules())
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"cpu"}


def test_the_returned_model_and_best_pt_have_exactly_the_best_epochs_validation_loss(
    trained: tuple[SimpleCNN, History, Path], digits: tuple[Digits, Digits]
) -> None:
    model, history, out = trained
    checkpoint = load_checkpoint(out)
    expected = (history.best.validation_loss, history.best.validation_accuracy)
    assert evaluate(model, digits[1]) == evaluate(checkpoint.model, digits[1]) == expected
    assert same(state_of(model), state_of(checkpoint.model))
    assert checkpoint.results == dataclasses.asdict(history.best)
    assert (checkpoint.recipe["name"], checkpoint.dataset) == ("quick", "digits")


def test_history_json_contains_the_history_and_the_recipe(trained: tuple[SimpleCNN, History, Path]) -> None:
    _, history, out = trained
    content = json.loads((out / "history.json").read_text())
    assert content["epochs"] == [dataclasses.asdict(epoch) for epoch in history.epochs]
    assert content["best_epoch"] == history.best.epoch
    assert content["best_validation_loss"] == history.best.validation_loss
    assert content["stopped"] == "finished"
    assert content["dataset"] == "digits"
    assert content["recipe"] == json.loads(json.dumps(QUICK.to_dict()))


def test_the_running_statistics_were_trained_too(trained: tuple[SimpleCNN, History, Path]) -> None:
    norms = [module for module in trained[0].modules() if isinstance(module, CustomBatchNorm)]
    steps = math.ceil(1200 / QUICK.batch_size)
    assert len(norms) == 2
    assert all(norm.num_batches_tracked == steps * trained[1].best.epoch for norm in norms)


def test_the_progress_shows_train_and_validation_loss_per_epoch(
    few: tuple[Digits, Digits], capsys: pytest.CaptureFixture[str]
) -> None:
    train_from_scratch(dataclasses.replace(SHORT, epochs=2), *few, "digits")
    lines = [
        line for line in capsys.readouterr().out.splitlines() if "train loss" in line and "validation loss" in line
    ]
    assert len(lines) == 2


# --- recipes ---------------------------------------------------------------------------------------------------------


def test_the_lecture_recipe_is_the_lectures() -> None:
    assert LECTURE.batch_size == 64
    assert LECTURE.learning_rate == 0.01
    assert LECTURE.weight_decay == 1e-4
    assert LECTURE.momentum == 0
    assert LECTURE.schedule == "constant"
    assert (LECTURE.epochs, LECTURE.patience) == (100, 20)
    assert LECTURE.model == SimpleCNNConfig(norm="after", channels=(10, 20), hidden=50, dropout=0.5)


def test_the_fast_recipe_trains_the_same_network_without_dropout() -> None:
    assert dataclasses.replace(FAST.model, dropout=LECTURE.model.dropout) == LECTURE.model
    assert FAST.schedule == "one_cycle"


def test_the_sprint_is_one_epoch_of_a_network_with_batch_norm_that_the_lectures_class_describes() -> None:
    assert SPRINT.epochs == 1
    assert isinstance(SPRINT.model, SimpleCNNConfig)
    assert SPRINT.model.norm != "none"


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_network_is_trained_in_the_memory_format_of_the_recipe(
    channels_last: bool, few: tuple[Digits, Digits]
) -> None:
    recipe = dataclasses.replace(SHORT, epochs=1, channels_last=channels_last)
    model, formats = seeded_model(recipe), set()
    model.block1.norm.register_forward_pre_hook(
        lambda _, given: formats.add(given[0].is_contiguous(memory_format=torch.channels_last))
    )
    fit(model, *few, recipe, progress=False)
    assert formats == {channels_last}


def test_a_recipe_is_found_by_its_name() -> None:
    assert {"lecture", "fast", "sprint", "robust"} <= set(RECIPES)
    assert all(recipe.name == name for name, recipe in RECIPES.items())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("patience", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", -1.0),
        ("learning_rate", math.nan),
        ("momentum", -2.0),
        ("momentum", 1.0),
        ("weight_decay", -5.0),
        ("schedule", "x"),
        ("augmented", 1.5),
        ("outliers", -0.1),
        ("averaging", 4),
        ("averaging", -1),
        ("plain", -1),
        ("plain", 5),
    ],
)
def test_a_recipe_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field}: expected .* received"):
        dataclasses.replace(QUICK, **{field: value})


def test_a_step_goes_down_the_gradient_of_the_nll_loss_with_weight_decay(few: tuple[Digits, Digits]) -> None:
    recipe = Recipe(
        "step", 1, 1, batch_size=100, learning_rate=0.3, weight_decay=0.02, model=SimpleCNNConfig(dropout=0.0)
    )
    model = seeded_model(recipe)
    reference = copy.deepcopy(model).train()
    F.nll_loss(reference(few[0].images), few[0].labels).backward()
    fit(model, *few, recipe, progress=False)
    for mine, before in zip(model.parameters(), reference.parameters(), strict=True):
        expected = before - 0.3 * (before.grad + 0.02 * before)
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-6)


def test_an_outlier_step_goes_down_the_nll_of_the_digits_and_half_the_cross_entropy_to_the_uniform_distribution(
    few: tuple[Digits, Digits],
) -> None:
    recipe = Recipe(
        "step", 1, 1, batch_size=100, learning_rate=0.3, weight_decay=0.0, outliers=0.2,
        model=SimpleCNNConfig(dropout=0.0),
    )  # fmt: skip
    model, seen = seeded_model(recipe), []
    reference = copy.deepcopy(model).train()
    hook = model.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    training = Training(model, *few, recipe, "cpu")
    labels = []
    step = training._step
    training._step = lambda x, y, of: labels.append(y) or step(x, y, of)  # type: ignore[method-assign]
    next(training.epochs())
    hook.remove()
    images = seen[0]
    assert images.shape == (120, 1, 28, 28)
    log_probs = reference(images)
    uniform = torch.full((20, 10), 0.1)
    loss = F.nll_loss(log_probs[:100], labels[0]) + 0.5 * F.cross_entropy(log_probs[100:], uniform)
    loss.backward()
    for mine, before in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, before - 0.3 * before.grad, rtol=1e-4, atol=1e-6)


def unchanged_per_epoch(recipe: Recipe, digits: tuple[Digits, Digits]) -> list[int]:
    """How many of 64 digits, one batch, are as before in each epoch."""
    model, seen = seeded_model(recipe), []
    model.register_forward_pre_hook(lambda network, given: seen.append(given[0]) if network.training else None)
    train = digits[0][:64]
    fit(model, train, digits[1][:10], recipe, progress=False)
    assert all(batch.shape == train.images.shape for batch in seen)
    return [sum(any(torch.equal(image, other) for other in train.images) for image in batch) for batch in seen]


@pytest.mark.parametrize(("share", "redrawn"), [(0.0, 0), (0.5, 32), (1.0, 64)])
def test_the_recipes_share_of_each_batch_is_augmented(
    share: float, redrawn: int, digits: tuple[Digits, Digits]
) -> None:
    assert unchanged_per_epoch(dataclasses.replace(SHORT, epochs=1, augmented=share), digits) == [64 - redrawn]


def test_the_last_plain_epochs_are_trained_without_augmentation(digits: tuple[Digits, Digits]) -> None:
    assert unchanged_per_epoch(dataclasses.replace(SHORT, epochs=3, augmented=1.0, plain=2), digits) == [0, 64, 64]


def test_mini_batches_prepared_together_are_those_prepared_one_by_one(few: tuple[Digits, Digits]) -> None:
    recipe = dataclasses.replace(SHORT, batch_size=16, augmented=0.5, outliers=0.25)
    training = Training(seeded_model(recipe), *few, recipe, "cpu")
    indices = torch.arange(40).split(16)
    together = training._batches(indices)
    for index, (images, labels) in zip(indices, together, strict=True):
        digits, others = len(index), round(0.25 * len(index))
        assert torch.equal(labels, few[0].labels[index])
        assert images.shape == (digits + others, 1, 28, 28)
        kept = images[digits // 2 : digits]  # the first half is augmented
        assert torch.equal(kept, few[0].images[index[digits // 2 :]])
        assert not any(torch.equal(*pair) for pair in zip(images[: digits // 2], few[0].images[index], strict=False))


def test_a_model_handed_over_in_eval_mode_is_trained_in_training_mode(few: tuple[Digits, Digits]) -> None:
    recipe = dataclasses.replace(SHORT, epochs=2)
    model, states = seeded_model(recipe).eval(), []
    fit(model, *few, recipe, progress=False, on_epoch=lambda epoch: states.append(state_of(model)))
    assert [state["block1.norm.num_batches_tracked"].item() for state in states] == [2, 4]  # 100 digits, 64 a batch


def test_every_digit_is_used_once_per_epoch_in_a_different_order(few: tuple[Digits, Digits]) -> None:
    numbered = Digits(few[0].images.clone(), few[0].labels)
    numbered.images[:, 0, 0, 0] = torch.arange(100) / 100
    model, shown = seeded_model(SHORT), []
    model.register_forward_pre_hook(
        lambda module, given: shown.extend((given[0][:, 0, 0, 0] * 100).round().tolist()) if module.training else None
    )
    fit(model, numbered, few[1], dataclasses.replace(SHORT, epochs=2), progress=False)
    first, second = shown[:100], shown[100:]
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second != sorted(second)


def test_the_one_cycle_schedule_rises_to_the_peak_and_falls(few: tuple[Digits, Digits]) -> None:
    recipe = dataclasses.replace(SHORT, epochs=6, patience=6, schedule="one_cycle", learning_rate=0.2)
    _, history = train_from_scratch(recipe, *few, "digits", progress=False)
    rates = [epoch.learning_rate for epoch in history.epochs]
    assert rates[0] == pytest.approx(0.2 / 25)
    assert 0.1 < max(rates) <= 0.2
    assert rates[-1] < 0.1
    assert rates.index(max(rates)) not in (0, len(rates) - 1)


# --- losses are means over samples, not over batches -----------------------------------------------------------------


def mean_over_samples(model: SimpleCNN, digits: Digits) -> tuple[float, float]:
    log_probs = model.eval()(digits.images)
    return F.nll_loss(log_probs, digits.labels).item(), (log_probs.argmax(1) == digits.labels).float().mean().item()


def test_the_train_loss_counts_every_sample_the_same_however_small_the_last_batch(
    digits: tuple[Digits, Digits],
) -> None:
    still = SimpleCNNConfig(norm="none", dropout=0.0)  # the same function in training and in eval mode
    recipe = Recipe("still", 1, 1, batch_size=32, learning_rate=1e-30, model=still)
    train = digits[0][:33]  # 32 and 1: a mean of batch means would count one sample 32 times
    model = seeded_model(recipe)
    with torch.no_grad():
        model.dense2.weight.mul_(30)  # else every sample's loss is nearly the same
    history = fit(model, train, digits[1][:10], recipe, progress=False)
    loss, accuracy = mean_over_samples(model, train)
    each = F.nll_loss(model(train.images), train.labels, reduction="none")
    assert each.std() > 0.1
    assert history.epochs[0].train_loss == pytest.approx(loss, rel=1e-5)
    assert history.epochs[0].train_accuracy == pytest.approx(accuracy, rel=1e-5)


def test_the_validation_loss_counts_every_sample_the_same_however_small_the_last_batch(
    trained: tuple[SimpleCNN, History, Path], few: tuple[Digits, Digits], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bnmodel.training.evaluation, "EVALUATION_BATCH", 49)  # 49 and 1
    assert evaluate(trained[0], few[1]) == pytest.approx(mean_over_samples(trained[0], few[1]), rel=1e-5)


def test_evaluating_restores_the_mode_and_does_not_change_statistics(few: tuple[Digits, Digits]) -> None:
    model = seeded_model(SHORT).train()
    before = state_of(model)
    evaluate(model, few[1])
    assert model.training
    assert same(state_of(model), before)
    predict_log_probs(model.eval(), few[1].images)
    assert not model.training


# --- files -----------------------------------------------------------------------------------------------------------


def test_training_leaves_three_files_its_lock_and_no_temporary_ones(trained: tuple[SimpleCNN, History, Path]) -> None:
    assert {file.name for file in trained[2].iterdir()} == {"best.pt", "history.json", "training.pt", ".lock"}


def test_without_a_folder_no_file_is_written(
    few: tuple[Digits, Digits], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train_from_scratch(dataclasses.replace(SHORT, epochs=1), *few, "digits", progress=False)
    assert not list(tmp_path.iterdir())


def test_a_history_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "history.json"
    history = History([Epoch(1, 1.0, 0.5, 1.0, 0.5, 0.1, 1.0)], "finished")
    history.write(file, SHORT, "digits")
    before = file.read_text()

    def fail(*_: object, **__: object) -> str:
        raise ValueError("not JSON")

    monkeypatch.setattr(json, "dumps", fail)
    with pytest.raises(ValueError, match="not JSON"):
        history.write(file, SHORT, "digits")
    assert file.read_text() == before
    assert list(tmp_path.iterdir()) == [file]


def test_no_digits_are_refused_by_name() -> None:
    digits = load_sample(train=True)[torch.arange(20)]
    for train, validation, name in (
        (digits[torch.arange(0)], digits, "training"),
        (digits, digits[torch.arange(0)], "validation"),
    ):
        with pytest.raises(ValueError, match=f"{name}: expected at least one digit"):
            train_from_scratch(SHORT, train, validation, "sample", progress=False)


@pytest.mark.parametrize("device", ["nowhere", "cuda:99", "meta2"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    digits = load_sample(train=True)[torch.arange(20)]
    with pytest.raises(ValueError, match=f"device: expected auto.*received '{device}'"):
        train_from_scratch(SHORT, digits, digits, "sample", progress=False, device=device)


def test_evaluation_leaves_a_frozen_batch_norm_frozen() -> None:
    model = SimpleCNN()
    norm = next(module for module in model.modules() if isinstance(module, CustomBatchNorm))
    norm.eval()
    predict_log_probs(model, load_sample(train=False).images[:5])
    assert model.training
    assert not norm.training
