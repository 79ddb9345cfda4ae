"""Dropout with its own random generator, against torch's."""

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, nn

from bnmodel.nn.dropout import Dropout, draw_from


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_with_the_same_seed_it_equals_torchs_dropout_bit_for_bit(share: float) -> None:
    x = torch.randn(64, 10, 12, 12)
    layer = Dropout(share)
    draw_from(layer, Generator().manual_seed(3))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        assert torch.equal(layer(x), F.dropout(x, share, training=True))


@pytest.mark.parametrize("own_generator", [True, False])
def test_all_is_dropped_with_p_1_and_inplace_changes_the_input(own_generator: bool) -> None:
    everything, half, x = Dropout(1.0), Dropout(0.5, inplace=True), torch.ones(100)
    if own_generator:
        draw_from(nn.ModuleList([everything, half]), Generator().manual_seed(0))
    assert torch.equal(everything(x), torch.zeros(100))
    assert half(x) is x
    assert set(x.tolist()) == {0.0, 2.0}


def test_with_a_generator_it_does_not_change_the_global_random_state() -> None:
    layer = Dropout(0.5)
    draw_from(layer, Generator().manual_seed(0))
    before = torch.get_rng_state()
    layer(torch.ones(100))
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_generator_it_draws_from_the_global_random_state() -> None:
    layer = Dropout(0.5)
    draw_from(layer, Generator())
    draw_from(layer, None)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = layer(torch.ones(100))
        torch.manual_seed(1)
        assert torch.equal(first, layer(torch.ones(100)))


def test_in_eval_mode_nothing_is_dropped() -> None:
    assert torch.equal(Dropout(0.9).eval()(torch.ones(100)), torch.ones(100))


def test_the_given_share_is_dropped_and_the_mean_stays() -> None:
    layer = nn.Sequential(Dropout(0.25))
    draw_from(layer, Generator().manual_seed(0))
    y = layer(torch.ones(100_000))
    assert (y == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert y.mean().item() == pytest.approx(1, abs=0.01)
