"""The six initialisers, against theoretical moments and torch.nn.init."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bnmodel.nn.init import INITIALIZERS, fans, initialize

quick = settings(deadline=None, derandomize=True, max_examples=40)

# name → (mean, std, largest magnitude) for fan-in n and fan-out m
THEORY = {
    "random_normal": lambda n, m: (0.0, 1.0, math.inf),
    "zeros": lambda n, m: (0.0, 0.0, 0.0),
    "glorot_normal": lambda n, m: (0.0, math.sqrt(2 / (n + m)), math.inf),
    "glorot_uniform": lambda n, m: (0.0, math.sqrt(2 / (n + m)), math.sqrt(6 / (n + m))),
    "he_normal": lambda n, m: (0.0, math.sqrt(2 / n), math.inf),
    "he_uniform": lambda n, m: (0.0, math.sqrt(2 / n), math.sqrt(6 / n)),
}
KURTOSIS = {"normal": 3.0, "uniform": 1.8}

TORCH = {
    "random_normal": nn.init.normal_,
    "glorot_normal": nn.init.xavier_normal_,
    "glorot_uniform": nn.init.xavier_uniform_,
    "he_normal": lambda w, generator: nn.init.kaiming_normal_(w, nonlinearity="relu", generator=generator),
    "he_uniform": lambda w, generator: nn.init.kaiming_uniform_(w, nonlinearity="relu", generator=generator),
}

SHAPES = {
    (256, 784): (784, 256),  # dense (out, in) → fan-in, fan-out
    (40, 60, 5, 5): (60 * 25, 40 * 25),  # convolution (out, in, kernel, kernel)
    (50, 40, 7): (40 * 7, 50 * 7),
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_there_are_six() -> None:
    assert set(INITIALIZERS) == set(THEORY)


@pytest.mark.parametrize("name", THEORY)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_moments_are_those_of_the_theory_within_the_sampling_error(shape: tuple[int, ...], name: str) -> None:
    weight = initialize(torch.empty(shape, dtype=torch.float64), name, seeded(0))
    mean, std, bound = THEORY[name](*SHAPES[shape])
    sampling_error = 1 / math.sqrt(weight.numel())
    assert abs(weight.mean() - mean) <= 4 * sampling_error * std
    assert abs(weight.std() - std) <= 4 * sampling_error * std
    assert weight.abs().max() <= bound


@pytest.mark.parametrize("name", sorted(set(THEORY) - {"zeros"}))
def test_the_distribution_is_the_one_in_the_name(name: str) -> None:
    weight = initialize(torch.empty(256, 784, dtype=torch.float64), name, seeded(0))
    expected = KURTOSIS[name.split("_")[1]]
    assert abs((weight / weight.std()).pow(4).mean() - expected) < 0.1


@pytest.mark.parametrize("name", ["glorot_uniform", "he_uniform"])
def test_a_uniform_initialiser_fills_its_whole_interval(name: str) -> None:
    weight = initialize(torch.empty(256, 784), name, seeded(0))
    bound = THEORY[name](784, 256)[2]
    assert weight.max() > 0.999 * bound
    assert weight.min() < -0.999 * bound


@quick
@given(st.sampled_from(sorted(TORCH)), st.lists(st.integers(1, 12), min_size=2, max_size=5), st.integers(0, 10_000))
def test_the_same_seed_gives_the_weights_of_torchs_initialiser(name: str, shape: list[int], seed: int) -> None:
    mine = initialize(torch.empty(shape), name, seeded(seed))
    theirs = TORCH[name](torch.empty(shape), generator=seeded(seed))
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=0)


def test_mean_and_std_of_random_normal_can_be_chosen() -> None:
    weight = initialize(torch.empty(256, 784), "random_normal", seeded(0), mean=2.0, std=0.1)
    assert abs(weight.mean() - 2) < 0.002
    assert abs(weight.std() - 0.1) < 0.002


@pytest.mark.parametrize("name", INITIALIZERS)
def test_the_weight_is_filled_in_place_without_the_graph_and_returned(name: str) -> None:
    weight = nn.Parameter(torch.full((4, 3), math.nan))
    returned = initialize(weight, name)
    assert returned is weight
    assert weight.grad_fn is None
    assert weight.requires_grad
    assert torch.isfinite(weight).all()


@pytest.mark.parametrize("name", sorted(TORCH))
def test_the_same_generator_seed_repeats_the_weights_and_another_does_not(name: str) -> None:
    def filled(seed: int) -> Tensor:
        return initialize(torch.empty(20, 30), name, seeded(seed))

    assert torch.equal(filled(1), filled(1))
    assert not torch.equal(filled(1), filled(2))


@pytest.mark.parametrize("name", INITIALIZERS)
def test_with_a_generator_the_global_random_state_does_not_change(name: str) -> None:
    before = torch.get_rng_state()
    initialize(torch.empty(20, 30), name, seeded(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_generator_the_global_seed_decides() -> None:
    weights = []
    with torch.random.fork_rng():
        for _ in range(2):
            torch.manual_seed(3)
            weights.append(initialize(torch.empty(20, 30), "he_normal"))
    assert torch.equal(*weights)


@pytest.mark.parametrize(("shape", "expected"), SHAPES.items(), ids=str)
def test_fans_count_the_connections_of_a_unit(shape: tuple[int, ...], expected: tuple[int, int]) -> None:
    assert fans(torch.empty(shape, device="meta")) == expected


@pytest.mark.parametrize("name", ["glorot_normal", "glorot_uniform", "he_normal", "he_uniform"])
def test_a_bias_or_an_empty_weight_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected \(out, in\).*received shape \[7\]"):
        initialize(torch.empty(7), name)
    with pytest.raises(ValueError, match=r"not empty, received shape \[3, 0\]"):
        initialize(torch.empty(3, 0), name)


def test_an_unknown_name_is_refused_and_the_six_are_named() -> None:
    with pytest.raises(ValueError, match="received 'xavier'") as refusal:
        initialize(torch.empty(2, 2), "xavier")
    assert all(name in str(refusal.value) for name in INITIALIZERS)
