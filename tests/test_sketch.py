"""A drawing becomes the digit that MNIST would have made of it, whatever its size, place, colour and polarity."""

import io
import warnings

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from torch import Tensor

from bnmodel import SimpleCNN, Sketch, SketchClassifier
from bnmodel.data import load_sample

quick = settings(deadline=None, derandomize=True, max_examples=60)
sketch = Sketch()

Points = list[tuple[float, float]]
STROKES: dict[str, Points] = {  # (x, y) in 0 … 1
    "2": [(0.3, 0.3), (0.5, 0.15), (0.7, 0.3), (0.3, 0.8), (0.75, 0.8)],
    "5": [(0.7, 0.2), (0.35, 0.2), (0.33, 0.45), (0.6, 0.45), (0.7, 0.6), (0.6, 0.8), (0.3, 0.8)],
    "7": [(0.25, 0.2), (0.75, 0.2), (0.4, 0.85)],
}
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def drawn(points: Points, size: int, at: tuple[int, int] = (0, 0), canvas: tuple[int, int] | None = None) -> np.ndarray:
    """An antialiased stroke, 1 / 13 of `size` wide → uint8 (H, W), 255 where there is ink. `canvas` is (W, H)."""
    canvas = canvas or (size, size)
    fine, width = 4, max(1, round(4 * size / 13))
    image = Image.new("L", (canvas[0] * fine, canvas[1] * fine))
    draw = ImageDraw.Draw(image)
    corners = [((x * size + at[0]) * fine, (y * size + at[1]) * fine) for x, y in points]
    draw.line(corners, fill=255, width=width, joint="curve")
    for x, y in corners:
        draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)
    return np.array(image.resize(canvas, Image.Resampling.BOX))


def painted(ink: np.ndarray, pen: tuple[int, ...] = BLACK, paper: tuple[int, ...] = WHITE) -> Tensor:
    """uint8 (H, W) of ink → uint8 (H, W, 4): `pen` on `paper`, RGB or RGBA."""
    pen, paper = (*pen, 255)[:4], (*paper, 255)[:4]
    share = ink[:, :, None] / 255
    return torch.from_numpy((share * np.array(pen) + (1 - share) * np.array(paper)).round().astype(np.uint8))


def on_transparent(ink: np.ndarray, pen: tuple[int, int, int] = BLACK) -> Tensor:
    """As a browser's canvas: `pen` everywhere, and the ink in the alpha channel."""
    colours = np.broadcast_to(np.array(pen, dtype=np.uint8), (*ink.shape, 3))
    return torch.from_numpy(np.concatenate([colours, ink[:, :, None]], axis=2))


def mass_centre(digit: Tensor) -> tuple[float, float]:
    """(row, column) in pixels; the middle of the first pixel is 0."""
    index = torch.arange(digit.size(0), dtype=digit.dtype)
    return tuple(float((digit.sum(axis) * index).sum() / digit.sum()) for axis in (1, 0))


def box_of(mask: Tensor) -> tuple[int, int, int, int]:
    """Top, bottom, left, right; the ends exclusive."""
    rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
    return int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1


# --- as MNIST was made -----------------------------------------------------------------------------------------------


def test_mnists_own_digits_come_back_as_they_were() -> None:
    images = load_sample(train=True).images[:, 0]
    unmoved, within_a_pixel = 0, 0
    for image in images:
        digit, _ = sketch(painted((image * 255).round().byte().numpy(), pen=WHITE, paper=BLACK))
        moved = [digit.roll((down, right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
        differences = [float((candidate - image).abs().max()) for candidate in moved]
        unmoved += differences[4] < 0.1
        within_a_pixel += min(differences) < 0.1
    # a centre of mass near the middle between two pixels may round to the other one
    assert unmoved / len(images) > 0.94
    assert within_a_pixel / len(images) > 0.98


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
    ink = (generator.random((height * pixel, width * pixel)) < 0.6).astype(np.uint8) * 255
    ink[[0, -1]] = ink[:, [0, -1]] = 255  # the box's sides
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


# --- what does not matter --------------------------------------------------------------------------------------------


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


# --- nothing drawn ---------------------------------------------------------------------------------------------------


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


# --- sizes, types, scripts -------------------------------------------------------------------------------------------

SIZES = [(8, 8), (8, 300), (300, 8), (28, 28), (280, 280), (700, 1024), (1024, 700)]


def random_canvas(height: int, width: int, seed: int) -> Tensor:
    """Any bytes at all."""
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
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and still what other apps load
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


# --- the classifier around it ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def classifier() -> SketchClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SketchClassifier(SimpleCNN()).eval()


def test_the_classifier_gives_the_networks_probabilities_of_the_digit_it_shows(classifier: SketchClassifier) -> None:
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
