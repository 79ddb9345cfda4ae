"""The worked example against a hand calculation and torch's own layers."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bnmodel import CustomBatchNorm, SimpleCNN, SimpleCNNConfig, load_checkpoint
from bnmodel.data import load_sample
from bnmodel.experiments import modes, worked_example
from bnmodel.experiments.batch_statistics import custom_batchnorms
from bnmodel.experiments.other_samples import other_samples

NETWORK = load_checkpoint("checkpoints/lecture").model
DIGIT = load_sample(train=False).images[5, 0]  # a 1
OTHERS = other_samples("random", 7, 0, DIGIT)


class OneNorm(nn.Module):
    """Its only layer receives twice the image's upper left 2×2 corner, minus 1."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = CustomBatchNorm(1)
        assert self.norm.gamma is not None
        assert self.norm.beta is not None
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        with torch.no_grad():
            self.norm.gamma.fill_(2.0)
            self.norm.beta.fill_(0.5)
        self.norm.running_mean.fill_(1.0)
        self.norm.running_var.fill_(4.0)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(2 * images[:, :, :2, :2] - 1).flatten(1)


def test_every_step_equals_a_hand_calculation():
    digit, other = torch.zeros(28, 28), torch.zeros(1, 1, 28, 28)
    digit[:2, :2] = torch.tensor([[0.5, 1.0], [1.5, 2.0]])  # x = 0, 1, 2, 3
    other[0, 0, :2, :2] = torch.tensor([[2.5, 3.0], [3.5, 4.0]])  # x = 4, 5, 6, 7
    result = worked_example.run(OneNorm(), digit, other, pixel=3, eps=0.75)
    # μ = 28 / 8, σ² = (3.5² + 2.5² + 1.5² + 0.5²) · 2 / 8, σ² + ε = 6
    assert (result.value, result.row, result.column) == (3.0, 1, 1)
    assert (result.batch.mean, result.batch.var) == (3.5, 5.25)
    assert result.batch.centred == -0.5
    assert result.batch.normalized == pytest.approx(-0.5 / math.sqrt(6))
    assert result.batch.output == pytest.approx(2 * -0.5 / math.sqrt(6) + 0.5)
    # running: μ = 1, σ² = 4
    assert result.running.normalized == pytest.approx(2 / math.sqrt(4.75))
    assert result.running.output == pytest.approx(4 / math.sqrt(4.75) + 0.5)


@pytest.mark.parametrize("norm", ["block1.norm", "block2.norm"])
def test_the_output_maps_are_what_torchs_layer_answers_in_either_mode(norm):
    layer = custom_batchnorms(NETWORK)[norm]
    x = worked_example.layer_inputs(NETWORK, DIGIT, OTHERS)[norm]
    result = worked_example.run(NETWORK, DIGIT, OTHERS, norm, channel=4)
    for train, step in ((True, result.batch), (False, result.running)):
        with torch.no_grad():
            expected = copy.deepcopy(layer.to_torch(2)).train(train)(x)[0, 4].numpy()
        np.testing.assert_allclose(step.output_map, expected, atol=1e-4)
        assert step.output == pytest.approx(expected[result.row, result.column], abs=1e-4)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(st.integers(1, 5), st.sampled_from([1, 4, 6, 8, 9]), st.integers(1, 4), st.integers(0, 10_000))
def test_the_other_normalisations_match_torchs_layers(count, channels, side, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, channels, side, side, generator=generator) * 3 + 1
    channel, row, column = channels - 1, side - 1, 0
    groups = math.gcd(channels, worked_example.GROUPS)
    layers = {
        "BatchNorm": nn.BatchNorm2d(channels, affine=False),
        "LayerNorm": nn.LayerNorm([channels, side, side], elementwise_affine=False),
        "InstanceNorm": nn.InstanceNorm2d(channels),
        "GroupNorm": nn.GroupNorm(groups, channels, affine=False),
    }
    found = worked_example.groupings(x, channel, row, column, 1e-5)
    assert [grouping.name for grouping in found] == list(layers)
    for grouping in found:
        if grouping.values == 1:
            continue  # torch refuses a single value
        together = layers[grouping.name].train()(x)[0, channel, row, column]
        assert grouping.normalized == pytest.approx(float(together), abs=2e-3)
        if count * side > 1 and side > 1:
            alone = layers[grouping.name].train()(x[:1])[0, channel, row, column]
            assert grouping.alone == pytest.approx(float(alone), abs=2e-3)


def test_only_batch_norm_depends_on_the_other_digits():
    result = worked_example.run(NETWORK, DIGIT, OTHERS)
    changed = [grouping.name for grouping in result.groupings if grouping.normalized != grouping.alone]
    assert changed == ["BatchNorm"]


def test_by_default_it_follows_the_most_shifted_channel_at_the_input_furthest_from_0():
    result = worked_example.run(NETWORK, DIGIT, OTHERS)
    first = modes.compare(NETWORK, DIGIT, OTHERS).norms[0]
    shift = np.abs(first.batch_mean - first.running_mean) / first.running_std
    assert result.channel == shift.argmax()
    assert abs(result.value) == np.abs(result.x[0]).max()


def test_given_gamma_beta_and_eps_replace_those_of_the_network():
    result = worked_example.run(NETWORK, DIGIT, OTHERS, gamma=0.0, beta=3.0, eps=1.0)
    assert (result.batch.output, result.running.output) == (3.0, 3.0)
    assert result.batch.normalized == pytest.approx(result.batch.centred / math.sqrt(result.batch.var + 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "norm9"}, r"norm: expected one of block1\.norm, block2\.norm, received 'norm9'"),
        ({"channel": 10}, "channel: expected 0 … 9, received 10"),
        ({"pixel": 144}, "pixel: expected 0 … 143, received 144"),
        ({"eps": 0.0}, "eps: expected a number > 0"),
    ],
)
def test_an_unknown_norm_channel_or_pixel_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        worked_example.run(NETWORK, DIGIT, OTHERS, **arguments)


def test_a_network_without_batch_norm_is_refused():
    with pytest.raises(ValueError, match="this network has no batch norm"):
        worked_example.run(SimpleCNN(SimpleCNNConfig(norm="none")), DIGIT, OTHERS)
