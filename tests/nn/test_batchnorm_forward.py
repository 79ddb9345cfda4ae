"""Outputs and running statistics of CustomBatchNorm, against torch's layers and hand calculations."""

import copy

import pytest
import torch
from batchnorm_helpers import (
    SHAPES,
    TOLERANCE,
    TORCH_LAYERS,
    Case,
    assert_equal_layers,
    cases,
    largest_error,
    quick,
    random_input,
)
from hypothesis import given
from torch import nn

from bnmodel import CustomBatchNorm, batch_norm

# --- torch's layers --------------------------------------------------------------------------------------------------


@quick
@given(cases())
def test_outputs_equal_torchs_over_any_series_of_training_and_eval_steps(case: Case) -> None:
    ours, theirs = case.layers()
    for step, training in enumerate(case.modes):
        x = random_input(case.seed + step, *case.shape, dtype=case.dtype)
        y, expected = ours.train(training)(x), theirs.train(training)(x)
        assert y.dtype == expected.dtype
        assert largest_error(y, expected) <= TOLERANCE[case.dtype]


@quick
@given(cases())
def test_running_statistics_equal_torchs_over_any_series_of_steps(case: Case) -> None:
    ours, theirs = case.layers()
    for step, training in enumerate(case.modes):
        x = random_input(case.seed + step, *case.shape, dtype=case.dtype)
        ours.train(training)(x), theirs.train(training)(x)
        assert_equal_layers(ours, theirs, TOLERANCE[case.dtype], scale=x.abs().max())


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("momentum", [0.1, None, 0.0, 1.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_running_statistics_equal_torchs_after_a_hundred_steps(
    shape: tuple[int, ...], momentum: float | None, dtype: torch.dtype
) -> None:
    ours = CustomBatchNorm(3, momentum=momentum, dtype=dtype)
    theirs = TORCH_LAYERS[len(shape) - 2](3, momentum=momentum, dtype=dtype)
    for step in range(100):
        x = random_input(step, *shape, dtype=dtype)
        ours(x), theirs(x)
    assert ours.num_batches_tracked == 100
    assert_equal_layers(ours, theirs, TOLERANCE[dtype], scale=x.abs().max())
    assert largest_error(ours.eval()(x), theirs.eval()(x)) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_a_network_trained_with_it_becomes_the_same_network(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    mine = nn.Sequential(nn.Conv2d(2, 4, 3), CustomBatchNorm(4), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3)).to(dtype)
    other = copy.deepcopy(mine)
    other[1] = nn.BatchNorm2d(4, dtype=dtype)
    for network in (mine, other):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        for step in range(10):
            optimizer.zero_grad()
            network(random_input(step, 8, 2, 6, 6, dtype=dtype)).square().mean().backward()
            optimizer.step()
    x = random_input(99, 8, 2, 6, 6, dtype=dtype)
    # rounding errors grow with every step: ten times the tolerance of one
    assert largest_error(mine.eval()(x), other.eval()(x)) <= 10 * TOLERANCE[dtype]


@pytest.mark.parametrize("offset", [0.0, 10.0, 1000.0])
def test_a_large_offset_costs_no_more_precision_than_in_torchs_layer(offset: float) -> None:
    x = random_input(0, 64, 3, 5, 5) + offset
    exact = nn.BatchNorm2d(3, dtype=torch.float64)(x.double())
    ours, theirs = CustomBatchNorm(3), nn.BatchNorm2d(3)
    assert largest_error(ours(x), exact) <= 2 * largest_error(theirs(x), exact) + 1e-6
    assert largest_error(ours.running_var, theirs.running_var) <= 1e-6


# --- hand calculations -----------------------------------------------------------------------------------------------


def test_two_values_become_minus_one_and_one() -> None:
    y, mean, var = batch_norm(torch.tensor([[1.0], [3.0]]), eps=0.0)
    assert y.tolist() == [[-1.0], [1.0]]
    assert (mean.item(), var.item()) == (2.0, 1.0)  # the biased variance


def test_given_statistics_gamma_and_beta_are_used_as_the_formula_says() -> None:
    one = torch.ones(1)
    y, mean, var = batch_norm(torch.tensor([[5.0], [9.0]]), 10 * one, 7 * one, mean=one, var=3 * one, eps=1.0)
    assert y.tolist() == [[10 * (5 - 1) / 2 + 7], [10 * (9 - 1) / 2 + 7]]
    assert (mean.item(), var.item()) == (1.0, 3.0)


def test_running_statistics_move_a_tenth_of_the_way_to_the_mean_and_the_unbiased_variance() -> None:
    layer = CustomBatchNorm(1)
    layer(torch.tensor([[1.0], [3.0]]))  # mean 2, variance 1 biased, 2 unbiased
    assert layer.running_mean.item() == pytest.approx(0.9 * 0 + 0.1 * 2)
    assert layer.running_var.item() == pytest.approx(0.9 * 1 + 0.1 * 2)


def test_the_stored_variance_is_unbiased_over_batch_and_space() -> None:
    layer, x = CustomBatchNorm(3, momentum=1.0), random_input(0, 4, 3, 2, 2)
    layer(x)
    assert largest_error(layer.running_var, x.transpose(0, 1).flatten(1).var(dim=1, correction=1)) <= 1e-6


def test_without_momentum_every_batch_counts_the_same() -> None:
    layer = CustomBatchNorm(1, momentum=None)
    for low, high in ((0.0, 2.0), (10.0, 14.0), (-4.0, -4.0)):  # means 1, 12, −4; unbiased variances 2, 8, 0
        layer(torch.tensor([[low], [high]]))
    assert layer.running_mean.item() == pytest.approx((1 + 12 - 4) / 3)
    assert layer.running_var.item() == pytest.approx((2 + 8 + 0) / 3)


@quick
@given(cases())
def test_training_output_has_mean_beta_and_the_spread_of_gamma(case: Case) -> None:
    layer, _ = case.layers()
    x = random_input(case.seed, *case.shape, dtype=torch.float64)
    y = layer.double()(x).transpose(0, 1).flatten(1)  # (C, values)
    var = x.transpose(0, 1).flatten(1).var(dim=1, correction=0)
    gamma, beta = (layer.gamma, layer.beta) if case.affine else (torch.ones(1), torch.zeros(1))
    torch.testing.assert_close(y.mean(1), beta.double().expand(len(y)), rtol=0, atol=1e-12)
    torch.testing.assert_close(y.var(1, correction=0), gamma.double() ** 2 * var / (var + case.eps))


def test_a_constant_channel_becomes_beta() -> None:
    layer = CustomBatchNorm(2)
    nn.init.constant_(layer.beta, 0.25)
    torch.testing.assert_close(layer(torch.full((4, 2, 3), 7.0)), torch.full((4, 2, 3), 0.25), rtol=0, atol=1e-3)


# --- modes -----------------------------------------------------------------------------------------------------------


def test_in_eval_mode_an_output_does_not_depend_on_the_rest_of_its_batch() -> None:
    layer = CustomBatchNorm(3)
    layer(random_input(0, 8, 3, 4, 4))
    x = random_input(1, 8, 3, 4, 4)
    together = layer.eval()(x)
    assert torch.equal(together, torch.cat([layer(sample) for sample in x.split(1)]))


def test_in_training_mode_an_output_depends_on_the_rest_of_its_batch() -> None:
    layer, x = CustomBatchNorm(3), random_input(1, 8, 3, 4, 4)
    assert not torch.allclose(layer(x)[:4], layer(x[:4]), atol=1e-2)


def test_eval_mode_does_not_change_the_statistics() -> None:
    layer = CustomBatchNorm(3).eval()
    layer(random_input(0, 8, 3))
    assert layer.running_mean.tolist() == [0, 0, 0]
    assert layer.running_var.tolist() == [1, 1, 1]
    assert layer.num_batches_tracked == 0


def test_the_function_does_not_change_its_arguments() -> None:
    x, mean, var = random_input(0, 4, 2), torch.zeros(2), torch.ones(2)
    copies = x.clone(), mean.clone(), var.clone()
    batch_norm(x, None, None, mean, var)
    assert all(torch.equal(value, copied) for value, copied in zip((x, mean, var), copies, strict=True))


@pytest.mark.parametrize(
    ("x", "gamma", "error", "message"),
    [
        (
            torch.rand(3, 3),
            torch.ones(3, 1),
            ValueError,
            r"of 3 values \(shape \[3\]\) .* received 3 \(shape \[3, 1\]\)",
        ),
        (torch.rand(4, 3), torch.ones(1, 3, 1, 1), ValueError, "received"),
        (torch.rand(4), None, ValueError, r"\(N, C\)"),
        (torch.arange(6).view(2, 3), None, TypeError, "floating-point"),
    ],
)
def test_the_function_refuses_other_shapes_and_types(x, gamma, error, message):
    with pytest.raises(error, match=message):
        batch_norm(x, gamma)
