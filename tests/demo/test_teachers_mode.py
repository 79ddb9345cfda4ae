"""Teacher's mode: large type, one row of panels, and the notes of the lesson."""

import re

import pytest
from playwright.sync_api import BrowserContext, ViewportSize, expect

from benchmarks.running_app import open_app


@pytest.mark.parametrize("width", [1280, 1920])
def test_in_teachers_mode_everything_is_larger_and_nothing_is_cut_off(
    desktop: BrowserContext, app_url: str, width: int
) -> None:
    page = desktop.new_page()
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


def test_in_teachers_mode_the_picture_begins_on_the_first_screen_of_a_projector(
    desktop: BrowserContext, app_url: str
) -> None:
    page = desktop.new_page()
    page.set_viewport_size(ViewportSize(width=1280, height=800))
    open_app(page, f"{app_url}/?mode=teach")
    for tab in ("Your digit", "Why", "Chance", "Corruption"):
        page.get_by_role("tab", name=tab, exact=True).click()
        page.evaluate("scrollTo(0, 0)")
        shown = page.get_by_role("tabpanel", name=tab).locator(".picture :is(svg, .paired)").first
        expect(shown).to_be_visible()
        box = shown.bounding_box()
        assert box is not None, tab
        assert box["y"] <= 700, tab


def test_in_teachers_mode_both_answers_are_whole_on_the_first_screen_of_a_projector(
    desktop: BrowserContext, app_url: str
) -> None:
    page = desktop.new_page()
    page.set_viewport_size(ViewportSize(width=1920, height=1080))
    open_app(page, f"{app_url}/?mode=teach")
    box = page.locator("#modes .paired").bounding_box()
    assert box is not None
    assert box["y"] + box["height"] <= 1080


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1280, 900), (1920, 1080)])
def test_in_teachers_mode_the_panels_of_a_figure_stand_side_by_side(
    desktop: BrowserContext, app_url: str, width: int, height: int
) -> None:
    page = desktop.new_page()
    page.set_viewport_size(ViewportSize(width=width, height=height))
    open_app(page, f"{app_url}/?mode=teach")
    for tab, count in (("Chance", 2), ("Why", 3)):
        page.get_by_role("tab", name=tab, exact=True).click()
        panels = page.locator("#right .tabitem:visible .figure > svg")
        expect(panels).to_have_count(count)
        assert len({round(box["y"]) for panel in panels.all() if (box := panel.bounding_box())}) == 1


def test_in_teachers_mode_the_notes_of_the_lesson_lead_to_the_tabs_and_print_alone(
    desktop: BrowserContext, app_url: str
) -> None:
    page = desktop.new_page()
    open_app(page, f"{app_url}/?mode=teach")
    page.get_by_role("button", name="Lesson notes").click()
    notes = page.get_by_role("dialog", name="Lesson notes")
    expect(notes.get_by_role("heading", name="20 minutes")).to_be_visible()
    page.emulate_media(media="print")
    expect(notes.get_by_role("heading", name="20 minutes")).to_be_visible()
    expect(page.locator("#page")).to_be_hidden()
    page.emulate_media(media="screen")
    links = notes.get_by_role("link").evaluate_all("all => all.map(one => one.getAttribute('href'))")
    assert not [link for link in links if not link.startswith("?tab=") and link != "glossary.md"]  # head.js opens these
    notes.get_by_role("link", name="Why").click()
    expect(notes).to_be_hidden()
    expect(page.get_by_role("tabpanel", name="Why")).to_be_visible()
