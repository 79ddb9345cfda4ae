"""Folding is exact: outputs equal those of the network in eval mode, and a norm is kept only if it cannot be folded."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from norm_helpers import assert_folded, randomised
from torch import Tensor, nn

from bnmodel import CustomBatchNorm, SimpleCNN, SimpleCNNConfig
from bnmodel.deploy import fold


@pytest.mark.parametrize("norm", ["after", "before", "none"])
def test_simple_cnn_is_folded_wherever_its_norms_stand(norm):
    assert_folded(randomised(SimpleCNN(SimpleCNNConfig(norm=norm))), torch.rand(3, 1, 28, 28))


@settings(deadline=None, max_examples=15, derandomize=True)
@given(
    st.integers(0, 10_000),
    st.sampled_from([1, 2]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 2, 3]),
)
def test_convolutions_with_groups_and_without_bias_are_folded_on_either_side(seed, groups, bias, behind, spatial):
    torch.manual_seed(seed)
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[spatial - 1](4, 6, 3, groups=groups, bias=bias)
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[spatial - 1]
    layers = [conv, CustomBatchNorm(6)] if behind else [nn.ReLU(), norm(4), nn.Dropout(), conv]
    assert_folded(randomised(nn.Sequential(*layers), seed), torch.randn(3, 4, *[5] * spatial))


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_takes_up_the_norm_behind_it(groups):
    layers = [nn.ConvTranspose2d(4, 6, 4, 2, 1, groups=groups, bias=False), nn.BatchNorm2d(6), nn.Tanh()]
    assert_folded(randomised(nn.Sequential(*layers)), torch.randn(3, 4, 5, 5))


def test_a_norm_between_two_dense_layers_on_axis_1_of_three_is_kept():
    # the norm acts on axis 1, the dense layer on axis 2: folding by module order would be silently wrong
    assert_folded(randomised(nn.Sequential(nn.Linear(12, 6), nn.BatchNorm1d(6), nn.ReLU())), torch.rand(4, 6, 12), 1)


@pytest.mark.parametrize("length", [6, 5])
def test_a_norm_followed_by_flatten_2_and_a_dense_layer_is_kept(length):
    model = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(6), nn.Flatten(2), nn.Linear(length * 2, 3))
    assert_folded(randomised(model), torch.rand(4, 6, length, 2), kept=1)


class NormAct(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


def test_the_activation_of_a_batch_norm_subclass_is_kept():
    assert_folded(randomised(nn.Sequential(nn.Conv2d(3, 5, 3), NormAct(5))), torch.randn(2, 3, 6, 6))


@pytest.mark.parametrize("place", [0, 1])
def test_a_forward_hook_is_kept(place):
    model = randomised(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)))
    model[place].register_forward_hook(lambda _module, _inputs, output: output.sin() * 2)
    assert_folded(model, torch.randn(2, 3, 6, 6), kept=1 - place)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Linear(12, 6), nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.relu(self.norm(self.a(x))), self.a.weight.t())


def test_a_weight_that_is_used_a_second_time_gets_a_copy_of_its_own():
    assert_folded(randomised(Tied()), torch.randn(4, 12), folded=1)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.a, self.b = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.conv(self.a(self.conv(x)).relu()))


def test_a_convolution_that_is_called_twice_is_folded_at_each_call():
    assert_folded(randomised(Twice()), torch.randn(2, 3, 8, 8), folded=2)


class MyConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == 3
        return super().forward(x)


def test_subclasses_with_assertions_are_folded():
    assert_folded(randomised(nn.Sequential(MyConv(3, 5, 3), nn.BatchNorm2d(5))), torch.randn(2, 3, 6, 6), folded=1)


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y = x.view(x.shape)
        y.mul_(2)  # changes x as well
        return self.norm(x)


class TokenNorm(nn.Module):
    """LeViT's dense layer: the norm sees (N · L, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(5, 4, bias=False), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dense(x)
        return self.norm(x.flatten(0, 1)).reshape_as(x)


def test_a_norm_over_all_tokens_is_folded_into_its_dense_layer():
    assert_folded(randomised(TokenNorm()), torch.randn(3, 7, 5), folded=1)


def test_a_change_through_a_view_is_noticed():
    assert_folded(randomised(InPlace()), torch.randn(2, 3, 6, 6), kept=1)


class WrittenOut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.weight, self.bias = nn.Conv2d(3, 4, 3), nn.Parameter(torch.rand(4)), nn.Parameter(torch.rand(4))
        self.register_buffer("mean", torch.randn(4, 1, 1))
        self.register_buffer("var", torch.rand(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = (self.conv(x) - self.mean) / (self.var + 1e-3).sqrt()
        return (x * self.weight[:, None, None] + self.bias[:, None, None]).relu()


def test_a_norm_that_is_written_out_by_hand_is_folded():
    torch.manual_seed(0)
    result = fold(WrittenOut().eval(), torch.randn(2, 3, 6, 6))
    kinds = [str(n.target) for n in result.module.graph.graph.nodes if n.op == "call_function"]
    assert kinds == ["aten.conv2d.default", "aten.relu.default"]


class Bordered(nn.Module):
    """Its norm is also called on a constant (Ding et al. 2021, diverse branch block)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(self.norm(self.conv(x)), self.norm(torch.zeros(1, 4, 1, 1, dtype=x.dtype)))


class Rotated(nn.Module):
    """Rotates pairs of features by angles whose frequencies are a power (Su et al. 2021, RoPE)."""

    def forward(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[1])[:, None] * 100.0 ** (-torch.arange(4) / 4)
        a, b = x.chunk(2, -1)
        return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)


def test_a_scale_made_from_a_power_is_not_taken_for_a_norm():
    assert_folded(Rotated(), torch.randn(2, 5, 8), kept=0, folded=0)


def test_a_norm_of_a_constant_is_computed_beforehand():
    torch.manual_seed(0)
    assert_folded(randomised(Bordered()), torch.randn(2, 3, 6, 6), folded=1)


class Positions(nn.Module):
    """Constants that vary over space stand before and after the norms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.positions = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Parameter(torch.randn(4, 6, 6))
        self.window, self.second, self.last = nn.Parameter(torch.rand(6, 6)), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = (self.norm(self.conv(x)) * 2 + self.positions).relu()
        return self.last(self.second(x * self.window))


def test_a_norm_is_folded_without_a_neighbour_that_varies_over_space():
    torch.manual_seed(0)
    assert_folded(randomised(Positions()), torch.randn(2, 3, 6, 6), folded=2)


class RowsAdded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows, self.weight = nn.Parameter(torch.rand(4, 1)), nn.Parameter(torch.rand(3, 4))
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.addmm(self.rows, x, self.weight))


def test_an_addend_per_sample_is_not_taken_for_a_bias():
    assert_folded(randomised(RowsAdded()), torch.randn(4, 3), kept=1)


class TwoTypes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.a = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.b, self.after = nn.BatchNorm2d(4).half(), nn.Conv2d(4, 2, 1).half()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.b(self.a(self.conv(x)).half()))


def test_norms_on_either_side_of_a_cast_are_folded_into_layers_of_their_own_type():
    network, x = randomised(TwoTypes()), torch.rand(2, 3, 6, 6)
    result = fold(network, x)
    assert (sorted(result.folded), result.kept) == (["a", "b"], {})
    with torch.no_grad():
        torch.testing.assert_close(result.module(x), network(x), rtol=1e-2, atol=1e-2)
