"""Training on the offline digits: what is learned, what is kept, and how it stops and goes on."""

import copy
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import bnmodel.training
from bnmodel import CheckpointError, CustomBatchNorm, Digits, SimpleCNN, SimpleCNNConfig, load_checkpoint
from bnmodel.data import load_offline_digits, split
from bnmodel.recipes import FAST, LECTURE, RECIPES, Recipe
from bnmodel.training import (
    EarlyStopping,
    Epoch,
    History,
    TrainingError,
    evaluate,
    fit,
    predict_log_probs,
    train_from_scratch,
)

QUICK = Recipe("quick", epochs=4, patience=4, learning_rate=0.1, momentum=0.9, model=SimpleCNNConfig(dropout=0.1))
SHORT = dataclasses.replace(QUICK, model=SimpleCNNConfig(channels=(3, 4), hidden=8, dropout=0.5))
State = dict[str, Tensor]


def state_of(model: SimpleCNN) -> State:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same(one: State, other: State) -> bool:
    """Bit for bit."""
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def seeded_model(recipe: Recipe, seed: int = 0) -> SimpleCNN:
    torch.manual_seed(seed)
    return SimpleCNN(recipe.model)


@pytest.fixture(autouse=True)
def own_random_state():
    """`fit` draws dropout from the global random state; no test may depend on those before it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module")
def digits() -> tuple[Digits, Digits]:
    return split(load_offline_digits(train=True))


@pytest.fixture(scope="module")
def few(digits: tuple[Digits, Digits]) -> tuple[Digits, Digits]:
    """Enough for mechanics: 100 and 50, so that the last batch is smaller."""
    return digits[0][:100], digits[1][:50]


@pytest.fixture(scope="module")
def trained(digits: tuple[Digits, Digits], tmp_path_factory: pytest.TempPathFactory) -> tuple[SimpleCNN, History, Path]:
    out = tmp_path_factory.mktemp("trained")
    model, history = train_from_scratch(QUICK, *digits, "digits", out, progress=False)
    return model, history, out


# --- end to end ------------------------------------------------------------------------------------------------------


def test_four_epochs_of_the_offline_digits_are_enough_for_nine_in_ten(
    trained: tuple[SimpleCNN, History, Path],
) -> None:
    _, history, _ = trained
    assert history.best.validation_accuracy > 0.9
    assert history.best.train_loss < history.epochs[0].train_loss / 2


def test_the_trained_network_recognises_digits_it_was_never_shown(trained: tuple[SimpleCNN, History, Path]) -> None:
    loss, accuracy = evaluate(trained[0], load_offline_digits(train=False))
    assert accuracy > 0.9
    assert loss < 0.5


def test_the_history_tells_every_epoch(trained: tuple[SimpleCNN, History, Path]) -> None:
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


def test_the_model_comes_back_in_eval_mode_on_the_cpu(trained: tuple[SimpleCNN, History, Path]) -> None:
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


def test_history_json_holds_what_the_history_holds(trained: tuple[SimpleCNN, History, Path]) -> None:
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


def test_the_progress_tells_train_and_validation_loss_of_every_epoch(
    few: tuple[Digits, Digits], capsys: pytest.CaptureFixture[str]
) -> None:
    train_from_scratch(dataclasses.replace(SHORT, epochs=2), *few, "digits")
    lines = [
        line for line in capsys.readouterr().out.splitlines() if "train loss" in line and "validation loss" in line
    ]
    assert len(lines) == 2


# --- the recipe is what is done --------------------------------------------------------------------------------------


def test_the_lecture_recipe_is_the_lectures() -> None:
    assert LECTURE.batch_size == 64
    assert LECTURE.learning_rate == 0.01
    assert LECTURE.weight_decay == 1e-4
    assert LECTURE.momentum == 0
    assert LECTURE.schedule == "constant"
    assert (LECTURE.epochs, LECTURE.patience) == (100, 20)
    assert LECTURE.model == SimpleCNNConfig(norm="after", channels=(10, 20), hidden=50, dropout=0.5)


def test_the_fast_recipe_trains_the_same_network_but_for_the_dropout() -> None:
    assert dataclasses.replace(FAST.model, dropout=LECTURE.model.dropout) == LECTURE.model
    assert FAST.schedule == "one_cycle"


def test_a_recipe_is_found_by_its_name() -> None:
    assert {"lecture", "fast"} <= set(RECIPES)
    assert all(recipe.name == name for name, recipe in RECIPES.items())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("patience", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", -1.0),
        ("schedule", "x"),
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


def test_a_model_handed_over_in_eval_mode_is_trained_in_training_mode(few: tuple[Digits, Digits]) -> None:
    recipe = dataclasses.replace(SHORT, epochs=2)
    model, states = seeded_model(recipe).eval(), []
    fit(model, *few, recipe, progress=False, on_epoch=lambda epoch: states.append(state_of(model)))
    assert [state["block1.norm.num_batches_tracked"].item() for state in states] == [2, 4]  # 100 digits, 64 a batch


def test_every_digit_is_shown_once_an_epoch_in_another_order_every_time(few: tuple[Digits, Digits]) -> None:
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


# --- a fault of the lecture: a mean of batch means -------------------------------------------------------------------


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
    monkeypatch.setattr(bnmodel.training, "EVALUATION_BATCH", 49)  # 49 and 1
    assert evaluate(trained[0], few[1]) == pytest.approx(mean_over_samples(trained[0], few[1]), rel=1e-5)


def test_evaluating_puts_the_mode_back_and_moves_no_statistics(few: tuple[Digits, Digits]) -> None:
    model = seeded_model(SHORT).train()
    before = state_of(model)
    evaluate(model, few[1])
    assert model.training
    assert same(state_of(model), before)
    predict_log_probs(model.eval(), few[1].images)
    assert not model.training


# --- the best is kept, and is a copy ---------------------------------------------------------------------------------


class Spoiler:
    """Called after every epoch: keeps a copy of the weights, and ruins the model after epoch `last_good`."""

    def __init__(self, model: SimpleCNN, last_good: int) -> None:
        self.model, self.last_good = model, last_good
        self.states: list[State] = []

    def __call__(self, epoch: Epoch) -> None:
        self.states.append(state_of(self.model))
        if epoch.epoch == self.last_good:
            with torch.no_grad():
                self.model.dense2.bias.add_(torch.linspace(-30, 30, 10))
                self.model.block1.norm.running_mean.add_(3)


def test_training_past_the_best_epoch_gives_back_the_best_epochs_model(few: tuple[Digits, Digits]) -> None:
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
def test_it_stops_once_patience_epochs_brought_nothing_better(
    losses: list[float], patience: int, stops_after: int | None
) -> None:
    stopping = EarlyStopping(patience)
    stopped = []
    for number, loss in enumerate(losses, start=1):
        stopping.improved(loss)
        if stopping.should_stop:
            stopped.append(number)
    assert (stopped[0] if stopped else None) == stops_after


def scripted_losses(losses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """The validation losses of the epochs to come, whatever the model."""
    remaining = iter(losses)
    monkeypatch.setattr(bnmodel.training, "evaluate", lambda model, digits: (next(remaining), 0.5))


def test_training_stops_early_and_gives_back_the_best_epochs_model(
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


def test_the_same_seed_gives_the_same_weights_and_losses_to_the_last_bit(few: tuple[Digits, Digits]) -> None:
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


def test_training_from_scratch_leaves_the_callers_random_state_alone(few: tuple[Digits, Digits]) -> None:
    before = torch.get_rng_state()
    train_from_scratch(dataclasses.replace(SHORT, epochs=1), *few, "digits", progress=False)
    assert torch.equal(torch.get_rng_state(), before)


# --- stopped from outside --------------------------------------------------------------------------------------------


def interrupt_after(last: int, then: Callable[[Epoch], None] = lambda epoch: None) -> Callable[[Epoch], None]:
    def on_epoch(epoch: Epoch) -> None:
        then(epoch)
        if epoch.epoch == last:
            raise KeyboardInterrupt

    return on_epoch


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


def test_ctrl_c_in_the_middle_of_an_epoch_gives_back_the_last_whole_epochs_best(few: tuple[Digits, Digits]) -> None:
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


def test_ctrl_c_before_there_is_anything_to_keep_is_not_swallowed(
    few: tuple[Digits, Digits], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bnmodel.training, "evaluate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(seeded_model(SHORT), *few, SHORT, progress=False)


def test_a_learning_rate_that_is_far_too_high_is_an_error_that_says_so(few: tuple[Digits, Digits]) -> None:
    with pytest.raises(TrainingError, match=r"epoch 1: the loss is not finite at learning rate 1e\+06; lower"):
        train_from_scratch(dataclasses.replace(SHORT, learning_rate=1e6), *few, "digits", progress=False)


def test_a_loss_that_becomes_nan_keeps_the_best_before(few: tuple[Digits, Digits], tmp_path: Path) -> None:
    model, states = seeded_model(SHORT), []

    def break_after_two(epoch: Epoch) -> None:
        states.append(state_of(model))
        if epoch.epoch == 2:
            with torch.no_grad():
                model.dense1.weight[0, 0] = math.nan

    with pytest.raises(TrainingError, match=r"epoch 3: the loss is not finite at learning rate 0\.1; lower"):
        fit(model, *few, SHORT, "digits", tmp_path, progress=False, on_epoch=break_after_two)
    history = json.loads((tmp_path / "history.json").read_text())
    best = history["best_epoch"]
    assert len(history["epochs"]) == 2
    assert same(state_of(model), states[best - 1])
    assert same(state_of(load_checkpoint(tmp_path).model), states[best - 1])
    assert not model.training


# --- resumed ---------------------------------------------------------------------------------------------------------


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
        seeded_model(recipe), *few, recipe, "digits", tmp_path / "parts", False, progress=False,
        on_epoch=interrupt_after(interrupted_after),
    )  # fmt: skip
    assert len(interrupted.epochs) == interrupted_after
    resumed = seeded_model(recipe, seed=99)  # a new process knows nothing of the first one's weights
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


def test_a_finished_training_goes_on_with_more_epochs_as_if_it_had_them_from_the_start(
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
def test_resuming_with_another_recipe_is_refused_by_the_name_of_what_changed(
    field: str, value: object, few: tuple[Digits, Digits], tmp_path: Path
) -> None:
    train_from_scratch(dataclasses.replace(SHORT, epochs=1), *few, "digits", tmp_path, progress=False)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match=rf"training\.pt: was started with another {field};"):
        train_from_scratch(
            dataclasses.replace(SHORT, **{field: value}), *few, "digits", tmp_path, resume=True, progress=False
        )
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_resuming_a_one_cycle_training_with_another_length_is_refused(
    few: tuple[Digits, Digits], tmp_path: Path
) -> None:
    recipe = dataclasses.replace(SHORT, epochs=1, schedule="one_cycle")
    train_from_scratch(recipe, *few, "digits", tmp_path, progress=False)
    with pytest.raises(CheckpointError, match="was started with another epochs"):
        train_from_scratch(dataclasses.replace(recipe, epochs=2), *few, "digits", tmp_path, resume=True, progress=False)


def test_resuming_from_a_damaged_file_is_refused(few: tuple[Digits, Digits], tmp_path: Path) -> None:
    (tmp_path / "training.pt").write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match=r"training\.pt: damaged"):
        train_from_scratch(SHORT, *few, "digits", tmp_path, resume=True, progress=False)


def test_resuming_where_nothing_was_begun_begins(few: tuple[Digits, Digits], tmp_path: Path) -> None:
    recipe = dataclasses.replace(SHORT, epochs=1)
    _, history = train_from_scratch(recipe, *few, "digits", tmp_path / "new", resume=True, progress=False)
    assert [epoch.epoch for epoch in history.epochs] == [1]


# --- files -----------------------------------------------------------------------------------------------------------


def test_training_leaves_three_files_and_no_temporary_ones(trained: tuple[SimpleCNN, History, Path]) -> None:
    assert {file.name for file in trained[2].iterdir()} == {"best.pt", "history.json", "training.pt"}


def test_without_a_folder_no_file_is_written(
    few: tuple[Digits, Digits], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train_from_scratch(dataclasses.replace(SHORT, epochs=1), *few, "digits", progress=False)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_leaves_the_files_of_the_epoch_before(
    few: tuple[Digits, Digits], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before: dict[str, bytes] = {}

    def fill_the_disk(epoch: Epoch) -> None:
        before.update({file.name: file.read_bytes() for file in tmp_path.iterdir()})

        def disk_full(_: object, file: Path) -> None:
            file.write_bytes(b"half")
            raise OSError("No space left on device")

        monkeypatch.setattr(torch, "save", disk_full)

    with pytest.raises(OSError, match="No space left"):
        fit(seeded_model(SHORT), *few, SHORT, "digits", tmp_path, progress=False, on_epoch=fill_the_disk)
    assert {"best.pt", "training.pt"} == set(before)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert {file.name for file in tmp_path.iterdir()} == {*before, "history.json"}


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
