"""Input normalisation against numpy's linear algebra and torch.optim.SGD."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bnmodel.experiments import catalogue
from bnmodel.experiments.input_normalization import draw_data, run, sgd
from demo.tabs import inputs as tab

quick = settings(deadline=None, derandomize=True, max_examples=15)
scales, offsets, correlations = st.floats(0.2, 5), st.floats(0, 4), st.floats(-0.9, 0.9)


@quick
@given(scales, offsets, correlations)
def test_the_data_have_the_moments_that_were_asked_for(scale, offset, correlation):
    x, _ = draw_data(scale, offset, correlation, 50, 0)
    np.testing.assert_allclose(x.mean(0), [offset, offset * scale], atol=1e-9)
    np.testing.assert_allclose(x.std(0), [1, scale], rtol=1e-9)
    assert np.corrcoef(x.T)[0, 1] == pytest.approx(correlation, abs=1e-9)


@quick
@given(scales, offsets, correlations)
def test_minimum_and_condition_number_are_those_of_numpys_least_squares_and_hessian(scale, offset, correlation):
    result = run(scale, offset, correlation, steps=5)
    x, y = draw_data(scale, offset, correlation, 200, 0)
    z = (x - x.mean(0)) / x.std(0)
    for descent, inputs, targets in ((result.raw, x, y), (result.normalized, z, y - y.mean())):
        hessian = 2 * inputs.T @ inputs / len(inputs)
        np.testing.assert_allclose(descent.minimum, np.linalg.solve(inputs.T @ inputs, inputs.T @ targets), rtol=1e-6)
        assert descent.condition_number == pytest.approx(np.linalg.cond(hessian), rel=1e-6)
        assert descent.largest_rate == pytest.approx(2 / np.linalg.norm(hessian, 2), rel=1e-9)


def test_the_contours_are_the_mean_squared_loss_and_lowest_at_the_minimum():
    descent = run(2.0, 1.0, 0.4).raw
    x, y = draw_data(2.0, 1.0, 0.4, 200, 0)

    def loss(w):
        return ((x @ w - y) ** 2).mean()

    at_minimum = loss(descent.minimum)
    expected = [[loss(np.array([a, b])) - at_minimum for a in descent.grid[0]] for b in descent.grid[1]]
    np.testing.assert_allclose(descent.surface, np.array(expected) / (loss(np.zeros(2)) - at_minimum), atol=1e-9)
    row, column = np.unravel_index(descent.surface.argmin(), descent.surface.shape)
    spacing = descent.grid[0, 1] - descent.grid[0, 0]
    nearest = np.array([descent.grid[0, column], descent.grid[1, row]])
    # the lowest point of the grid is not always the nearest one in a narrow bowl, but never far off
    assert np.abs(nearest - descent.minimum).max() < 2 * spacing


@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("batch_size", [1, 7, 30])
def test_the_path_is_that_of_torch_optim_sgd(momentum, batch_size):
    x, y = draw_data(3.0, 1.0, 0.3, 30, 0)
    path = sgd(x, y, 0.01, momentum, 25, batch_size, 5)
    weights = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([weights], lr=0.01, momentum=momentum)
    generator, batches = np.random.default_rng(5), []
    for point in path:
        np.testing.assert_allclose(point, weights.detach().numpy(), rtol=1e-9, atol=1e-12)
        if not batches:
            order = generator.permutation(30)
            batches = [order[k : k + batch_size] for k in range(0, 30, batch_size)]
        chosen = batches.pop()
        optimizer.zero_grad()
        ((torch.from_numpy(x[chosen]) @ weights - torch.from_numpy(y[chosen])) ** 2).mean().backward()
        optimizer.step()
    assert len(path) == 26


def test_every_sample_is_taken_once_an_epoch():
    x, y = np.eye(2), np.array([1.0, 1.0])  # a batch of one of them moves one weight
    path = sgd(x, y, 0.1, 0.0, 20, 1, 0)
    moved = np.diff(path, axis=0)[::1] != 0
    assert (moved.reshape(10, 2, 2).sum(1) == 1).all()


@pytest.mark.parametrize(("beyond", "converges"), [(0.98, True), (1.02, False)])
def test_the_largest_stable_rate_parts_convergence_from_divergence(beyond, converges):
    first = run(2.0, 1.0)
    result = run(2.0, 1.0, share=beyond * first.raw.largest_rate / first.raw.best_rate)
    assert (result.raw.converged_after is not None) == converges


def test_normalised_inputs_converge_in_fewer_steps_and_their_bowl_is_round():
    result = run()
    assert result.normalized.condition_number == pytest.approx(1)
    assert result.raw.condition_number > 10
    assert result.normalized.converged_after < result.raw.converged_after


def test_steps_to_convergence_count_until_the_loss_stays_low():
    result = run(steps=100)
    after = result.raw.converged_after
    assert result.raw.excess[after - 1] > 1e-3
    assert (result.raw.excess[after:] <= 1e-3).all()


def test_normalisation_does_not_remove_correlation():
    result = run(correlation=0.6)
    assert result.normalized.condition_number == pytest.approx(1.6 / 0.4)


def test_all_positive_inputs_give_both_weights_gradients_of_one_sign():
    result = run(offset=4.0)
    assert (result.raw_inputs > 0).all()
    assert result.raw.signs[:2].sum() == pytest.approx(1)
    assert result.normalized.signs[:2].sum() < 0.6
    assert result.raw.signs.sum() == pytest.approx(1)


def test_the_signs_are_those_of_autograd_sample_by_sample():
    result = run(steps=1, samples=30, batch_size=30)
    x, y = draw_data(3.0, 1.0, 0.0, 30, 0)
    z = (x - x.mean(0)) / x.std(0)
    for descent, inputs, targets in ((result.raw, x, y), (result.normalized, z, y - y.mean())):
        counts = dict.fromkeys([(True, True), (False, False), (True, False), (False, True)], 0)
        for point in descent.path:
            for row, target in zip(inputs, targets, strict=True):
                weights = torch.tensor(point, requires_grad=True)
                ((weights @ torch.from_numpy(row) - target) ** 2).backward()
                counts[tuple((weights.grad > 0).tolist())] += 1
        np.testing.assert_allclose(descent.signs, np.array(list(counts.values())) / 60)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"correlation": 1.0}, "correlation: expected a number in"),
        ({"scale": 0.0}, "scale: expected a number > 0, received 0"),
        ({"momentum": 1.0}, "momentum: expected a number in"),
        ({"batch_size": 201}, "batch_size: expected 1 … 200, the number of samples, received 201"),
    ],
)
def test_impossible_data_and_descents_are_refused_with_a_message(arguments, message):
    with pytest.raises(ValueError, match=message):
        run(**arguments)


def test_the_same_arguments_give_the_same_numbers():
    first, second = (catalogue.plain(run(batch_size=10)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("share", [0.9, 2.0])
def test_the_tab_shows_four_panels_even_when_the_descent_diverges(share):
    html = tab.bowls(3.0, 1.0, 0.0, share, 0.0, 40, 200)
    legend, panels = html.split('<div class="figure">')
    assert panels.count("<svg") == 4
    assert legend.count("<span>") == 2
    assert "12.7" in html
    assert ("more than 2,000" in html) == (share == 2.0)


@pytest.mark.parametrize(
    ("raw", "normalized", "words"),
    [
        (1200, 1, "stays {} after 1,200 steps on raw inputs and after 1 step on normalised ones"),
        (12, None, "stays {} after 12 steps on raw inputs, but not within 2,000 steps on normalised ones"),
        (None, 3, "stays {} after 3 steps on normalised inputs, but not within 2,000 steps on raw ones"),
        (None, None, "does not stay {} within 2,000 steps, on raw or on normalised inputs"),
    ],
)
def test_the_sentence_says_which_of_the_two_descents_converges(raw, normalized, words):
    assert tab.convergence(raw, normalized) == words.format("below 0.1% of its initial value")


def test_a_rate_at_the_limit_of_stability_converges_on_neither():
    shown = tab.bowls(1, 0, 0, 2, 0, 40, 200)
    assert "does not stay below" in shown
    assert shown.count("more than 2,000") == 2
