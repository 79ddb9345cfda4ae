"""The drawing pad in a real Chromium: strokes in, answers on the page."""

import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, BrowserContext, FilePayload, Page, expect

from benchmarks.running_app import (
    ONE,
    SEVEN,
    ZERO,
    act,
    answer,
    draw,
    open_app,
    points_on_page,
    settled,
    wait_for_settled,
    watch_errors,
)
from tests.windows import visited

DEMO = Path(__file__).parents[2] / "demo"
BLANK = "Nothing drawn yet. Draw a digit, 0 to 9."


@pytest.fixture(scope="module")
def opened(other_window: BrowserContext, app_url: str) -> Iterator[Page]:
    """The app in a window of its own, opened once; fails its tests if the page wrote an error to the console."""
    with visited(other_window):
        page = other_window.new_page()
        errors = watch_errors(page)
        open_app(page, app_url)
        yield page
        assert errors == []


@pytest.fixture
def sheet(opened: Page) -> Page:
    """`opened`, with nothing drawn on its pad: for tests that only look at what the pad shows of a drawing."""
    if not opened.locator(".pad-hint").is_visible():
        act(opened, "Clear")
        expect(opened.locator(".pad-words")).to_have_text(BLANK)
    return opened


def ink(page: Page) -> int:
    """How many pixels of the canvas are covered."""
    count = """canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data
        .filter((alpha, i) => i % 4 === 3 && alpha > 127).length"""
    return page.locator(".pad-canvas").evaluate(count)


@pytest.mark.parametrize(("stroke", "digit"), [(ZERO, "0"), (ONE, "1"), (SEVEN, "7")])
def test_a_digit_drawn_with_the_mouse_is_recognised(sheet: Page, stroke: list[tuple[float, float]], digit: str) -> None:
    draw(sheet, stroke)
    assert answer(sheet) == digit
    expect(sheet.locator(".pad-words")).to_have_text(
        re.compile(rf"The network robust reads {digit}, (more than )?[\d.]+% sure\.")
    )
    assert sheet.locator(".pad-bars .is-top span").inner_text() == digit
    expect(sheet.locator(".pad-spoken")).to_have_text(sheet.locator(".pad-words").inner_text())


def test_the_first_touch_leaves_ink_and_the_answer_follows_while_the_pen_is_down(page: Page) -> None:
    first, corner, end = points_on_page(page, SEVEN)
    page.mouse.move(*first)
    page.mouse.down()
    assert ink(page) > 1000  # a dot, before any movement
    page.mouse.move(*corner, steps=4)
    page.mouse.move(*end, steps=4)
    expect(page.locator(".pad-digit")).to_have_text("7")
    assert settled(page) == 0  # nothing is final before pen-up
    page.mouse.up()
    wait_for_settled(page, 0)


def test_what_the_network_saw_is_shown_as_28_by_28_pixels(sheet: Page) -> None:
    draw(sheet, ONE)
    read = """canvas => [canvas.width, canvas.height,
        Math.max(...canvas.getContext('2d').getImageData(0, 0, 28, 28).data.filter((v, i) => i % 4 === 0))]"""
    assert sheet.locator(".pad-saw canvas").evaluate(read) == [28, 28, 255]


def test_the_drawing_is_sent_as_280_by_280_whatever_the_density_of_the_screen(browser: Browser, app_url: str) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, device_scale_factor=3)
    page = context.new_page()
    sent: list[str] = []
    page.on("request", lambda r: sent.append(r.post_data_json["data"]["canvas"]) if "component_server" in r.url else 0)
    open_app(page, app_url)
    draw(page, SEVEN)
    size = "async url => { const i = new Image(); i.src = url; await i.decode(); return [i.width, i.height]; }"
    assert page.evaluate(size, sent[-1]) == [280, 280]
    context.close()


def test_undo_takes_back_the_last_stroke_and_clear_can_be_undone(page: Page) -> None:
    draw(page, ONE)
    one = ink(page)
    draw(page, ZERO)
    assert ink(page) > one
    act(page, "Undo")
    assert ink(page) == one
    assert answer(page) == "1"
    act(page, "Clear")
    assert ink(page) == 0
    act(page, "Undo")
    assert ink(page) == one


def test_a_cleared_pad_says_in_words_that_it_is_blank(page: Page) -> None:
    expect(page.locator(".pad-words")).to_have_text(BLANK)
    draw(page, SEVEN)
    expect(page.locator(".pad-words")).not_to_have_text(BLANK)
    act(page, "Clear")
    expect(page.locator(".pad-words")).to_have_text(BLANK)
    assert answer(page) == "?"
    expect(page.locator(".pad-hint")).to_be_visible()


def test_the_keyboard_undoes_clears_and_changes_the_brush(page: Page) -> None:
    brush = page.locator(".pad-brush input")
    draw(page, ONE)
    for key, after in (("u", 0), ("Control+z", 0), ("c", 0), ("Escape", 0), ("Delete", 0)):
        if not ink(page):
            draw(page, ONE)
        before = settled(page)
        page.keyboard.press(key)
        wait_for_settled(page, before)
        assert ink(page) == after, key
    width = float(brush.input_value())
    page.keyboard.press("]")
    assert float(brush.input_value()) > width
    page.keyboard.press("[")
    page.keyboard.press("[")
    assert float(brush.input_value()) < width


def test_a_wider_brush_leaves_more_ink(page: Page) -> None:
    draw(page, ONE)
    narrow = ink(page)
    act(page, "Clear")
    page.locator(".pad-brush input").fill("16")
    draw(page, ONE)
    assert ink(page) > 1.5 * narrow


@pytest.mark.parametrize("digit", ["0", "3", "8"])
def test_an_example_is_loaded_as_ink_by_a_click(sheet: Page, digit: str) -> None:
    act(sheet, f"Load an example of a {digit}")
    assert answer(sheet) == digit


@pytest.mark.parametrize(("paper", "chalk"), [("#ffffff", "#102040"), ("#182028", "#f0f0e0")])
def test_an_image_can_be_pasted_in_either_polarity(sheet: Page, paper: str, chalk: str) -> None:
    # wider than high: the sheet around it must not become ink
    before = settled(sheet)
    sheet.evaluate(
        """async ([paper, chalk]) => {
            const canvas = Object.assign(document.createElement('canvas'), { width: 300, height: 200 });
            const pen = canvas.getContext('2d');
            pen.fillStyle = paper; pen.fillRect(0, 0, 300, 200);
            pen.strokeStyle = chalk; pen.lineWidth = 16;
            pen.beginPath(); pen.moveTo(100, 40); pen.lineTo(190, 40); pen.lineTo(140, 170); pen.stroke();
            const blob = await new Promise((done) => canvas.toBlob(done));
            const data = new DataTransfer();
            data.items.add(new File([blob], 'seven.png', { type: 'image/png' }));
            document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }));
        }""",
        [paper, chalk],
    )
    wait_for_settled(sheet, before)
    assert answer(sheet) == "7"


@pytest.mark.parametrize("shadow", [[], [(200, 80), (90, 140), (200, 260)], [(0, 30), (60, 300), (0, 300)]])
def test_a_picture_without_ink_gets_advice(sheet: Page, shadow: list[tuple[int, int]]) -> None:
    photo = Image.new("RGB", (200, 300), (210, 205, 200))
    if shadow:  # which reaches the picture's border, but not that of the sheet
        ImageDraw.Draw(photo).polygon(shadow, fill=(105, 102, 100))
    paper = io.BytesIO()
    photo.save(paper, "PNG")
    before = settled(sheet)
    files: FilePayload = {"name": "x.png", "mimeType": "image/png", "buffer": paper.getvalue()}
    sheet.locator(".pad-file input").set_input_files(files)
    wait_for_settled(sheet, before)
    expect(sheet.locator(".pad-words")).to_contain_text("Nothing stands out from the paper")


def test_a_chosen_file_that_is_no_image_is_refused_with_a_message(sheet: Page) -> None:
    sheet.locator(".pad-file input").set_input_files({"name": "x.png", "mimeType": "image/png", "buffer": b"no image"})
    expect(sheet.locator(".pad-words")).to_contain_text("not an image")


def test_the_pad_reports_a_server_that_does_not_answer_and_recovers(desktop: BrowserContext, app_url: str) -> None:
    page = desktop.new_page()
    open_app(page, app_url)
    recognize = re.compile("component_server")
    page.route(recognize, lambda route: route.abort())
    draw(page, ONE)
    expect(page.locator(".pad-words")).to_contain_text("No answer from the server")
    assert answer(page) == "?"
    page.unroute(recognize)
    act(page, "Undo")
    draw(page, SEVEN)
    assert answer(page) == "7"
    page.close()


def test_a_finger_draws_on_a_phone_and_does_not_scroll_the_page(browser: Browser, app_url: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    errors = watch_errors(page)
    open_app(page, app_url)
    touch = context.new_cdp_session(page)
    first, *others = points_on_page(page, [(0.27, 0.2), (0.5, 0.2), (0.73, 0.2), (0.6, 0.5), (0.45, 0.82)])

    def send(kind: str, *points: tuple[float, float]) -> None:
        fingers = [{"x": x, "y": y} for x, y in points]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    send("touchStart", first)
    for point in others:
        send("touchMove", point)
    send("touchEnd")
    wait_for_settled(page, 0)
    assert answer(page) == "7"
    assert page.evaluate("scrollY") == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 390  # nothing cut off at the side
    assert errors == []
    context.close()


def test_a_scribble_unlike_any_digit_gets_a_question_mark_and_a_message(sheet: Page) -> None:
    scribble = [(0.2, 0.2), (0.8, 0.75), (0.25, 0.7), (0.75, 0.15), (0.5, 0.85), (0.15, 0.45), (0.85, 0.5), (0.4, 0.15)]
    draw(sheet, scribble)
    assert answer(sheet) == "?"
    expect(sheet.locator(".pad-words")).to_have_text(
        re.compile(r"robust is not sure\. This does not look like a digit\.( Closest guess: \d \(.*%\)\.)?")
    )
    draw(sheet, [(0.3, 0.3), (0.7, 0.7)])  # more of it
    sheet.locator("[data-do=clear]").click()
    draw(sheet, SEVEN)
    assert answer(sheet) == "7"


def test_the_scripts_of_the_pad_which_share_a_scope_declare_each_name_once() -> None:
    scripts = "\n".join((DEMO / name).read_text() for name in ("drawing.js", "pad.js", "picture.js"))
    names = Counter(re.findall(r"^(?:async )?(?:function|const|let) (\w+)", scripts, re.MULTILINE))
    assert len(names) > 50
    assert [name for name, times in names.items() if times > 1] == []
