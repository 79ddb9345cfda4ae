"""Folding is exact: the frozen copy answers as the network in eval mode, with no batch norm left."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bnmodel import CustomBatchNorm, SimpleCNN, SimpleCNNConfig
from bnmodel.deploy.folding import ExportError, freeze, named_norms


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Statistics, γ (of either sign) and β that no fold gets right by accident."""
    generator = torch.Generator().manual_seed(seed)
    for norm in named_norms(model).values():
        norm.running_mean.normal_(generator=generator)
        norm.running_var.uniform_(0.1, 3, generator=generator)
        for parameter in norm.parameters(recurse=False):
            parameter.data.normal_(generator=generator)
    return model


def assert_folded(model: nn.Module, x: torch.Tensor, kept: int = 0) -> None:
    frozen = freeze(model, x)
    assert len(frozen.kept) == kept
    assert len(named_norms(frozen.module)) == kept
    expected = copy.deepcopy(model).eval().double()(x.double())
    torch.testing.assert_close(frozen.module(x).double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["after", "before", "none"])
def test_simple_cnn_is_folded_wherever_its_norms_stand(norm):
    assert_folded(randomised(SimpleCNN(SimpleCNNConfig(norm=norm))), torch.rand(3, 1, 28, 28))


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.integers(0, 10_000), st.sampled_from([1, 2]), st.booleans(), st.booleans())
def test_convolutions_with_groups_and_without_bias_are_folded_on_either_side(seed, groups, bias, behind):
    torch.manual_seed(seed)
    conv = nn.Conv2d(4, 6, 3, groups=groups, bias=bias)
    layers = [conv, CustomBatchNorm(6)] if behind else [nn.ReLU(), CustomBatchNorm(4), nn.Dropout(), conv]
    assert_folded(randomised(nn.Sequential(*layers), seed), torch.randn(3, 4, 5, 5))


def test_torch_batch_norms_and_dense_layers_behind_a_flattening_are_folded():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 7), nn.BatchNorm1d(7)]
    assert_folded(randomised(nn.Sequential(*layers)), torch.randn(3, 1, 8, 8))


def test_a_norm_in_front_of_a_padding_convolution_is_kept_since_folding_it_would_change_the_border():
    torch.manual_seed(0)
    model = randomised(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 5, 3, padding=1)))
    assert_folded(model, torch.randn(2, 3, 6, 6), kept=1)


def test_a_norm_whose_neighbour_is_used_twice_is_kept():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 2, 1), CustomBatchNorm(2)

        def forward(self, x):
            y = self.conv(x)
            return self.norm(y) + y

    torch.manual_seed(0)
    assert_folded(randomised(Shared()), torch.randn(2, 2, 3, 3), kept=1)


def test_the_original_its_mode_and_its_statistics_stay_as_they_are():
    model = randomised(SimpleCNN()).train()
    before = copy.deepcopy(model.state_dict())
    freeze(model, torch.rand(2, 1, 28, 28))
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_weights_that_are_not_finite_are_refused_by_name():
    model = SimpleCNN()
    model.dense1.weight.data[0, 0] = float("nan")
    with pytest.raises(ExportError, match=r"not finite: dense1\.weight"):
        freeze(model, torch.rand(2, 1, 28, 28))


def test_a_norm_without_running_statistics_is_refused_since_its_answers_depend_on_the_batch():
    model = nn.Sequential(nn.Linear(4, 4), CustomBatchNorm(4, track_running_stats=False))
    with pytest.raises(ExportError, match="no running statistics"):
        freeze(model, torch.rand(2, 4))
