"""Shapes drawn as strokes: parsing, lines and pixels."""

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicHermiteSpline
from torch import Generator

from bnmodel.data import augmentation, outliers
from bnmodel.data.strokes import PIECES, parse, segments

TABLES = {"digits": augmentation._DRAWN, "others": outliers._SHAPES}


def seeded() -> Generator:
    return Generator().manual_seed(0)


def test_a_line_is_full_along_its_length_and_nothing_two_pixels_beside_it() -> None:
    line = segments(torch.tensor([[4.5, 10.5]]), torch.tensor([[20.5, 10.5]]), torch.tensor([0.5]))[0]
    assert line[10, 4:21].tolist() == [1.0] * 17
    assert line[8].sum() == 0
    assert line[12].sum() == 0
    assert line[10, :3].sum() == 0


def test_strokes_are_lines_from_point_to_point_and_do_not_join() -> None:
    shapes = parse(["00 40 46, 03 43", "00 46"])
    start, end = (weights @ shapes.points for weights in (shapes.start, shapes.end))
    assert start[0].tolist() == [[0, 0], [4, 0], [0, 3]]
    assert end[0].tolist() == [[4, 0], [4, 6], [4, 3]]
    assert start[1].tolist() == [[0, 0], [4, 6], [4, 6]]  # padded with lines of no length
    assert end[1].tolist() == [[4, 6], [4, 6], [4, 6]]


def test_a_curve_is_the_catmull_rom_spline_through_its_points() -> None:
    points = np.array([[0, 0], [4, 1], [5, 5], [1, 8]], float)
    padded = np.concatenate((points[:1], points, points[-1:]))
    oracle = CubicHermiteSpline(np.arange(4), points, (padded[2:] - padded[:-2]) / 2)
    shape = parse(["~00 41 55 18"])
    drawn = torch.cat((shape.start, shape.end[:, -1:]), dim=1) @ shape.points
    np.testing.assert_allclose(drawn[0], oracle(np.arange(3 * PIECES + 1) / PIECES), atol=1e-5)


def test_a_point_given_twice_is_a_corner_between_two_curves() -> None:
    corner, first, second = parse(["~00 41 55 55 18 06"]), parse(["~00 41 55"]), parse(["~55 18 06"])
    apart = torch.cat([shape.start[0] @ shape.points[0] for shape in (first, second)])
    torch.testing.assert_close(corner.start[0] @ corner.points[0], apart)


@pytest.mark.parametrize("table", TABLES)
def test_shapes_are_centred_by_mass_and_fit_the_box_of_a_digit(table: str) -> None:
    shapes = TABLES[table]
    start, end = shapes.lines(torch.arange(500) % len(shapes.points), seeded())
    length = (end - start).norm(dim=2, keepdim=True)
    centre = ((start + end) / 2 * length).sum(1) / length.sum(1)
    torch.testing.assert_close(centre, torch.full((500, 2), 14.0), atol=1e-3, rtol=0)
    both = torch.cat((start, end), 1)
    side = (both.amax(1) - both.amin(1)).amax(1)
    assert side.min() >= 17 - 1e-3
    assert side.max() <= 20 + 1e-3


def test_the_same_seed_draws_the_same_shapes() -> None:
    which, width = torch.arange(10), torch.ones(10)
    once, again = (TABLES["others"].draw(which, width, seeded()) for _ in range(2))
    assert torch.equal(once, again)
    assert once.shape == (10, 1, 28, 28)
