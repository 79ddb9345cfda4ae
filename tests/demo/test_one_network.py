"""A digit has one answer per network: on the pad, in every tab and in the exported files."""

import re
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from bnmodel.data import load_sample
from bnmodel.deploy.loading import load_file
from demo import digits, pad
from demo.app import CHECKPOINTS
from demo.images import as_ink, enlarge, png_url
from demo.page import Drawn, Page
from demo.tabs import chance, faults, files, statistics, your_digit

NETWORKS = ("lecture", "robust")
SCRIBBLE = [(40, 60), (230, 210), (60, 200), (220, 50), (140, 250), (50, 130), (240, 140), (110, 40)]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(CHECKPOINTS)


@cache
def drawings() -> list[np.ndarray]:
    """50 sheets as the pad sends them, uint8 (280, 280, 4): digits, two digits side by side, and a scribble."""
    images = load_sample(train=False).images[:, 0].numpy()
    single = [enlarge(as_ink(images[k])) for k in range(0, 860, 20)]
    pairs = []
    for k in range(5, 35, 5):
        canvas = np.zeros((280, 280, 4), np.uint8)
        for place, image in enumerate((images[k], images[k + 1])):
            canvas[80:200, 10 + 140 * place : 130 + 140 * place] = np.array(
                Image.fromarray(as_ink(image)).resize((120, 120))
            )
        pairs.append(canvas)
    scribble = Image.new("RGBA", (280, 280))
    ImageDraw.Draw(scribble).line(SCRIBBLE, fill=(20, 23, 28, 255), width=20)
    return [*single, *pairs, np.array(scribble)]


def on_page(page: Page, name: str, canvas: np.ndarray) -> tuple[dict[str, object], Drawn]:
    """What the pad says, and what a tab gets, as pad.js passes it on."""
    sheet, answer = page.read(png_url(canvas), name)
    said = pad.reply(sheet, answer, *digits.find(page.find(name).recognizer, sheet, answer), None)
    return said, page.drawn(str(said["canvas"] or png_url(canvas)), name)


@pytest.mark.parametrize("name", NETWORKS)
def test_pad_tabs_and_network_give_each_of_50_drawings_the_same_answer(page: Page, name: str) -> None:
    assert len(drawings()) == 50
    for number, canvas in enumerate(drawings()):
        said, drawn = on_page(page, name, canvas)
        assert drawn.probabilities.tolist() == said["probabilities"], number
        with torch.no_grad():
            answer = page.find(name).network(drawn.digit.view(1, 1, 28, 28))[0].exp().numpy()
        assert answer == pytest.approx(drawn.probabilities, abs=1e-4), number
        assert f"Eval mode says {said['label']}<" in your_digit.show(drawn, 1, "random", 1, 0), number


@pytest.mark.parametrize("name", NETWORKS)
def test_every_tab_that_names_an_answer_names_the_pads(page: Page, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {form: load_file(CHECKPOINTS / name / f"sketch.{form}").run for form in ("torchscript", "onnx")}
    monkeypatch.setattr(files, "sketches", lambda folder: quick)
    for canvas in (drawings()[3], drawings()[-7], drawings()[-1]):  # a digit, one of two, a scribble
        said, drawn = on_page(page, name, canvas)
        shown = {
            "chance": (chance.show(drawn, 2, 0), r"the probability of (\d)"),
            "statistics": (
                statistics.show(drawn, 31, "random", 1, 0, 0, 0, 0.1, 4),
                r">checkpoint</th><td>[^<]*</td><td>(\d) \(",
            ),
            "faults": (faults.show(drawn, 1), r"(?:still read as|instead of) (\d)"),
            "export": (list(files.show(drawn))[-1], r"all read <b>(\d)</b>"),
        }
        for tab, (html, pattern) in shown.items():
            found = re.search(pattern, html)
            assert found is not None, tab
            assert int(found[1]) == said["label"], tab
        assert f"the three files of <b>{name}</b>" in shown["export"][0]
