"""Shortcuts that make the experiments fast do not change their numbers; convergence of a running average."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from benchmarks.running_app import ROOT
from bnmodel import SimpleCNN, load_checkpoint
from bnmodel.data import load_sample
from bnmodel.experiments import corruption
from bnmodel.experiments.batch_statistics import custom_batchnorms
from bnmodel.experiments.cache import cache_by_content
from bnmodel.experiments.pooling import QuickPooling
from bnmodel.experiments.running_statistics import approach, running_average


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return load_checkpoint(ROOT / "checkpoints" / "lecture").model


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(2, 9), st.integers(2, 9), st.sampled_from([2, (2, 2), 3]), st.booleans())
def test_quick_pooling_equals_torchs(count: int, height: int, width: int, size: int, ceil: bool) -> None:
    x = torch.randn(count, 2, height, width)
    if min(height, width) < 3 and size == 3:
        return
    expected = F.max_pool2d(x, size, ceil_mode=ceil), nn.MaxPool2d(size, padding=1)(x)
    with torch.no_grad(), QuickPooling():
        assert torch.equal(F.max_pool2d(x, size, ceil_mode=ceil), expected[0])
        assert torch.equal(nn.MaxPool2d(size, padding=1)(x), expected[1])


def test_quick_pooling_leaves_gradients_alone() -> None:
    x = torch.zeros(1, 1, 2, 2, requires_grad=True)  # a tie, which slices would share among four
    with QuickPooling():
        F.max_pool2d(x, 2).sum().backward()
    assert x.grad is not None
    assert sorted(x.grad.flatten().tolist()) == [0, 0, 0, 1]


def test_results_are_cached_by_the_weights_of_a_network() -> None:
    calls = []

    @cache_by_content(4)
    def first_weight(network: nn.Module, times: int = 1) -> float:
        calls.append(times)
        return times * float(next(network.parameters()).detach().flatten()[0])

    network = SimpleCNN()
    before = first_weight(network, times=2)
    assert first_weight(copy.deepcopy(network), times=2) == before
    assert len(calls) == 1
    with torch.no_grad():
        next(network.parameters()).add_(1)
    assert first_weight(network, times=2) == pytest.approx(before + 2)
    assert len(calls) == 2


@pytest.mark.parametrize("batch_size", [2, 50, 500])
def test_the_corrupted_digits_are_normalised_in_batches_of_the_chosen_size(model: nn.Module, batch_size: int) -> None:
    network = copy.deepcopy(model).eval()
    for name in custom_batchnorms(model):
        network.set_submodule(name, custom_batchnorms(network)[name].to_torch(2).train())
    images = corruption.corrupted_sample("contrast", 0.8, 0)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:500]
    with torch.no_grad():
        answers = torch.cat([network(batch).argmax(1) for batch in images.split(batch_size)])
    right = float((answers == load_sample(train=False).labels[order]).float().mean())
    assert corruption.accuracies(model, "contrast", batch_size, 0)[4] == pytest.approx(right, abs=0.0021)


@pytest.mark.parametrize("momentum", [0.02, 0.1, 0.5, 1.0])
def test_noise_and_arrival_of_a_running_average_are_those_of_the_theory(momentum: float) -> None:
    batches = np.random.default_rng(1).normal(10, 0.5, 400)
    running = running_average((torch.tensor(batches)[:, None],) * 2, momentum)[0][:, 0].numpy()
    found = approach(batches, running, 10, momentum)
    assert found.noise == pytest.approx(np.sqrt(momentum / (2 - momentum)) * batches.std(ddof=1), rel=0.1)
    assert found.noise == pytest.approx(found.noise_expected, rel=0.1)
    assert found.batches is not None
    assert found.batches_expected is not None
    assert abs(found.batches - found.batches_expected) <= 1 + 0.2 * found.batches_expected


def test_a_running_average_with_momentum_0_never_arrives() -> None:
    batches = np.array([1.0, 1.2, 0.8])
    found = approach(batches, np.zeros(4), 1, 0)
    assert found.batches is None
    assert found.batches_expected is None
    assert found.noise == 0
