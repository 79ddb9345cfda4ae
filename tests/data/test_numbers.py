"""Pictures of numbers: digits are found, counted and put in reading order."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from preprocessing_helpers import STROKES, drawn, painted, row
from torch import Tensor, nn

from bnmodel import load_checkpoint
from bnmodel.data.augmentation import DISPLAYED, SEGMENTS
from bnmodel.data.numbers import NumberReader, reading_order

ROBUST = Path(__file__).parents[2] / "checkpoints/robust"


class Sure(nn.Module):
    """A network that always predicts a 3 with high probability."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.full((10,), -10.0).index_fill(0, torch.tensor([3]), -0.001).expand(len(images), 10)


reader = NumberReader(Sure()).eval()


@pytest.mark.parametrize("names", ["2", "25", "7227", "25725725"])
def test_digits_apart_are_counted_and_boxed_from_left_to_right(names: str) -> None:
    ink = row(names)
    count, boxes, probabilities = reader(painted(ink))
    assert count == len(names)
    assert (boxes[: len(names)].diff(dim=0)[:, 0] > 0).all()
    assert not boxes[len(names) :].any()
    assert not probabilities[len(names) :].any()
    rows, columns = np.nonzero(ink > 100)
    np.testing.assert_allclose(boxes[: len(names), 0].min(), columns.min(), atol=8)
    np.testing.assert_allclose(boxes[: len(names), 3].max(), rows.max() + 1, atol=8)


@pytest.mark.parametrize("names", ["527", "257"])
def test_a_low_digit_that_reaches_the_border_belongs_to_the_number(names: str) -> None:
    ink = np.pad(row(names), ((0, 25), (0, 0)))
    beyond = 2 * ink.shape[1] // 3  # columns of the last digit
    ink[:, beyond:] = np.roll(ink[:, beyond:], 25, axis=0)
    bottom = np.flatnonzero(ink.max(axis=1))[-1] + 1
    assert reader(painted(ink[:bottom]))[0] == 3


@pytest.mark.parametrize("names", ["27", "75", "257"])
def test_a_faint_line_from_the_border_to_a_foot_does_not_hide_the_digit(names: str) -> None:
    ink = row(names)
    foot, first = np.flatnonzero(ink.max(axis=1))[-1], np.flatnonzero(ink.max(axis=0))[0]
    line = ink[foot - 1 : foot + 1, : first + 20]
    line[:] = np.maximum(line, 90)
    assert reader(painted(ink))[0] == len(names)


def test_more_than_eight_digits_are_too_many() -> None:
    count, boxes, probabilities = reader(painted(row("257257257")))
    assert count == -1
    assert not boxes.any()
    assert not probabilities.any()


def test_a_blank_canvas_has_no_digits() -> None:
    assert reader(torch.full((90, 120, 4), 255, dtype=torch.uint8))[0] == 0


@pytest.mark.parametrize("right", [0, 40])
def test_a_bar_apart_belongs_to_its_five(right: int) -> None:
    ink = np.zeros((200, 200), np.uint8)
    ink[40:50, 80 + right : 130 + right] = 255  # the bar
    ink[56:100, 80:90] = ink[92:100, 80:120] = ink[92:150, 112:122] = ink[142:150, 75:122] = 255
    assert reader(painted(ink))[0] == 1


def test_the_halves_of_a_one_on_a_display_are_one_digit() -> None:
    ink = row("25")
    top, bottom = np.flatnonzero(ink.max(1))[[0, -1]]
    middle = (top + bottom) // 2
    one = np.zeros((len(ink), 40), np.uint8)
    one[top + 8 : middle - 4, 16:24] = one[middle + 4 : bottom - 8, 14:22] = 255
    assert reader(painted(np.concatenate((ink, one, np.zeros_like(one)), axis=1)))[0] == 3


@pytest.mark.parametrize(("labels", "gap"), [("83", 8), ("8086", 4), ("8086", 8), ("3158", 8), ("47", 4)])
@pytest.mark.parametrize("slant", [0.0, 0.15])
def test_the_segments_of_a_display_form_its_digits(slant: float, gap: int, labels: str) -> None:
    sheet = Image.new("L", (160 * len(labels) + 120, 360))
    for k, label in enumerate(labels):
        for name in DISPLAYED[int(label)]:
            (x0, y0), (x1, y1) = ((24 * int(x), 24 * int(y)) for x, y in SEGMENTS[name][0].split())
            ends = ((x0, y0 + 2 * gap), (x1, y1 - 2 * gap)) if x0 == x1 else ((x0 + 2 * gap, y0), (x1 - 2 * gap, y1))
            ImageDraw.Draw(sheet).line([(80 + 160 * k + x + slant * (192 - y), 80 + y) for x, y in ends], 255, 18)
    robust = NumberReader(load_checkpoint(ROBUST).model).eval()
    with torch.inference_mode():
        count, _, probabilities = robust(painted(np.asarray(sheet)))
    assert "".join(str(int(label)) for label in probabilities[:count].argmax(dim=1)) == labels


@pytest.mark.parametrize("rise", [0, 4])
def test_a_line_under_a_number_does_not_matter(rise: int) -> None:
    ink = row("2572")
    bottom, length = np.flatnonzero(ink.max(1))[-1], ink.shape[1]
    for x in range(length):
        top = bottom + 2 + x * rise // length
        ink[top : top + 4, x] = 255
    assert reader(painted(ink))[0] == 4


def test_a_faint_line_from_the_border_to_a_digit_does_not_hide_the_digit() -> None:
    ink = row("2572")
    middle = len(ink) // 2
    ink[middle : middle + 16, :60] = np.maximum(ink[middle : middle + 16, :60], 80)
    assert reader(painted(ink))[0] == 4


@pytest.mark.parametrize("names", ["2", "25", "7257"])
def test_cells_of_a_form_around_the_digits_do_not_matter(names: str) -> None:
    width, middle = 100, 60
    ink = np.concatenate([drawn(STROKES[name], 84, (8, 8), (width, width)) for name in names], axis=1)
    ink = np.pad(ink, 20)
    for x in range(20, 21 + width * len(names), width):
        ink[20:121, x : x + 3] = 255
    ink[20:23, 20 : 23 + width * len(names)] = ink[118:121, 20 : 23 + width * len(names)] = 255
    count, boxes, _ = reader(painted(ink))
    assert count == len(names)
    assert (boxes[: len(names), 1] < middle).all()
    assert (boxes[: len(names), 2] - boxes[: len(names), 0] < 0.7 * width).all()


def test_lines_are_read_one_after_the_other() -> None:
    boxes = torch.tensor([[60.0, 62, 80, 100], [0, 0, 20, 40], [50, 4, 70, 44], [0, 60, 20, 100]])
    order = reading_order(boxes, torch.tensor([True, True, True, True]))
    assert order.argmax(dim=1)[:4].tolist() == [1, 2, 3, 0]


@pytest.mark.parametrize("rise", [-12, 12])
def test_a_line_that_rises_or_falls_is_read_from_left_to_right(rise: int) -> None:
    boxes = torch.tensor([[60.0 * i, rise * i + 100, 60 * i + 40, rise * i + 160] for i in (3, 0, 7, 1, 6, 4, 2, 5)])
    order = reading_order(boxes, torch.ones(8) > 0)
    assert (order @ boxes)[:, 0].tolist() == [60.0 * i for i in range(8)]


@given(st.integers(0, 2**31), st.integers(1, 12))
def test_the_reading_order_is_a_permutation_of_the_digits(seed: int, count: int) -> None:
    drawn_boxes = np.random.default_rng(seed).integers(0, 6, (count, 2, 2)) * 10.0  # many of them are equal
    boxes = torch.from_numpy(np.concatenate((drawn_boxes.min(1), drawn_boxes.max(1) + 10), axis=1)).float()
    present = torch.from_numpy(np.random.default_rng(seed).random(count) < 0.8)
    order = reading_order(boxes, present)
    here = min(8, int(present.sum()))
    assert order.sum(dim=1).tolist() == [1.0] * here + [0.0] * (8 - here)
    assert order.sum(dim=0).max() <= 1
    assert not order[:, ~present].any()


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_one_at_the_border_beside_other_digits_is_no_frame(side: str) -> None:
    ink = row("25")
    one = np.zeros((len(ink), 16), np.uint8)
    rows = np.flatnonzero(ink.max(1))
    one[rows[0] : rows[-1] + 1, 6:14] = 255
    ink = np.concatenate((one, ink) if side == "left" else (ink, one), axis=1)
    assert reader(painted(ink))[0] == 3
