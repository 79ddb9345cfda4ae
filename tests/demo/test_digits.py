"""Several digits on one sheet: found, put on sheets of their own, and chosen on the pad."""

import math
import re
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, Page, expect

from benchmarks.running_app import ONE, SEVEN, act, answer, draw, open_app
from bnmodel.data import load_sample
from demo import digits, pad
from demo.images import as_ink, decode_canvas
from export.recogniser import Recognizer, load

CHECKPOINT = Path(__file__).parents[2] / "checkpoints/lecture"
SENTENCE = "#modes .sentence"
BOXES = [(10.0, 20.0, 40.0, 80.0), (100.0, 20.0, 160.0, 80.0)]


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return load(CHECKPOINT)


def sheet(*labels: int, paper: int | None = None) -> np.ndarray:
    """uint8 (280, 280, 4): a row of MNIST digits, on nothing or on grey `paper`."""
    sample, side = load_sample(train=False), 110
    canvas = np.zeros((280, 280, 4), np.uint8)
    for place, label in enumerate(labels):
        digit = as_ink(sample.images[int((sample.labels == label).nonzero()[3, 0]), 0].numpy())
        x = place * (280 - side) // max(1, len(labels) - 1)
        canvas[85 : 85 + side, x : x + side] = np.array(Image.fromarray(digit).resize((side, side)))
    if paper is None:
        return canvas
    ink = canvas[..., 3:] / 255
    grey = np.repeat((paper * (1 - ink) + 20 * ink).round(), 3, axis=2)
    return np.concatenate((grey, np.full((280, 280, 1), 255)), axis=2).astype(np.uint8)


@pytest.mark.parametrize(("labels", "paper"), [((4, 2), None), ((3, 6), 200)])
def test_each_digit_alone_is_read_as_it_is_within_the_number(
    recognizer: Recognizer, labels: tuple[int, ...], paper: int | None
) -> None:
    canvas = sheet(*labels, paper=paper)
    found, too_many = digits.find(recognizer, canvas, recognizer.read(canvas))
    assert [one.answer.label for one in found] == [digit.label for digit in recognizer.read_numbers(canvas).digits]
    assert [one.answer.label for one in found] == list(labels)
    assert not too_many


def test_a_drawing_in_one_narrow_piece_is_one_digit_without_a_search() -> None:
    assert not digits.may_be_several(sheet(7))
    assert digits.may_be_several(sheet(4, 2))
    assert digits.may_be_several(sheet(7, paper=200))  # a picture
    assert not digits.may_be_several(np.zeros((280, 280, 4), np.uint8))


@pytest.mark.parametrize(("width", "probability", "searched"), [(110, 0.9, True), (110, 1.0, False), (130, 1.0, True)])
def test_a_rather_wide_piece_that_is_certainly_one_digit_is_not_searched(
    width: int, probability: float, searched: bool
) -> None:
    canvas = np.zeros((280, 280, 4), np.uint8)
    canvas[90:190, 60 : 60 + width, 3] = 255
    assert digits.may_be_several(canvas, probability) == searched


def test_alone_keeps_the_chosen_digit_where_it_was_and_turns_the_others_into_paper() -> None:
    canvas = np.full((100, 200, 4), 255, np.uint8)
    for left, top, right, bottom in np.array(BOXES, int):
        canvas[top:bottom, left:right, :3] = 0
    one = digits.alone(canvas, BOXES, 1)
    assert one.shape == canvas.shape
    assert (one[20:80, 100:160, :3] == 0).all()
    assert (one[..., :3] == 0).sum() == 60 * 60 * 3


def test_ink_of_a_neighbour_within_the_margin_is_erased() -> None:
    canvas = np.zeros((100, 200, 4), np.uint8)
    boxes = [(10.0, 20.0, 40.0, 80.0), (44.0, 20.0, 80.0, 80.0)]
    canvas[20:80, 10:40, 3] = canvas[20:80, 44:80, 3] = 255
    assert np.flatnonzero(digits.alone(canvas, boxes, 0)[50, :, 3]).tolist() == list(range(10, 40))


def test_a_printed_cell_around_a_digit_is_erased() -> None:
    canvas = np.full((100, 200, 4), 255, np.uint8)
    canvas[20:80, 12:40, :3] = canvas[20:80, 44:80, :3] = 0
    canvas[12:14, :, :3] = canvas[86:88, :, :3] = canvas[12:88, 6:8, :3] = 120
    boxes = [(12.0, 20.0, 40.0, 80.0), (44.0, 20.0, 80.0, 80.0)]
    rows, columns = np.nonzero(digits.alone(canvas, boxes, 0)[..., 0] < 255)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 79, 12, 39)


@pytest.mark.parametrize(("point", "digit"), [((20, 50), 0), ((130, 50), 1), ((60, 0), 0), ((90, 99), 1)])
def test_the_nearest_digit_is_chosen(point: tuple[float, float], digit: int) -> None:
    assert digits.nearest(BOXES, point) == digit


@pytest.mark.parametrize("at", [[0.5], [0.5, "x"], [10**400, 0], [math.nan, 0], {"x": 1}, "0.5,0.5", True])
def test_an_invalid_point_is_refused_with_a_message(at: Any) -> None:
    with pytest.raises(gr.Error, match="at: expected two numbers from -1 to 2, received"):
        pad.point(at)


def said_of(recognizer: Recognizer, canvas: np.ndarray, at: tuple[float, float] | None) -> dict[str, Any]:
    answer = recognizer.read(canvas)
    return pad.reply(canvas, answer, *digits.find(recognizer, canvas, answer), at)


def test_the_answer_is_about_the_chosen_digit_and_its_own_sheet(recognizer: Recognizer) -> None:
    said = said_of(recognizer, sheet(4, 2), (0.9, 0.5))
    assert (said["label"], said["chosen"], said["advice"]) == (2, 1, "")
    assert [one["label"] for one in said["digits"]] == [4, 2]
    read = recognizer.read(decode_canvas(said["canvas"]))  # what the tabs get
    assert read.probabilities.tolist() == said["probabilities"]


def test_a_single_digit_keeps_the_whole_sheet(recognizer: Recognizer) -> None:
    said = said_of(recognizer, sheet(7), (0.9, 0.5))
    assert (said["label"], said["digits"], said["chosen"], said["canvas"], said["advice"]) == (7, [], None, "", "")


def test_a_doubtful_answer_comes_with_advice(recognizer: Recognizer) -> None:
    empty = said_of(recognizer, np.full((280, 280, 4), 255, np.uint8), None)
    assert (empty["label"], "Nothing stands out" in empty["advice"]) == (None, True)
    ten = np.zeros((280, 280, 4), np.uint8)
    ten[20:260, 10:270:26, 3] = ten[20:260, 13:270:26, 3] = ten[20:260, 11:270:26, 3] = 255
    assert "several digits" in said_of(recognizer, ten, None)["advice"]


# ---- in Chromium

LEFT_SEVEN = [(0.55 * x - 0.05, y) for x, y in SEVEN]
RIGHT_ONE = [(x + 0.28, y) for x, y in ONE]


def test_boxes_show_the_digits_and_a_click_chooses_the_one_for_the_tabs(page: Page) -> None:
    draw(page, LEFT_SEVEN)
    expect(page.locator(".pad-box")).to_have_count(0)
    draw(page, RIGHT_ONE)
    assert answer(page) == "71"
    expect(page.locator(".pad-box")).to_have_text(["7", "1"])
    expect(page.locator(".pad-words")).to_contain_text("robust reads 71. The tabs use the 1")  # the last drawn
    expect(page.locator(SENTENCE)).to_contain_text("Eval mode says 1")
    ink = "c => c.getContext('2d').getImageData(0, 0, 560, 560).data.reduce((a, b) => a + b)"
    before = page.locator(".pad-canvas").evaluate(ink)
    box = page.locator(".pad-box").first.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator(".pad-words")).to_contain_text("The tabs use the 7")
    expect(page.locator(SENTENCE)).to_contain_text("Eval mode says 7")
    assert page.locator(".pad-canvas").evaluate(ink) == before  # no dot
    page.get_by_role("button", name="Digit 2 of 2: 1").press("Enter")
    expect(page.locator(SENTENCE)).to_contain_text("Eval mode says 1")
    expect(page.get_by_role("button", name="Digit 2 of 2: 1")).to_be_focused()
    act(page, "Undo")
    assert answer(page) == "7"
    expect(page.locator(".pad-box")).to_have_count(0)


def test_the_chosen_digit_survives_a_reload_and_is_in_the_link(
    desktop: BrowserContext, elsewhere: BrowserContext, app_url: str
) -> None:
    page = desktop.new_page()
    open_app(page, app_url)
    draw(page, LEFT_SEVEN)
    draw(page, RIGHT_ONE)
    expect(page.locator(SENTENCE)).to_contain_text("Eval mode says 1")
    page.get_by_role("button", name="Digit 1 of 2: 7").click()
    expect(page.locator(SENTENCE)).to_contain_text("Eval mode says 7")
    said = page.locator(SENTENCE).inner_text()
    code = page.evaluate("drawingCode()")
    page.reload()
    expect(page.locator(SENTENCE)).to_have_text(said)
    other = elsewhere.new_page()
    other.goto(f"{app_url}/#drawing={code}")
    expect(other.locator(SENTENCE)).to_have_text(said)
    expect(other.locator(".pad-words")).to_have_text(re.compile("The tabs use the 7"))


def test_the_code_of_a_tab_reads_the_chosen_digit(page: Page, recognizer: Recognizer) -> None:
    draw(page, LEFT_SEVEN)
    draw(page, RIGHT_ONE)
    expect(page.locator(SENTENCE)).to_contain_text("Eval mode says 1")  # or the next 7 may be that of the first stroke
    page.get_by_role("button", name="Digit 1 of 2: 7").click()
    expect(page.locator(SENTENCE)).to_contain_text("Eval mode says 7")
    page.get_by_role("button", name="In code").filter(visible=True).click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save digit.png").filter(visible=True).click()
    assert download.value.suggested_filename == "digit.png"
    with Image.open(download.value.path()) as image:
        assert recognizer.read(np.array(image.convert("RGBA"))).label == 7


def test_a_digit_that_was_just_chosen_survives_a_reload_before_its_answer(page: Page) -> None:
    draw(page, LEFT_SEVEN)
    draw(page, RIGHT_ONE)
    expect(page.locator(SENTENCE)).to_contain_text("Eval mode says 1")
    page.get_by_role("button", name="Digit 1 of 2: 7").evaluate("button => { button.click(); location.reload(); }")
    expect(page.locator(".pad-words")).to_contain_text("The tabs use the 7")


def test_a_long_number_overlaps_nothing_on_screens_of_any_size(page: Page) -> None:
    for k in range(4):
        draw(page, [(0.12 + 0.24 * k, 0.3), (0.12 + 0.24 * k, 0.7)])
    expect(page.locator(".pad-digit")).to_have_text("1111")
    for width, height in ((320, 640), (640, 400), (660, 800), (1280, 800)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(100)
        number, saw = (page.locator(part).bounding_box() for part in (".pad-digit", ".pad-saw canvas"))
        assert number is not None
        assert saw is not None
        beside = number["x"] + number["width"] <= saw["x"] + 1
        above = number["y"] + number["height"] <= saw["y"] + 1
        assert beside or above, (width, height)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.set_viewport_size({"width": 1280, "height": 900})
