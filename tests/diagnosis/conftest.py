"""Networks trained once for several tests; each test gets a copy."""

import copy

import pytest
from torch import nn

from benchmarks.diagnosis import networks as zoo
from benchmarks.diagnosis.faults import darker, healthy, noisier, pass_through


@pytest.fixture(scope="session")
def digits() -> zoo.Data:
    return zoo.digits()


@pytest.fixture(scope="session")
def trained_cnn() -> nn.Module:
    return healthy().eval()


@pytest.fixture
def cnn(trained_cnn: nn.Module) -> nn.Module:
    """A healthy network in eval mode; norms "1", "5" and "10"."""
    return copy.deepcopy(trained_cnn)


@pytest.fixture
def drifted(cnn: nn.Module, digits: zoo.Data) -> nn.Module:
    """The same after 20 forward passes in train mode on darker, noisy images."""
    return pass_through(cnn, digits.batches(), lambda x: noisier(darker(x))).eval()
