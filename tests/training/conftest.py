"""Fixtures for the tests of training."""

from pathlib import Path

import pytest
import torch
from training_helpers import QUICK

from bnmodel import Digits, SimpleCNN
from bnmodel.data import load_offline_digits, split
from bnmodel.training import train_from_scratch
from bnmodel.training.history import History


@pytest.fixture(autouse=True)
def own_random_state():
    """Fix the global random state, so that tests are independent of each other."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module")
def digits() -> tuple[Digits, Digits]:
    return split(load_offline_digits(train=True))


@pytest.fixture(scope="module")
def few(digits: tuple[Digits, Digits]) -> tuple[Digits, Digits]:
    """100 training digits, so that the last batch is smaller, and 50 validation digits."""
    return digits[0][:100], digits[1][:50]


@pytest.fixture(scope="module")
def trained(digits: tuple[Digits, Digits], tmp_path_factory: pytest.TempPathFactory) -> tuple[SimpleCNN, History, Path]:
    out = tmp_path_factory.mktemp("trained")
    model, history = train_from_scratch(QUICK, *digits, "digits", out, progress=False)
    return model, history, out
