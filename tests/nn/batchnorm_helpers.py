"""Inputs, layers and comparisons for the tests of CustomBatchNorm."""

from dataclasses import dataclass

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bnmodel import CustomBatchNorm

TORCH_LAYERS = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)  # by the number of spatial axes
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
SHAPES = [(6, 3), (5, 3, 7), (4, 3, 5, 6), (3, 3, 4, 2, 5)]
quick = settings(deadline=None, derandomize=True, max_examples=150)


def random_input(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Channels with different means and spreads, like activations."""
    generator = torch.Generator().manual_seed(seed)
    per_channel = (1, shape[1], *[1] * (len(shape) - 2))
    spread = torch.rand(per_channel, generator=generator, dtype=torch.float64) + 0.5
    centre = torch.rand(per_channel, generator=generator, dtype=torch.float64) * 2 - 1
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * spread + centre).to(dtype)


def largest_error(actual: Tensor, expected: Tensor, scale: Tensor | float | None = None) -> float:
    """Largest difference, relative to the largest value of `expected`, or to `scale` where sums cancel."""
    assert actual.shape == expected.shape
    difference = (actual.detach().double() - expected.detach().double()).abs().max()
    return float(difference / (expected.detach().double().abs().max() if scale is None else scale))


def assert_equal_layers(ours: CustomBatchNorm, theirs: nn.Module, tolerance: float, scale: Tensor | float) -> None:
    """Compare parameters and running statistics; `scale` is that of the averaged values."""
    for our_name, their_name in (("gamma", "weight"), ("beta", "bias"), ("running_mean",) * 2, ("running_var",) * 2):
        mine, other = getattr(ours, our_name), getattr(theirs, their_name)
        assert (mine is None) == (other is None), our_name
        if mine is not None:
            assert largest_error(mine, other, max(float(scale), float(other.detach().abs().max()))) <= tolerance, (
                our_name
            )
    assert (ours.num_batches_tracked is None) == (theirs.num_batches_tracked is None)
    if ours.num_batches_tracked is not None:
        assert ours.num_batches_tracked == theirs.num_batches_tracked
        assert ours.num_batches_tracked.dtype == theirs.num_batches_tracked.dtype


@dataclass(frozen=True)
class Case:
    shape: tuple[int, ...]
    eps: float
    momentum: float | None
    affine: bool
    tracking: bool
    dtype: torch.dtype
    modes: tuple[bool, ...]  # one per step, True for training
    seed: int

    def layers(self) -> tuple[CustomBatchNorm, nn.Module]:
        """Ours and torch's with the same options and the same random γ and β."""
        channels, options = self.shape[1], (self.eps, self.momentum, self.affine, self.tracking)
        ours = CustomBatchNorm(channels, *options, dtype=self.dtype)
        theirs = TORCH_LAYERS[len(self.shape) - 2](channels, *options, dtype=self.dtype)
        if self.affine:
            generator = torch.Generator().manual_seed(self.seed)
            gamma = torch.rand(channels, generator=generator, dtype=self.dtype) + 0.5
            gamma[::2] *= -1
            beta = torch.randn(channels, generator=generator, dtype=self.dtype)
            with torch.no_grad():
                ours.gamma.copy_(gamma), theirs.weight.copy_(gamma)
                ours.beta.copy_(beta), theirs.bias.copy_(beta)
        return ours, theirs


@st.composite
def cases(draw: st.DrawFn) -> Case:
    spatial = draw(st.lists(st.integers(1, 5), max_size=3))
    return Case(
        shape=(draw(st.integers(8, 20)), draw(st.integers(1, 5)), *spatial),
        eps=draw(st.sampled_from([1e-5, 1e-3, 0.1])),
        momentum=draw(st.sampled_from([None, 0.0, 0.01, 0.1, 0.7, 1.0])),
        affine=draw(st.booleans()),
        tracking=draw(st.booleans()),
        dtype=draw(st.sampled_from(list(TOLERANCE))),
        modes=tuple(draw(st.lists(st.booleans(), min_size=1, max_size=5))),
        seed=draw(st.integers(0, 10_000)),
    )
