"""The app as a whole: the first tab in Chromium, and the endpoint for programs."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import urlopen

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, BrowserContext, Page, expect

from benchmarks import ROOT
from benchmarks.running_app import ONE, SEVEN, act, draw, open_app
from bnmodel.experiments.other_samples import KINDS
from demo.api import read_canvas
from demo.app import CHECKPOINTS
from demo.page import DEFAULT
from export.recogniser import load

ON_PAD, EVAL, TRAIN = ".pad-bars li", ".paired td.eval i", ".paired td.train i"


def bars(page: Page, side: str) -> list[float]:
    """The ten probabilities that the bars of one side show."""
    return [
        float(style.split(":")[1])
        for style in page.locator(side).evaluate_all("all => all.map(i => i.getAttribute('style'))")
    ]


def wait_for_other_bars(page: Page, side: str, before: list[float]) -> list[float]:
    page.wait_for_function(
        "([side, before]) => [...document.querySelectorAll(side)].some("
        "(i, k) => Number(i.getAttribute('style').split(':')[1]) !== before[k])",
        arg=[side, before],
    )
    return bars(page, side)


def choose(page: Page, dropdown: str, option: str) -> None:
    page.locator(f"{dropdown} input").click()
    page.get_by_role("option", name=option, exact=True).click()


def test_a_new_visitor_sees_an_example_that_is_marked_as_one(page: Page) -> None:
    expect(page.locator(".sentence")).to_contain_text("Example – draw to use your own digit")
    assert sum(bars(page, EVAL)) == pytest.approx(1, abs=1e-3)
    assert sum(bars(page, TRAIN)) == pytest.approx(1, abs=1e-3)
    draw(page, ONE)
    expect(page.locator(".sentence")).not_to_contain_text("Example")
    expect(page.locator(".sentence")).to_contain_text("Eval mode says 1")


def test_other_samples_change_the_answer_in_train_mode_and_never_in_eval_mode(page: Page) -> None:
    first = bars(page, TRAIN)
    draw(page, ONE)
    train = wait_for_other_bars(page, TRAIN, first)
    eval_bars = bars(page, EVAL)
    for change in (
        lambda: choose(page, "#kind", "blurred digits"),
        lambda: page.locator("#reshuffle").click(),
        lambda: page.locator("#count input[type=number]").fill("3"),
    ):
        change()
        train = wait_for_other_bars(page, TRAIN, train)
        assert bars(page, EVAL) == eval_bars


@pytest.mark.parametrize("network", ["robust", "lecture"])
def test_the_answer_in_eval_mode_is_the_one_on_the_pad(blank: Page, app_url: str, network: str) -> None:
    page = blank
    open_app(page, f"{app_url}/?model={network}")
    draw(page, SEVEN)
    expect(page.locator(".pad-words")).to_contain_text(f"{network} reads 7")
    expect(page.locator(".sentence")).to_contain_text("Eval mode says 7")
    assert bars(page, EVAL) == pytest.approx(pad_bars(page), abs=1e-4)


def test_the_network_chosen_at_the_top_answers_on_the_pad_and_in_the_tab(page: Page) -> None:
    by_robust = bars(page, EVAL)
    choose(page, "#model", "lecture")
    wait_for_other_bars(page, EVAL, by_robust)
    draw(page, SEVEN)
    expect(page.locator(".pad-words")).to_contain_text("lecture reads 7")
    expect(page.locator(".sentence")).to_contain_text("Eval mode says 7")
    assert bars(page, EVAL) == pytest.approx(pad_bars(page), abs=1e-4)


def pad_bars(page: Page) -> list[float]:
    """The ten probabilities on the pad."""
    return page.locator(ON_PAD).evaluate_all("all => all.map(bar => Number(bar.style.getPropertyValue('--p')))")


def test_the_class_can_be_chosen_only_for_samples_of_one_class(page: Page) -> None:
    choose(page, "#kind", "all of one class")
    expect(page.locator("#class input")).to_be_enabled()
    choose(page, "#kind", "noise")
    expect(page.locator("#class input")).to_be_disabled()


def test_a_new_digit_causes_one_request_of_the_tab(page: Page) -> None:
    page.wait_for_timeout(300)
    calls: list[str] = []
    page.on("request", lambda request: calls.append(request.url) if "/queue/join" in request.url else None)
    draw(page, SEVEN)
    expect(page.locator(".sentence")).to_contain_text("Eval mode says 7")
    page.wait_for_timeout(300)
    assert len(calls) == 1


def test_results_arrive_without_moving_the_page(page: Page) -> None:
    watched = [".pad-bars", ".pad-examples", ".paired", ".batch", "p:text('kept from training')"]
    before = [page.locator(place).bounding_box() for place in watched]
    draw(page, SEVEN)
    expect(page.locator(".sentence")).to_contain_text("Eval mode says 7")
    assert [page.locator(place).bounding_box() for place in watched] == before


def test_two_visitors_do_not_see_each_other(desktop: BrowserContext, elsewhere: BrowserContext, app_url: str) -> None:
    pages = [window.new_page() for window in (desktop, elsewhere)]
    for page, stroke in zip(pages, (ONE, SEVEN), strict=True):
        open_app(page, app_url)
        draw(page, stroke)
    for _ in range(5):
        pages[0].locator("#reshuffle").click()
    act(pages[1], "Undo")
    draw(pages[1], SEVEN)
    expect(pages[0].locator(".sentence")).to_contain_text("Eval mode says 1")
    expect(pages[1].locator(".sentence")).to_contain_text("Eval mode says 7")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_address_chooses_the_theme(desktop: BrowserContext, app_url: str, theme: str) -> None:
    page = desktop.new_page()
    open_app(page, f"{app_url}/?__theme={theme}")
    text = page.evaluate("getComputedStyle(document.querySelector('#head h1')).color")
    assert (sum(map(int, re.findall(r"\d+", text)[:3])) > 384) == (theme == "dark")


def test_no_request_leaves_this_machine(browser: Browser, app_url: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    hosts: set[str | None] = set()
    page.on("request", lambda request: hosts.add(urlparse(request.url).hostname))
    open_app(page, app_url)
    draw(page, SEVEN)
    page.wait_for_timeout(500)
    assert hosts - {None} == {"127.0.0.1"}  # None: data URLs
    context.close()


# ---- programs


@pytest.fixture(scope="module")
def client(app_url: str) -> Client:
    return Client(app_url, verbose=False, download_files=tempfile.gettempdir())


def seven(mode: str, dark_ink: bool) -> Image.Image:
    """A 7 in the middle of an image of PIL's `mode`; where there is alpha, on nothing."""
    paper, chalk = (255, 0) if dark_ink else (0, 255)
    grey = Image.new("L", (120, 100), paper)
    ImageDraw.Draw(grey).line([(40, 20), (80, 20), (55, 85)], fill=chalk, width=9, joint="curve")
    if mode == "RGBA":
        coverage = Image.fromarray(np.abs(np.asarray(grey, np.int16) - paper).astype(np.uint8))
        ink = Image.new("RGBA", grey.size, (chalk, chalk, chalk, 0))
        ink.putalpha(coverage)
        return ink
    if mode == "I;16":
        return Image.fromarray(np.asarray(grey).astype(np.uint16) * 80 + 20_000)  # all of it above 8 bits
    return grey.convert(mode)


@pytest.mark.parametrize("dark_ink", [True, False])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "RGBA", "P", "LA", "I;16"])
def test_predict_takes_an_image_of_any_mode_and_polarity(
    client: Client, tmp_path: Path, mode: str, dark_ink: bool
) -> None:
    file = tmp_path / "seven.png"
    seven(mode, dark_ink).save(file)
    answer = client.predict(handle_file(file), api_name="/predict")
    assert answer["label"] == 7
    assert not answer["blank"]
    assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-5)
    assert answer["probabilities"].index(max(answer["probabilities"])) == 7


def test_predict_says_that_an_empty_image_is_blank(client: Client, tmp_path: Path) -> None:
    Image.new("RGB", (50, 50), "white").save(tmp_path / "blank.png")
    answer = client.predict(handle_file(tmp_path / "blank.png"), api_name="/predict")
    assert answer["label"] is None
    assert answer["blank"]


def test_predict_reduces_an_image_too_large_for_the_model(client: Client, tmp_path: Path) -> None:
    seven("L", True).resize((6000, 5000)).save(tmp_path / "large.png")
    assert client.predict(handle_file(tmp_path / "large.png"), api_name="/predict")["label"] == 7


def test_predict_explains_what_is_wrong_with_a_file(client: Client, tmp_path: Path) -> None:
    text, tiny, bomb = tmp_path / "text.png", tmp_path / "tiny.png", tmp_path / "bomb.png"
    text.write_text("no image")
    Image.new("L", (5, 5)).save(tiny)
    Image.new("1", (20_000, 20_000)).save(bomb)
    for file, words in ((text, "expected a PNG"), (tiny, "at least 8 pixels"), (bomb, "decompression bomb")):
        with pytest.raises(AppError, match=words):
            client.predict(handle_file(file), api_name="/predict")


def test_the_api_page_lists_the_named_endpoints_only(client: Client) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)
    assert isinstance(endpoints, dict)
    assert "/predict" in endpoints["named_endpoints"]
    assert not endpoints["unnamed_endpoints"]
    assert all(re.fullmatch(r"/[a-z_]+", name) for name in endpoints["named_endpoints"])
    assert not [name for name in endpoints["named_endpoints"] if "refresh" in name or "lambda" in name]


# ---- further endpoints, and the snippets of docs/http-api.md


@pytest.fixture(scope="module")
def digit_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("api") / "digit.png"
    seven("L", True).save(file)
    return file


def test_the_api_pages_example_is_a_picture_on_the_callers_machine(app_url: str) -> None:
    with urlopen(f"{app_url}/gradio_api/info") as info:
        endpoints = json.load(info)["named_endpoints"]
    for endpoint in endpoints.values():
        (image, *_) = endpoint["parameters"]
        assert image["example_input"]["url"] == image["example_input"]["path"] == "digit.png"


def test_compare_modes_answers_in_both_modes_and_the_same_for_the_same_seed(client: Client, digit_file: Path) -> None:
    def call(**changes: object) -> dict[str, Any]:
        arguments = {"companions": 8, "kind": "blurred", "digit_class": 1, "seed": 3, **changes}
        return client.predict(handle_file(digit_file), **arguments, api_name="/compare_modes")

    answer = call()
    assert call() == answer
    assert answer["label_eval"] == 7
    for mode in ("eval", "train"):
        probabilities = answer[f"probabilities_{mode}"]
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert probabilities.index(max(probabilities)) == answer[f"label_{mode}"]
    network = load(CHECKPOINTS / DEFAULT).read(read_canvas(str(digit_file)))
    assert answer["probabilities_eval"] == pytest.approx(network.probabilities.tolist(), abs=1e-5)
    other = call(seed=4)
    assert other["probabilities_train"] != answer["probabilities_train"]
    assert other["probabilities_eval"] == answer["probabilities_eval"]


def test_batch_spread_measures_the_spread_of_the_answers(client: Client, digit_file: Path) -> None:
    answer = client.predict(handle_file(digit_file), batch_size=4, seed=0, api_name="/batch_spread")
    assert answer["label"] == 7
    assert 0 <= answer["flipped"] <= 1
    assert list(answer["quantiles"]) == ["1", "2", "4", "8", "16", "32", "64", "128", "256"]
    widths = {size: high - low for size, (low, _, high) in answer["quantiles"].items()}
    assert widths["1"] == 0  # alone: no chance
    assert widths["256"] < widths["4"]


@pytest.mark.parametrize(
    ("endpoint", "arguments", "words"),
    [
        ("/compare_modes", {"companions": 256}, "companions: expected a whole number 0 … 255, received 256"),
        ("/compare_modes", {"companions": 1.5}, "companions: expected a whole number"),
        ("/compare_modes", {"kind": "friends"}, "kind: expected one of random"),
        ("/compare_modes", {"digit_class": 10}, "digit_class: expected a whole number 0 … 9"),
        ("/compare_modes", {"seed": -1}, "seed: expected a whole number"),
        ("/batch_spread", {"batch_size": 0}, "batch_size: expected a whole number 1 … 256, received 0"),
    ],
)
def test_values_out_of_range_are_refused_with_the_expected_range(
    client: Client, digit_file: Path, endpoint: str, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(AppError, match=words):
        client.predict(handle_file(digit_file), **arguments, api_name=endpoint)


def test_compare_modes_refuses_a_blank_image(client: Client, tmp_path: Path) -> None:
    Image.new("L", (50, 50)).save(tmp_path / "blank.png")
    with pytest.raises(AppError, match="received a blank image"):
        client.predict(handle_file(tmp_path / "blank.png"), api_name="/compare_modes")


def snippets(app_url: str) -> dict[str, str]:
    """The code of docs/http-api.md by its heading, for the app at `app_url`."""
    text = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8").replace("http://localhost:7860", app_url)
    return {
        title: code for title, code in re.findall(r"^## (\w+)\n.*?```\w+\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    }


@pytest.mark.parametrize(
    ("title", "command", "words"),
    [
        ("Python", [sys.executable, "-c"], "eval mode: 7 train mode: "),
        ("HTTP", ["sh", "-c"], '"label": 7'),
        ("MCP", [sys.executable, "-c"], "['predict', 'compare_modes', 'batch_spread']\n{"),
    ],
)
def test_the_snippets_of_the_documentation_work(
    app_url: str, digit_file: Path, title: str, command: list[str], words: str
) -> None:
    if title == "MCP":
        pytest.importorskip("mcp")
    code = snippets(app_url)[title]
    done = subprocess.run([*command, code], cwd=digit_file.parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout


def test_the_documentation_lists_every_kind_of_other_samples() -> None:
    text = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")
    listed = re.search(r"`kind` is one of (.*?)\.", text, re.DOTALL)
    assert listed is not None
    assert re.findall("`(.*?)`", listed[1]) == list(KINDS)


def test_every_parameter_of_a_tool_is_described_over_mcp(app_url: str) -> None:
    pytest.importorskip("mcp")
    with urlopen(f"{app_url}/gradio_api/mcp/schema", timeout=30) as answer:
        tools = json.load(answer)
    assert [tool["name"] for tool in tools] == ["predict", "compare_modes", "batch_spread"]
    for tool in tools:
        for name, schema in tool["inputSchema"]["properties"].items():
            assert len(schema["description"]) > 10, (tool["name"], name)
        assert "data: URL" in tool["inputSchema"]["properties"]["image"]["description"]
