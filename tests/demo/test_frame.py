"""The page around the tabs in a real Chromium: the path, the pad at every width, what survives, what is reached."""

import io
import re
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect

from benchmarks.running_app import (
    ONE,
    ROOT,
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
from demo import glossary
from demo.app import PATH

SIZES = [(1920, 1080), (1280, 800), (1024, 768), (768, 1024), (660, 800), (640, 400), (390, 844), (320, 640)]
SENTENCE = "#modes .sentence"
PATIENCE = 60_000  # ms, for a tab that computes


@pytest.fixture
def context(desktop: BrowserContext) -> BrowserContext:
    """A visitor of whom the browser knows nothing, and who may use the clipboard."""
    desktop.grant_permissions(["clipboard-read", "clipboard-write"])
    return desktop


def copied_link(page: Page) -> str:
    page.locator("[data-do=link]:visible").click()
    expect(page.locator("[data-do=link]:visible")).to_have_text("Copied")
    return str(page.evaluate("navigator.clipboard.readText()"))


def pixels(page: Page) -> str:
    return str(page.locator(".pad-canvas").evaluate("canvas => canvas.toDataURL()"))


def open_drawn(page: Page, url: str) -> None:
    """Open the app where a drawing is expected to come back by itself."""
    open_app(page, url)
    page.wait_for_function("Number(document.querySelector('.pad').dataset.settled || 0) > 0")
    expect(page.locator(SENTENCE)).not_to_contain_text("xample")


# ---- everybody


def wait_for_calm(page: Page) -> None:
    """Until nothing is being computed, and has not been for a while."""
    page.evaluate("window.busy = performance.now()")
    page.wait_for_function(
        """() => {
            if (document.querySelector('[role=tabpanel] .pending')) busy = performance.now();
            return performance.now() - busy > 700;
        }""",
        timeout=PATIENCE,
        polling=50,  # not at every frame, which would have to be drawn
    )


def test_axe_finds_nothing_serious_in_any_tab(context: BrowserContext, app_url: str) -> None:
    page = context.new_page()
    open_app(page, app_url)
    # a tab that waits is pale, and colours would change gradually with the theme
    page.add_style_tag(content=".pending { opacity: 1 !important; } * { transition: none !important; }")
    page.evaluate(Axe().axe_script)
    page.evaluate(RESIZED)
    draw(page, SEVEN)
    for tab in page.locator(".path [role=tab]").all():
        first = tab.get_attribute("aria-selected") == "true"  # the frame around it is the same for all
        tab.click()
        panel = page.locator("[role=tabpanel]:visible")
        expect(panel).to_have_attribute("aria-labelledby", tab.get_attribute("id") or "")
        place = None if first else f"#{panel.get_attribute('id')}"
        wait_for_calm(page)
        for theme, width in (("dark", 390), ("light", 1280)):  # the theme is a class, and the width is CSS's
            page.evaluate("dark => { resized = false; document.body.classList.toggle('dark', dark); }", theme == "dark")
            page.set_viewport_size(ViewportSize(width=width, height=900))
            page.wait_for_function("resized", polling=50, timeout=PATIENCE)
            found = page.evaluate(AXE, place)
            assert not found, (tab.inner_text(), theme, width, found)


# notes a change of the width, after what follows it in head.js
RESIZED = """() => {
    let timer;
    addEventListener('resize', () => { clearTimeout(timer); timer = setTimeout(() => { resized = true; }, 400); });
}"""
# of a place on the page, or of all of it: what is serious, and where
AXE = """async place => {
    const { violations } = await axe.run(place ?? document, { resultTypes: ['violations'] });
    return violations.filter(one => ['serious', 'critical'].includes(one.impact))
        .map(one => [one.id, one.nodes.map(node => node.html)]);
}"""


def test_the_keyboard_reaches_a_tabs_controls_within_twenty_steps(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the tabs")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".path [aria-selected=true]")).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.locator(".skip").focus()
    inside = "document.activeElement.closest('[role=tabpanel] .controls') !== null"
    steps = 0
    while not page.evaluate(inside):
        page.keyboard.press("Tab")
        steps += 1
        assert steps <= 20


def test_what_has_the_focus_can_be_seen(page: Page) -> None:
    for place in (
        ".pad-brush input",
        "#kind input",
        ".path [role=tab] >> nth=0",
        "[data-do=undo]",
        "[data-do=link]:visible",
    ):
        page.locator(place).first.focus()
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Tab")
        style = page.evaluate(
            "(({ outlineStyle, outlineWidth }) => [outlineStyle, outlineWidth])"
            "(getComputedStyle(document.activeElement))"
        )
        assert style[0] in ("solid", "auto"), place
        assert float(style[1].removesuffix("px")) >= 1, place


def test_a_screen_reader_hears_no_markup_and_each_bar_as_digit_and_share(page: Page) -> None:
    draw(page, SEVEN)
    labels = page.locator("[aria-label]").evaluate_all("all => all.map(one => one.getAttribute('aria-label'))")
    assert not [label for label in labels if "<" in label]
    expect(page.locator(".pad-bars li").nth(7)).to_have_text(re.compile(r"^7: [\d.]+ per cent"))


@pytest.mark.parametrize("width", [1280, 1920])
def test_in_teachers_mode_everything_is_larger_and_nothing_is_cut_off(
    context: BrowserContext, app_url: str, width: int
) -> None:
    page = context.new_page()
    page.set_viewport_size(ViewportSize(width=width, height=1080))
    open_app(page, app_url)

    def height() -> float:
        box = page.get_by_role("tab", name="X-ray", exact=True).bounding_box()
        assert box is not None
        return box["height"]

    usual = height()
    page.get_by_role("button", name="Teacher’s mode").click()
    assert height() >= 1.15 * usual
    edges = """column => [column, ...column.querySelectorAll("*")].map(part => part.getBoundingClientRect().right)"""
    own, *parts = page.locator("#left").evaluate(edges)
    assert max(parts) <= own + 1  # or the pad lies over the tab
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    expect(page).to_have_url(re.compile("mode=teach"))
    page.get_by_role("tab", name="X-ray", exact=True).click()
    page.reload()
    expect(page.get_by_role("button", name="Teacher’s mode")).to_have_attribute("aria-pressed", "true")


@pytest.mark.parametrize("tab", ["Your digit", "Why", "Chance", "Corruption"])
def test_in_teachers_mode_the_picture_begins_on_the_first_screen_of_a_projector(
    context: BrowserContext, app_url: str, tab: str
) -> None:
    page = context.new_page()
    page.set_viewport_size(ViewportSize(width=1280, height=800))
    open_app(page, f"{app_url}/?mode=teach")
    page.get_by_role("tab", name=tab, exact=True).click()
    shown = page.locator("#right .tabitem:visible .picture :is(svg, .paired)").first
    expect(shown).to_be_visible()
    box = shown.bounding_box()
    assert box is not None
    assert box["y"] <= 700


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1280, 900), (1920, 1080)])
def test_in_teachers_mode_the_panels_of_a_figure_stand_side_by_side(
    context: BrowserContext, app_url: str, width: int, height: int
) -> None:
    page = context.new_page()
    page.set_viewport_size(ViewportSize(width=width, height=height))
    open_app(page, f"{app_url}/?mode=teach")
    for tab, count in (("Chance", 2), ("Why", 3)):
        page.get_by_role("tab", name=tab, exact=True).click()
        panels = page.locator("#right .tabitem:visible .figure > svg")
        expect(panels).to_have_count(count)
        assert len({round(box["y"]) for panel in panels.all() if (box := panel.bounding_box())}) == 1


def test_in_teachers_mode_the_notes_of_the_lesson_lead_to_the_tabs_and_print_alone(
    context: BrowserContext, app_url: str
) -> None:
    page = context.new_page()
    open_app(page, f"{app_url}/?mode=teach")
    page.get_by_role("button", name="Lesson notes").click()
    notes = page.get_by_role("dialog", name="Lesson notes")
    expect(notes.get_by_role("heading", name="20 minutes")).to_be_visible()
    page.emulate_media(media="print")
    expect(notes.get_by_role("heading", name="20 minutes")).to_be_visible()
    expect(page.locator("#page")).to_be_hidden()
    page.emulate_media(media="screen")
    notes.get_by_role("link", name="Why").click()
    expect(notes).to_be_hidden()
    expect(page.get_by_role("tabpanel", name="Why")).to_be_visible()


def test_on_a_phone_nothing_of_a_tab_shows_through_the_pad(context: BrowserContext, app_url: str) -> None:
    page = context.new_page()
    page.set_viewport_size(ViewportSize(width=390, height=844))
    open_app(page, app_url)
    page.get_by_role("tab", name="Chance", exact=True).click()
    label = page.locator("#batch-size [data-testid=block-info]")
    label.evaluate("label => scrollBy(0, label.getBoundingClientRect().top - 120)")
    covered = """label => {
        const { x, y, width, height } = label.getBoundingClientRect();
        return !!document.elementFromPoint(x + width / 2, y + height / 2).closest('#left');
    }"""
    assert label.evaluate(covered)


def test_the_head_does_not_overlap_at_any_width(context: BrowserContext, app_url: str) -> None:
    page = context.new_page()
    open_app(page, f"{app_url}/?mode=teach")
    for width in (1600, 1280, 1100, 900, 660, 390, 320):
        page.set_viewport_size(ViewportSize(width=width, height=800))
        boxes = [page.locator(part).bounding_box() for part in ("#head h1", ".head-tools", "#model")]
        for k, one in enumerate(boxes):
            for other in boxes[:k]:
                assert one is not None
                assert other is not None
                apart = one["y"] >= other["y"] + other["height"] - 1 or one["x"] >= other["x"] + other["width"] - 1
                assert apart, (width, boxes)


def test_a_term_leads_to_its_meaning_and_the_glossary_has_them_all(page: Page) -> None:
    term = page.locator("[role=tabpanel]:visible a.term").first
    term.press("Enter")
    expect(page.locator(".term-note")).to_be_visible()
    expect(page.locator(".term-note b")).not_to_be_empty()
    page.keyboard.press("Escape")
    expect(page.locator(".term-note")).to_be_hidden()
    page.get_by_role("button", name="Glossary").click()
    expect(page.get_by_role("dialog", name="Glossary").locator("dt")).to_have_count(len(glossary.TERMS))
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_the_documentation_has_the_glossary_of_the_page() -> None:
    assert (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8") == glossary.to_markdown()


# ---- the pad


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_pad_is_whole_and_in_sight_however_far_one_scrolls(
    context: BrowserContext, app_url: str, width: int, height: int
) -> None:
    page = context.new_page()
    page.set_viewport_size(ViewportSize(width=width, height=height))
    open_app(page, app_url)
    page.mouse.move(width / 2, height - 20)
    for distance in (0, 600, 100_000):
        page.evaluate("distance => scrollTo(0, distance)", distance)
        for part in (".pad-sheet", ".pad-answer .pad-digit", ".pad-saw canvas", ".pad-tools"):
            box = page.locator(part).bounding_box()
            assert box is not None
            assert box["x"] >= 0, (part, distance)
            assert box["x"] + box["width"] <= width, (part, distance)
            assert box["y"] >= 0, (part, distance)
            assert box["y"] + box["height"] <= height, (part, distance)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


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
    browser: Browser, context: BrowserContext, app_url: str, strokes: list[list[tuple[float, float]]]
) -> None:
    page = context.new_page()
    open_app(page, app_url)
    for stroke in strokes:
        draw(page, stroke)
    expect(page.locator(SENTENCE)).not_to_contain_text("xample")
    link = copied_link(page)
    assert re.search(r"#drawing=[\w-]{20,2000}$", link)
    other = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = other.new_page()
    open_drawn(opened, link)
    expect(opened.locator(SENTENCE)).to_have_text(page.locator(SENTENCE).inner_text())
    assert pixels(opened) == pixels(page)
    assert "#" not in opened.url  # what is drawn from now on is another drawing
    other.close()


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
def test_a_damaged_drawing_in_a_link_is_told_and_does_no_harm(context: BrowserContext, app_url: str, code: str) -> None:
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


def test_redo_brings_back_what_undo_took_until_something_new_is_drawn(page: Page) -> None:
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


def test_a_dropped_file_that_is_no_picture_is_refused_in_words(page: Page) -> None:
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


# ---- the path


def test_the_tabs_come_in_five_groups_each_with_its_aim(page: Page) -> None:
    groups = page.locator(".path .group")
    expect(groups).to_have_count(len(PATH))
    for group, box in zip(PATH, groups.all(), strict=True):
        expect(box.get_by_role("tab")).to_have_count(len(group.tabs))
        box.get_by_role("tab").first.click()
        expect(page.locator("[data-aim]")).to_contain_text(group.aim)


def test_next_leads_through_every_tab_in_order(page: Page) -> None:
    titles = page.locator(".path [role=tab]").evaluate_all("all => all.map(tab => tab.firstChild.textContent)")
    for title in titles[1:]:
        page.locator("#next button").click()
        expect(selected(page)).to_have_text(title)
    expect(page.locator("#next button")).to_contain_text("From the start")


def selected(page: Page) -> Any:
    return page.locator(".path [aria-selected=true]")


def test_arrow_keys_go_from_tab_to_tab_across_the_groups(page: Page) -> None:
    tabs = page.locator(".path [role=tab]")
    tabs.first.focus()
    for key, place in (
        ("ArrowRight", 1),
        ("ArrowRight", 2),
        ("ArrowLeft", 1),
        ("End", -1),
        ("Home", 0),
        ("ArrowLeft", -1),
    ):
        page.keyboard.press(key)
        expect(tabs.nth(place)).to_be_focused()
        expect(tabs.nth(place)).to_have_attribute("aria-selected", "true")
    assert page.locator(".path [role=tab][tabindex='0']").count() == 1


def test_back_and_forward_go_between_the_tabs(page: Page, app_url: str) -> None:
    for title in ("X-ray", "Chance"):
        page.get_by_role("tab", name=title, exact=True).click()
        expect(selected(page)).to_contain_text(title)
    for go, title in ((page.go_back, "X-ray"), (page.go_back, "Your digit"), (page.go_forward, "X-ray")):
        go()
        expect(selected(page)).to_contain_text(title)
        expect(page.get_by_role("tabpanel", name=title)).to_be_visible()
    assert page.url.startswith(app_url)


def test_a_phones_first_screen_shows_that_there_is_more_than_the_pad(context: BrowserContext, app_url: str) -> None:
    page = context.new_page()
    page.set_viewport_size(ViewportSize(width=390, height=844))
    open_app(page, app_url)
    for place in (".path", "[data-aim]", ".question h2 >> visible=true"):
        box = page.locator(place).first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < 844, place
    cut = "nav => nav.scrollWidth > nav.clientWidth"
    assert page.locator(".path").evaluate(cut)


def test_a_solved_task_is_ticked_and_remembered(context: BrowserContext, app_url: str) -> None:
    page = context.new_page()
    open_app(page, app_url)
    task = page.locator(".task:visible")
    expect(task).to_have_count(1)
    if "is-done" not in (task.get_attribute("class") or ""):
        page.locator(".tabitem:visible .picture").first.evaluate(
            "place => place.append(Object.assign(document.createElement('span'), { innerHTML: '<b data-done></b>' }))"
        )
    expect(task).to_have_class(re.compile("is-done"))
    expect(selected(page)).to_have_class(re.compile("is-done"))
    page.reload()
    expect(selected(page)).to_have_class(re.compile("is-done"))
