"""Augmentation: the range of its changes, and its random generator."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from bnmodel.data import augmentation, load_sample
from bnmodel.data.augmentation import DRAWN, augment, centres, european, gaps, redraw, thickness, tone, warp
from bnmodel.data.strokes import Shapes

SAMPLE = load_sample(train=True)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 40))
def test_an_augmented_batch_has_the_shape_and_the_range_of_digits(seed: int, count: int) -> None:
    images, labels = SAMPLE.images[:count], SAMPLE.labels[:count]
    result = augment(images, labels, seeded(seed))
    assert result.shape == images.shape
    assert torch.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() <= 1


@pytest.mark.parametrize("change", [warp, thickness, gaps, tone, lambda x, g: augment(x, SAMPLE.labels[:8], g)])
def test_the_same_seed_gives_the_same_digits_and_the_inputs_do_not_change(
    change: Callable[[Tensor, Generator], Tensor],
) -> None:
    images = SAMPLE.images[:8].clone()
    before = torch.get_rng_state()
    once, again, other = (change(images, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert torch.equal(images, SAMPLE.images[:8])
    assert torch.equal(torch.get_rng_state(), before)


def test_each_digit_of_a_batch_is_changed_differently() -> None:
    copies = SAMPLE.images[:1].expand(16, 1, 28, 28)
    drawn = augment(copies, SAMPLE.labels[:1].expand(16), seeded())
    assert len(torch.unique(drawn.flatten(1), dim=0)) == 16


def test_without_any_spread_a_warp_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ROTATION", "SHEAR", "STRETCH", "SHIFT", "BEND", "HEAD", "SHAKE"):
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
    """Let `warp` have full strength, with these spreads and all others 0."""
    monkeypatch.setattr(augmentation, "STRENGTHS", (1.0, 1.0))
    for name in ("ROTATION", "SHEAR", "STRETCH", "SHIFT", "BEND", "HEAD", "SHAKE"):
        monkeypatch.setattr(augmentation, name, spreads.get(name, 0.0))


def blob(y: float, x: float) -> Tensor:
    """A smooth dot at (y, x) in pixels, (28, 28)."""
    position = torch.arange(28) + 0.5
    return torch.exp(-((position[:, None] - y) ** 2 + (position - x) ** 2) / 4.5)


def test_a_rotation_turns_by_its_degrees_and_keeps_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, ROTATION=20.0)
    above, right = (centres(warp(blob(*at).expand(2000, 1, 28, 28), seeded())) for at in ((9, 14), (14, 19)))
    torch.testing.assert_close((above - right).norm(dim=1), torch.full((2000,), 50**0.5), atol=0.05, rtol=0)
    angle = torch.atan2(right[:, 1] - 14, right[:, 0] - 14).rad2deg()
    assert angle.std() == pytest.approx(20, abs=1)


def test_a_shear_moves_rows_sideways_in_proportion_to_their_height(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, SHEAR=0.3)
    above, middle = (centres(warp(blob(*at).expand(2000, 1, 28, 28), seeded())) for at in ((9, 14), (14, 14)))
    torch.testing.assert_close(middle, torch.full((2000, 2), 14.0), atol=0.05, rtol=0)
    torch.testing.assert_close(above[:, 1], torch.full((2000,), 9.0), atol=0.05, rtol=0)
    assert (above[:, 0] - 14).std() == pytest.approx(0.3 * 5, abs=0.1)


def test_rotation_and_shear_together_keep_the_area(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, ROTATION=30.0, SHEAR=0.4)
    warped = warp(blob(14, 14).expand(500, 1, 28, 28), seeded()).sum((1, 2, 3))
    torch.testing.assert_close(warped, blob(14, 14).sum().expand(500), atol=0, rtol=0.02)


def test_a_large_or_small_head_moves_the_middle_up_or_down_and_never_sideways(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, HEAD=0.22)
    middle, top = (centres(warp(blob(*at).expand(2000, 1, 28, 28), seeded())) for at in ((14, 14), (2, 14)))
    for moved in (middle, top):
        torch.testing.assert_close(moved[:, 0], torch.full((2000,), 14.0), atol=0.01, rtol=0)
    assert middle[:, 1].min() < 14 - 2
    assert middle[:, 1].max() > 14 + 2
    assert (top[:, 1] - 2).abs().max() < 1


def test_pens_become_thicker_and_thinner() -> None:
    ink = SAMPLE.images.sum(dim=(1, 2, 3))
    ratio = thickness(SAMPLE.images, seeded()).sum(dim=(1, 2, 3)) / ink
    assert (ratio > 1.3).float().mean() > 0.2
    assert (ratio < 0.9).float().mean() > 0.2


def test_a_gap_takes_ink_from_a_few_digits_and_only_a_little() -> None:
    kept = gaps(SAMPLE.images, seeded()).sum(dim=(1, 2, 3)) / SAMPLE.images.sum(dim=(1, 2, 3))
    assert 0.05 < (kept < 0.999).float().mean() < augmentation.GAPS
    assert kept.min() > 0.4


def test_only_sevens_are_crossed_only_zeros_slashed_and_only_ones_get_a_foot_or_a_flag() -> None:
    changed = (european(SAMPLE.images, SAMPLE.labels, seeded()) != SAMPLE.images).flatten(1).any(dim=1)
    share = {digit: changed[SAMPLE.labels == digit].float().mean().item() for digit in range(10)}
    assert share[7] == pytest.approx(augmentation.SEVENS_CROSSED, abs=0.15)
    assert share[0] == pytest.approx(augmentation.ZEROS_SLASHED, abs=0.15)
    either = 1 - (1 - augmentation.ONES_WITH_FOOT) * (1 - augmentation.ONES_WITH_FLAG)
    assert share[1] == pytest.approx(either, abs=0.15)
    assert all(share[digit] == 0 for digit in range(10) if digit not in (0, 1, 7))


def test_a_flag_goes_left_and_down_from_the_top_of_a_one_by_up_to_two_thirds_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(augmentation, "ONES_WITH_FLAG", 1.0)
    monkeypatch.setattr(augmentation, "ONES_WITH_FOOT", 0.0)
    one = torch.zeros(300, 1, 28, 28)
    one[:, 0, 4:24, 15:17] = 1
    added = european(one, torch.full((300,), 1), seeded()) - one
    lowest = (added[:, 0].amax(dim=2) > 0.5).float().mul(torch.arange(28)).amax(dim=1)
    assert added[:, 0, :, 19:].max() == 0
    assert lowest.min() < 9
    assert 14 < lowest.max() < 20


def test_a_slash_goes_from_the_lower_left_to_the_upper_right_through_the_middle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(augmentation, "ZEROS_SLASHED", 1.0)
    slash = european(torch.zeros(100, 1, 28, 28), torch.zeros(100, dtype=torch.long), seeded())
    torch.testing.assert_close(centres(slash), torch.full((100, 2), 14.0), atol=0.05, rtol=0)
    assert slash[:, 0, 18:, 15:].max() == 0
    assert slash[:, 0, :10, :13].max() == 0


def test_a_display_lights_the_segments_of_each_digit() -> None:
    shown = ["abcdef", "bc", "abdeg", "abcdg", "bcfg", "acdfg", "acdefg", "abc", "abcdefg", "abcdfg"]
    middles = {"a": (2, 0), "b": (4, 2), "c": (4, 6), "d": (2, 8), "e": (0, 6), "f": (0, 2), "g": (2, 4)}
    for digit, shapes in enumerate(DRAWN):
        for shape in shapes[-2:]:  # without and with space
            lines = [[(int(x), int(y)) for x, y in line.split()] for line in shape.split(", ")]
            lit = {((x0 + x1) / 2, (y0 + y1) / 2) for (x0, y0), (x1, y1) in lines}
            assert lit == {middles[name] for name in shown[digit]}


def test_every_shape_of_a_digit_is_drawn_and_none_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []

    def draw(shapes: Shapes, which: Tensor, width: Tensor, generator: Generator) -> Tensor:
        chosen.extend(which.tolist())
        return torch.zeros(len(which), 1, 28, 28)

    monkeypatch.setattr(Shapes, "draw", draw)
    expected: list[int] = []
    for digit, shapes in enumerate(DRAWN):
        redraw(torch.zeros(200, 1, 28, 28), torch.full((200,), digit), seeded())
        expected.extend(range(len(expected), len(expected) + len(shapes)))
        assert sorted(set(chosen)) == expected


def test_a_digit_is_centred_by_its_mass_after_strokes_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch)
    moved = warp(blob(11, 17).expand(3, 1, 28, 28), seeded(), torch.tensor([[17.0, 11.0]]).expand(3, 2))
    torch.testing.assert_close(centres(moved), torch.full((3, 2), 14.0), atol=0.05, rtol=0)


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
