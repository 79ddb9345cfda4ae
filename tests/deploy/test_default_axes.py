"""The axes that vary by default, also for examples of one sample and networks that keep something per size."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from norm_helpers import Body, X
from torch import Tensor

from bnmodel.deploy import certify, fold, load
from bnmodel.deploy.axes import dynamic_axes
from bnmodel.deploy.loading import FORMATS


class Sorted(Body):
    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return torch.take_along_dim(y, y.argsort(1), 1)


class Counted(Body):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).view(math.prod(int(size) for size in x.shape[:1]), -1)


class Listed(Body):
    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return torch.stack([y[place] * 2 for place in range(x.shape[0])])


@pytest.mark.parametrize("make", [Sorted, Counted, Listed])
def test_an_axis_that_the_network_fixes_keeps_the_size_of_the_example(make, tmp_path):
    """torch.export is given two samples in place of one: it would fix an axis of size 1."""
    network = make().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        certify(network, X[:1], tmp_path, formats=FORMATS)
    expected = network(X[:1]).detach()
    for format in FORMATS:
        received = load(tmp_path, format=format)(X[:1].numpy())["output"]
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fold(network, X[:1]).module(X[:1]), expected, rtol=1e-4, atol=1e-5)


class Noisy(Body):
    """A denoiser: takes the time first."""

    def forward(self, time: Tensor, x: Tensor) -> Tensor:
        return self.body(x) * time.cos()


@pytest.mark.parametrize("time", [torch.tensor(0.3), torch.tensor([0.3])])
def test_the_batch_is_the_first_axis_of_the_first_input_that_is_no_scalar_or_vector(time, tmp_path):
    network = Noisy().eval()
    certify(network, (time, X), tmp_path, formats="onnx")
    other = torch.rand(6, *X.shape[1:])
    received = load(tmp_path)(time.numpy(), other.numpy())["output"]
    np.testing.assert_allclose(received, network(time, other).detach(), rtol=1e-4, atol=1e-5)


class Cached(Body):
    """Keeps positions for the last size, as detectors keep their anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.size: Any = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.size != y.shape:
            self.size, self.positions = y.shape, torch.linspace(0, 1, y.shape[-1]).expand(y.shape)
        return y + self.positions


def test_what_a_network_keeps_per_size_is_computed_in_the_file(tmp_path):
    network = Cached().eval()
    certify(network, X, tmp_path, formats=FORMATS, dynamic=(0, 3))
    other = torch.rand(7, 3, 9, 14)
    for format in FORMATS:
        received = load(tmp_path, format=format)(other.numpy())["output"]
        np.testing.assert_allclose(received, network(other).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chosen", [np.array([0, 2]), torch.tensor([0, 2])])
def test_axes_may_be_an_array(chosen):
    assert dynamic_axes(chosen, ["x"], [X]) == (({0: "N", 2: "H"},), True)
    assert dynamic_axes(chosen[:1], ["x"], [X]) == (({0: "N"},), True)
