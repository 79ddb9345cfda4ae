"""Norms are folded through operators that keep channels apart, splits and concatenations."""

import pytest
import torch
from norm_helpers import assert_folded, randomised
from torch import Tensor, nn

from bnmodel import CustomBatchNorm
from bnmodel.deploy import fold


class Crop(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(3)[..., 1:-1].roll(1, 2)


class Narrowed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.narrow(2, 1, 3)


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
        ([nn.Conv2d(3, 4, 3), Narrowed(), nn.BatchNorm2d(4)], (2, 3, 6, 6)),
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


class InstanceAndBatch(nn.Module):
    """One half of the channels is normalised by instance, the other by batch (Pan et al. 2018, IBN-Net)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.instance, self.batch = nn.Conv2d(3, 6, 3), nn.InstanceNorm2d(2), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.conv(x).split([2, 4], 1)
        return torch.cat([self.instance(one.contiguous()), self.batch(other.contiguous())], 1)


class BothHalves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.left, self.right = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.conv(x).chunk(2, 1)
        return self.left(one) * self.right(other)


@pytest.mark.parametrize(("make", "count"), [(InstanceAndBatch, 1), (BothHalves, 2)])
def test_a_norm_is_folded_into_the_layer_of_which_it_reads_a_part(make, count):
    torch.manual_seed(0)
    assert_folded(randomised(make()), torch.randn(2, 3, 6, 6), folded=count)


class PartUsedTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        one, _ = self.conv(x).chunk(2, 1)
        return self.norm(one) * one


class HalvesOfTheWidth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.conv(x).chunk(2, 3)
        return self.norm(one) * other


@pytest.mark.parametrize("make", [PartUsedTwice, HalvesOfTheWidth])
def test_a_norm_of_a_part_that_others_read_is_kept(make):
    torch.manual_seed(0)
    assert_folded(randomised(make()), torch.randn(2, 3, 6, 6), kept=1)


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
