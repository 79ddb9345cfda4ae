"""Early stopping over a recorded training, and the live comparison of dropout and weight decay."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnmodel.data import load_sample
from bnmodel.experiments import early_stopping
from bnmodel.experiments.early_stopping import gap_figure, of_checkpoint, recipe, regularise, run, stream
from bnmodel.training import train_from_scratch
from bnmodel.training.evaluation import evaluate
from demo.app import CHECKPOINTS
from demo.tabs import stopping as tab

LECTURE = CHECKPOINTS / "lecture"
LOSSES = st.lists(st.sampled_from([k / 8 for k in range(1, 30)]), min_size=1, max_size=40)  # equal ones are frequent


@given(LOSSES, st.integers(1, 12))
def test_the_stop_is_the_first_epoch_whose_last_patience_losses_are_no_better_than_the_best_before(losses, patience):
    stops = [
        epoch
        for epoch in range(patience + 1, len(losses) + 1)
        if min(losses[epoch - patience : epoch]) >= min(losses[: epoch - patience])
    ]
    result = run(losses, patience)
    stop = stops[0] if stops else len(losses)
    assert (result.stop, result.early) == (stop, bool(stops))
    assert result.kept == losses.index(min(losses[:stop])) + 1
    assert result.lowest == losses.index(min(losses)) + 1
    assert result.cost == min(losses[:stop]) - min(losses)


@given(LOSSES, st.integers(1, 12))
def test_more_patience_never_stops_earlier_and_never_keeps_a_worse_epoch(losses, patience):
    short, long = run(losses, patience), run(losses, patience + 1)
    assert long.stop >= short.stop
    assert long.cost <= short.cost


def test_the_checkpoints_own_patience_gives_its_own_end():
    history = json.loads((LECTURE / "history.json").read_text())
    result = of_checkpoint(LECTURE, history["recipe"]["patience"])
    assert (result.stop, result.kept) == (len(history["epochs"]), history["best_epoch"])
    assert result.early == (history["stopped"] == "early")


@pytest.mark.parametrize(("losses", "patience"), [([], 3), ([1.0], 0)])
def test_no_epoch_and_no_patience_are_refused_with_a_message(losses, patience):
    with pytest.raises(ValueError, match="at least 1 epoch and a patience of at least 1, received"):
        run(losses, patience)


def test_the_sentence_says_where_it_stops_and_what_that_costs():
    early = tab.in_words(run([3.0, 2.0, 2.5, 1.0], patience=1))
    assert "stops after epoch 3 of 4 and keeps epoch 2, validation loss 2.0000" in early
    assert "saves 1 epoch and costs <b>1.0000</b>: the lowest loss is epoch 4’s, 1.0000" in early
    assert "keeps epoch 1, validation loss 0.0500" in (close := tab.in_words(run([0.04996, 0.06, 0.03114], patience=1)))
    assert (
        "costs <b>0.0189</b>: the lowest loss is epoch 3’s, 0.0311" in close
    )  # not 0.0188, so that the numbers add up
    assert "does not begin to overfit" in close
    assert "overfit" not in tab.in_words(run([1.0, 2.0, 3.0], patience=1))
    assert "costs nothing" in tab.in_words(run([2.0, 3.0, 4.0], patience=1))
    assert "runs through all 2 epochs" in tab.in_words(run([2.0, 1.0], patience=1))


@pytest.mark.parametrize("patience", [1, 5, 40])
def test_the_picture_shows_the_whole_run_and_a_close_up_of_its_end(patience):
    legend, panels = tab.recorded(LECTURE, patience).split('<div class="figure">')
    assert panels.count("<svg") == 2
    assert "kept: epoch" in legend
    assert ("lowest of all" in legend) == (patience < 40)


# ---- dropout and weight decay


@pytest.fixture(scope="module")
def live():
    return regularise(dropout=0.5, weight_decay=0.01, epochs=1, seed=3)


def test_both_live_networks_are_those_of_train_from_scratch_and_their_train_loss_is_in_eval_mode(live):
    train, validation = load_sample(train=True), load_sample(train=False)
    for curve, losses, (dropout, decay) in zip(live.curves, live.train_losses, [(0, 0), (0.5, 0.01)], strict=True):
        chosen = recipe("one", dropout, decay, epochs=1, seed=3)
        assert (chosen.model.dropout, chosen.weight_decay) == (dropout, decay)
        model, history = train_from_scratch(chosen, train, validation, "sample", device="cpu", progress=False)
        here, there = (dataclasses.replace(epoch, seconds=0) for epoch in (curve.epochs[0], history.epochs[0]))
        assert here == there
        assert losses == (evaluate(model, train)[0],)


def test_the_gap_is_how_far_the_validation_loss_is_above_the_train_loss(live):
    for curve, losses, gaps in zip(live.curves, live.train_losses, live.gaps, strict=True):
        assert gaps == (curve.epochs[0].validation_loss - losses[0],)
        assert f"{gaps[0]:.3f}" in tab.progress(live, "finished")
    assert len(gap_figure(live).axes) == 2


def test_at_first_nothing_is_trained_and_the_picture_is_empty():
    first = next(stream(epochs=5))
    assert first.gaps == [(), ()]
    assert "epoch 0 of 5" in tab.draw(first, "training")
    assert "nothing yet" in tab.progress(first, "stopped")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dropout": 1.0}, r"dropout: expected a share in \[0, 1\), received 1.0"),
        ({"weight_decay": -1.0}, "weight_decay: expected a number ≥ 0, received -1.0"),
        ({"epochs": 0}, "epochs: expected 1 … 30, received 0"),
    ],
)
def test_impossible_arguments_are_refused_with_a_message(arguments, message):
    with pytest.raises(ValueError, match=message):
        next(early_stopping.stream(**arguments))
