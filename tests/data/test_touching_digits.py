"""Touching digits: positions of cuts, digits of sections, and the choice among the ways to cut."""

from pathlib import Path

import pytest
import torch
from preprocessing_helpers import painted
from torch import Tensor

from bnmodel import data, load_checkpoint
from bnmodel.data.numbers import NumberReader
from bnmodel.data.preprocessing import reduced
from bnmodel.data.touching import END, SECTIONS, THREE, TWO, WHOLE, best_way, edges, section_boxes, section_digits

ROBUST = Path(__file__).parents[2] / "checkpoints/robust"


def two_blobs() -> tuple[Tensor, Tensor]:
    """Two discs joined by a thin line, which is thinnest at column 151, and their box."""
    row, column = torch.meshgrid(torch.arange(320.0), torch.arange(320.0), indexing="ij")
    ink = sum((((row - 160) ** 2 + (column - middle) ** 2) < 45**2).float() for middle in (100, 202))
    ink[158:163, 100:200] = 1
    ink[158, 151] = 0
    return ink.clamp(max=1)[None], torch.tensor([[56.0, 116, 247, 205]])


def test_a_cut_is_at_the_column_with_the_least_ink_in_its_window() -> None:
    ink, boxes = two_blobs()
    columns = edges(ink, boxes)
    assert columns.shape == (1, END + 1)
    assert (columns[0].diff() > 0).all()
    assert columns[0, [0, -1]].tolist() == [56, 247]
    assert (columns[0] - 151).abs().min() <= 1


@pytest.mark.parametrize("averaged", [0.0, 1.0])
def test_the_digits_of_the_sections_are_those_of_their_ink_alone(averaged: float) -> None:
    torch.manual_seed(0)
    ink, boxes = two_blobs()
    ink = torch.cat((ink * torch.rand(320, 320), ink.flip(1) * 0.7))
    boxes, pixel = boxes.expand(2, 4), torch.tensor(1.0)
    columns = edges(ink, boxes)
    digits, rows = section_digits(ink, columns, pixel, torch.tensor(averaged))
    index = torch.arange(320)
    for n, (i, j) in ((n, section) for n in range(2) for section in SECTIONS):
        alone = ink[n] * ((index >= columns[n, i]) & (index < columns[n, j]))
        found = SECTIONS.index((i, j))
        torch.testing.assert_close(digits[n, found], reduced(alone[None], pixel, torch.tensor(averaged))[0])
        assert rows[n, found] == (alone.amax(dim=1) > 0.3).sum()


def chosen(sure: dict[int, float], width: float, whole: float = 0.3) -> list[list[int]]:
    """The chosen sections, per position, of a piece 100 high with equidistant cuts."""
    confidence = torch.full((1, len(SECTIONS)), 0.2)
    confidence[0, WHOLE] = whole
    for section, value in sure.items():
        confidence[0, section] = value
    box = torch.tensor([[0.0, 0, width, 100]])
    way = best_way(confidence, section_boxes(box, torch.linspace(0, width, END + 1)[None]))
    return [place.nonzero().flatten().tolist() for place in way[0]]


def test_a_piece_is_cut_if_all_sections_are_read_confidently() -> None:
    assert chosen(dict.fromkeys(TWO[2], 0.995), width=150) == [[TWO[2][0]], [TWO[2][1]], []]
    assert chosen(dict.fromkeys(THREE[6], 0.9), width=200) == [[section] for section in THREE[6]]


@pytest.mark.parametrize(
    ("sure", "width", "whole"),
    [
        ({}, 150.0, 0.3),  # no section is read surely
        (dict.fromkeys(TWO[2], 0.95), 100.0, 0.3),  # as narrow as a digit: 0.99 is asked for
        (dict.fromkeys(TWO[2], 0.995), 100.0, 0.999),  # the whole is read more surely
        (dict.fromkeys(TWO[2], 0.995), 60.0, 0.9),  # too narrow for two, and read
        ({TWO[2][0]: 0.995, TWO[2][1]: 0.5}, 150.0, 0.3),  # only one of the sections is
        (dict.fromkeys(TWO[2], 0.995), 300.0, 0.3),  # a section wider than a digit
        (dict.fromkeys(THREE[6], 0.9), 120.0, 0.3),  # too narrow for three
    ],
)
def test_a_piece_stays_whole_otherwise(sure: dict[int, float], width: float, whole: float) -> None:
    assert chosen(sure, width, whole) == [[WHOLE], [], []]


def test_three_touching_digits_of_mnist_are_read_or_doubted_and_never_one_sure_digit() -> None:
    network = load_checkpoint(ROBUST).model
    reader = NumberReader(network.eval()).eval()
    digits = data.load_sample(train=False)
    whole = 0
    for n in range(0, 60, 3):
        inks = [digits.images[k, 0] for k in range(n, n + 3)]
        touching = torch.cat([ink[:, ink.amax(dim=0) > 0.3] for ink in inks], dim=1)
        ink = torch.nn.functional.pad(touching, (14, 14, 14, 14)).repeat_interleave(4, 0).repeat_interleave(4, 1)
        with torch.no_grad():
            count, _, probabilities = reader(painted((255 * ink).to(torch.uint8).numpy()))
        labels = probabilities[:count].argmax(dim=1).tolist()
        sure = (probabilities[:count].amax(dim=1) >= 0.5).all()
        whole += bool(sure) and labels == digits.labels[n : n + 3].tolist()
        assert count != 1 or probabilities[0].max() < 0.9, n
    assert whole >= 18
