"""Pictures with uneven light, frames, lines and specks."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from preprocessing_helpers import STROKES, distance, drawn, opaque, painted, row, sketch
from torch import Tensor

from bnmodel.data.advice import advice, measure

SIDE = 200


def inked(paper: np.ndarray, ink: np.ndarray, pen: float = 60) -> Tensor:
    """Brightness of the paper (H, W) and uint8 ink → an opaque canvas."""
    share = ink / 255
    return opaque(paper * (1 - share) + pen * share)


def vignette(corner: float) -> np.ndarray:
    x = np.linspace(-1, 1, SIDE)
    return 200 * (1 - (1 - corner) * (x[:, None] ** 2 + x**2) / 2)


def shadow() -> np.ndarray:
    x = np.linspace(-1, 1, SIDE)
    return 200 - 30 / (1 + np.exp(-8 * (x[:, None] + x)))


LIGHTS = {"vignette": vignette(0.7), "falling": np.linspace(220, 150, SIDE)[None].repeat(SIDE, 0), "shadow": shadow()}


@pytest.mark.parametrize("light", LIGHTS)
@pytest.mark.parametrize("name", STROKES)
def test_uneven_light_hardly_changes_the_digit(light: str, name: str) -> None:
    ink = drawn(STROKES[name], SIDE)
    digit, _ = sketch(inked(LIGHTS[light], ink))
    expected, _ = sketch(painted(ink))
    assert distance(digit, expected) < 0.03


@pytest.mark.parametrize("name", STROKES)
@pytest.mark.parametrize("side", [20, 24, 28])
def test_a_blurred_pale_digit_in_a_tiny_photo_is_ink(side: int, name: str) -> None:
    blurred = Image.fromarray(drawn(STROKES[name], 240)).filter(ImageFilter.GaussianBlur(140 / side))
    ink = np.array(blurred.resize((side, side), Image.Resampling.BOX))
    paper = 190 + np.random.default_rng(0).normal(0, 2, ink.shape)
    assert (sketch(inked(paper, ink, 115))[0] - sketch(painted(ink))[0]).abs().mean() < 0.08


@pytest.mark.parametrize("light", LIGHTS)
def test_unevenly_lit_blank_paper_is_blank(light: str) -> None:
    digit, ink = sketch(inked(LIGHTS[light], np.zeros((SIDE, SIDE))))
    assert ink == 0
    assert not digit.any()


def test_a_shadow_with_a_sharp_edge_on_blank_paper_is_no_ink() -> None:
    row, column = np.mgrid[:SIDE, :SIDE]
    dark = 1 / (1 + np.exp((row + column - 150) / 3))
    digit, ink = sketch(inked(200 * (1 - 0.22 * dark), np.zeros((SIDE, SIDE))))
    assert ink == 0
    assert not digit.any()


def test_grainy_blank_paper_is_blank() -> None:
    grain = np.random.default_rng(0).normal(0, 20, (300, 300))
    grain = (grain + np.roll(grain, 1, 0) + np.roll(grain, 1, 1)) / 2
    assert sketch(opaque(180 + grain))[1] == 0


@pytest.mark.parametrize("turns", range(4))
def test_a_slanted_table_beside_an_empty_sheet_is_no_ink(turns: int) -> None:
    sheet = np.full((SIDE, SIDE), 235.0)
    for x in range(SIDE):
        np.rot90(sheet, turns)[: 8 + x // 16, x] = 50
    assert sketch(opaque(sheet))[1] == 0


def school_paper(squared: bool = False, margin: bool = True) -> np.ndarray:
    """Brightness of paper with faint lines, and a margin line that is stronger, but pale in places."""
    paper = np.full((SIDE, SIDE), 235.0)
    paper[12::20] = 195
    if margin:
        paper[:, 24:26] = np.where(np.arange(SIDE) % 40 < 8, 175, 135)[:, None]
    if squared:
        paper[:, 12::20] = 195
    return paper


@pytest.mark.parametrize(("squared", "margin"), [(False, False), (True, False), (False, True)])
def test_ruled_paper_without_a_digit_is_blank(squared: bool, margin: bool) -> None:
    digit, ink = sketch(inked(school_paper(squared, margin), np.zeros((SIDE, SIDE))))
    assert ink == 0
    assert not digit.any()


def turned(paper: np.ndarray, degrees: float) -> np.ndarray:
    """The middle of a larger sheet of the same paper, turned."""
    larger = Image.fromarray(np.tile(paper, (2, 2)).astype(np.float32)).rotate(degrees, Image.Resampling.BICUBIC)
    return np.asarray(larger)[SIDE // 2 : -SIDE // 2, SIDE // 2 : -SIDE // 2]


@pytest.mark.parametrize("degrees", [-8, -4, 2, 6, 9])
@pytest.mark.parametrize("squared", [False, True])
def test_turned_ruled_paper_without_a_digit_is_blank(squared: bool, degrees: float) -> None:
    digit, ink = sketch(inked(turned(school_paper(squared, margin=False), degrees), np.zeros((SIDE, SIDE))))
    assert ink == 0
    assert not digit.any()


@pytest.mark.parametrize("degrees", [-6, 4])
@pytest.mark.parametrize("name", STROKES)
def test_turned_ruled_paper_does_not_matter(name: str, degrees: float) -> None:
    ink = drawn(STROKES[name], 120, (60, 40), (SIDE, SIDE))
    paper = turned(school_paper(margin=False), degrees)
    assert distance(sketch(inked(paper, ink))[0], sketch(painted(ink))[0]) < 0.03


@pytest.mark.parametrize("turns", range(4))
def test_a_table_in_a_corner_of_the_picture_is_no_ink(turns: int) -> None:
    ink = drawn(STROKES["7"], 90, (45, 40), (SIDE, SIDE))
    paper = np.full((SIDE, SIDE - 40), 235.0)  # rows of a picture that is not square lie outside
    row, column = np.mgrid[:SIDE, : SIDE - 40]
    paper[row - SIDE + 70 > 1.2 * (SIDE - 40 - column)] = 60
    paper, ink = np.rot90(paper, turns), np.rot90(ink[:, :-40], turns)
    assert distance(sketch(inked(paper, ink))[0], sketch(painted(ink))[0]) < 0.03


@pytest.mark.parametrize("name", STROKES)
def test_a_margin_line_does_not_matter(name: str) -> None:
    ink = drawn(STROKES[name], 120, (60, 40), (SIDE, SIDE))
    digit, plain = sketch(inked(school_paper(), ink))[0], sketch(painted(ink))[0]
    assert distance(digit, plain) < 0.03


def test_a_one_from_edge_to_edge_is_ink() -> None:
    ink = np.zeros((SIDE, SIDE), np.uint8)
    ink[:, 95:105] = 255
    assert sketch(painted(ink))[1] > 0


def with_frame(ink: np.ndarray) -> None:
    ink[[0, -1]] = ink[:, [0, -1]] = 255


def with_inner_frame(ink: np.ndarray) -> None:
    ink[8:11, 8:-8] = ink[-11:-8, 8:-8] = ink[8:-8, 8:11] = ink[8:-8, -11:-8] = 255


def with_bar(ink: np.ndarray) -> None:
    ink[-9:] = 255


def with_line_below(ink: np.ndarray) -> None:
    ink[184:188] = 255


def with_torn_frame(ink: np.ndarray) -> None:
    ink[5:95, 6:9] = ink[103:185, 7:10] = ink[12:50, -9:-6] = ink[60:192, -9:-6] = ink[6:9, 80:180] = 255


def with_sliver(ink: np.ndarray) -> None:
    ink[40:140, :4] = 255


def with_speck(ink: np.ndarray) -> None:
    ink[20:24, 180:184] = 255


@pytest.mark.parametrize("name", STROKES)
@pytest.mark.parametrize(
    "add",
    [
        with_frame,
        with_inner_frame,
        with_torn_frame,
        with_bar,
        with_line_below,
        with_sliver,
        with_speck,
    ],
)
def test_frames_lines_and_specks_do_not_matter(add, name: str) -> None:  # type: ignore[no-untyped-def]
    ink = drawn(STROKES[name], SIDE)
    expected, _ = sketch(painted(ink))
    add(ink)
    torch.testing.assert_close(sketch(painted(ink))[0], expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", STROKES)
@pytest.mark.parametrize(("left", "rise", "thickness"), [(180, 3, 4), (172, 2, 3), (186, 8, 2)])
def test_a_slanted_line_below_does_not_matter(name: str, left: int, rise: int, thickness: int) -> None:
    ink = drawn(STROKES[name], SIDE)
    expected, _ = sketch(painted(ink))
    for x in range(SIDE):
        top = left - x * rise // SIDE
        ink[top : top + thickness, x] = 255
    assert (sketch(painted(ink))[0] - expected).abs().mean() < 0.03  # the line may take some of the foot


def test_faint_squares_that_join_the_drawing_with_the_border_do_not_matter() -> None:
    ink = drawn(STROKES["2"], SIDE)
    expected, _ = sketch(painted(ink))
    for place in range(15, SIDE, 24):
        ink[place : place + 2, :120] = np.maximum(ink[place : place + 2, :120], 80)
        ink[:120, place : place + 2] = np.maximum(ink[:120, place : place + 2], 80)
    assert (sketch(painted(ink))[0] - expected).abs().mean() < 0.02


@pytest.mark.parametrize("name", STROKES)
@pytest.mark.parametrize("turns", range(4))
def test_a_slanted_table_beside_the_sheet_does_not_matter(name: str, turns: int) -> None:
    ink = drawn(STROKES[name], SIDE)
    expected, _ = sketch(painted(ink))
    for x in range(SIDE):
        np.rot90(ink, turns)[: 6 + x // 20, x] = 255
    torch.testing.assert_close(sketch(painted(ink))[0], expected, rtol=0, atol=1e-3)


RADIUS = np.hypot(*(np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2))


@pytest.mark.parametrize("name", STROKES)
@pytest.mark.parametrize(
    ("size", "around"),
    [(90, abs(RADIUS - 75) < 2), (80, RADIUS > 92)],
    ids=["circle", "table around a sheet"],
)
def test_the_background_around_the_digit_does_not_matter(size: int, around: np.ndarray, name: str) -> None:
    ink = drawn(STROKES[name], size, ((SIDE - size) // 2,) * 2, (SIDE, SIDE))
    digit, plain = sketch(painted(np.where(around, 255, ink)))[0], sketch(painted(ink))[0]
    assert float((digit - plain).abs().max()) < 0.1


@pytest.mark.parametrize("name", STROKES)
@pytest.mark.parametrize("background", ["desk", "wood"])
def test_a_note_on_another_background_is_read(background: str, name: str) -> None:
    ink = drawn(STROKES[name], 100, (50, 50), (SIDE, SIDE))
    note = painted(ink, pen=(20, 30, 60), paper=(240, 225, 90))
    rng, x = np.random.default_rng(0), np.arange(SIDE)
    grain = 20 * np.sin(x / 4)[None] if background == "wood" else 3 * rng.standard_normal((SIDE, SIDE))
    around = torch.from_numpy(np.clip([[[120, 80, 60]]] + np.broadcast_to(grain, (SIDE, SIDE))[:, :, None], 0, 255))
    inside = torch.zeros(SIDE, SIDE, 1, dtype=torch.bool)
    inside[38:164, 36:166] = True
    photo = note.clone()
    photo[:, :, :3] = torch.where(inside, note[:, :, :3], around.to(torch.uint8))
    digit, alone = sketch(photo)[0], sketch(note)[0]
    assert float((digit - alone).abs().max()) < 0.15


@pytest.mark.parametrize("name", STROKES)
@pytest.mark.parametrize("place", [(30, 40), (290, 300), (150, 300)])
def test_a_small_note_away_from_the_middle_is_read(place: tuple[int, int], name: str) -> None:
    ink = drawn(STROKES[name], 40, (25, 25), (90, 90))
    note = painted(ink, pen=(20, 30, 60), paper=(240, 225, 90))
    photo = torch.full((400, 420, 4), 255, dtype=torch.uint8)
    grain = np.random.default_rng(0).normal(0, 3, (400, 420, 1))
    photo[:, :, :3] = torch.from_numpy(np.clip(grain + np.array([70, 110, 150]), 0, 255)).to(torch.uint8)
    photo[place[0] : place[0] + 90, place[1] : place[1] + 90] = note
    digit, alone = sketch(photo)[0], sketch(note)[0]
    assert distance(digit, alone) < 0.05


def test_thick_ink_on_grainy_paper_is_no_note() -> None:
    ink = np.zeros((60, 60), dtype=np.uint8)
    ink[8:52, 18:42] = 255
    ink[20:40, 27:33] = 0  # a zero
    grain = 3 * np.random.default_rng(0).standard_normal(ink.shape)
    digit, plain = sketch(inked(200 + grain, ink))[0], sketch(painted(ink))[0]
    assert float((digit - plain).abs().mean()) < 0.02


def test_a_line_of_one_pixel_survives_on_the_largest_canvas() -> None:
    canvas = torch.full((4096, 4096, 4), 255, dtype=torch.uint8)
    canvas[1000:3000, 2048, :3] = 0
    digit, ink = sketch(canvas)
    assert ink > 0
    assert (digit.sum(dim=1) > 0).sum() >= 20


def test_the_advice_names_the_problem_of_the_picture() -> None:
    ink = drawn(STROKES["2"], SIDE)
    paper = np.full((SIDE, SIDE), 200.0)
    assert "Nothing stands out" in advice(inked(paper, np.zeros_like(ink)).numpy())
    assert "too faint" in advice(inked(paper, ink, pen=165).numpy())
    assert "several digits" in advice(painted(row("25")).numpy(), digits=2)
    assert "border" in advice(painted(ink[:, 60:]).numpy())
    assert "does not look like" in advice(painted(ink).numpy())
    assert measure(inked(LIGHTS["falling"], ink).numpy()).unevenness > 0.15
