"""The tolerance of the certificate: rounding passes, larger differences do not."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn

from bnmodel.deploy.allowance import Yardstick, allowance, judge, measured
from bnmodel.deploy.capture import Captured
from bnmodel.deploy.evidence import gather
from bnmodel.deploy.signature import FlatNetwork, Port, arguments

U = 2.0**-24


def test_four_times_the_networks_own_rounding_is_allowed_and_no_more():
    exact = [np.array([[1.0, 100.0]])]
    yardstick = measured("float32", 1, [exact[0] + [[1e-5, 1e-3]]], exact)
    assert judge(yardstick, [exact[0] + [[3.9e-5, 3.9e-3]]], exact).passed
    assert not judge(yardstick, [exact[0] + [[4.1e-5, 0]]], exact).passed
    assert not judge(yardstick, [exact[0] + [[0, 4.1e-3]]], exact).passed


@settings(max_examples=100, derandomize=True)
@given(st.floats(-30, 30))
def test_small_outputs_are_judged_as_large_ones_are(exponent):
    size = 2.0**exponent
    exact = [np.array([[0.7, -0.2, 0.9]]) * size]
    yardstick = measured("float32", 1, exact, exact)
    np.testing.assert_allclose(allowance(yardstick, exact), 16 * U * np.abs(exact[0][0]))
    assert not judge(yardstick, [exact[0] * (1 + 17 * U)], exact).passed


def test_an_error_in_a_small_channel_is_not_hidden_by_a_large_one():
    exact = [np.array([[1e-6, 1e3]])]
    yardstick = measured("float32", 1, [exact[0] + [[0, 1e-4]]], exact)
    assert not judge(yardstick, [exact[0] + [[1e-9, 0]]], exact).passed


def test_a_channel_that_is_exact_by_chance_is_judged_by_others_of_its_size():
    exact = [np.full((1, 5), 1.0)]
    yardstick = measured("float32", 1, [exact[0] + [[0, 2e-6, 2e-6, 2e-6, 2e-6]]], exact)
    assert judge(yardstick, [exact[0] + [[7e-6, 0, 0, 0, 0]]], exact).passed


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_pass_only_where_they_are_expected(value):
    exact = [np.array([1.0, -np.inf, 2.0])]
    yardstick = measured("float32", None, exact, exact)
    assert judge(yardstick, exact, exact).passed
    assert not judge(yardstick, [np.array([1.0, value, 2.0])], exact).passed


def test_integers_are_equal_or_wrong():
    exact = [np.arange(10)]
    yardstick = measured("int64", None, exact, exact)
    assert judge(yardstick, exact, exact).passed
    assert not judge(yardstick, [exact[0] + 1], exact).passed


def test_another_shape_is_wrong():
    yardstick = Yardstick("float32", None, (1.0,))
    assert not judge(yardstick, [np.zeros((2, 1))], [np.zeros((2, 2))]).passed


def folded_by_hand(conv: nn.Module, norm: nn.Module) -> nn.Module:
    folded = copy.deepcopy(conv)
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    folded.weight.copy_(conv.weight.double() * scale.view(-1, 1, 1, 1))
    folded.bias.copy_(norm.bias + scale * (conv.bias - norm.running_mean))
    return folded


@torch.no_grad()
def test_sound_small_networks_are_not_refused_by_chance():
    x, port = torch.rand(4, 3, 12, 12), Port("y", "float32", ("N", 600))
    captured = Captured(fx.GraphModule({}, fx.Graph()), (Port("x", "float32", ("N", 3, 12, 12)),), (port,), ({0: "N"},))
    for seed in range(40):
        torch.manual_seed(seed)
        conv, norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6).eval()
        norm.running_mean.normal_(std=0.5)
        norm.running_var.uniform_(0.1, 2)
        norm.weight.normal_()
        norm.bias.normal_()
        network = nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten()).eval()
        evidence = gather(FlatNetwork(network, arguments(network, x)), captured, [x])
        file = nn.Sequential(folded_by_hand(conv, norm), nn.ReLU(), nn.Flatten())
        received = [file(torch.from_numpy(image)).numpy() for (image,) in evidence.golden.inputs]
        expected = [output for (output,) in evidence.golden.outputs]
        verdict = judge(evidence.yardsticks[0], received, expected)
        assert verdict.passed, (seed, verdict)
        spoilt = [output * (1 + 1e-4) for output in received]
        assert not judge(evidence.yardsticks[0], spoilt, expected).passed
