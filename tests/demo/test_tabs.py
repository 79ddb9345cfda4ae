"""The tabs: their numbers are right, follow the drawing, and are not mixed up between visitors."""

import copy
import functools
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect
from torch import nn

from benchmarks.running_app import SEVEN, act, draw, open_app, watch_errors
from bnmodel import CustomBatchNorm
from bnmodel.data import load_sample
from bnmodel.deploy.loading import FORMATS, load_file
from bnmodel.experiments import worked_example
from bnmodel.experiments.batch_spread import BatchSpread
from bnmodel.experiments.batch_statistics import custom_batchnorms
from bnmodel.experiments.early_stopping import MOST_PATIENCE
from bnmodel.experiments.other_samples import KINDS, Others, other_samples
from demo import components, worked_html
from demo.app import CHECKPOINTS
from demo.images import diverging, grey
from demo.page import Drawn
from demo.page import Page as Frame
from demo.shared_controls import AUTO, MOST_SHIFTED
from demo.tabs import (
    chance,
    convergence,
    corruption,
    faults,
    files,
    gradients,
    initialise,
    inputs,
    statistics,
    stopping,
    why,
    worked_out,
    xray,
    your_digit,
)
from tests.demo.tab_helpers import PICTURES, choose_tab

WITHOUT_DRAWING = ("Initialise", "Inputs", "Gradients", "Convergence", "Stopping")  # the lecture's own pictures


@pytest.fixture(scope="module")
def frame() -> Frame:
    return Frame(CHECKPOINTS)


@pytest.fixture(scope="module")
def example(frame: Frame) -> Drawn:
    return frame.drawn(None, next(iter(frame.models)))


# ---- numbers


def with_torch_batch_norm(model: nn.Module) -> nn.Module:
    """A copy whose batch norms are torch's own, in train mode; dropout stays off."""
    network = copy.deepcopy(model).eval()
    for name, norm in list(network.named_modules()):
        if isinstance(norm, CustomBatchNorm):
            network.set_submodule(name, norm.to_torch(2).train())
    return network


@pytest.mark.parametrize(
    ("model", "layer", "norm"),
    [
        ("lecture", 0, "block1.norm"),
        ("lecture", 4, "block2.norm"),  # an address may ask for more layers than there are
        ("robust", 4, "conv5.norm"),
    ],
)
def test_the_chosen_norm_is_shown_or_the_last_one_of_a_network_with_fewer_norms(
    frame: Frame, model: str, layer: int, norm: str
) -> None:
    drawn = frame.drawn(None, model)
    assert f"of <b>{norm}</b>" in worked_out.show(drawn, 1, "random", 1, 0, layer, 0, 1, 0, -5, -1)
    if model == "lecture":
        assert f"of {norm} is" in statistics.show(drawn, 1, "random", 1, 0, layer, 0, 0.1, 2)


def test_a_missing_channel_is_replaced_with_a_message(frame: Frame) -> None:
    drawn = frame.drawn(None, "lecture")
    told = "block1.norm has channels 0 to 9; 9 is shown."
    assert told in worked_out.show(drawn, 1, "random", 1, 0, 0, 99, 1, 0, -5, -1)
    assert told in statistics.show(drawn, 1, "random", 1, 0, 0, 99, 0.1, 2)


def test_an_average_over_more_batches_than_were_seen_does_not_claim_to_cover_them(frame: Frame) -> None:
    drawn = frame.drawn(None, "lecture")
    for momentum, told in (
        (0.01, "needs about <b>199 batches</b>. After only 60 batches"),
        (0.1, "covers about the last <b>19 batches</b>. After 60 batches"),
        (1, "covers about the last <b>batch</b>. After 60 batches"),
    ):
        assert told in statistics.show(drawn, 1, "random", 1, 0, 0, 0, momentum, 2)


@pytest.mark.parametrize("network", ["lecture", "robust"])
def test_the_task_of_faults_can_be_done_with_any_digit(frame: Frame, network: str) -> None:
    drawn, test = frame.drawn(None, network), load_sample(train=False)
    digits = [test.images[test.labels == label][0, 0] for label in range(10)]
    for digit in [*digits, torch.ones(28, 28), torch.eye(28)]:
        assert "data-done" in faults.show(replace(drawn, digit=digit), 1)
        assert "data-done" not in faults.show(replace(drawn, digit=digit), faults.CALLS)  # the first look


@pytest.mark.parametrize("network", ["lecture", "robust"])
def test_the_tasks_of_why_corruption_and_stopping_can_be_done_with_any_network(frame: Frame, network: str) -> None:
    drawn = frame.drawn(None, network)
    assert "data-done" in why.show(drawn, 31, "blank", 1, 0, 0, MOST_SHIFTED)[0]
    assert "data-done" not in why.show(drawn, 31, "random", 1, 0, 0, MOST_SHIFTED)[0]
    assert "data-done" in corruption.show(drawn, "contrast", 2)
    assert "data-done" not in corruption.show(drawn, "contrast", corruption.BATCH_SIZE)
    assert sum("data-done" in stopping.show(drawn, patience) for patience in range(1, MOST_PATIENCE + 1)) == 1


def test_the_task_of_your_digit_needs_other_digits_in_the_batch(frame: Frame) -> None:
    drawn = frame.drawn(None, "robust")
    alone, others = (your_digit.show(drawn, count, "one class", 1, 0) for count in (0, 31))
    assert "train mode says" in alone
    assert "data-done" not in alone
    assert "train mode says" in others
    assert "data-done" in others


@pytest.mark.parametrize("batch", [(31, AUTO, 1, 0), (31, "inverted", 1, 0)])
def test_the_most_shifted_channel_is_the_same_in_every_tab(frame: Frame, batch: tuple[int, str, int, int]) -> None:
    drawn = frame.drawn(None, "lecture")
    in_worked = re.search(r"Channel (\d+) of", worked_out.show(drawn, *batch, 1, -1, 1, 0, -5, -1))
    in_statistics = re.search(r"mean of channel (\d+) of", statistics.show(drawn, *batch, 1, -1, 0.1, 2))
    assert in_worked is not None
    assert in_statistics is not None
    assert in_worked[1] == in_statistics[1]


def test_the_worked_out_numbers_are_those_of_the_experiment_at_the_pixel(frame: Frame) -> None:
    drawn = frame.drawn(None, "lecture")
    others = other_samples("random", 3, 2, drawn.digit)
    expected = worked_example.run(drawn.model.network, drawn.digit, others, "block2.norm", 7, 5)
    page = worked_out.show(drawn, 3, "random", 1, 2, 1, 7, 1, 0, -5, 5)
    values = [float(value) for value in re.findall(r'data-value="([^"]+)"', page)]
    steps = [
        (step.mean, step.var, step.centred, step.normalized, step.output) for step in (expected.batch, expected.running)
    ]
    assert values[:2] == pytest.approx([expected.value] * 2, abs=1e-3)
    assert values[2::2] == pytest.approx(steps[0], abs=1e-3)
    assert values[3::2] == pytest.approx(steps[1], abs=1e-3)
    assert "data-done" not in page
    assert "data-done" in worked_out.show(drawn, 3, "random", 1, 2, 1, 7, 0, 0, -5, 5)


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "0.000"), (-2.6221, "−2.622"), (0.004638, "0.00464"), (-0.0486, "−0.0486"), (3e-9, "3.00e−09")],
)
def test_small_numbers_keep_the_digits_that_pupils_need_to_compute_with_them(value: float, words: str) -> None:
    assert worked_html.short(value) == words


@pytest.mark.parametrize(("eps", "words"), [(1e-5, "0.00001"), (10**-4.5, "0.0000316"), (10.0, "10")])
def test_the_epsilon_is_written_as_a_calculator_takes_it(eps: float, words: str) -> None:
    assert worked_html.plain(eps) == words


def test_factors_over_many_layers_are_shown_as_powers_of_ten() -> None:
    assert initialise.short(1.2e24) == "1.2\u00a0·\u00a010<sup>24</sup>"
    assert initialise.short(1.2e-5).endswith("10<sup>−5</sup>")
    assert initialise.short(0.25) == "0.25"


def test_the_sentence_of_why_is_about_the_norm_that_is_shown(frame: Frame) -> None:
    drawn = frame.drawn(None, "lecture")
    for layer, name in enumerate(custom_batchnorms(drawn.model.network)):
        shown, _ = why.show(drawn, 31, "inverted", 1, 0, layer, -1)
        assert f"in <b>{name}</b> the mean of channel" in shown


def test_the_first_look_finds_a_batch_that_changes_the_answer_and_names_it(frame: Frame) -> None:
    shown = your_digit.show(frame.drawn(None, "robust"), 31, AUTO, 1, 0)
    said = re.search(r"Eval mode says (\d)</b> .*\. (.*), <b class=.train.>train mode says (\d)", shown)
    assert said is not None
    assert said[1] != said[3]
    assert "in the batch" in said[2]


def test_an_answer_that_no_batch_changes_comes_with_advice_on_what_to_try(frame: Frame) -> None:
    probabilities = np.eye(10, dtype=np.float32)[7]
    drawn = replace(frame.drawn(None, "lecture"), probabilities=probabilities)
    same, other = (
        your_digit.in_words(drawn, probabilities, Others("blank", 7, None, 0), flips) for flips in (False, True)
    )
    assert same.endswith(f"this one comes closest. {your_digit.ELSEWHERE}")
    assert your_digit.ELSEWHERE not in other


def test_blue_and_orange_are_for_eval_and_train_only(example: Drawn) -> None:
    for shown in (
        inputs.bowls(3, 1, 0, 0.9, 0, 40, 200),
        gradients.comparison("he_normal", 0.1, 0, 0.1, 0),
        stopping.recorded(example.model.folder, 5),
        convergence.recorded("he_normal", 0.3),
        initialise.stack_picture("relu", 3, 0, 1, 1, 0),
    ):
        assert "var(--eval" not in shown
        assert "var(--train" not in shown


@pytest.mark.parametrize("count", [0, 1, 31])
@pytest.mark.parametrize("kind", KINDS)
def test_the_bars_of_train_mode_are_what_torchs_own_batch_norm_answers(example: Drawn, kind: str, count: int) -> None:
    shown = re.findall(r"--p:([\d.]+)", your_digit.show(example, count, kind, 1, 5))
    others = other_samples(kind, count, 5, example.digit, 1)
    with torch.no_grad():
        batch = torch.cat((example.digit.view(1, 1, 28, 28), others))
        expected = with_torch_batch_norm(example.model.network)(batch)[0].exp().numpy()
    assert np.array(shown[1::2], float) == pytest.approx(expected, abs=1e-4)
    assert np.array(shown[::2], float) == pytest.approx(example.probabilities, abs=1e-4)


def test_the_x_ray_shows_each_number_that_the_network_gets(example: Drawn) -> None:
    shown = [int(value) for value in re.findall(r">(\d+)</text>", xray.numbers(example.digit.numpy()))]
    values = grey(example.digit.numpy()).ravel()
    assert shown == values[values > 0].tolist()


def test_the_x_ray_shows_a_share_of_ink_near_the_tasks_limit_with_a_decimal(example: Drawn) -> None:
    canvas = np.full((100, 100, 4), 255, np.uint8)
    canvas[45:55, 44:58, :3] = 0  # 1.4%
    assert re.search(r"\b1\.4%", xray.show(replace(example, canvas=canvas)))


def test_the_difference_of_the_formats_is_the_largest_of_any_pair_and_digit() -> None:
    answers = [np.full(10, 0.1), np.full(10, 0.1), np.full(10, 0.1)]
    answers[1][3], answers[2][3] = 0.25, 0.05
    assert files.largest_difference(answers) == pytest.approx(0.2)


loaded = functools.cache(load_file)


@pytest.fixture
def each_file_loads_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In all tests with this fixture together: torch.export's files take seconds to load."""
    monkeypatch.setattr(files, "load_file", loaded)
    monkeypatch.setattr(files, "_LOADED", {})


@pytest.mark.usefixtures("each_file_loads_once")
def test_the_formats_agree_on_the_example(example: Drawn) -> None:
    answers = [run(example.canvas)[0] for run in files.sketches(example.model.folder).values()]
    assert len(answers) == len(FORMATS) - 1  # the app's own answer is that of the third
    assert files.largest_difference([*answers, example.probabilities]) < 1e-5


@pytest.mark.usefixtures("each_file_loads_once")
def test_the_export_tab_shows_the_apps_own_answer_while_the_other_files_are_loaded(example: Drawn) -> None:
    first, whole = files.show(example)
    assert f"reads <b>{example.label}</b>" in first
    assert first.count("…</td>") == 20
    assert "…</td>" not in whole
    (again,) = files.show(example)
    assert again == whole


def test_no_line_of_a_tabs_sentence_begins_with_a_percent_sign(example: Drawn) -> None:
    assert not re.search(r"\s%", xray.show(example))


# ---- in Chromium


@pytest.fixture(scope="module")
def opened(browser: Browser, app_url: str) -> Iterator[Page]:
    """A page all of whose tabs have shown the example; fails its tests if it wrote an error to the console."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    errors = watch_errors(page)
    open_app(page, app_url)
    for title in PICTURES:
        choose_tab(page, title)
    yield page
    page.context.close()
    assert errors == []


def test_every_tab_says_what_it_shows(opened: Page) -> None:
    for title in PICTURES:
        choose_tab(opened, title)
        if title in WITHOUT_DRAWING:
            expect(opened.locator(".sentence:visible").first).not_to_be_empty()
        else:
            expect(opened.locator(".sentence:visible")).to_contain_text("Example – draw to use your own digit")


# of what a tab shows, with the text of its figures, the rightmost edge
RIGHTMOST = """() => {
    const parts = document.querySelectorAll('.question, .look, .picture, .picture :is(svg, svg text)');
    return Math.max(...[...parts].filter(one => one.checkVisibility()).map(one => one.getBoundingClientRect().right));
}"""


def test_no_tab_is_wider_than_the_screen_however_small(opened: Page) -> None:
    for width in (768, 390, 1280):
        opened.set_viewport_size({"width": width, "height": 844})
        for title in PICTURES:
            choose_tab(opened, title)
            opened.wait_for_timeout(50)
            assert 0 < opened.evaluate(RIGHTMOST) <= width, f"{title} at {width}"


def test_every_tab_follows_the_drawing(page: Page) -> None:
    choose_tab(page, "Chance")
    draw(page, SEVEN)
    expect(page.locator("#chance .sentence")).to_contain_text("probability of 7")
    for title in PICTURES.keys() - WITHOUT_DRAWING:
        choose_tab(page, title)
        expect(page.locator(".sentence:visible")).not_to_contain_text("Example")
    expect(page.locator("#parity .sentence")).to_contain_text("all read 7")


# of a text, and of the first opaque element behind it
COLOURS = """text => {
    let behind = text;
    while (getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
    return [getComputedStyle(text).fill, getComputedStyle(behind).backgroundColor];
}"""


def test_the_text_of_a_figure_is_legible_in_either_theme(desktop: BrowserContext, app_url: str) -> None:
    for theme in ("light", "dark"):
        page = desktop.new_page()
        open_app(page, f"{app_url}/?__theme={theme}")
        choose_tab(page, "Corruption")
        colour, paper = page.locator("#corruption .figure text >> nth=0").evaluate(COLOURS)
        assert contrast(colour, paper) > 7, theme


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio, 1 … 21, of two CSS colours."""
    lights = []
    for colour in (one, other):
        shares = np.array([int(value) / 255 for value in re.findall(r"\d+", colour)[:3]])
        linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
        lights.append(float(linear @ (0.2126, 0.7152, 0.0722)))
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_operation_between_two_maps_is_written_between_them(
    desktop: BrowserContext, app_url: str, width: int
) -> None:
    page = desktop.new_page()
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{app_url}/?tab=worked-out")
    page.wait_for_selector(".flow-row")
    gaps = page.evaluate(
        """[...document.querySelectorAll(".flow-row > span")].flatMap(span => {
          const text = document.createRange()
          text.selectNodeContents(span)
          const [before, own, after] = [span.previousElementSibling, text, span.nextElementSibling].map(
            part => part.getBoundingClientRect()
          )
          return [own.left - before.right, after.left - own.right]
        })"""
    )
    assert len(gaps) == 8
    assert min(gaps) >= 0


def test_a_visitors_train_mode_changes_no_other_visitors_answers(
    desktop: BrowserContext, elsewhere: BrowserContext, app_url: str
) -> None:
    busy, calm = desktop.new_page(), elsewhere.new_page()
    open_app(busy, app_url)
    open_app(calm, app_url)
    first = {digit: answers_to_example(calm, digit) for digit in (7, 0)}
    for title in ("Faults", "Chance"):  # train mode again and again
        choose_tab(busy, title)
    for _ in range(4):
        busy.locator("#chance-reshuffle").click()
        assert {digit: answers_to_example(calm, digit) for digit in (7, 0)} == first


def answers_to_example(page: Page, digit: int) -> list[str | None]:
    """Load one of the pad's examples, another digit than is there now, and wait for the first tab's answers."""
    act(page, f"Load an example of a {digit}")
    expect(page.locator("#modes .sentence")).to_contain_text(f"Eval mode says {digit}")
    return bars(page)


def bars(page: Page) -> list[str | None]:
    """What the first tab and the pad show of both modes' probabilities."""
    return page.locator("#modes i, .pad-bars li").evaluate_all("all => all.map(bar => bar.getAttribute('style'))")


def test_the_exported_files_can_be_downloaded_under_the_networks_name_and_nothing_else_beside_them(
    page: Page, app_url: str, tmp_path: Path
) -> None:
    choose_tab(page, "Export")
    link = page.locator("#download-file")
    size = (CHECKPOINTS / "robust" / "sketch.onnx").stat().st_size / 1e6
    expect(link).to_have_text(f"Download robust-sketch.onnx ({size:.1f} MB)")
    with page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename == "robust-sketch.onnx"
    download.value.save_as(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == (CHECKPOINTS / "robust" / "sketch.onnx").read_bytes()
    expect(page.locator("#to-export")).to_have_class(re.compile("is-done"))
    for path in (CHECKPOINTS / "robust" / "best.pt", Path(__file__), Path("README.md").absolute()):
        assert page.request.get(f"{app_url}/gradio_api/file={path}").status == 403


def test_a_picture_of_positive_and_negative_values_is_transparent_where_they_are_zero() -> None:
    pixels = diverging(np.array([[-2.0, 0.0, 1.0]]), 2.0)
    assert pixels[0, :, 3].tolist() == [255, 0, 127]
    assert pixels[0, 0, :3].tolist() != pixels[0, 2, :3].tolist()
    assert Image.fromarray(pixels).mode == "RGBA"


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ([(4.3e-2, 0.25), (1.2e-7, 0.29)], "largest difference 4.3e-02, at most 29% of what is allowed"),
        ([(1.2e-9, 0.0001), (0.0, 0.0)], "largest difference 1.2e-09, less than 1% of what is allowed"),
        ([(0.0, 0.0), (0.0, 0.0)], "no difference"),
        ([(None, None)], "10 files"),
    ],
)
def test_a_row_of_the_certificate_has_the_largest_difference_and_share(
    measured: list[tuple[Any, Any]], expected: str
) -> None:
    checks = [{"detail": "10 files", "difference": difference, "share": share} for difference, share in measured]
    assert files.worst(checks) == expected


def test_files_that_agree_bit_for_bit_are_reported_as_equal(example: Drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    same = {name: lambda canvas: [example.probabilities] for name in FORMATS if name != "onnx"}
    monkeypatch.setattr(files, "_LOADED", {example.model.folder: same})
    (shown,) = files.show(example)
    assert "probabilities are <b>equal</b> bit for bit" in shown
    assert "0.0e+00" not in shown


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.5, 0.9, "lies between 50% and 90% in 8 of 10"),
        (0.5, 0.5, "is 50% in 8 of 10"),
        (0.98, 0.9999, "is at least 98% in 9 of 10"),  # the 10% quantile alone bounds it
        (0.9999, 0.99995, "is above 99.9% in 9 of 10"),
        (0.0001, 0.5, "is at most 50% in 9 of 10"),
    ],
)
def test_chance_says_in_how_many_batches_the_probability_is_within_its_bounds(
    low: float, high: float, expected: str
) -> None:
    spread = np.array([[low, (low + high) / 2, high]])
    result = BatchSpread(7, 0.99, 2, np.full(200, 0.5), 0.0, np.array([2]), spread)
    assert f"the probability of 7 {expected}, and it stays" in chance.in_words(result)


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (634.2, 2, "630"),
        (1604, 2, "1600"),
        (2.96, 2, "3.0"),
        (3.2, 3, "3.20"),
        (0.01, 2, "0.010"),
        (0.999, 2, "1.0"),
        (8.5e-5, 2, "0.000085"),
        (0.0, 2, "0"),
        (2.5e7, 2, "2.5e+07"),
        (float("nan"), 3, "nan"),
    ],
)
def test_values_of_a_column_have_equally_many_digits_and_no_exponent(value: float, digits: int, expected: str) -> None:
    assert components.significant(value, digits) == expected
