"""Networks whose forward draws random numbers in Python, changes what it keeps, or reads `tensor.data`."""

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnmodel.deploy import ExportError, certify, fold, load, verify
from bnmodel.deploy.loading import FORMATS

X = torch.rand(3, 4)


def in_python() -> float:
    return random.random()


def in_numpy() -> float:
    return float(np.random.random())  # noqa: NPY002


class Skips(nn.Sequential):
    """Skips its layers at random, in eval mode too unless `only_in_training`."""

    def __init__(self, draw, only_in_training: bool = False) -> None:
        super().__init__(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.draw = draw
        self.only_in_training = only_in_training

    def forward(self, x: Tensor) -> Tensor:
        skipped = self.draw() < 0.1
        return x if skipped and not (self.only_in_training and not self.training) else super().forward(x)


class StoresStatistics(nn.Module):
    """Normalises by the first batch that it receives, which it keeps in a tensor that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.zeros(4)

    def forward(self, x: Tensor) -> Tensor:
        self.mean.add_(x.mean(0))
        return x - self.mean


@pytest.fixture(autouse=True)
def _seeded():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002


@pytest.mark.parametrize("draw", [in_python, in_numpy])
def test_a_rare_random_branch_in_python_is_refused(draw, tmp_path):
    with pytest.raises(ExportError, match=r"two evaluations of one input differ.*random numbers"):
        certify(Skips(draw).eval(), X, tmp_path, formats="pt2")


@pytest.mark.parametrize("draw", [in_python, in_numpy])
def test_random_numbers_that_have_no_effect_in_eval_mode_are_accepted(draw, tmp_path):
    certify(Skips(draw, only_in_training=True).eval(), X, tmp_path, formats="pt2")


def test_a_tensor_that_forward_changes_and_that_is_no_buffer_is_refused_by_name(tmp_path):
    with pytest.raises(ExportError, match=r"forward changes mean, which is not a buffer.*register_buffer"):
        certify(StoresStatistics().eval(), X, tmp_path, formats="pt2")


class Chosen(nn.Sequential):
    """Chooses its forward when it is built."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.forward = self.twice

    def twice(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class ChosenPlain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.forward = self.once

    def once(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Data(Chosen):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-2, 2, 4))

    def twice(self, x: Tensor) -> Tensor:
        y = super().twice(x.data)
        y.data[:, 0] += 1  # also changes y
        return (y.sign() - y).data + y * self.weight.data.clamp(-1, 1)


@pytest.mark.parametrize("make", [Chosen, ChosenPlain, Data])
@pytest.mark.parametrize("dynamic", [None, False])
def test_a_forward_of_the_instance_and_data_of_tensors_are_exported(make, dynamic, tmp_path):
    network = make().eval()
    before = torch.Tensor.data
    folded = fold(network, X, dynamic=dynamic)
    assert torch.Tensor.data is before
    other = torch.rand(3 if dynamic is False else 5, 4)
    torch.testing.assert_close(folded.module(other), network(other))
    certify(network, X, tmp_path, dynamic=dynamic, formats=["onnx", "pt2", "torchscript"])


class Noisy(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.rand(4) * in_python() * in_numpy()


def test_the_global_random_states_are_left_as_they_were(tmp_path):
    network = Noisy(4, 4).eval()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[2]  # noqa: NPY002
    for export in (fold, lambda *given: certify(*given, tmp_path)):
        with pytest.raises(ExportError, match="random numbers"):
            export(network, X)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (random.getstate(), np.random.get_state()[2]) == before[1:]  # noqa: NPY002


@pytest.mark.parametrize("context", [lambda: torch.autocast("cpu", dtype=torch.bfloat16), lambda: torch.device("meta")])
def test_autocast_and_the_default_device_of_the_caller_do_not_enter_the_files(context, tmp_path):
    network = Skips(in_python, True).eval()
    with context():
        certify(network, X, tmp_path, formats=FORMATS)
        assert all(check.passed for check in verify(tmp_path))
    for format in FORMATS:
        received = load(tmp_path, format=format)(X.numpy())["output"]
        np.testing.assert_allclose(received, network(X).detach(), rtol=1e-5, atol=1e-6)
