"""Shortcuts that make the experiments fast do not change their numbers; convergence of a running average."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from benchmarks import ROOT
from bnmodel import SimpleCNN, load_checkpoint
from bnmodel.data import load_sample
from bnmodel.experiments import corruption, forgotten_eval
from bnmodel.experiments.batch_statistics import custom_batchnorms, with_batch_statistics
from bnmodel.experiments.cache import cache_by_content, content, hold_constant
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


def test_a_network_that_is_held_constant_is_hashed_once_and_a_changed_copy_is_another() -> None:
    network = SimpleCNN()
    before = content(network)
    hold_constant(network)
    assert content(network) is content(network)
    changed = copy.deepcopy(network)
    assert content(changed) == content(network) == before
    with torch.no_grad():
        next(changed.parameters()).add_(1)
    assert content(changed) != before


def test_a_copy_with_batch_statistics_leaves_the_network_alone_and_follows_its_parameters(model: nn.Module) -> None:
    network, x = copy.deepcopy(model).train(), torch.rand(6, 1, 28, 28)
    state = copy.deepcopy(network.state_dict())
    changed = with_batch_statistics(network)
    before = changed(x)
    assert all(module.training for module in network.modules())
    assert not any(module.training for module in changed.modules())
    assert list(custom_batchnorms(network)) == ["block1.norm", "block2.norm"]
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        next(network.parameters()).mul_(2)
    assert not torch.equal(changed(x), before)


def test_a_forgotten_eval_continued_from_kept_statistics_equals_one_from_the_start(model: nn.Module) -> None:
    digit = load_sample(train=False).images[3, 0]
    forgotten_eval.run(model, digit, 20)
    expected = copy.deepcopy(model).eval()
    for norm in custom_batchnorms(expected).values():
        norm.train()
    with torch.no_grad():
        for _ in range(23):
            expected(digit.view(1, 1, 28, 28))
    found = forgotten_eval._drifted(model, digit, 23).state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.state_dict().items())


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
def test_noise_and_convergence_of_a_running_average_match_the_theory(momentum: float) -> None:
    batches = np.random.default_rng(1).normal(10, 0.5, 400)
    running = running_average((torch.tensor(batches)[:, None],) * 2, momentum)[0][:, 0].numpy()
    found = approach(batches, running, 10, momentum)
    assert found.noise == pytest.approx(np.sqrt(momentum / (2 - momentum)) * batches.std(ddof=1), rel=0.1)
    assert found.noise == pytest.approx(found.noise_expected, rel=0.1)
    assert found.batches is not None
    assert found.batches_expected is not None
    assert abs(found.batches - found.batches_expected) <= 1 + 0.2 * found.batches_expected


def test_a_running_average_with_momentum_0_never_converges() -> None:
    batches = np.array([1.0, 1.2, 0.8])
    found = approach(batches, np.zeros(4), 1, 0)
    assert found.batches is None
    assert found.batches_expected is None
    assert found.noise == 0
