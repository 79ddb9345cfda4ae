"""Figures as SVG: one picture per panel, in the page's colours, with its values."""

import html
import json
import re

import numpy as np

from bnmodel import plotting
from demo import svg


def two_panels(low: float) -> str:
    with plotting.plot_style():
        figure, (left, right) = plotting.new_figure(columns=2)
        left.plot([0, 1], [low, 1], color=plotting.EVAL)
        right.plot([0, 1], [low, 1], color=plotting.TRAIN)
        right.set_title("a title")
    return svg.to_panels(figure, 'curves, "both"')


def test_every_panel_of_a_figure_carries_its_values_where_they_are_drawn() -> None:
    with plotting.plot_style():
        figure, (left, right) = plotting.new_figure(columns=2)
        left.plot([0, 1, 2], [0.5, 0.25, 1.0], label="a curve")
        left.axhline(0.75, label="a level")
        left.set(xlabel="step", ylabel="share", ylim=(0, 1))
        plotting.percent_axis(left.yaxis)
        plotting.stairs(right, np.array([3, 1]), np.array([0.0, 1.0, 2.0]), label="counts")
        plotting.legend(figure, left)
    legend, panels = svg.to_legend_and_panels(figure, "a figure")
    first, second = (json.loads(html.unescape(found)) for found in re.findall(r"data-values='(.*?)'", panels))
    assert (first["x"], first["y"], first["share"], first["levels"]) == ("step", "share", True, ["a level: 75%"])
    assert [point[:2] for point in first["curves"][0]["points"]] == [[0, 0.5], [1, 0.25], [2, 1]]
    assert [point[:2] for point in second["curves"][0]["points"]] == [[0.5, 3], [1.5, 1]]
    assert second["curves"][0]["name"] == "counts"
    across = [point[2] for point in first["curves"][0]["points"]]
    down = [point[3] for point in first["curves"][0]["points"]]
    assert across == sorted(across)
    assert down[1] > down[0] > down[2]  # as in SVG, downwards
    assert legend.count("<span>") == 2
    assert "a curve" in legend


def test_a_figure_is_cut_into_a_picture_for_each_of_its_panels() -> None:
    left, right = re.findall(r"<svg.*?</svg>", two_panels(0), re.DOTALL)
    assert "a title" in right
    assert "a title" not in left
    assert 'aria-label="curves, &quot;both&quot;"' in left
    sizes = [re.search(r'viewBox="\S+ \S+ (\S+) (\S+)"', svg) for svg in (left, right)]
    assert sizes[0] is not None
    assert sizes[1] is not None
    assert sizes[0].groups() == sizes[1].groups()


def test_a_long_title_is_set_in_smaller_type() -> None:
    def size(title: str) -> float:
        with plotting.plot_style():
            figure, (axes, _) = plotting.new_figure(columns=2, width=4)
            axes.set_title(title)
        found = re.search(
            rf"font-size: ([\d.]+)px[^>]*>{title}<|font: ([\d.]+)px[^>]*>{title}<", svg.to_panels(figure, "")
        )
        assert found is not None
        return float(found[1] or found[2])

    assert size("short") == svg.TITLE
    assert size("a title that is much longer than its panel is wide") < 0.6 * svg.TITLE


def test_a_picture_takes_its_colours_from_the_page_and_styles_nothing_else_on_it() -> None:
    svg = two_panels(0)
    assert "currentColor" in svg
    assert "var(--eval," in svg
    assert "var(--train," in svg
    assert plotting.INK not in svg
    assert "<style" not in svg


def test_two_pictures_on_a_page_share_no_id_and_each_refers_to_its_own_only() -> None:
    one, other = two_panels(0), two_panels(0.5)
    ids = [set(re.findall(r'\bid="([^"]+)"', picture)) for picture in (one, other)]
    assert not ids[0] & ids[1]
    for picture, own in zip((one, other), ids, strict=True):
        assert set(re.findall(r'(?:url\(|href=")#([^")]+)', picture)) <= own
