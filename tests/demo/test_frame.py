"""The page around the tabs in Chromium: accessibility, the pad at every width, the path through the tabs."""

import re
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Page, ViewportSize, expect

from benchmarks import ROOT
from benchmarks.running_app import SEVEN, draw, open_app
from demo import glossary
from demo.app import PATH

SIZES = [(1920, 1080), (1280, 800), (1024, 768), (768, 1024), (660, 800), (640, 400), (390, 844), (320, 640)]
PATIENCE = 60_000  # ms, for a tab that computes


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


def test_axe_finds_nothing_serious_in_any_tab(desktop: BrowserContext, app_url: str) -> None:
    page = desktop.new_page()
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


def test_the_focused_element_is_visible(page: Page) -> None:
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
    expect(page.locator(".pad-bars li").nth(7)).to_have_text(re.compile(r"^7: (above )?[\d.]+ per cent"))


def test_on_a_phone_nothing_of_a_tab_shows_through_the_pad(desktop: BrowserContext, app_url: str) -> None:
    page = desktop.new_page()
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


def test_on_a_phone_no_outline_of_a_tab_shows_beside_the_pad(desktop: BrowserContext, app_url: str) -> None:
    page = desktop.new_page()
    page.set_viewport_size(ViewportSize(width=390, height=844))
    open_app(page, f"{app_url}/?tab=your-digit")
    framed = page.locator("#modes .batch .self")
    beside: list[bytes] = []
    for top in (300, 60):  # below the pad, and behind it
        framed.evaluate("(tile, top) => scrollBy(0, tile.getBoundingClientRect().top - top)", top)
        beside.append(page.screenshot(clip={"x": 0, "y": 20, "width": 15, "height": 120}))
    assert beside[0] == beside[1]


def test_the_head_does_not_overlap_at_any_width(desktop: BrowserContext, app_url: str) -> None:
    page = desktop.new_page()
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


def test_terms_link_to_their_meaning_and_are_all_in_the_glossary(page: Page) -> None:
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
def test_the_whole_pad_stays_visible_while_scrolling(
    desktop: BrowserContext, app_url: str, width: int, height: int
) -> None:
    page = desktop.new_page()
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


def test_on_a_laptop_the_whole_pad_and_the_answer_in_words_are_on_the_first_screen(
    desktop: BrowserContext, app_url: str
) -> None:
    page, height = desktop.new_page(), 657  # of 768, without the browser's bars
    page.set_viewport_size({"width": 1366, "height": height})
    open_app(page, app_url)
    sheet = page.locator(".pad-sheet").bounding_box()
    assert sheet is not None
    assert sheet["width"] > 250
    for tab in ("Your digit", "Worked out", "Why", "Chance"):
        page.get_by_role("tab", name=tab, exact=True).click()
        for part in (".pad", ".sentence:visible >> nth=0"):
            box = page.locator(part).bounding_box()
            assert box is not None
            assert box["y"] + box["height"] <= height, f"{part} of {tab}"


def test_a_phones_first_screen_shows_that_there_is_more_than_the_pad(desktop: BrowserContext, app_url: str) -> None:
    page = desktop.new_page()
    page.set_viewport_size(ViewportSize(width=390, height=844))
    open_app(page, app_url)
    for place in (".path", "[data-aim]", ".question h2 >> visible=true"):
        box = page.locator(place).first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < 844, place
    cut = "nav => nav.scrollWidth > nav.clientWidth"
    assert page.locator(".path").evaluate(cut)


def test_on_a_phone_the_first_answer_begins_on_the_first_screen(desktop: BrowserContext, app_url: str) -> None:
    page = desktop.new_page()
    page.set_viewport_size(ViewportSize(width=390, height=844))
    open_app(page, app_url)
    box = page.locator("#modes .sentence").bounding_box()
    assert box is not None
    assert box["y"] < 844 - 2 * 25  # two lines of it


def test_a_solved_task_is_ticked_and_remembered(desktop: BrowserContext, app_url: str) -> None:
    page = desktop.new_page()
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
