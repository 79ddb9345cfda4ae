"""Shadows with a sharp edge are not ink and do not change the digit that they cross."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from preprocessing_helpers import STROKES, distance, drawn, opaque, painted, sketch
from scipy import ndimage
from torch import Tensor

from bnmodel.data.ink import InkFinder
from bnmodel.data.shadows import highest

SIDE = 200
quick = settings(deadline=None, derandomize=True, max_examples=60)


def half_plane(angle: float, offset: float) -> np.ndarray:
    """Signed distance from a line through the middle, moved by `offset` pixels: (SIDE, SIDE)."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    distance: np.ndarray = x * np.cos(angle) + y * np.sin(angle) - offset
    return distance


def photographed(ink: np.ndarray, beyond: np.ndarray, factor: float) -> Tensor:
    """Ink of brightness 50 on paper of 210, darkened where `beyond` is negative; an opaque canvas with grain."""
    grey = 210 - 160 * (ink / 255) + np.random.default_rng(0).normal(0, 2, ink.shape)
    return opaque(grey * (factor + (1 - factor) / (1 + np.exp(-beyond.clip(-40, 40)))))


SHAPES = {
    "straight": half_plane(0.4, -10),
    "mostly shadow": half_plane(2.6, 40),
    "corner": np.maximum(half_plane(0.3, 0), half_plane(0.3 + np.pi / 2, 0)),
    "hand": np.hypot(*(np.mgrid[:SIDE, :SIDE] - np.array([SIDE, 70])[:, None, None])) - 100,
}


@pytest.mark.parametrize("factor", [0.35, 0.55, 0.75])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", STROKES)
def test_a_sharp_shadow_across_a_digit_hardly_changes_it(name: str, shape: str, factor: float) -> None:
    ink = drawn(STROKES[name], 110, (45, 45), (SIDE, SIDE))
    digit, _ = sketch(photographed(ink, SHAPES[shape], factor))
    expected, _ = sketch(painted(ink))
    assert distance(digit, expected) < 0.05


@quick
@given(st.floats(0, 6.28), st.floats(-50, 50), st.floats(0.35, 0.8))
def test_a_blank_sheet_under_a_sharp_shadow_is_blank(angle: float, offset: float, factor: float) -> None:
    digit, ink = sketch(photographed(np.zeros((SIDE, SIDE)), half_plane(angle, offset), factor))
    assert ink == 0
    assert not digit.any()


@quick
@given(
    name=st.sampled_from(sorted(STROKES)),
    side=st.integers(40, 190),
    width=st.integers(1, 24),
    colours=st.tuples(*[st.integers(0, 255)] * 2),
)
def test_a_drawing_without_a_shadow_has_even_light(name: str, side: int, width: int, colours: tuple[int, int]) -> None:
    corner = (SIDE - side) // 2
    ink = ndimage.grey_dilation(drawn(STROKES[name], side, (corner, corner), (SIDE, SIDE)), size=(width, width))
    pen, paper = colours
    found = InkFinder()(painted(ink, pen=(pen, pen, pen), paper=(paper, paper, paper)))
    assert found.shadow == 0
    assert found.brightness == 1
    assert (found.limits == 1).all()


@pytest.mark.parametrize("side", [20, 28, 40])
def test_a_thick_blurred_stroke_in_a_tiny_picture_is_no_shadow(side: int) -> None:
    thick = Image.fromarray(ndimage.grey_dilation(drawn(STROKES["2"], 240), size=(48, 48)))
    ink = np.array(thick.filter(ImageFilter.GaussianBlur(140 / side)).resize((side, side), Image.Resampling.BOX))
    canvas = painted(ink, pen=(115, 115, 115), paper=(190, 190, 190))
    assert InkFinder()(canvas).shadow == 0


ROUND = np.hypot(*(np.mgrid[:SIDE, :SIDE] - np.array([SIDE, 90])[:, None, None])) - 70
POINTED = np.maximum(half_plane(0.25, 20), half_plane(0.25 - 1.2, 20))


@pytest.mark.parametrize("factor", [0.35, 0.6])
@pytest.mark.parametrize("beyond", [ROUND, ROUND / 4, POINTED, POINTED / 4, half_plane(1.4, -75), half_plane(0.2, 72)])
def test_neither_the_tip_nor_the_edge_of_a_shadow_is_ink(beyond: np.ndarray, factor: float) -> None:
    digit, ink = sketch(photographed(np.zeros((SIDE, SIDE)), beyond, factor))
    assert ink == 0
    assert not digit.any()


def chalked(photo: Tensor) -> Tensor:
    photo[:, :, :3] = photo[:, :, :3] // 2
    strokes = torch.from_numpy(drawn(STROKES["2"], 70, (65, 65), (SIDE, SIDE)) > 128)
    photo[strokes] = 255
    return photo


def two_colours(photo: Tensor) -> Tensor:
    photo[:, :, 2] = torch.where(photo[:, :, 1] < 150, photo[:, :, 2] * 2, photo[:, :, 2])
    return photo


def half_transparent(photo: Tensor) -> Tensor:
    photo[:, :, 3] = torch.where(photo[:, :, 1] < 150, 128, 255)
    return photo


def framed(photo: Tensor) -> Tensor:
    bar = photo[:, -12:]
    photo = photo[:, :1].repeat(1, SIDE, 1)
    photo[:, :12] = bar
    return photo


@pytest.mark.parametrize("changed", [chalked, two_colours, half_transparent, framed])
def test_other_pictures_with_a_bright_and_a_dark_part_have_no_shadow(changed: Callable[[Tensor], Tensor]) -> None:
    photo = photographed(np.zeros((SIDE, SIDE)), half_plane(np.pi, 0), 0.5)
    assert InkFinder()(photo).shadow == 1
    assert InkFinder()(changed(photo)).shadow == 0


def test_the_highest_of_a_square_is_scipys() -> None:
    pixels = torch.rand(2, 90, 80)
    expected = ndimage.maximum_filter(pixels.numpy(), size=(1, 13, 13))[:, 6:-6, 6:-6]
    torch.testing.assert_close(highest(pixels), torch.from_numpy(expected), rtol=0, atol=0)
