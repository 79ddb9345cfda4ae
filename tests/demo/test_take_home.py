"""The pictures of a tab: their values under the mouse, and saved as files."""

import csv
import json
import re
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image
from playwright.sync_api import Page, expect

from tests.demo.tab_helpers import choose_tab


def test_a_figure_shows_its_values_under_the_mouse_and_with_the_arrow_keys(page: Page) -> None:
    choose_tab(page, "Chance")
    panel = page.locator("#chance .figure svg >> nth=1")
    panel.hover()
    expect(page.locator(".tip")).to_contain_text("batch size")
    expect(page.locator(".tip")).to_contain_text("train mode, median")
    expect(panel.locator(".touched").first).to_be_visible()
    page.mouse.move(5, 5)
    expect(page.locator(".tip")).to_be_hidden()


def test_what_a_tab_shows_is_saved_as_a_picture_and_as_numbers_under_the_networks_name(
    page: Page, tmp_path: Path
) -> None:
    shown = page.locator("#modes td.eval").evaluate_all("all => all.map(cell => Number(cell.dataset.value))")
    files_of = {kind: saved(page, kind, tmp_path) for kind in ("png", "svg", "csv", "json")}
    assert files_of["png"].name == "robust-your-digit.png"
    assert min(Image.open(files_of["png"]).size) > 500
    drawing = ElementTree.fromstring(files_of["svg"].read_text())
    assert "Eval mode says" in "".join(drawing.itertext())
    lines = list(csv.reader(files_of["csv"].read_text("utf-8-sig").splitlines()))
    assert [float(row[0]) for row in lines[1:]] == shown
    numbers = json.loads(files_of["json"].read_text())
    assert (numbers["network"], [float(row[0]) for row in numbers["tables"][0]["rows"]]) == ("robust", shown)
    assert "train mode says" in numbers["says"][0]


def test_a_saved_picture_has_the_colours_of_the_page(page: Page, tmp_path: Path) -> None:
    choose_tab(page, "Why")
    drawing = saved(page, "svg", tmp_path).read_text()
    defined = "".join(re.findall(r"<defs.*?</defs>", drawing, re.DOTALL))
    assert "<path" in defined  # the markers
    assert "fill: rgb(0, 0, 0)" not in defined
    assert "<linearGradient" in drawing  # the scale of the maps


def test_the_curves_of_a_figure_are_saved_point_by_point(page: Page, tmp_path: Path) -> None:
    choose_tab(page, "Inputs")
    rows = list(csv.DictReader(saved(page, "csv", tmp_path).read_text("utf-8-sig").splitlines()))
    losses = [row for row in rows if row["curve"] == "raw inputs" and row["x is"] == "step"]
    assert [float(row["x"]) for row in losses] == list(range(len(losses)))
    assert float(losses[0]["y"]) == 1


def saved(page: Page, kind: str, folder: Path) -> Path:
    with page.expect_download() as download:
        page.locator(f".tabitem:visible [data-save={kind}]").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path
