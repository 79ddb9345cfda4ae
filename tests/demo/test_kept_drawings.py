"""The drawing is kept: after a reload, in a link, in a saved file. Pictures in place of a drawing."""

import io
import re

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import BrowserContext, Page, expect

from benchmarks.running_app import (
    ONE,
    SEVEN,
    ZERO,
    act,
    answer,
    draw,
    open_app,
    settled,
    wait_for_settled,
    watch_errors,
)

SENTENCE = "#modes .sentence"


@pytest.fixture
def context(desktop: BrowserContext) -> BrowserContext:
    """A new visitor who may use the clipboard."""
    desktop.grant_permissions(["clipboard-read", "clipboard-write"])
    return desktop


def copied_link(page: Page) -> str:
    page.locator("[data-do=link]:visible").click()
    expect(page.locator("[data-do=link]:visible")).to_have_text("Copied")
    return str(page.evaluate("navigator.clipboard.readText()"))


def pixels(page: Page) -> str:
    return str(page.locator(".pad-canvas").evaluate("canvas => canvas.toDataURL()"))


def open_drawn(page: Page, url: str) -> None:
    """Open the app, and wait until it has restored a drawing."""
    open_app(page, url)
    page.wait_for_function("Number(document.querySelector('.pad').dataset.settled || 0) > 0")
    expect(page.locator(SENTENCE)).not_to_contain_text("xample")


def test_a_drawing_survives_a_reload_and_back(context: BrowserContext, app_url: str) -> None:
    page = context.new_page()
    open_app(page, app_url)
    draw(page, SEVEN)
    expect(page.locator(SENTENCE)).to_contain_text("Eval mode says 7")
    said, drawn = page.locator(SENTENCE).inner_text(), pixels(page)
    page.reload()
    expect(page.locator(SENTENCE)).to_have_text(said)
    assert pixels(page) == drawn
    page.goto("about:blank")
    page.go_back()
    expect(page.locator(SENTENCE)).to_have_text(said)
    assert answer(page) == "7"


@pytest.mark.parametrize("strokes", [[ONE], [ZERO, ONE], [SEVEN, [(0.35, 0.5), (0.65, 0.5)]]])
def test_a_link_reproduces_the_drawing_and_the_sentence(
    context: BrowserContext, elsewhere: BrowserContext, app_url: str, strokes: list[list[tuple[float, float]]]
) -> None:
    page = context.new_page()
    open_app(page, app_url)
    for stroke in strokes:
        draw(page, stroke)
    expect(page.locator(SENTENCE)).not_to_contain_text("xample")
    link = copied_link(page)
    assert re.search(r"#drawing=[\w-]{20,2000}$", link)
    opened = elsewhere.new_page()
    open_drawn(opened, link)
    expect(opened.locator(SENTENCE)).to_have_text(page.locator(SENTENCE).inner_text())
    assert pixels(opened) == pixels(page)
    assert "#" not in opened.url  # what is drawn from now on is another drawing


def test_a_link_holds_an_example_an_erased_part_and_a_picture(context: BrowserContext, app_url: str) -> None:
    page = context.new_page()
    open_app(page, app_url)
    act(page, "Load an example of a 8")
    page.get_by_role("button", name="Eraser").click()
    draw(page, [(0.3, 0.3), (0.5, 0.3)])
    erased = pixels(page), copied_link(page)
    before = settled(page)
    page.locator(".pad-file input").set_input_files({"name": "x.png", "mimeType": "image/png", "buffer": white_seven()})
    wait_for_settled(page, before)
    pictured = pixels(page), copied_link(page)
    for drawn, link in (erased, pictured):
        opened = context.new_page()
        open_drawn(opened, link)
        assert pixels(opened) == drawn
        opened.close()


@pytest.mark.parametrize("code", ["AQ", "!", "AgM", "AQMR_____w", "A" * 20_000, "AQEK", "AQL___8"])
def test_a_damaged_drawing_in_a_link_is_reported_and_ignored(context: BrowserContext, app_url: str, code: str) -> None:
    page = context.new_page()
    errors = watch_errors(page)
    open_app(page, f"{app_url}/#drawing={code}")
    if code != "AQ":  # that is an empty drawing
        expect(page.locator(".pad-words")).to_contain_text("The drawing in this link is damaged")
    draw(page, SEVEN)
    assert answer(page) == "7"
    assert errors == []


def test_a_lost_connection_marks_the_tab_as_stale_and_keeps_the_drawing(context: BrowserContext, app_url: str) -> None:
    page = context.new_page()
    open_app(page, app_url)
    draw(page, ONE)
    expect(page.locator(SENTENCE)).not_to_contain_text("xample")
    recognise = re.compile("component_server")
    page.route(recognise, lambda route: route.abort())
    act(page, "Clear")
    draw(page, SEVEN)
    expect(page.locator("#stale")).to_be_visible()
    drawn = pixels(page)
    page.unroute(recognise)  # the pad asks again by itself
    expect(page.locator(SENTENCE)).to_contain_text("Eval mode says 7")
    expect(page.locator("#stale")).to_be_hidden()
    assert pixels(page) == drawn


def test_redo_restores_undone_strokes_until_a_new_one_is_drawn(page: Page) -> None:
    draw(page, SEVEN)
    drawn = pixels(page)
    act(page, "Undo")
    act(page, "Redo")
    assert pixels(page) == drawn
    for keys in ("Control+z", "Control+Shift+z", "Control+z", "Control+y"):
        before = settled(page)
        page.locator(".pad-canvas").press(keys)
        wait_for_settled(page, before)
    assert pixels(page) == drawn
    act(page, "Undo")
    draw(page, ONE)
    expect(page.get_by_role("button", name="Redo")).to_have_attribute("aria-disabled", "true")


def white_seven() -> bytes:
    """A light 7 on nothing, as PNG."""
    image = Image.new("RGBA", (300, 200), (255, 255, 255, 0))
    ImageDraw.Draw(image).line([(100, 40), (190, 40), (140, 170)], fill=(255, 255, 255, 255), width=16)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_white_ink_on_a_transparent_picture_can_be_seen_and_is_read(page: Page) -> None:
    before = settled(page)
    page.locator(".pad-file input").set_input_files({"name": "x.png", "mimeType": "image/png", "buffer": white_seven()})
    wait_for_settled(page, before)
    assert answer(page) == "7"
    corner = "canvas => [...canvas.getContext('2d').getImageData(5, 5, 1, 1).data]"
    assert max(page.locator(".pad-canvas").evaluate(corner)[:3]) < 60


def test_a_picture_can_be_turned_and_cropped_with_the_keyboard(page: Page) -> None:
    before = settled(page)
    page.locator(".pad-file input").set_input_files({"name": "x.png", "mimeType": "image/png", "buffer": white_seven()})
    wait_for_settled(page, before)
    upright = pixels(page)
    for _ in range(4):
        act(page, "Rotate")
    assert pixels(page) == upright
    ink = "canvas => canvas.getContext('2d').getImageData(0, 0, 560, 560).data.filter(v => v > 200).length"
    small = page.locator(".pad-canvas").evaluate(ink)
    page.get_by_role("button", name="Crop").press("Enter")
    before = settled(page)
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Enter")
    wait_for_settled(page, before)
    assert page.locator(".pad-canvas").evaluate(ink) > small
    assert answer(page) == "7"


def test_a_dropped_file_that_is_no_picture_is_refused_with_a_message(page: Page) -> None:
    page.locator(".pad-sheet").evaluate(
        """sheet => {
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File(['words'], 'note.txt', { type: 'text/plain' }));
            sheet.dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true }));
        }"""
    )
    expect(page.locator(".pad-words")).to_contain_text("not an image")
    expect(page.locator(".pad-spoken")).to_contain_text("not an image")


def test_the_drawing_can_be_saved_and_is_read_the_same_when_loaded(page: Page) -> None:
    draw(page, SEVEN)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as PNG").click()
    assert download.value.suggested_filename == "drawing.png"
    act(page, "Clear")
    before = settled(page)
    page.locator(".pad-file input").set_input_files(download.value.path())
    wait_for_settled(page, before)
    assert answer(page) == "7"
