"""The page under a finger, with the keyboard only, in forced colours and without a connection, in Chromium."""

import io

import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, ViewportSize, expect

from benchmarks.running_app import SEVEN, draw, open_app

TARGET = 44  # px, the smallest side of what a finger presses
# the targets of the page that are smaller; texts with links in them, and inputs inside a larger target, are none
SMALL = """side => [...document.querySelectorAll('#head button, #page button, label.pad-file, .pad-brush input')]
    .filter(one => one.checkVisibility() && !one.closest('table, .maps'))
    .map(one => [one.getAttribute('aria-label') || one.innerText || one.id, one.getBoundingClientRect()])
    .filter(([name, { width, height }]) => Math.min(width, height) < (name.startsWith('Brush') ? 30 : side))
    .map(([name, { width, height }]) => `${name}: ${width}×${height}`)"""


def color_of(place: Locator) -> tuple[int, ...]:
    """The colour on the screen near the left edge of an element, at half its height."""
    shown = Image.open(io.BytesIO(place.screenshot())).convert("RGB")
    return tuple(shown.getpixel((4, shown.height // 2)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("width", "height"), [(390, 844), (844, 390), (768, 1024), (1180, 820)])
def test_a_finger_gets_targets_of_44_px(browser: Browser, app_url: str, width: int, height: int) -> None:
    context = browser.new_context(viewport=ViewportSize(width=width, height=height), has_touch=True, is_mobile=True)
    page = context.new_page()
    open_app(page, app_url)
    assert page.evaluate(SMALL, TARGET) == []
    pad = page.locator(".pad").bounding_box()
    assert pad is not None
    assert pad["y"] + pad["height"] <= height  # all of the pad is on the first screen
    if width == 390:  # and the first answer begins there
        box = page.locator("#modes .sentence").bounding_box()
        assert box is not None
        assert box["y"] < height - 25
    context.close()


def test_the_tab_key_leaves_a_dropdown_for_the_next_control(page: Page) -> None:
    page.get_by_role("tab", name="Worked out", exact=True).click()
    channel = page.locator("#worked-channel input")
    channel.click()
    expect(page.locator("ul[role=listbox]")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.locator("#worked-gamma input[type=number]")).to_be_focused()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_in_forced_colours_bars_and_choices_stand_out_and_the_sheet_stays_white(
    browser: Browser, app_url: str, theme: str
) -> None:
    context = browser.new_context(forced_colors="active", color_scheme="dark" if theme == "dark" else "light")
    page = context.new_page()
    open_app(page, app_url)
    draw(page, SEVEN)
    for place in (
        ".path [aria-selected=true]",
        ".presets [aria-pressed=true]",
        ".paired td.eval.top i",
        ".paired td.train.top i",
        ".pad-bars .is-top i",
    ):
        assert color_of(page.locator(place).first) != color_of(page.locator("body")), place
    assert color_of(page.locator(".pad-canvas")) == (255, 255, 255)
    context.close()


def test_a_message_of_a_lost_connection_does_not_cover_the_tabs(elsewhere: BrowserContext, app_url: str) -> None:
    page = elsewhere.new_page()
    open_app(page, app_url)
    elsewhere.set_offline(True)
    page.get_by_role("tab", name="Faults", exact=True).click()
    expect(page.locator(".toast-body").first).to_be_visible()
    for tab in page.locator(".path [role=tab]").all():
        tab.click(timeout=5000)
    elsewhere.set_offline(False)


def test_a_picture_leaves_no_empty_area_below_it(elsewhere: BrowserContext, app_url: str) -> None:
    page = elsewhere.new_page()
    open_app(page, f"{app_url}/?model=lecture")  # whose pictures are the lower ones
    empty = """box => box.getBoundingClientRect().bottom
        - Math.max(...[...box.querySelectorAll('*')].map(one => one.getBoundingClientRect().bottom))"""
    page.get_by_role("tab", name="Why", exact=True).click()
    for name in ("#why", "#maps"):
        box = page.locator(f"{name} > .html-container")
        expect(box.locator("img, table").first).to_be_visible()
        assert box.evaluate(empty) < 30, name
