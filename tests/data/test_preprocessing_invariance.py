"""Invariance of the preprocessing to place, size, colour, polarity and noise; blank canvases."""

import io

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from preprocessing_helpers import BLACK, STROKES, WHITE, drawn, on_transparent, painted, sketch
from torch import Tensor

quick = settings(deadline=None, derandomize=True, max_examples=60)

# --- invariance ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STROKES)
@pytest.mark.parametrize(
    "paint",
    [
        lambda ink: painted(ink, WHITE, BLACK),
        lambda ink: on_transparent(ink, BLACK),
        lambda ink: on_transparent(ink, WHITE),
        lambda ink: on_transparent(ink, (40, 90, 200)),
        lambda ink: painted(ink, (255, 0, 0), (0, 255, 0)),
        lambda ink: painted(ink, (0, 0, 255), (255, 255, 255)),
        lambda ink: painted(ink, (0, 0, 0, 0), (0, 0, 0, 255)),  # erased
    ],
    ids=[
        "white on black",
        "black on transparent",
        "white on transparent",
        "blue on transparent",
        "red on green",
        "blue on white",
        "erased",
    ],
)
def test_polarity_colour_and_transparency_do_not_matter(paint, name: str) -> None:  # type: ignore[no-untyped-def]
    ink = drawn(STROKES[name], 140)
    expected, expected_ink = sketch(painted(ink))
    digit, share = sketch(paint(ink))
    torch.testing.assert_close(digit, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(share, expected_ink, rtol=1e-4, atol=0)


colour = st.tuples(*[st.integers(0, 255)] * 3)


@quick
@given(pen=colour, paper=colour)
def test_any_pen_that_stands_out_from_its_paper_gives_the_same_digit(
    pen: tuple[int, int, int], paper: tuple[int, int, int]
) -> None:
    assume(max(abs(p - q) for p, q in zip(pen, paper, strict=True)) > 40)
    ink = (drawn(STROKES["2"], 140) > 127).astype(np.uint8) * 255  # sharp: soft edges keep less of a weak contrast
    torch.testing.assert_close(sketch(painted(ink, pen, paper))[0], sketch(painted(ink))[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", STROKES)
@pytest.mark.parametrize("at", [(0, 0), (7, 3), (119, 77), (-30, -20)], ids=str)
def test_the_place_on_the_canvas_does_not_matter(at: tuple[int, int], name: str) -> None:
    digit, _ = sketch(painted(drawn(STROKES[name], 200, at, canvas=(320, 300))))
    expected, _ = sketch(painted(drawn(STROKES[name], 200, (50, 50), canvas=(320, 300))))
    torch.testing.assert_close(digit, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", STROKES)
@pytest.mark.parametrize(
    ("size", "largest", "mean"), [(100, 0.3, 0.015), (200, 0.15, 0.005), (400, 0.15, 0.005), (800, 0.15, 0.005)]
)
def test_the_size_of_the_drawing_hardly_matters(size: int, largest: float, mean: float, name: str) -> None:
    difference = (sketch(painted(drawn(STROKES[name], size)))[0] - sketch(painted(drawn(STROKES[name], 280)))[0]).abs()
    assert difference.max() < largest
    assert difference.mean() < mean


@pytest.mark.parametrize("margins", [(0, 0, 0, 300), (200, 10, 5, 0), (100, 100, 100, 100)], ids=str)
def test_empty_paper_around_the_drawing_does_not_matter(margins: tuple[int, int, int, int]) -> None:
    ink = drawn(STROKES["5"], 140)
    digit, _ = sketch(painted(np.pad(ink, (margins[:2], margins[2:]))))
    torch.testing.assert_close(digit, sketch(painted(ink))[0], rtol=0, atol=1e-3)


@pytest.mark.parametrize(("pen", "paper"), [(BLACK, WHITE), (WHITE, BLACK)], ids=["black on white", "white on black"])
def test_a_stroke_that_runs_over_the_border_does_not_become_the_background(
    pen: tuple[int, ...], paper: tuple[int, ...]
) -> None:
    ink = np.zeros((100, 100), np.uint8)
    ink[:, 40:60] = 255  # from the upper border to the lower
    ink[:30, :] = 255  # over the whole upper border and parts of both sides
    digit, share = sketch(painted(ink, pen, paper))
    expected, _ = sketch(painted(np.pad(ink, 30), pen, paper))
    assert share == pytest.approx((ink > 0).mean(), abs=1e-5)
    torch.testing.assert_close(digit, expected, rtol=0, atol=1e-3)


def test_weak_noise_around_the_drawing_does_not_matter() -> None:
    ink = drawn(STROKES["7"], 200)
    noise = np.random.default_rng(0).integers(-9, 10, (200, 200, 3))
    canvas = painted(ink, BLACK, (235, 235, 235))
    noisy = canvas.clone()
    noisy[:, :, :3] = torch.from_numpy((canvas[:, :, :3].numpy() + noise).clip(0, 255).astype(np.uint8))
    assert (sketch(noisy)[0] - sketch(canvas)[0]).abs().max() < 0.1


def as_jpeg(rgb: np.ndarray, quality: int) -> Tensor:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file).convert("RGBA")))


@pytest.mark.parametrize("name", STROKES)
def test_the_ripples_of_jpeg_around_the_drawing_hardly_matter(name: str) -> None:
    canvas = painted(drawn(STROKES[name], 280))
    difference = (sketch(as_jpeg(canvas[:, :, :3].numpy(), quality=60))[0] - sketch(canvas)[0]).abs()
    assert difference.max() < 0.05


# --- blank canvases and ink ------------------------------------------------------------------------------------------


@quick
@given(st.integers(8, 300), st.integers(8, 300), st.tuples(*[st.integers(0, 255)] * 4))
def test_a_blank_canvas_has_no_ink_and_no_digit(height: int, width: int, colour: tuple[int, ...]) -> None:
    digit, ink = sketch(torch.tensor(colour, dtype=torch.uint8).expand(height, width, 4))
    assert ink == 0
    assert not digit.any()


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("quality", [60, 80, 95])
def test_a_jpeg_of_blank_paper_has_no_ink_and_no_digit(quality: int, level: int) -> None:
    paper = level + np.random.default_rng(0).integers(-9, 10, (150, 200, 3))
    canvas = as_jpeg(paper.clip(0, 255).astype(np.uint8), quality)
    assert canvas[:, :, :3].unique().numel() > 1
    digit, ink = sketch(canvas)
    assert ink == 0
    assert not digit.any()


def test_colours_under_full_transparency_are_not_ink() -> None:
    canvas = torch.randint(0, 256, (60, 80, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    canvas[:, :, 3] = 0
    assert sketch(canvas)[1] == 0


def test_a_single_dot_is_ink() -> None:
    canvas = torch.full((100, 100, 4), 255, dtype=torch.uint8)
    canvas[50, 50, :3] = 0
    digit, ink = sketch(canvas)
    assert ink == pytest.approx(1 / 10_000)
    assert digit.max() == 1


def test_ink_is_the_share_of_the_canvas_that_is_covered() -> None:
    ink = np.zeros((100, 200), np.uint8)
    ink[20:60, 50:100] = 255
    assert sketch(painted(ink))[1] == pytest.approx(40 * 50 / (100 * 200), rel=1e-5)
