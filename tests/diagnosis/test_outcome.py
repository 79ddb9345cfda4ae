"""Gains measured on some of the samples, with a control variate on all of them."""

import torch

from bnmodel.diagnosis.outcome import Scores
from bnmodel.diagnosis.scoring import Head


def scores(correct: torch.Tensor, batches: int) -> Scores:
    result = Scores()
    for index, part in enumerate(correct.split(50)[:batches]):
        result.heads[index] = [Head(torch.zeros(50, 1, dtype=torch.long), part.double())]
    return result


def test_a_similar_pass_over_all_samples_makes_one_over_some_of_them_nearly_as_certain() -> None:
    generator = torch.Generator().manual_seed(0)
    before = (torch.rand(1000, generator=generator) < 0.9).double()
    after = torch.where(torch.rand(1000, generator=generator) < 0.3, torch.ones(1000).double(), before)
    similar = torch.where(torch.rand(1000, generator=generator) < 0.002, before, after)
    (whole,) = scores(after, 20).gains_over(scores(before, 20))
    (part,) = scores(after, 5).gains_over(scores(before, 20))
    (helped,) = scores(after, 5).gains_over(scores(before, 20), scores(similar, 20))
    assert helped.samples == part.samples == 250
    assert helped.lower <= whole.value <= helped.upper
    assert helped.upper - helped.lower < 0.8 * (part.upper - part.lower)
    assert abs(helped.value - whole.value) < abs(part.value - whole.value)


def test_an_unrelated_pass_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(1)
    before, after, other = ((torch.rand(1000, generator=generator) < 0.9).double() for _ in range(3))
    (part,) = scores(after, 5).gains_over(scores(before, 20))
    constant = scores(before, 20)
    (helped,) = scores(after, 5).gains_over(scores(before, 20), constant)
    assert helped.value == part.value
    (unrelated,) = scores(after, 5).gains_over(scores(other, 20), scores(other, 20))
    assert unrelated.lower <= 0 <= unrelated.upper
