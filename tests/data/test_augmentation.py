"""Augmentation: what it may change of a digit, what it must not, and that its chance is its own."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from bnmodel.data import augmentation, load_sample
from bnmodel.data.augmentation import augment, european, gaps, segments, thickness, tone, warp
from bnmodel.data.outliers import SHAPES, letters, outliers

SAMPLE = load_sample(train=True)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 40))
def test_an_augmented_batch_has_the_shape_and_the_range_of_digits(seed: int, count: int) -> None:
    images, labels = SAMPLE.images[:count], SAMPLE.labels[:count]
    for result in (augment(images, labels, seeded(seed)), outliers(images, seeded(seed))):
        assert result.shape == images.shape
        assert torch.isfinite(result).all()
        assert result.min() >= 0
        assert result.max() <= 1


@pytest.mark.parametrize("change", [warp, thickness, gaps, tone, lambda x, g: augment(x, SAMPLE.labels[:8], g)])
def test_the_same_seed_gives_the_same_digits_and_the_digits_given_are_left_alone(
    change: Callable[[Tensor, Generator], Tensor],
) -> None:
    images = SAMPLE.images[:8].clone()
    before = torch.get_rng_state()
    once, again, other = (change(images, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert torch.equal(images, SAMPLE.images[:8])
    assert torch.equal(torch.get_rng_state(), before)


def test_each_digit_of_a_batch_has_a_chance_of_its_own() -> None:
    copies = SAMPLE.images[:1].expand(16, 1, 28, 28)
    drawn = augment(copies, SAMPLE.labels[:1].expand(16), seeded())
    assert len(torch.unique(drawn.flatten(1), dim=0)) == 16


def test_without_any_spread_a_warp_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ROTATION", "SHEAR", "STRETCH", "SHIFT", "BEND", "HEAD"):
        monkeypatch.setattr(augmentation, name, 0.0)
    torch.testing.assert_close(warp(SAMPLE.images[:20], seeded()), SAMPLE.images[:20], atol=1e-5, rtol=0)


def test_a_shift_moves_the_centre_of_mass_by_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ROTATION", "SHEAR", "STRETCH", "BEND", "HEAD"):
        monkeypatch.setattr(augmentation, name, 0.0)
    monkeypatch.setattr(augmentation, "SHIFT", 1.5)
    monkeypatch.setattr(augmentation, "STRENGTHS", (1.0, 1.0))
    dot = torch.zeros(4000, 1, 28, 28)
    dot[:, 0, 13:15, 13:15] = 1
    moved = warp(dot, seeded())[:, 0]
    position = torch.arange(28) + 0.5
    x = (moved.sum(1) * position).sum(1) / moved.sum((1, 2))
    assert x.mean() == pytest.approx(14, abs=0.1)
    assert x.std() == pytest.approx(1.5, abs=0.1)


def only(monkeypatch: pytest.MonkeyPatch, **spreads: float) -> None:
    """`warp` at full strength, with these spreads and no others."""
    monkeypatch.setattr(augmentation, "STRENGTHS", (1.0, 1.0))
    for name in ("ROTATION", "SHEAR", "STRETCH", "SHIFT", "BEND", "HEAD"):
        monkeypatch.setattr(augmentation, name, spreads.get(name, 0.0))


def blob(y: float, x: float) -> Tensor:
    """A smooth dot at (y, x) in pixels, (28, 28)."""
    position = torch.arange(28) + 0.5
    return torch.exp(-((position[:, None] - y) ** 2 + (position - x) ** 2) / 4.5)


def centres(images: Tensor) -> Tensor:
    """(N, 28, 28) → the centres of mass, y and x in pixels, (N, 2)."""
    position = torch.arange(28) + 0.5
    mass = images.sum((1, 2))
    return torch.stack(((images.sum(2) * position).sum(1) / mass, (images.sum(1) * position).sum(1) / mass), 1)


def test_a_rotation_turns_by_its_degrees_and_keeps_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, ROTATION=20.0)
    above, right = (centres(warp(blob(*at).expand(2000, 1, 28, 28), seeded())[:, 0]) for at in ((9, 14), (14, 19)))
    torch.testing.assert_close((above - right).norm(dim=1), torch.full((2000,), 50**0.5), atol=0.05, rtol=0)
    angle = torch.atan2(right[:, 0] - 14, right[:, 1] - 14).rad2deg()
    assert angle.std() == pytest.approx(20, abs=1)


def test_a_shear_moves_rows_sideways_in_proportion_to_their_height(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, SHEAR=0.3)
    above, middle = (centres(warp(blob(*at).expand(2000, 1, 28, 28), seeded())[:, 0]) for at in ((9, 14), (14, 14)))
    torch.testing.assert_close(middle, torch.full((2000, 2), 14.0), atol=0.05, rtol=0)
    torch.testing.assert_close(above[:, 0], torch.full((2000,), 9.0), atol=0.05, rtol=0)
    assert (above[:, 1] - 14).std() == pytest.approx(0.3 * 5, abs=0.1)


def test_rotation_and_shear_together_keep_the_area(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, ROTATION=30.0, SHEAR=0.4)
    warped = warp(blob(14, 14).expand(500, 1, 28, 28), seeded()).sum((1, 2, 3))
    torch.testing.assert_close(warped, blob(14, 14).sum().expand(500), atol=0, rtol=0.02)


def test_a_large_or_small_head_moves_the_middle_up_or_down_and_never_sideways(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, HEAD=0.22)
    middle, top = (centres(warp(blob(*at).expand(2000, 1, 28, 28), seeded())[:, 0]) for at in ((14, 14), (2, 14)))
    for moved in (middle, top):
        torch.testing.assert_close(moved[:, 1], torch.full((2000,), 14.0), atol=0.01, rtol=0)
    assert middle[:, 0].min() < 14 - 2
    assert middle[:, 0].max() > 14 + 2
    assert (top[:, 0] - 2).abs().max() < 1


def test_pens_become_thicker_and_thinner() -> None:
    ink = SAMPLE.images.sum(dim=(1, 2, 3))
    ratio = thickness(SAMPLE.images, seeded()).sum(dim=(1, 2, 3)) / ink
    assert (ratio > 1.3).float().mean() > 0.2
    assert (ratio < 0.9).float().mean() > 0.2


def test_a_gap_takes_ink_from_a_few_digits_and_only_a_little() -> None:
    kept = gaps(SAMPLE.images, seeded()).sum(dim=(1, 2, 3)) / SAMPLE.images.sum(dim=(1, 2, 3))
    assert 0.05 < (kept < 0.999).float().mean() < augmentation.GAPS
    assert kept.min() > 0.4


def test_only_sevens_are_crossed_and_only_ones_get_a_foot_or_a_flag() -> None:
    changed = (european(SAMPLE.images, SAMPLE.labels, seeded()) != SAMPLE.images).flatten(1).any(dim=1)
    share = {digit: changed[SAMPLE.labels == digit].float().mean().item() for digit in range(10)}
    assert share[7] == pytest.approx(augmentation.SEVENS_CROSSED, abs=0.15)
    either = 1 - (1 - augmentation.ONES_WITH_FOOT) * (1 - augmentation.ONES_WITH_FLAG)
    assert share[1] == pytest.approx(either, abs=0.15)
    assert all(share[digit] == 0 for digit in range(10) if digit not in (1, 7))


def test_the_bar_of_a_seven_lies_across_the_middle_of_its_stem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "SEVENS_CROSSED", 1.0)
    seven = torch.zeros(50, 1, 28, 28)
    seven[:, 0, 4:6, 8:20] = 1
    seven[:, 0, 4:24, 18:20] = 1
    bar = european(seven, torch.full((50,), 7), seeded()) - seven
    rows, columns = bar[:, 0].sum(2), bar[:, 0].sum(1)  # (N, 28)
    height = (rows * torch.arange(28)).sum(1) / rows.sum(1)
    assert height.min() > 9
    assert height.max() < 20
    assert (columns[:, :17].sum(1) > 0).all()  # on either side of the stem
    assert (columns[:, 21:].sum(1) > 0).all()


def test_a_line_is_full_along_its_length_and_nothing_two_pixels_beside_it() -> None:
    line = segments(torch.tensor([[4.5, 10.5]]), torch.tensor([[20.5, 10.5]]), torch.tensor([0.5]))[0]
    assert line[10, 4:21].tolist() == [1.0] * 17
    assert line[8].sum() == 0
    assert line[12].sum() == 0
    assert line[10, :3].sum() == 0


def test_letters_are_centred_by_mass_and_fit_the_box_of_a_digit() -> None:
    start, end = letters(500, seeded())
    assert start.shape == end.shape
    length = (end - start).norm(dim=2, keepdim=True)
    centre = ((start + end) / 2 * length).sum(1) / length.sum(1)
    torch.testing.assert_close(centre, torch.full((500, 2), 14.0), atol=1e-3, rtol=0)
    size = torch.cat((start, end), 1).amax(1) - torch.cat((start, end), 1).amin(1)
    assert size.amax() < 28
    assert size.amax(1).median() > 14


def test_a_stroke_is_one_line_from_point_to_point_and_strokes_do_not_join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bnmodel.data.outliers.SLIP", 0.0)
    start, end = letters(300, seeded())
    joined = (start[:, 1:] == end[:, :-1]).all(dim=2).sum(1)
    lines = (start != end).any(dim=2).sum(1)
    expected: dict[int, set[int]] = {}  # by the number of lines, how many of them go on where the one before ended
    for strokes in SHAPES:
        points = [stroke.split() for stroke in strokes.split(",")]
        expected.setdefault(sum(len(p) - 1 for p in points), set()).add(sum(len(p) - 2 for p in points))
    padded = start.shape[1] - lines
    for count, going_on in zip(lines.tolist(), (joined - padded).tolist(), strict=True):
        assert going_on in expected[count]


def test_outliers_are_not_the_digits_they_are_made_beside() -> None:
    strangers = outliers(SAMPLE.images[:200], seeded())
    assert (strangers != SAMPLE.images[:200]).flatten(1).any(dim=1).all()
    assert (strangers.amax(dim=(1, 2, 3)) > 0.5).all()


def test_a_tenth_of_the_outliers_are_two_digits_across_each_other() -> None:
    digits = SAMPLE.images
    across = torch.maximum(digits, digits.roll(1, dims=0).rot90(1, (2, 3)))
    drawn = (outliers(digits, seeded()) == across).flatten(1).all(dim=1).float().mean()
    assert drawn == pytest.approx(0.1, abs=0.03)
