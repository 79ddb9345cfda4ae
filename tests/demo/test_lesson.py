"""The lesson of docs/lesson.md with the keyboard only, and links to its steps."""

import re

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from benchmarks.running_app import SEVEN, answer, draw

SENTENCE = "[role=tabpanel]:visible .sentence"


def step_to(page: Page, selector: str, most: int = 25) -> None:
    """Press Tab until an element that matches has the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} is more than {most} Tab presses away")


def open_by_arrows(page: Page, title: str) -> None:
    """From wherever the focus is: back to the tab list by its skip link, and along it."""
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    for _ in range(page.locator(".path [role=tab]").count()):
        if page.locator(".path [aria-selected=true]").inner_text().startswith(title):
            break
        page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tabpanel", name=title)).to_be_visible()


def test_the_ten_minutes_of_the_lesson_need_no_mouse(page: Page) -> None:
    page.locator(".pad-canvas").focus()
    step_to(page, "[data-example]")
    for _ in range(7):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator(".pad-digit")).to_have_text("7")
    expect(page.locator(SENTENCE)).to_contain_text("Eval mode says 7")

    open_by_arrows(page, "Your digit")
    step_to(page, "#kind input")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator(SENTENCE)).to_contain_text("31 random digits in the batch")

    open_by_arrows(page, "Worked out")
    expect(page.locator(SENTENCE)).to_contain_text(re.compile(r"row \d+, column \d+"))
    row = re.search(r"row (\d+)", page.locator(SENTENCE).inner_text())
    assert row is not None
    step_to(page, "#worked [data-grid]")
    page.keyboard.press("ArrowDown")
    expect(page.locator(SENTENCE)).to_contain_text(f"row {int(row[1]) + 1},")

    open_by_arrows(page, "Faults")
    expect(page.locator(SENTENCE)).to_contain_text("After 50 predictions")
    step_to(page, "#calls input[type=range]")
    page.keyboard.press("ArrowRight")
    expect(page.locator(SENTENCE)).to_contain_text("After 51 predictions")

    step_to(page, "#next button", 40)
    page.keyboard.press("Enter")
    expect(page.get_by_role("tabpanel", name="Corruption")).to_be_visible()
    assert answer(page) == "7"


@pytest.mark.parametrize(
    ("tab", "query"),
    [
        ("chance", "&batch-size=4&chance-reshuffle-seed=3&model=lecture"),
        ("worked-out", "&kind=blurred&count=5&worked-gamma=2"),
    ],
)
def test_a_link_to_a_step_reproduces_its_sentence_exactly(
    desktop: BrowserContext, elsewhere: BrowserContext, app_url: str, tab: str, query: str
) -> None:
    first, other = desktop.new_page(), elsewhere.new_page()
    first.goto(f"{app_url}/?tab={tab}{query}")
    first.wait_for_selector(SENTENCE)
    draw(first, SEVEN)
    expect(first.locator(SENTENCE)).not_to_contain_text("xample")
    first.wait_for_timeout(500)
    said = first.locator(SENTENCE).inner_text()
    other.goto(f"{first.url}#drawing={first.evaluate('drawingCode()')}")
    expect(other.locator(SENTENCE)).to_have_text(said)
