"""Outliers: their range, kinds and shares."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label
from torch import Generator

from bnmodel.data import load_sample
from bnmodel.data.augmentation import centres
from bnmodel.data.outliers import dots, framed, noise, outliers, scribbles, side_by_side

DIGITS = load_sample(train=True).images


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 40))
def test_outliers_have_the_shape_and_the_range_of_digits_and_are_none_of_them(seed: int, count: int) -> None:
    digits = DIGITS[:count].clone()
    before = torch.get_rng_state()
    made = outliers(digits, seeded(seed))
    assert made.shape == digits.shape
    assert torch.isfinite(made).all()
    assert made.min() >= 0
    assert made.max() <= 1
    assert (made != digits).flatten(1).any(dim=1).all()
    assert torch.equal(digits, DIGITS[:count])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_twentieth_of_the_outliers_are_two_digits_at_a_right_angle() -> None:
    across = torch.maximum(DIGITS, DIGITS.roll(1, dims=0).rot90(1, (2, 3)))
    share = (outliers(DIGITS, seeded()) == across).flatten(1).all(dim=1).float().mean()
    assert share == pytest.approx(0.05, abs=0.02)


def test_every_kind_is_visible() -> None:
    width = torch.ones(200)
    for made in (
        scribbles(DIGITS[:200], seeded()),
        dots(DIGITS[:200], seeded()),
        framed(DIGITS[:200], width, seeded()),
    ):
        assert (made.amax(dim=(1, 2, 3)) > 0.5).all()
    assert (noise(DIGITS[:200], seeded()).amax(dim=(1, 2, 3)) > 0.5).float().mean() > 0.95


def test_two_digits_lie_left_and_right_and_fit_the_box_of_one() -> None:
    pairs = side_by_side(DIGITS[:200], DIGITS[200:400], seeded())
    assert pairs[:, :, :3].max() < 0.1
    assert pairs[:, :, -3:].max() < 0.1
    left, right = pairs.clone(), pairs.clone()
    left[..., 14:], right[..., :14] = 0, 0
    assert (left.sum(dim=(1, 2, 3)) > 3).all()
    assert (right.sum(dim=(1, 2, 3)) > 3).all()
    assert (centres(pairs)[:, 0] - 14).abs().mean() < 2


def test_dots_are_one_to_three_discs() -> None:
    numbers = [label(image[0] > 0.5)[1] for image in dots(DIGITS[:200], seeded()).numpy()]
    assert set(numbers) == {1, 2, 3}


def test_half_of_the_frames_are_around_a_digit() -> None:
    made = framed(DIGITS[:400], torch.ones(400), seeded())
    inside = made[:, :, 11:17, 11:17].amax(dim=(1, 2, 3)) > 0.3
    assert inside.float().mean() == pytest.approx(0.5, abs=0.1)
