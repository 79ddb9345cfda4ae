"""Digits as plotted by matplotlib, and labels of one colour on another."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from preprocessing_helpers import opaque
from torch import Tensor

from bnmodel import SketchClassifier, load_checkpoint
from bnmodel.data import load_sample
from bnmodel.data.ink import InkFinder
from bnmodel.data.numbers import NumberReader

ROBUST = Path(__file__).parents[2] / "checkpoints" / "robust"
SAMPLE = load_sample(train=False)
FIRST = [int((SAMPLE.labels == label).nonzero()[0, 0]) for label in range(10)]  # one digit of each class


@pytest.fixture(scope="module")
def recogniser() -> SketchClassifier:
    return SketchClassifier(load_checkpoint(ROBUST).model).eval()


def figure_of(*digits: int, colours: str = "gray", axes: str = "on", background: str = "white") -> Tensor:
    """One image per digit of the sample, side by side, as canvas."""
    figure = Figure(figsize=(3.2 if len(digits) == 1 else 1.6 * len(digits), 3), facecolor=background)
    for place, digit in zip(np.ravel(figure.subplots(1, len(digits))), digits, strict=True):
        place.imshow(SAMPLE.images[digit, 0].numpy(), cmap=colours)
        place.axis(axes)
        place.set_title("label: 5")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return torch.from_numpy(np.array(canvas.buffer_rgba()))


@pytest.mark.parametrize(
    ("colours", "axes", "background"),
    [("gray", "off", "white"), ("gray", "on", "white"), ("viridis", "on", "white"), ("gray_r", "off", "black")],
)
def test_a_plotted_digit_is_read(recogniser: SketchClassifier, colours: str, axes: str, background: str) -> None:
    for label, digit in enumerate(FIRST):
        with torch.inference_mode():
            probabilities = recogniser(figure_of(digit, colours=colours, axes=axes, background=background))[0]
        assert probabilities[label] > 0.5, label


@pytest.mark.parametrize("colours", ["gray", "viridis"])
def test_digits_plotted_side_by_side_are_a_number(recogniser: SketchClassifier, colours: str) -> None:
    with torch.inference_mode():
        count, _, probabilities = NumberReader(recogniser.network)(figure_of(*FIRST[2:5], colours=colours, axes="off"))
    assert count == 3
    assert probabilities[:3].argmax(dim=1).tolist() == [2, 3, 4]


@pytest.mark.parametrize("corner", [0, 30, 110])  # 110: a disc
def test_on_a_label_only_its_ink_counts(recogniser: SketchClassifier, corner: int) -> None:
    picture = Image.new("RGB", (280, 280), (40, 120, 90))
    ImageDraw.Draw(picture).rounded_rectangle((30, 40, 250, 260), corner, fill=(240, 220, 60))
    for label, digit in enumerate(FIRST):
        ink = Image.fromarray((SAMPLE.images[digit, 0] * 255).byte().numpy()).resize((140, 140))
        labelled = picture.copy()
        labelled.paste((120, 20, 110), (70, 80), ink)
        with torch.inference_mode():
            probabilities = recogniser(torch.from_numpy(np.array(labelled.convert("RGBA"))))[0]
        assert probabilities[label] > 0.5, label


@pytest.mark.parametrize("label", [0, 6, 8, 9])
@pytest.mark.parametrize("pen", [0, 255])
def test_a_thick_digit_is_no_label_with_its_hole_as_ink(label: int, pen: int) -> None:
    blocks = {0: "111101101101111", 6: "111100111101111", 8: "111101111101111", 9: "111101111001111"}[label]
    digit = np.kron(np.array(list(blocks), float).reshape(5, 3), np.ones((30, 30)))
    rounded = Image.new("L", (280, 280), 0)
    draw = ImageDraw.Draw(rounded)
    draw.ellipse((60, 40, 220, 240), fill=255)
    for hole in {0: [(120, 100, 160, 180)], 6: [(120, 150, 160, 190)], 9: [(120, 90, 160, 130)]}.get(
        label, [(120, 80, 160, 110), (120, 160, 160, 200)]
    ):
        draw.ellipse(hole, fill=0)
    for ink in (np.pad(digit, 40), np.asarray(rounded) / 255):
        found = InkFinder()(opaque(pen + (255 - 2 * pen) * (1 - ink)))
        assert found.area.min() == 1
        assert found.contrast[: ink.shape[0], : ink.shape[1]].max() > 0.9


@pytest.mark.parametrize(("digit", "grey"), [(29, 170), (204, 190)])
def test_a_grey_strip_at_the_border_is_no_label(digit: int, grey: int) -> None:
    ink = Image.fromarray((SAMPLE.images[digit, 0] * 255).byte().numpy()).resize((48, 48), Image.Resampling.BICUBIC)
    sheet = np.where(np.arange(63) < 2, float(grey), 255.0)
    found = InkFinder()(opaque(sheet * (1 - np.pad(np.asarray(ink) / 255, ((7, 8), (8, 7))))))
    assert found.area.min() == 1
