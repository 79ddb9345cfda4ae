"""Inputs of visitors and programs: numbers, images and drawings."""

from dataclasses import replace
from pathlib import Path

import gradio as gr
import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

from benchmarks.fuzzing.files import encoded, seven
from benchmarks.fuzzing.values import upload
from bnmodel.experiments.modes import NormView
from bnmodel.plotting import certainty, percent
from demo.api import read_canvas, whole
from demo.app import CHECKPOINTS
from demo.images import CANVAS_SIDE, png_url
from demo.page import Page
from demo.tabs.why import feature_maps, in_words


@pytest.mark.parametrize("value", [3.5, 2.999999, -0.5, "3", None, True])
def test_a_number_that_is_not_whole_is_refused(value: object) -> None:
    with pytest.raises(gr.Error, match="seed: expected a whole number 0 … 9, received"):
        whole("seed", value, 0, 9)


@pytest.mark.parametrize(("value", "number"), [(3, 3), (3.0, 3), (0, 0), (9, 9)])
def test_a_whole_number_is_taken_however_json_writes_it(value: float, number: int) -> None:
    assert whole("seed", value, 0, 9) == number


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_read_upright_however_the_phone_was_held(orientation: int, tmp_path: Path) -> None:
    upright = Image.new("L", (120, 80), 255)
    ImageDraw.Draw(upright).rectangle((10, 10, 50, 20), fill=0)  # at the top left
    undo = {  # the turn that a camera in this orientation makes (EXIF 2.3, tag 0x0112)
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo.png", exif=exif)
    np.testing.assert_array_equal(read_canvas(str(tmp_path / "photo.png"))[..., 0], np.asarray(upright))


@pytest.mark.parametrize("header", ["bytes=1-2-3", "bytes=9-1", "bytes=-", "x", "bytes=0-9"])
def test_a_file_is_answered_whole_whatever_range_is_asked_for(header: str, app_url: str) -> None:
    content = encoded(seven(), "PNG")
    case = upload("seven.png", content)
    path = httpx.post(app_url + case.path, content=case.body, headers=case.headers).json()[0]
    reply = httpx.get(f"{app_url}/gradio_api/file={path}", headers={"range": header})
    assert (reply.status_code, reply.content) == (200, content)


@pytest.mark.parametrize(
    ("probability", "text"),
    [
        (0, "0%"),
        (0.0004, "below 0.1%"),
        (0.004, "0.4%"),
        (0.5, "50%"),
        (0.984, "98%"),
        (0.99, "99%"),
        (0.9901, "99.0%"),
        (0.9949, "99.4%"),
        (0.9951, "99.5%"),
        (0.9989, "99.8%"),
        (0.9991, "above 99.9%"),
        (0.99999, "above 99.9%"),
        (1, "100%"),
    ],
)
def test_nearly_certain_is_shown_with_a_decimal_and_never_as_certain(probability: float, text: str) -> None:
    assert percent(probability) == text


@pytest.mark.parametrize(("probability", "text"), [(0, "below 0.1%"), (0.5, "50%"), (np.float32(1), "above 99.9%")])
def test_an_answer_is_never_shown_as_certain(probability: float, text: str) -> None:
    assert certainty(probability) == text


def view(name: str, batch_mean: list[float]) -> NormView:
    """A norm of two channels with running mean 1 and running standard deviation 2."""
    ones, maps = np.ones(2), np.zeros((2, 4, 4))
    return NormView(name, ones, 2 * ones, np.array(batch_mean), ones, maps, maps, maps, maps)


def test_the_sentence_of_why_says_which_mean_lies_above_or_below_the_running_one() -> None:
    above, below = (view("block1.norm", [1.5, 4.0]), view("block2.norm", [-5.0, 1.0]))
    assert "in <b>block1.norm</b> the mean of channel 1 is shifted most" in in_words((above,), above)
    assert "1.50 standard deviations above the running mean" in in_words((above,), above)
    assert "in <b>block2.norm</b> the mean of channel 0 is shifted most" in in_words((above, below), below)
    assert "3.00 standard deviations below the running mean" in in_words((above, below), below)
    assert "block2.norm has the largest shift of all norms, 3.00." in in_words((above, below), above)
    # a channel that hardly varies does not divide by zero
    flat = replace(view("n", [1.002, 1.0]), running_std=np.array([0.0, 2.0]))
    assert "2.00 standard deviations above" in in_words((flat,), flat)


@pytest.fixture(scope="module")
def app_page() -> Page:
    page = Page(CHECKPOINTS)
    with gr.Blocks():
        page.build_choice()
        page.build_pad()
    return page


def canvas_url(draw_on: bool) -> str:
    image = Image.new("RGBA", (CANVAS_SIDE, CANVAS_SIDE), (0, 0, 0, 0))
    if draw_on:
        ImageDraw.Draw(image).line([(90, 70), (190, 70), (120, 220)], (0, 0, 0, 255), 24)
    return png_url(np.array(image))


@pytest.mark.parametrize("url", [None, "", canvas_url(draw_on=False)])
def test_a_blank_pad_shows_the_example_and_says_so(url: str | None, app_page: Page) -> None:
    drawn = app_page.drawn(url, "lecture")
    assert drawn.is_example
    np.testing.assert_array_equal(drawn.canvas, app_page.example)
    assert drawn.digit.max() == 1
    assert drawn.label == 1


def test_a_drawing_is_no_example(app_page: Page) -> None:
    drawn = app_page.drawn(canvas_url(draw_on=True), "lecture")
    assert not drawn.is_example
    assert drawn.label == 7


def test_the_pictures_of_why_name_a_constant_channel_which_is_blank() -> None:
    shown = view("block1.norm", [1.5, 4.0])
    assert "channels 0, 1 are constant" in feature_maps(shown, 0)
    changing = np.stack((np.zeros((4, 4)), np.eye(4)))
    assert "channel 0 is constant" in feature_maps(replace(shown, eval_output=changing), 0)
