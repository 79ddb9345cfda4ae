"""The gradients experiment against hand-built networks of torch.nn, torch.optim.SGD and finite differences."""

import numpy as np
import pytest
import torch
from torch import nn

from bnmodel.data import load_sample
from bnmodel.experiments import catalogue, gradients
from bnmodel.experiments.gradients import EDGES, LAYERS, POSITIONS, along_the_step, gradients_of, networks, run
from bnmodel.nn.init import INITIALIZERS
from demo.tabs import gradients as tab

BATCH = load_sample(train=True)[:16]


def hand_built(position: str) -> nn.Sequential:
    """The lecture's network of torch's own layers, with the weights of `networks`."""
    layers: list[nn.Module] = []
    for inner, outer in ((1, 10), (10, 20)):
        norm, activation = nn.BatchNorm2d(outer), [nn.MaxPool2d(2), nn.ReLU()]
        order = {"none": activation, "before": [norm, *activation], "after": [*activation, norm]}[position]
        layers += [nn.Conv2d(inner, outer, 5), *order]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(320, 50), nn.ReLU(), nn.Linear(50, 10))
    values = [p.detach().clone() for p in networks(seed=3)[POSITIONS.index(position)].parameters()]
    for parameter, value in zip(net.parameters(), values, strict=True):
        parameter.data = value
    return net.train()


@pytest.mark.parametrize("position", POSITIONS)
def test_the_gradients_are_autograds_on_a_hand_built_net(position):
    model, net = networks(seed=3)[POSITIONS.index(position)], hand_built(position)
    loss, mine = gradients_of(model, BATCH)
    theirs = nn.functional.cross_entropy(net(BATCH.images), BATCH.labels)
    theirs.backward()
    assert loss == pytest.approx(float(theirs.detach()), rel=1e-5)
    for a, b in zip(mine, net.parameters(), strict=True):
        torch.testing.assert_close(a, b.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_the_three_networks_have_the_same_weights(name):
    none, *others = (model.state_dict() for model in networks(name, seed=2))
    for other in others:
        assert all(torch.equal(none[key], other[key]) for key in none)
        assert (other["block1.norm.weight"] == 1).all()
    assert not none["dense1.bias"].any()


def test_histograms_and_quantiles_are_those_of_the_weights_gradients():
    result = run(steps=0, batch_size=16, seed=3)
    batch = gradients._batches(1, 16, 3)[0]
    for row, model in enumerate(networks(seed=3)):
        named = dict(zip(dict(model.named_parameters()), gradients_of(model, batch)[1], strict=True))
        for column, layer in enumerate(LAYERS):
            values = named[f"{layer}.weight"].abs().flatten().double().numpy()
            np.testing.assert_allclose(result.quantiles[row, column], np.quantile(values, [0.05, 0.5, 0.95]))
            inside = np.histogram(np.log10(values[values > 0]), EDGES)[0] / values.size
            np.testing.assert_allclose(result.shares[row, column, 1:-1], inside[1:-1])
            assert result.shares[row, column].sum() + result.zero[row, column] == pytest.approx(1)


@pytest.mark.parametrize("position", POSITIONS)
def test_after_some_steps_the_losses_are_those_of_torch_optim_sgd(position):
    result = run(steps=3, rate=0.05, batch_size=16, seed=3)
    net = hand_built(position)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for k, batch in enumerate(gradients._batches(4, 16, 3)):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(batch.images), batch.labels)
        assert result.losses[POSITIONS.index(position), k] == pytest.approx(float(loss.detach()), rel=1e-3)
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("position", POSITIONS)
def test_along_the_step_loss_and_gradient_are_those_of_a_network_that_took_it(position):
    model, net = networks(seed=3)[POSITIONS.index(position)], hand_built(position)
    _, gradient = gradients_of(model, BATCH)
    losses, changes = along_the_step(model, BATCH, gradient, [0.0, 0.02])
    assert changes[0] == 0
    with torch.no_grad():
        for parameter, g in zip(net.parameters(), gradient, strict=True):
            parameter -= 0.02 * g
    loss = nn.functional.cross_entropy(net(BATCH.images), BATCH.labels)
    there = torch.autograd.grad(loss, list(net.parameters()))
    difference = torch.cat([(a - b).flatten() for a, b in zip(there, gradient, strict=True)])
    assert losses[1] == pytest.approx(float(loss.detach()), rel=1e-4)
    assert changes[1] == pytest.approx(float(difference.norm()), rel=1e-3)


def test_evaluating_along_the_step_does_not_change_the_weights():
    model = networks()[0]
    before = [p.detach().clone() for p in model.parameters()]
    along_the_step(model, BATCH, gradients_of(model, BATCH)[1], [0.5])
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_the_loss_falls_along_a_small_step_by_its_length_times_the_square_of_the_gradient():
    result = run(rate=1e-3)
    slope = (result.loss_along[:, 0] - result.loss_along[:, 1]) / result.rates[1]
    np.testing.assert_allclose(slope, result.norm**2, rtol=0.1)


def test_with_zeros_the_first_layers_gradients_are_all_exactly_zero():
    result = run("zeros", batch_size=16)
    assert (result.zero[:, 0] == 1).all()
    assert "does not learn" in tab.in_words(result)


@pytest.mark.parametrize("seed", range(3))
def test_for_the_same_parameters_batch_norm_makes_the_later_layers_gradients_larger(seed):
    he, glorot = (run(name, seed=seed).quantiles[:, :, 1] for name in ("he_normal", "glorot_uniform"))
    after, none = POSITIONS.index("after"), POSITIONS.index("none")
    assert (he[after, 2:] > 2 * he[none, 2:]).all()
    assert (glorot[after] > 5 * glorot[none]).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_the_page_shows_the_measured_predictiveness(seed):
    at = 1 + gradients.ALONG.index(1.0)
    he, glorot = (run(name, steps=10, seed=seed) for name in ("he_normal", "glorot_uniform"))
    none, before, after = he.change[:, at] / he.norm
    assert 0.55 < after < 0.95
    assert 0.95 < before < 1.8
    assert none > after
    none, before, after = glorot.change[:, at] / glorot.norm
    assert none < min(before, after)
    assert glorot.losses[0, -1] > 2 * glorot.losses[2, -1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 21}, "steps: expected 0 … 20, received 21"),
        ({"rate": 0.0}, "rate: expected a number > 0"),
        ({"batch_size": 1}, "batch_size: expected 2 … 1000, received 1"),
        ({"initializer": "xavier"}, "initializer: expected one of random_normal"),
    ],
)
def test_impossible_arguments_are_refused_with_a_message(arguments, message):
    with pytest.raises(ValueError, match=message):
        run(**arguments)


def test_every_digit_is_used_once_before_any_is_repeated():
    first, second = gradients._batches(2, 500, 0)
    pool = {image.numpy().tobytes() for image in load_sample(train=True).images}
    seen = {image.numpy().tobytes() for batch in (first, second) for image in batch.images}
    assert seen == pool


def test_the_same_seed_gives_the_same_numbers_and_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    first, second, other = (catalogue.plain(run(steps=2, batch_size=8, seed=seed)) for seed in (1, 1, 2))
    assert first == second
    assert first != other
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_the_tab_shows_four_layers_and_two_curves_for_every_initialiser(name):
    html = tab.comparison(name, 1.0, 1, 1.0, 0)
    legend, panels = html.split('<div class="figure narrow">')
    assert panels.count("<svg") == 6
    assert legend.count("<span>") == len(POSITIONS)
    assert all(layer in html for layer in LAYERS)
    assert all(words in html for words in tab.WORDS.values())
