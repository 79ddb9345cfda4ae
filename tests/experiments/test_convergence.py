"""Three runs in turn, and their figures and sentences on the page."""

import dataclasses
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from bnmodel import data
from bnmodel.experiments import convergence, early_stopping
from bnmodel.experiments.convergence import Convergence, in_turn, recipe, start, stream
from bnmodel.experiments.gradients import POSITIONS
from bnmodel.training import train_from_scratch
from bnmodel.training.checkpoint import copy_state
from bnmodel.training.trainer import Training, new_network
from demo.tabs import convergence as tab

SMALL = data.load_sample(train=True)[slice(128)], data.load_sample(train=False)[slice(100)]


def small(recipe):
    """A training of few digits."""
    model, generator = new_network(recipe)
    return Training(model, *SMALL, recipe, "cpu", generator)


def timeless(epochs):
    return [dataclasses.replace(epoch, seconds=0) for epoch in epochs]


def test_a_network_trained_in_turn_equals_that_of_train_from_scratch():
    recipes = {position: recipe(position, epochs=2) for position in POSITIONS}
    recipes["dropout"] = early_stopping.recipe("dropout", 0.5, 0.01, epochs=2)
    trainings = {name: small(recipe) for name, recipe in recipes.items()}
    *_, curves = in_turn(trainings)
    for curve in curves:
        trainings[curve.name].finish()
        model, history = train_from_scratch(recipes[curve.name], *SMALL, "sample", device="cpu", progress=False)
        assert timeless(curve.epochs) == timeless(history.epochs)
        state = trainings[curve.name].model.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_trainings_in_three_threads_at_once_are_the_same_as_one_after_the_other():
    def train(seed):
        training = small(early_stopping.recipe("dropout", 0.5, 0.01, epochs=2, seed=seed))
        *_, (curve,) = in_turn({"dropout": training})
        return timeless(curve.epochs), copy_state(training.model)

    alone = [train(seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(train, range(3)))
    for (epochs, state), (epochs_there, state_there) in zip(alone, together, strict=True):
        assert epochs == epochs_there
        assert all(torch.equal(value, state_there[name]) for name, value in state.items())


def test_each_network_has_its_epoch_in_turn_and_the_picture_grows_by_one_point_at_a_time():
    counts = [
        [len(curve.epochs) for curve in curves]
        for curves in in_turn({p: small(recipe(p, epochs=2)) for p in POSITIONS})
    ]
    assert counts == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [2, 1, 1], [2, 2, 1], [2, 2, 2]]


def test_a_network_whose_loss_is_no_longer_finite_has_diverged_and_the_others_continue():
    trainings = {"good": small(recipe("after", epochs=3)), "bad": small(recipe("none", 1e30, "random_normal", 3))}
    *_, (good, bad) = in_turn(trainings)
    assert (len(good.epochs), good.diverged) == (3, None)
    assert (len(bad.epochs), bad.diverged) == (0, 1)


def test_closing_the_generator_ends_the_trainings():
    trainings = {"after": small(recipe("after", epochs=30))}
    steps = in_turn(trainings)
    for _ in range(3):
        next(steps)
    steps.close()
    assert len(trainings["after"].history.epochs) == 2
    with pytest.raises(StopIteration):
        next(steps)


def test_the_three_networks_start_with_the_same_weights():
    weights = [start(recipe(position)).model.dense1.weight for position in POSITIONS]
    assert all(torch.equal(weights[0], weight) for weight in weights)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 31}, "epochs: expected 1 … 30, received 31"),
        ({"rate": 0.0}, "learning_rate: expected a number > 0"),
        ({"initializer": "xavier"}, "initializer: expected one of random_normal"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        next(stream(**arguments))


def test_an_earlier_run_stays_numbered_beside_the_present_one():
    first, second = (convergence.run(epochs=1, seed=seed) for seed in (0, 1))
    shown = tab.draw(second, "finished", [first])
    assert "run 1, no batch norm" in shown
    assert re.findall(r">(\d: He normal.*?)<", shown) == [
        "1: He normal, rate 0.1, seed 0",
        "2: He normal, rate 0.1, seed 1 (now)",
    ]


def test_the_page_reports_the_progress_of_a_live_training():
    curves = tuple(convergence.Curve(position) for position in POSITIONS)
    empty = Convergence(0.1, "he_normal", 10, 0, curves)
    assert "epoch 0 of 10" in tab.draw(empty, "training")
    result = convergence.run(epochs=1)
    assert "Trained live" in tab.progress(result, "finished")
    assert f"{100 * result.curves[0].epochs[0].validation_accuracy:.1f}%" in tab.progress(result, "stopped")
    diverged = dataclasses.replace(result, curves=(convergence.Curve("none", (), 1), *result.curves[1:]))
    assert "it diverged in epoch 1" in tab.progress(diverged, "finished")
    assert "<svg" in tab.draw(diverged, "finished")
