"""Tabs precompute the results that their controls ask for."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from bnmodel.experiments import corruption as corruptions
from bnmodel.experiments import cost, running_statistics
from demo.ahead import compute_ahead
from demo.app import CHECKPOINTS
from demo.models import Model
from demo.page import Drawn
from demo.page import Page as Frame
from demo.tabs import corruption, faults, statistics, why


@pytest.fixture(autouse=True)
def nothing_is_computed_ahead() -> None:
    """Replaces the fixture of conftest.py: here it is."""


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    return replace(Frame(CHECKPOINTS).drawn(None, "lecture"), digit=torch.eye(28))


def wait_for(compute: Callable[[Model], object], model: Model) -> None:
    """Wait for the computation that the tab has begun."""
    begun = compute_ahead.cache_info().misses
    compute_ahead(compute, model).join()
    assert compute_ahead.cache_info().misses == begun


def test_another_batch_size_of_statistics_needs_no_digits_to_be_read_again(drawn: Drawn) -> None:
    batch = (31, "random", 1, 0, 0, 0)
    statistics.show(drawn, *batch, statistics.MOMENTUM, 4)
    wait_for(statistics.every_batch_size, drawn.model)
    caches = (running_statistics.batch_statistics.cache, cost.accuracy.cache)  # type: ignore[attr-defined]
    before = [set(cache) for cache in caches]
    for batch_size in statistics.BATCH_SIZES:
        statistics.show(drawn, *batch, statistics.MOMENTUM, batch_size)
    assert [set(cache) for cache in caches] == before


def test_another_kind_or_batch_size_of_corruption_needs_no_digits_to_be_read_again(drawn: Drawn) -> None:
    corruption.show(drawn, "contrast", corruption.BATCH_SIZE)
    wait_for(corruption.every_accuracy, drawn.model)
    cache = corruptions._accuracies.cache  # type: ignore[attr-defined]
    before = set(cache)
    for kind, batch_size in (("noise", 50), ("blur", 50), ("inversion", 2), ("contrast", 500)):
        corruption.show(drawn, kind, batch_size)
    assert set(cache) == before


def test_results_for_later_tabs_are_precomputed(drawn: Drawn) -> None:
    compute_ahead.cache_clear()
    why.show(drawn, 31, "random", 1, 0, 0, -1)
    wait_for(statistics.every_batch_size, drawn.model)
    statistics.show(drawn, 31, "random", 1, 0, 0, 0, statistics.MOMENTUM, 4)
    wait_for(faults.other_faults, drawn.model)


def test_nothing_is_computed_twice_for_a_network(drawn: Drawn) -> None:
    calls: list[Model] = []
    for _ in range(2):
        compute_ahead(calls.append, drawn.model).join()
    assert calls == [drawn.model]
