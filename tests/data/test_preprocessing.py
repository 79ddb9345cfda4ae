"""Drawings become digits as in MNIST: scaled, centred and antialiased."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from preprocessing_helpers import BLACK, STROKES, WHITE, box_of, drawn, mass_centre, painted, sketch
from torch import Tensor

from bnmodel import SimpleCNN, Sketch, SketchClassifier
from bnmodel.data import load_sample

quick = settings(deadline=None, derandomize=True, max_examples=60)

# --- as MNIST was made -----------------------------------------------------------------------------------------------


def test_mnists_own_digits_stay_unchanged() -> None:
    images = load_sample(train=True).images[:400, 0]
    unmoved, within_a_pixel = 0, 0
    for image in images:
        digit, _ = sketch(painted((image * 255).round().byte().numpy(), pen=WHITE, paper=BLACK))
        moved = [digit.roll((down, right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
        differences = [float((candidate - image).abs().max()) for candidate in moved]
        unmoved += differences[4] < 0.1
        within_a_pixel += min(differences) < 0.1
    # a centre of mass near the middle between two pixels may be rounded differently
    assert unmoved / len(images) > 0.94
    assert within_a_pixel / len(images) > 0.98


def bristles(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """A cross with random bristles along its upright bar, uint8 (height, width); connected, and not a frame."""
    distance = abs(np.arange(width) - width // 2)
    ink = (distance <= generator.integers(0, width // 2 + 1, height)[:, None]).astype(np.uint8) * 255
    ink[height // 2] = 255
    return ink


@quick
@given(
    short=st.integers(4, 20),
    tall=st.booleans(),
    pixel=st.integers(1, 9),
    margin=st.tuples(*[st.integers(9, 40)] * 4),
    seed=st.integers(0, 10_000),
)
def test_a_drawing_is_reduced_as_pillow_reduces_its_box(
    short: int, tall: bool, pixel: int, margin: tuple[int, int, int, int], seed: int
) -> None:
    height, width = (20, short) if tall else (short, 20)  # of the digit
    generator = np.random.default_rng(seed)
    ink = bristles(height * pixel, width * pixel, generator)
    digit, _ = sketch(painted(np.pad(ink, (margin[:2], margin[2:]))))
    top, bottom, left, right = box_of(digit > 1e-3)
    assert (bottom - top, right - left) == (height, width)
    reduced = Image.fromarray(ink.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    expected = np.asarray(reduced) / np.asarray(reduced).max()
    np.testing.assert_allclose(digit[top:bottom, left:right].numpy(), expected, atol=1e-3)


@st.composite
def strokes(draw: st.DrawFn) -> np.ndarray:
    """A polyline of sharp edges on a canvas of its own size."""
    height, width = draw(st.integers(60, 260)), draw(st.integers(60, 260))
    corner = st.tuples(st.integers(15, width - 15), st.integers(15, height - 15))
    image = Image.new("L", (width, height))
    points = draw(st.lists(corner, min_size=2, max_size=5))
    ImageDraw.Draw(image).line(points, fill=255, width=draw(st.integers(3, 20)), joint="curve")
    ink = np.array(image)
    border = np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]])
    assume(ink.any() and (border > 0).mean() < 0.4)
    return ink


@quick
@given(strokes())
def test_the_longer_side_of_the_box_becomes_20_and_the_centre_of_mass_pixel_14(ink: np.ndarray) -> None:
    top, bottom, left, right = box_of(torch.from_numpy(ink) > 0)
    scale = max(bottom - top, right - left) / 20
    assume(scale >= 1)  # enlarging blurs the box's edge
    rows, columns = np.nonzero(ink)
    before = 14.5 - (rows.mean() + 0.5 - top) / scale, 14.5 - (columns.mean() + 0.5 - left) / scale
    after = before[0] + (bottom - top) / scale, before[1] + (right - left) / scale
    assume(min(before) > 0.6 and max(after) < 27.4)  # the whole box fits around its centre of mass

    digit, _ = sketch(painted(ink))
    top, bottom, left, right = box_of(digit > 1e-3)
    assert max(bottom - top, right - left) == 20
    row, column = mass_centre(digit)
    assert abs(row - 14) < 0.55  # whole pixels: half a pixel and the rounding of ties
    assert abs(column - 14) < 0.55


def test_the_shape_keeps_its_proportions() -> None:
    ink = np.zeros((200, 300), np.uint8)
    ink[50:90, 30:230] = 255  # 40 × 200
    top, bottom, left, right = box_of(sketch(painted(ink))[0] > 0.5)
    assert (bottom - top, right - left) == (4, 20)


@pytest.mark.parametrize("name", STROKES)
def test_a_thin_line_on_a_large_canvas_becomes_full_ink(name: str) -> None:
    image = Image.new("L", (900, 900))
    ImageDraw.Draw(image).line([(x * 900, y * 900) for x, y in STROKES[name]], fill=255, width=5)
    digit, _ = sketch(painted(np.asarray(image)))
    assert digit.max() == 1


# --- sizes, types, scripts -------------------------------------------------------------------------------------------

SIZES = [(8, 8), (8, 300), (300, 8), (28, 28), (280, 280), (700, 1024), (1024, 700)]


def random_canvas(height: int, width: int, seed: int) -> Tensor:
    """Random bytes."""
    return torch.randint(0, 256, (height, width, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@quick
@given(st.integers(8, 120), st.integers(8, 120), st.integers(0, 10_000))
def test_any_canvas_gives_28_by_28_finite_values_in_0_to_1(height: int, width: int, seed: int) -> None:
    canvas = random_canvas(height, width, seed)
    before = canvas.clone()
    digit, ink = sketch(canvas)
    assert (digit.shape, ink.shape) == ((28, 28), ())
    assert digit.dtype == ink.dtype == torch.float32
    assert ((digit >= 0) & (digit <= 1)).all()
    assert 0 <= ink <= 1
    assert torch.equal(canvas, before)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_stroke_on_a_canvas_of_any_size_becomes_a_digit(height: int, width: int) -> None:
    ink = np.zeros((height, width), np.uint8)
    ink[height // 4 : -(height // 4), width // 4 : -(width // 4)] = 255
    digit, share = sketch(painted(ink))
    assert digit.max() == 1
    assert 0.2 < share < 0.3
    assert all(abs(centre - 14) < 0.55 for centre in mass_centre(digit))
    top, bottom, left, right = box_of(digit > 0.3)
    assert 19 <= max(bottom - top, right - left) <= 22  # enlarging has soft edges


@pytest.fixture(scope="module")
def scripted() -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        return torch.jit.script(Sketch())


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_scripted_it_gives_the_same_digits(height: int, width: int, scripted: torch.jit.ScriptModule) -> None:
    blank = torch.zeros(height, width, 4, dtype=torch.uint8)
    for canvas in (random_canvas(height, width, 0), blank):
        for mine, expected in zip(scripted(canvas), sketch(canvas), strict=True):
            torch.testing.assert_close(mine, expected, rtol=0, atol=1e-5)


def test_a_canvas_that_is_not_contiguous_gives_the_same_digit() -> None:
    canvas = painted(drawn(STROKES["5"], 140))
    turned = canvas.transpose(0, 1).contiguous().transpose(0, 1)
    assert not turned.is_contiguous()
    torch.testing.assert_close(sketch(turned), sketch(canvas))


# --- SketchClassifier ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def classifier() -> SketchClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SketchClassifier(SimpleCNN()).eval()


def test_the_classifier_returns_the_probabilities_of_the_digit_it_returns(classifier: SketchClassifier) -> None:
    canvas = painted(drawn(STROKES["7"], 200))
    probabilities, digit, ink = classifier(canvas)
    expected_digit, expected_ink = sketch(canvas)
    assert torch.equal(digit, expected_digit)
    assert torch.equal(ink, expected_ink)
    torch.testing.assert_close(probabilities, classifier.network(digit.view(1, 1, 28, 28)).exp().view(10))
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)


def test_a_blank_canvas_gives_every_class_the_same_probability(classifier: SketchClassifier) -> None:
    probabilities, digit, ink = classifier(torch.full((50, 60, 4), 255, dtype=torch.uint8))
    assert torch.equal(probabilities, torch.full((10,), 0.1))
    assert not digit.any()
    assert ink == 0
