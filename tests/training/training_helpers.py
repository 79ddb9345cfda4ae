"""Recipes and interruptions for the tests of training."""

import dataclasses
import multiprocessing
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import bnmodel.training.trainer
from bnmodel import SimpleCNN, SimpleCNNConfig
from bnmodel.training.history import Epoch
from bnmodel.training.recipes import Recipe

QUICK = Recipe("quick", epochs=4, patience=4, learning_rate=0.1, momentum=0.9, model=SimpleCNNConfig(dropout=0.1))
SHORT = dataclasses.replace(QUICK, model=SimpleCNNConfig(channels=(3, 4), hidden=8, dropout=0.5))
State = dict[str, Tensor]

# its processes are forked from one that has imported these once
forkserver = multiprocessing.get_context("forkserver")
forkserver.set_forkserver_preload(
    [
        "bnmodel.__main__",
        "bnmodel.training.fitting",
        "pytest",
        "sklearn.datasets",
        "sklearn.model_selection",
        "torchvision",
    ]
)


def state_of(model: SimpleCNN) -> State:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same(one: State, other: State) -> bool:
    """Bit for bit."""
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def seeded_model(recipe: Recipe, seed: int = 0) -> SimpleCNN:
    torch.manual_seed(seed)
    return SimpleCNN(recipe.model)


class Spoiler:
    """A callback after each epoch that copies the weights, and corrupts the model after epoch `last_good`."""

    def __init__(self, model: SimpleCNN, last_good: int) -> None:
        self.model, self.last_good = model, last_good
        self.states: list[State] = []

    def __call__(self, epoch: Epoch) -> None:
        self.states.append(state_of(self.model))
        if epoch.epoch == self.last_good:
            with torch.no_grad():
                self.model.dense2.bias.add_(torch.linspace(-30, 30, 10))
                self.model.block1.norm.running_mean.add_(3)


def scripted_losses(losses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the validation losses of the next epochs, independent of the model."""
    remaining = iter(losses)
    monkeypatch.setattr(bnmodel.training.trainer, "evaluate", lambda model, digits: (next(remaining), 0.5))


def interrupt_after(last: int, then: Callable[[Epoch], None] = lambda epoch: None) -> Callable[[Epoch], None]:
    def on_epoch(epoch: Epoch) -> None:
        then(epoch)
        if epoch.epoch == last:
            raise KeyboardInterrupt

    return on_epoch
