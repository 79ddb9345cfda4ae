"""The initialisation experiment against theory, torch.nn and autograd."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from bnmodel import SimpleMLP, SimpleMLPConfig
from bnmodel.experiments import catalogue, initialization
from bnmodel.experiments.initialization import NAMES, draw_weight
from bnmodel.experiments.signal_propagation import ACTIVATIONS, propagate, theory
from demo import svg
from demo.tabs import initialise

TORCH = {"relu": nn.ReLU(), "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(), "identity": nn.Identity()}
NONZERO = [name for name in NAMES if name != "zeros"]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", NAMES)
def test_one_layer_is_what_simple_mlp_answers(name):
    result = initialization.run("tanh", width=50, samples=20, seed=7)
    model = SimpleMLP(SimpleMLPConfig(50, 256, "tanh", name), seeded(7))
    with torch.no_grad():
        answers = model(torch.randn(20, 50, generator=seeded(8))).double().numpy()
    k = NAMES.index(name)
    assert result.output_std[k] == pytest.approx(answers.std(), rel=1e-6, abs=1e-9)
    np.testing.assert_array_equal(result.output_shares[k], np.histogram(answers, result.edges[k])[0] / answers.size)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_spread_of_one_layer_matches_the_theory_within_the_sampling_error(activation):
    result = initialization.run(activation, samples=200)
    np.testing.assert_allclose(result.output_std, result.theory_std, rtol=0.03)


def test_every_value_is_in_a_bin():
    result = initialization.run("sigmoid", width=30, samples=3)
    np.testing.assert_allclose(result.input_shares.sum(1), 1)
    np.testing.assert_allclose(result.output_shares.sum(1), 1)


@pytest.mark.parametrize(
    ("name", "fill"),
    [
        ("glorot_normal", nn.init.xavier_normal_),
        ("glorot_uniform", nn.init.xavier_uniform_),
        ("he_normal", nn.init.kaiming_normal_),
        ("he_uniform", nn.init.kaiming_uniform_),
    ],
)
def test_the_variance_named_for_glorot_and_he_is_that_of_torchs_initialisers(name, fill):
    weight = fill(torch.empty(400, 400), generator=seeded(0)) * 1.5
    scale = initialization.stack(depth=1, width=400, samples=2, gain=1.5).weight_scale[NAMES.index(name)]
    assert scale == pytest.approx(400 * float(weight.var()), rel=4 * math.sqrt(2 / weight.numel()))


def test_mean_and_std_apply_to_random_normal_and_gain_to_glorot_and_he():
    for name in NAMES:
        plain, changed = (draw_weight(name, 40, 30, seeded(0), *options) for options in ((0, 1, 1), (2, 0.5, 3)))
        expected = 2 + 0.5 * plain if name == "random_normal" else 3 * plain
        torch.testing.assert_close(changed, expected)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_and_gradients_are_those_of_a_hand_built_net(activation, norm):
    weights = [draw_weight("he_normal", 6, 6, seeded(k)).double() for k in range(3)]
    x, g = torch.randn(2, 5, 6, generator=seeded(9), dtype=torch.float64)
    _, activations, gradients = propagate(weights, x, g, activation, norm)
    layers, seen = [], []
    for weight in weights:
        dense = nn.Linear(6, 6, bias=False, dtype=torch.float64)
        dense.weight.data.copy_(weight)
        dense.register_full_backward_hook(lambda _, __, out: seen.insert(0, out[0]))
        layers += [dense, nn.BatchNorm1d(6, dtype=torch.float64) if norm else nn.Identity(), TORCH[activation]]
    y = nn.Sequential(*layers)(x.clone().requires_grad_())
    y.backward(g)
    torch.testing.assert_close(activations[-1], y)
    for mine, theirs in zip(gradients, seen, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_wide_stack_follows_the_theory_of_activations_and_gradients(activation):
    stacks = [initialization.stack(activation, 6, 200, 30, std=0.08, gain=1.2, seed=seed) for seed in range(12)]
    activations = np.mean([result.activation_std[:, 0] ** 2 for result in stacks], axis=0) ** 0.5
    gradients = np.mean([result.gradient_std[:, 0] ** 2 for result in stacks], axis=0) ** 0.5
    np.testing.assert_allclose(activations, stacks[0].theory_activation_std, rtol=0.1)
    np.testing.assert_allclose(gradients, stacks[0].theory_gradient_std, rtol=0.1)


@pytest.mark.parametrize(("activation", "scale"), [("relu", 2.0), ("identity", 1.0)])
def test_theory_preserves_relu_at_two_over_fan_in_and_the_identity_at_one_over_fan_in(activation, scale):
    activations, gradients = theory(activation, scale, 30)
    np.testing.assert_allclose(activations, activations[0], rtol=1e-6)
    np.testing.assert_allclose(gradients, gradients[0], rtol=1e-6)
    assert theory(activation, scale / 2, 30)[0, -1] == pytest.approx(activations[0] * 2**-15, rel=0.5)


def test_theory_is_the_same_for_integers_and_floats() -> None:
    theory.cache_clear()  # it would take 100 and 100.0 for one
    of_a_whole_number = theory("relu", 100, 30)
    theory.cache_clear()
    np.testing.assert_array_equal(of_a_whole_number, theory("relu", 100.0, 30))
    assert of_a_whole_number[1, 0] == pytest.approx(np.sqrt(0.5 * 50.0**29), rel=1e-6)  # ½ of the squares pass a ReLU


def test_theory_of_one_relu_layer_is_the_moments_of_a_rectified_normal():
    activations, gradients = theory("relu", 3.0, 1)
    assert activations[0] == pytest.approx(math.sqrt(3 / 2 - 3 / (2 * math.pi)), rel=1e-5)
    assert gradients[0] == pytest.approx(math.sqrt(1 / 2), rel=1e-5)


def test_with_batch_norm_activations_stay_level_for_every_initialiser_except_zeros():
    result = initialization.stack("relu")
    levels = result.activation_std[[NAMES.index(name) for name in NONZERO]]
    plain, normed = levels[:, 0], levels[:, 1]
    assert (normed.max(1) / normed.min(1)).max() < 1.1
    assert (plain.max(1) / plain.min(1)).max() > 1e20
    assert not result.activation_std[NAMES.index("zeros")].any()


def test_with_batch_norm_gradients_grow_towards_the_input_as_yang_et_al_predict():
    """√(π / (π − 1)) ≈ 1.21 a layer for ReLU in large batches (arXiv 1902.08129)."""
    result = initialization.stack("relu", depth=25, width=200, samples=200)
    for name in NONZERO:
        gradients = result.gradient_std[NAMES.index(name), 1]
        growth = (gradients[4] / gradients[-5]) ** (1 / (len(gradients) - 9))
        assert growth == pytest.approx(math.sqrt(math.pi / (math.pi - 1)), rel=0.03), name


def test_saturated_and_dead_are_counted_where_no_gradient_passes():
    relu, identity = initialization.stack("relu", depth=2), initialization.stack("identity", depth=2)
    zeros = NAMES.index("zeros")
    assert (relu.saturated[zeros] == 1).all()
    assert (relu.dead[zeros] == 1).all()
    assert 0.4 < relu.saturated[NAMES.index("he_normal"), 0, 0] < 0.6
    assert not identity.saturated.any()
    few = initialization.stack("relu", depth=1, width=500, samples=3)  # all three on the left: one unit in eight
    assert few.dead[NAMES.index("he_normal"), 0, 0] == pytest.approx(1 / 8, abs=0.06)
    sigmoid = initialization.run("sigmoid").saturated
    x = np.linspace(-20, 20, 400_001)
    steep = np.exp(-x) / (1 + np.exp(-x)) ** 2 >= 0.01 / 4
    edge = x[steep].max() / math.sqrt(784)  # of the standard-normal value that saturates
    assert sigmoid[NAMES.index("random_normal")] == pytest.approx(1 - math.erf(edge / math.sqrt(2)), abs=0.01)


def test_weights_with_a_mean_are_drawn_but_have_no_theory():
    result = initialization.stack("relu", depth=4, mean=0.3)
    assert np.isnan(result.theory_activation_std[NAMES.index("random_normal")]).all()
    assert np.isfinite(result.activation_std).all()
    assert svg.to_panels(initialization.stack_figure(result), "a stack")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "swish"}, "activation: expected one of relu, sigmoid, tanh, identity, received 'swish'"),
        ({"depth": 0}, "depth: expected at least 1, received 0"),
        ({"samples": 1}, "samples: expected at least 2, received 1"),
    ],
)
def test_an_impossible_stack_is_refused_with_a_message(arguments, message):
    with pytest.raises(ValueError, match=message):
        initialization.stack(**arguments)


def test_the_same_seed_gives_the_same_numbers_and_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    for run in (initialization.run, initialization.stack):
        first, second, other = (catalogue.plain(run(samples=5, seed=seed)) for seed in (1, 1, 2))
        assert first == second
        assert first != other
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_tabs_pictures_have_all_six_side_by_side(activation):
    layer = initialise.layer_picture(activation, 784, 10, 0.0, 1.0, 1.0, 0)
    stack = initialise.stack_picture(activation, 3, 0.0, 1.0, 1.0, 0)
    for name in NAMES:
        assert initialization.title(name) in layer
        assert initialization.title(name) in stack
    for html in (layer, stack):
        legend, panels = html.split('<div class="figure narrow">')
        assert panels.count("<svg") == 6
        assert legend.count('class="legend"') == 1
    assert "0 in every layer" in stack  # of zeros, whose panel has no curve
