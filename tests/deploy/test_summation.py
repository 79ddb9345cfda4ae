"""Sums that are added up one element after the other: the same values with other rounding errors."""

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bnmodel.deploy import certify, load
from bnmodel.deploy.summation import InSequence


def sums(x: Tensor, axes: list[int], keepdim: bool) -> list[Tensor]:
    return [
        x.sum(),
        x.mean(),
        x.sum(axes, keepdim),
        x.mean(axes, keepdim),
        x.cumsum(axes[0] if axes else -1),
        x.sum(-1, dtype=torch.float64),
        x.double().sum(0),
    ]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.sets(st.integers(0, 3)), st.booleans(), st.booleans())
def test_shapes_and_values_are_those_of_torch(shape, chosen, negative, keepdim):
    x = torch.randint(-50, 50, shape).float()  # sums of small integers are exact
    axes = [axis - len(shape) if negative else axis for axis in chosen if axis < len(shape)]
    with InSequence():
        received = sums(x, axes, keepdim)
    for one, other in zip(received, sums(x, axes, keepdim), strict=True):
        torch.testing.assert_close(one, other)


def test_a_scalar_is_its_own_sum():
    with InSequence():
        assert torch.tensor(3.0).sum() == torch.tensor(3.0).mean() == torch.tensor(3.0).cumsum(0) == 3


def test_the_order_is_that_of_a_loop():
    x = torch.rand(10_000, generator=torch.Generator().manual_seed(0))
    total = np.float32(0)
    for value in x.numpy():
        total += value
    with InSequence():
        assert float(x.sum()) == total
        assert float(F.adaptive_avg_pool1d(x[None, None], 1)) == total / np.float32(10_000)
    assert float(x.sum()) != total


class Energy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).cumsum(2)


def test_a_long_sum_is_exported_to_all_formats(tmp_path):
    torch.manual_seed(0)
    network, x = Energy().eval(), torch.rand(2, 1, 5000)
    certify(network, x, tmp_path, formats=("torchscript", "onnx", "pt2"))
    with torch.no_grad():
        expected = network(x)
    received = load(tmp_path)(x.numpy())["output"]
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
