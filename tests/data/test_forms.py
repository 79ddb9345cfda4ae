"""Printed forms around digits are not ink, and straight strokes of digits are not forms."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from preprocessing_helpers import STROKES, drawn, painted, sketch
from torch import Tensor

from bnmodel.data.content import highest_of_cells
from bnmodel.data.forms import find_forms
from bnmodel.data.ink import InkFinder, enlarged
from bnmodel.data.ruled_lines import distances, runs


def rectangle(ink: np.ndarray, left: int, width: int) -> None:
    box = ink[30:120, left : left + width]
    box[:2] = box[-2:] = box[:, :2] = box[:, -2:] = 255


def row_of_cells(ink: np.ndarray) -> None:
    for left in (30, 98, 166):
        rectangle(ink, left, 70)


def boxes(ink: np.ndarray) -> None:
    for left in (24, 102, 180):
        rectangle(ink, left, 68)


def comb(ink: np.ndarray) -> None:
    ink[122:124, 30:236] = 255
    for left in (30, 98, 166, 234):
        ink[100:124, left : left + 2] = 255


def underline(ink: np.ndarray) -> None:
    for x in range(36, 232):
        ink[112 + x // 80 :][:3, x] = 255


def ellipse(ink: np.ndarray) -> None:
    y, x = np.mgrid[: ink.shape[0], : ink.shape[1]]
    ink[abs(np.hypot((y - 75) / 62, (x - 133) / 128) - 1) < 0.02] = 255


def number() -> np.ndarray:
    """A 2, a 5 and a 7, 42 pixels high, on 150 × 270 pixels."""
    ink = np.zeros((150, 270), np.uint8)
    for name, left in (("2", 34), ("5", 102), ("7", 170)):
        ink = np.maximum(ink, drawn(STROKES[name], 64, (left, 42), (270, 150)))
    return ink


def cleaned(canvas: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The ink before and after the removal."""
    found = InkFinder()(canvas)
    form = find_forms(highest_of_cells(found.contrast, side), found.columns)
    return found.contrast, found.contrast * (1 - enlarged(form))


@pytest.mark.parametrize("pen", [0, 60], ids=["black", "grey"])
@pytest.mark.parametrize("form", [row_of_cells, boxes, comb, underline, ellipse])
def test_a_form_is_removed_and_its_digits_stay(form, pen: int) -> None:  # type: ignore[no-untyped-def]
    digits, printed = number(), np.zeros((150, 270), np.uint8)
    form(printed)
    ink = np.maximum(digits, (printed / 255 * (255 - pen)).astype(np.uint8))
    before, after = cleaned(painted(ink), 160)
    alone = InkFinder()(painted(digits)).contrast
    assert (before - alone).abs().sum() > 400  # the form is there
    assert (after - alone).clamp(min=0).sum() < 0.02 * alone.sum()
    assert (alone - after).clamp(min=0).sum() < 0.02 * alone.sum()


@pytest.mark.parametrize("side", [80, 160])
def test_a_digit_that_touches_its_circle_stays(side: int) -> None:
    digits = number()
    y, x = np.mgrid[: digits.shape[0], : digits.shape[1]]
    circle = abs(np.hypot((y - 75) / 50, (x - 128) / 96) - 1) < 0.03
    assert digits[circle].max() == 255
    _, after = cleaned(painted(np.where(circle, 255, digits)), side)
    alone = InkFinder()(painted(digits)).contrast
    assert (after - alone).clamp(min=0).sum() < 0.05 * alone.sum()
    assert (alone - after).clamp(min=0).sum() < 0.1 * alone.sum()


@pytest.mark.parametrize("angle", [3, 4])
@pytest.mark.parametrize(("inset", "thickness"), [(16, 3), (10, 3), (14, 4)])
@pytest.mark.parametrize("name", STROKES)
def test_a_cell_of_a_slightly_turned_grid_leaves_the_digit(name: str, inset: int, thickness: int, angle: int) -> None:
    ink, grid = drawn(STROKES[name], 60, (20, 20), (100, 100)), np.zeros((140, 140), np.uint8)
    for place in (20 + inset, 120 - inset):
        grid[place : place + thickness] = grid[:, place : place + thickness] = 255
    turned = np.array(Image.fromarray(grid).rotate(angle, Image.Resampling.BICUBIC))[20:-20, 20:-20]
    expected, _ = sketch(painted(ink))
    torch.testing.assert_close(sketch(painted(np.maximum(ink, turned)))[0], expected, rtol=0, atol=1e-3)


def test_a_slightly_turned_frame_around_a_digit_is_removed() -> None:
    digit = drawn(STROKES["2"], 150, (85, 85), (320, 320))
    sheet = Image.new("L", (320, 320))
    ImageDraw.Draw(sheet).rectangle((30, 30, 290, 290), outline=255, width=3)
    frame = np.array(sheet.rotate(2, Image.Resampling.BICUBIC))
    _, after = cleaned(painted(np.maximum(digit, frame)), 160)
    alone = InkFinder()(painted(digit)).contrast
    assert (after - alone).abs().sum() < 0.02 * alone.sum()


@pytest.mark.parametrize("side", [80, 160])
def test_a_number_without_a_form_stays(side: int) -> None:
    before, after = cleaned(painted(number()), side)
    assert torch.equal(before, after)


@pytest.mark.parametrize("side", [80, 160])
@pytest.mark.parametrize("name", STROKES)
def test_a_digit_without_a_form_stays(name: str, side: int) -> None:
    before, after = cleaned(painted(drawn(STROKES[name], 200)), side)
    assert torch.equal(before, after)


@pytest.mark.parametrize("side", [80, 160])
def test_a_box_or_a_line_alone_is_a_drawing(side: int) -> None:
    """A box is the 0 of a seven-segment display, a line a 1."""
    box, line = np.zeros((2, 150, 270), np.uint8)
    box[40:110, 100:150] = 255
    box[48:102, 108:142] = 0
    line[40:42, 30:240] = 255
    for ink in (box, line):
        before, after = cleaned(painted(ink), side)
        assert torch.equal(before, after)


def test_bars_of_touching_digits_are_not_an_underline() -> None:
    ink = np.zeros((150, 270), np.uint8)
    for left in (30, 70, 110):
        ink = np.maximum(ink, drawn(STROKES["7"], 80, (left, 30), (270, 150)))
    before, after = cleaned(painted(ink), 160)
    assert torch.equal(before, after)


def test_ruled_paper_is_left_to_the_next_step() -> None:
    ink = number()
    for top in (20, 60, 100, 140):
        ink[top : top + 2] = 255
    before, after = cleaned(painted(ink), 160)
    assert torch.equal(before, after)


def test_runs_are_as_long_as_asked_and_may_have_short_gaps() -> None:
    mask = torch.zeros(160, 160)
    mask[3, 10:40] = mask[5, 10:39] = mask[7, 10:60] = 1
    mask[7, 30] = 0
    after = distances(160)
    found = runs(mask[None], after, torch.tensor(30.0), 0.99)[0]
    assert found.sum(dim=1).nonzero().flatten().tolist() == [3]
    assert found[3].nonzero().flatten().tolist() == list(range(10, 40))
    assert runs(mask[None], after, torch.tensor(30.0), 0.95)[0, 7, 10:60].all()


@pytest.mark.parametrize("side", [80, 160])
def test_the_background_of_a_note_is_a_form_as_a_whole(side: int) -> None:
    ink = np.zeros((150, 270), np.uint8)
    ink[4:146, 40:240] = 255
    ink[24:126, 75:205] = 0
    ink = np.maximum(ink, drawn(STROKES["5"], 70, (105, 40), (270, 150)))
    _, after = cleaned(painted(ink), side)
    assert after[40:110, 105:175].max() > 0.9
    after[24:126, 75:205] = 0
    assert after.max() == 0


@pytest.mark.parametrize("side", [80, 160])
def test_the_long_bar_of_a_seven_in_a_box_is_no_wall(side: int) -> None:
    seven = np.zeros((150, 270), np.uint8)
    seven[44:49, 100:168] = 255
    for y in range(44, 110):
        x = 164 - (y - 44) // 3
        seven[y, x : x + 5] = 255
    ink = seven.copy()
    box = ink[30:120, 88:178]
    box[:2] = box[-2:] = box[:, :2] = box[:, -2:] = 255
    _, after = cleaned(painted(ink), side)
    assert torch.equal(after[:150, :270] > 0.5, torch.from_numpy(seven > 0))
