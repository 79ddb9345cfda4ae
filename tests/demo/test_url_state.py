"""The settings of a tab in the address, reset to their defaults, and in the tab's code."""

import dataclasses
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import gradio as gr
import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, Page, expect

from benchmarks.running_app import open_app
from bnmodel.deploy.loading import FORMATS, _field_types_remembered
from demo import url_state
from demo.app import CHECKPOINTS, build_app
from demo.page import Drawn
from demo.page import Page as Frame
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

PATIENCE = 30_000  # ms, for a page that is opened anew


@pytest.fixture(scope="module")
def blocks() -> list[gr.blocks.Block]:
    return list(build_app().blocks.values())


@pytest.fixture(scope="module")
def example() -> Drawn:
    return Frame(CHECKPOINTS).drawn(None, "lecture")


def tabs_of(blocks: list[gr.blocks.Block]) -> dict[str, gr.Tab]:
    return {str(block.label): block for block in blocks if isinstance(block, gr.Tab)}


def folds_of(tab: gr.Tab) -> dict[str, str]:
    """Title → text of what is folded away at the end of a tab."""
    return {
        str(child.label): "".join(part.value or "" for part in child.children if isinstance(part, gr.Markdown))
        for child in tab.children
        if isinstance(child, gr.Accordion)
    }


def setting(page: Page, name: str) -> str:
    """What a control shows: a slider, a number or a dropdown."""
    return page.locator(f"#{name} input:not([type=range])").first.input_value()


# ---- without a browser


def test_a_slider_is_described_by_its_range_and_a_dropdown_by_its_choices() -> None:
    with gr.Blocks():
        slider = gr.Slider(0.5, 2, 1, step=0.5, elem_id="s")
        dropdown = gr.Dropdown([("one", 1), ("two", 2)], value=2, elem_id="d")
    assert url_state.describe([slider, dropdown]) == {
        "s": {"value": 1, "minimum": 0.5, "maximum": 2, "step": 0.5},
        "d": {"value": 2, "choices": [1, 2]},
    }


def test_a_control_without_a_name_is_refused_with_the_remedy() -> None:
    with gr.Blocks(), pytest.raises(ValueError, match="expected an elem_id"):
        url_state.describe([gr.Slider(0, 1)])


def test_names_on_the_page_are_unique(blocks: list[gr.blocks.Block]) -> None:
    names = [block.elem_id for block in blocks if block.elem_id]
    assert len(names) == len(set(names))
    assert "tab" not in names


def test_every_tab_ends_in_its_code_and_then_its_formula(blocks: list[gr.blocks.Block]) -> None:
    tabs = tabs_of(blocks)
    assert tabs.keys() == PICTURES.keys() | {"Your model"}
    for title, tab in tabs.items():
        folds = list(folds_of(tab))
        assert folds[:-1] == ([] if title == "Export" else ["In code"]), title  # Export shows its code unfolded
        seen = [child for child in tab.children if not isinstance(child, gr.State)]
        assert isinstance(seen[-1], gr.Accordion), title


# the arguments of each tab's `snippet`: its controls' values
BATCH = (31, "auto", 1, 0)
CODE: list[tuple[ModuleType, tuple[Any, ...]]] = [
    (your_digit, BATCH),
    (your_digit, (3, "one class", 4, 7)),
    (xray, ()),
    (chance, (2, 0)),
    (why, (*BATCH, 0, -1)),
    (why, (*BATCH, 4, -1)),  # of two norms, the last
    (worked_out, (*BATCH, 0, -1, 1, 0, -5, -1)),
    (worked_out, (3, "noise", 1, 5, 1, 12, -0.5, 2, 0, 3)),
    (statistics, (*BATCH, 1, 3, 0.2, 4)),
    (faults, (20,)),
    (corruption, ("noise", 10)),
    (initialise, ("tanh", 0.1, 0.5, 2, 1, 30, 10, 3)),
    (inputs, (2, 1, 0.5, 0.8, 0.5, 20, 10)),
    (gradients, ("glorot_normal", 0.1, 2, 0.3, 1)),
    (convergence, (0.3, "he_normal", 1, 0)),
    (stopping, (3, 0.2, 0.01, 1, 0)),
    *((files, (f"{stem}.{form}",)) for stem in files.TAKES for form in FORMATS),
]


@pytest.mark.parametrize(("tab", "settings"), CODE, ids=lambda value: str(getattr(value, "__name__", value)))
def test_the_code_of_a_tab_runs_as_it_stands_with_its_settings(
    tab: ModuleType, settings: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: Drawn
) -> None:
    (tmp_path / "checkpoints").symlink_to(CHECKPOINTS)
    for name in ("digit.png", "drawing.png"):
        Image.fromarray(example.canvas).save(tmp_path / name)
    files.exported(example.model, tmp_path)
    monkeypatch.chdir(tmp_path)
    code = tab.snippet(example, *settings)
    with _field_types_remembered():  # torch.export's files load in two thirds of the time
        exec(compile(code, f"{tab.__name__}, in code", "exec"), {})
    made = [path for path in tmp_path.glob("*.png") if path.name not in ("digit.png", "drawing.png")]
    assert {path.name for path in made} == set(re.findall(r"[\w-]+\.png", code)) - {"digit.png", "drawing.png"}
    assert all(path.stat().st_size > 500 for path in made)
    assert made or tab in (your_digit, files)


def test_the_code_reads_the_drawing_once_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: Drawn
) -> None:
    drawn = dataclasses.replace(example, is_example=False)
    (tmp_path / "checkpoints").symlink_to(CHECKPOINTS)
    Image.fromarray(example.canvas).save(tmp_path / "digit.png")
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(compile(your_digit.snippet(drawn, *BATCH), "in code", "exec"), found)
    assert int(found["result"].eval_probabilities.argmax()) == example.label


# ---- in Chromium


def test_the_address_has_changed_controls_and_no_defaults(page: Page) -> None:
    choose_tab(page, "Gradients")
    expect(page).to_have_url(re.compile(r"\?tab=gradients$"))
    page.locator("#grad-steps input[type=number]").fill("3")
    expect(page).to_have_url(re.compile(r"\?tab=gradients&grad-steps=3$"))
    page.locator("#grad-reshuffle").click()
    expect(page).to_have_url(re.compile(r"\?tab=gradients&grad-steps=3&grad-reshuffle-seed=1$"))
    page.locator("#grad-steps input[type=number]").fill("0")
    expect(page).to_have_url(re.compile(r"\?tab=gradients&grad-reshuffle-seed=1$"))
    choose_tab(page, "Your digit")
    expect(page).to_have_url(re.compile(r"/$"))


def test_a_link_opens_its_tab_with_its_settings_and_their_picture(blank: Page, app_url: str) -> None:
    page = blank
    page.goto(f"{app_url}/?__theme=light&tab=chance&batch-size=64&chance-reshuffle-seed=7")
    expect(page.locator("#chance .sentence")).to_contain_text("In random batches of 64", timeout=PATIENCE)
    expect(page.get_by_role("tab", name="Chance", exact=True)).to_have_attribute("aria-selected", "true")
    expect(page).to_have_url(re.compile(r"\?__theme=light&tab=chance&batch-size=64&chance-reshuffle-seed=7$"))


def test_a_link_to_the_first_tab_sets_it_too(blank: Page, app_url: str) -> None:
    page = blank
    page.goto(f"{app_url}/?count=3&kind=noise")
    expect(page.locator("#modes figcaption")).to_contain_text("3 sheets of noise", timeout=PATIENCE)
    assert setting(page, "kind") == "noise"


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("grad-steps=999", {"grad-steps": "20"}),
        ("grad-steps=-1", {"grad-steps": "0"}),
        ("grad-std=0.123", {"grad-std": "0.12"}),
        ("grad-steps=many&grad-std=&grad-init=NaN&grad-steps2=1", {"grad-steps": "0", "grad-std": "0.1"}),
        ("grad-init=%3Cscript%3E&grad-std=Infinity", {"grad-init": "He normal", "grad-std": "0.1"}),
        ("grad-init=constructor&grad-reshuffle-seed=1e99", {"grad-init": "He normal"}),
        ("grad-init=glorot_uniform", {"grad-init": "Glorot uniform", "grad-steps": "0"}),
    ],
)
def test_invalid_parameters_of_an_address_are_ignored(
    blank: Page, app_url: str, query: str, shown: dict[str, str]
) -> None:
    page = blank
    page.goto(f"{app_url}/?tab=gradients&{query}")
    page.wait_for_selector(PICTURES["Gradients"])
    expect(page.locator("#gradients .sentence")).not_to_be_empty()
    assert {name: setting(page, name) for name in shown} == shown


def test_an_unknown_tab_opens_the_first_one(blank: Page, app_url: str) -> None:
    open_app(blank, f"{app_url}/?tab=nonsense")
    expect(blank.get_by_role("tab", name="Your digit", exact=True)).to_have_attribute("aria-selected", "true")


def test_reset_puts_a_tabs_controls_back_and_asks_the_server_for_nothing_but_the_picture(page: Page) -> None:
    choose_tab(page, "Inputs")
    names = ("in-scale", "in-offset", "in-steps")
    before = {name: setting(page, name) for name in names}
    first = page.locator("#inputs .sentence").inner_text()
    for name in names:
        page.locator(f"#{name} input[type=number]").fill("2")
    expect(page.locator("#inputs .sentence")).not_to_have_text(first)
    page.locator("[data-do=reset]:visible").click()
    expect(page.locator("#inputs .sentence")).to_have_text(first)
    assert {name: setting(page, name) for name in names} == before
    expect(page).to_have_url(re.compile(r"\?tab=inputs$"))


def test_every_tab_can_be_copied_as_a_link_and_reset_where_it_has_controls(page: Page) -> None:
    for title in PICTURES:
        choose_tab(page, title)
        expect(page.locator("[data-do=link]:visible")).to_have_count(1)
        assert page.locator("[data-do=reset]:visible").count() == (title != "X-ray"), title


@pytest.mark.parametrize("allowed", [True, False])
def test_a_copied_link_is_the_address_and_the_button_says_so(
    desktop: BrowserContext, app_url: str, allowed: bool
) -> None:
    desktop.grant_permissions(["clipboard-read", "clipboard-write"])
    page = desktop.new_page()
    if not allowed:  # as without https
        page.add_init_script("navigator.clipboard.writeText = () => Promise.reject()")
    open_app(page, app_url)
    page.locator("#try-31-ones").click()
    expect(page.locator("#count input[type=number]")).to_be_enabled()
    page.locator("#count input[type=number]").fill("5")
    expect(page.locator("#modes figcaption")).to_contain_text("5 ones")
    page.locator("[data-do=link]:visible").click()
    expect(page.locator("[data-do=link]:visible")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == f"{app_url}/?count=5&kind=one+class"
    expect(page.locator("[data-do=link]:visible")).to_have_text("Copy link")
