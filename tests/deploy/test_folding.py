"""Folding is exact: outputs equal those of the network in eval mode, and a norm is kept only if it cannot be folded."""

import copy
import dataclasses
from collections import OrderedDict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bnmodel import CustomBatchNorm, SimpleCNN, SimpleCNNConfig
from bnmodel.deploy import fold
from bnmodel.deploy.preflight import named_norms


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in eval mode, with random statistics, γ (of either sign) and β, so that a wrong fold is noticed."""
    generator = torch.Generator().manual_seed(seed)
    for norm in named_norms(model).values():
        norm.running_mean.normal_(generator=generator)
        norm.running_var.uniform_(0.1, 3, generator=generator)
        for parameter in norm.parameters(recurse=False):
            parameter.data.normal_(generator=generator)
    return model.eval()


def assert_folded(model: nn.Module, x: Tensor, kept: int = 0, folded: int | None = None) -> None:
    result = fold(model, x)
    assert len(result.kept) == kept, result.kept
    assert folded is None or len(result.folded) == folded
    left = [node for node in result.module.graph.graph.nodes if "batch_norm" in str(node.target)]
    assert len(left) <= kept
    with torch.no_grad():
        expected = copy.deepcopy(model).eval().double()(x.double())
        received = result.module(x).double()
    size = expected.abs().max().clamp(min=1e-30)
    torch.testing.assert_close(received / size, expected / size, rtol=0, atol=3e-6)


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


class Crop(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(3)[..., 1:-1].roll(1, 2)


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ([nn.BatchNorm2d(3), nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect")], (2, 3, 6, 6)),
        ([nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 5)], (2, 3, 6, 6)),
        ([nn.ReLU(), nn.BatchNorm2d(4), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 5)], (2, 4, 4, 4)),
        ([nn.ReLU(), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)], (2, 4, 5, 5)),
        ([nn.ReLU(), nn.BatchNorm2d(4), nn.Upsample(scale_factor=2), nn.Conv2d(4, 2, 3)], (2, 4, 4, 4)),
        ([nn.Conv2d(3, 4, 3), nn.Upsample(scale_factor=2, mode="nearest-exact"), nn.BatchNorm2d(4)], (2, 3, 6, 6)),
        ([nn.Conv2d(3, 8, 3), nn.PixelShuffle(2), nn.BatchNorm2d(2)], (2, 3, 6, 6)),
        ([nn.Conv2d(3, 8, 3), nn.ChannelShuffle(2), nn.BatchNorm2d(8)], (2, 3, 6, 6)),
        ([nn.Linear(5, 6), nn.Unflatten(1, (2, 3)), nn.BatchNorm1d(2)], (4, 5)),
        ([nn.Conv2d(3, 4, 3, padding="same"), nn.BatchNorm2d(4)], (2, 3, 6, 6)),
        ([nn.Conv2d(3, 4, 3), Crop(), nn.BatchNorm2d(4), nn.ReLU()], (2, 3, 6, 6)),
        ([nn.ReLU(), nn.BatchNorm2d(3), Crop(), nn.Conv2d(3, 4, 3)], (2, 3, 6, 6)),
        ([nn.BatchNorm1d(4), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)], (5, 4)),
    ],
)
def test_norms_are_folded_through_operators_that_keep_channels_apart(layers, shape):
    torch.manual_seed(0)
    assert_folded(randomised(nn.Sequential(*layers)), torch.randn(shape))


@pytest.mark.parametrize(
    "layers",
    [
        [nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 5, 3, padding=1)],  # the border would change
        [nn.ReLU(), nn.BatchNorm2d(3), nn.AvgPool2d(3, padding=1), nn.Conv2d(3, 5, 1)],  # likewise
        [nn.ReLU(), nn.BatchNorm2d(3), nn.ConstantPad2d(1, 0.0), nn.Conv2d(3, 5, 3)],
        [nn.ReLU(), nn.BatchNorm2d(3), nn.MaxPool2d(2), nn.Conv2d(3, 5, 1)],  # γ < 0 reverses the order
        [nn.ReLU(), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 5, 1)],
        [nn.ReLU(), nn.BatchNorm2d(3), nn.ConvTranspose2d(3, 5, 3)],
        [nn.ReLU(), nn.BatchNorm2d(3)],
    ],
)
def test_a_norm_whose_fold_would_change_outputs_is_kept_and_named(layers):
    torch.manual_seed(1)
    model = randomised(nn.Sequential(*layers))
    model[1].weight.data[0] = -1.0
    assert_folded(model, torch.randn(2, 3, 6, 6), kept=1)
    assert list(fold(model, torch.randn(2, 3, 6, 6)).kept) == ["1"]


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 1), CustomBatchNorm(2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + y


def test_a_norm_whose_neighbour_is_used_twice_is_kept():
    torch.manual_seed(0)
    assert_folded(randomised(Shared()), torch.randn(2, 2, 3, 3), kept=1)


class Joined(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(6)
        self.c, self.d, self.after = nn.Conv2d(6, 3, 1), nn.Conv2d(6, 3, 3), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(torch.cat([self.a(x), self.b(x)], 1)).relu()
        x = self.after(x)
        return self.c(x)[..., 1:-1, 1:-1] + self.d(x)


def test_a_norm_is_folded_into_all_parts_of_a_concatenation_and_into_all_its_users():
    torch.manual_seed(0)
    assert_folded(randomised(Joined()), torch.randn(2, 3, 6, 6), folded=2)


class Split(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.a, self.b = nn.BatchNorm2d(5), nn.Conv2d(5, 3, 3), nn.Conv2d(2, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.norm(x.relu()).split([2, 3], 1)
        return self.a(torch.cat([right, left], 1)) + self.b(left.flip(3))


def test_a_norm_is_folded_into_layers_that_read_parts_of_its_output():
    torch.manual_seed(0)
    assert_folded(randomised(Split()), torch.randn(2, 5, 6, 6), folded=1)


class Stacked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm3d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.stack([self.conv(x), self.conv(x.flip(2))], 2))


def test_a_norm_after_an_operator_on_a_list_is_kept():
    assert_folded(randomised(Stacked()), torch.randn(2, 3, 6, 6), kept=1)


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


def test_the_original_network_its_mode_and_its_statistics_are_not_changed():
    model = randomised(SimpleCNN()).train()
    before = copy.deepcopy(model.state_dict())
    with pytest.warns(UserWarning, match="its eval copy is exported"):
        fold(model, torch.rand(2, 1, 28, 28))
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


class Overwriting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.add_(1))


def test_an_example_that_the_network_overwrites_is_not_changed():
    example = torch.zeros(3, 4)
    fold(Overwriting().eval(), example)
    assert not example.any()


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


class Dictionary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))

    def forward(self, batch: dict[str, Tensor], scale: float = 1.0) -> dict[str, Tensor]:
        return {"scores": self.net(batch["x"]) * scale, "same": batch["x"]}


def test_the_folded_network_is_called_as_the_network_is():
    model, batch = randomised(Dictionary()), {"x": torch.randn(3, 4)}
    folded = fold(model, (batch,)).module
    with torch.no_grad():
        expected, received = model(batch), folded(batch)
    assert list(received) == ["scores", "same"]
    torch.testing.assert_close(received["scores"], expected["scores"])
    with pytest.raises(ValueError, match=r"expected tensors for batch_x, and scale = 1.0, as in the example"):
        folded(batch, scale=2.0)


@dataclasses.dataclass
class Scores:
    scores: Tensor
    hidden: Any = None


class Named(OrderedDict[str, Any]):
    """A dictionary of its own class, like the output of a transformers model."""


class OwnContainers(Dictionary):
    def forward(self, x: Tensor, shift: Tensor) -> Any:
        return Named(first=Scores(self.net(x), [x, None, 3]), second=self.net(x + shift))


def test_containers_of_an_own_class_are_returned_and_arguments_are_told_by_name():
    model, x, shift = randomised(OwnContainers()), torch.randn(3, 4), torch.randn(3, 4)
    folded = fold(model, {"x": x, "shift": shift}).module
    with torch.no_grad():
        expected, received = model(x, shift), folded(shift=shift, x=x)
    assert (type(received), type(received["first"]), received["first"].hidden[1:]) == (Named, Scores, [None, 3])
    torch.testing.assert_close(received["first"].scores, expected["first"].scores)
    torch.testing.assert_close(received["second"], expected["second"])
