"""Controls that tabs share: the channel and the batch; and the pixel, chosen by click or key."""

import re

from playwright.sync_api import Page, expect

from tests.demo.tab_helpers import choose_tab


def test_a_channel_under_the_mouse_is_marked_in_all_pictures_and_a_chosen_one_is_followed(page: Page) -> None:
    choose_tab(page, "Why")
    channel = page.locator("#maps button[data-channel] >> nth=2")
    channel.hover()
    expect(page.locator("#maps .hot")).to_have_count(1)
    number = channel.get_attribute("data-channel")
    channel.click()
    choose_tab(page, "Worked out")
    expect(page.locator("#worked .sentence")).to_contain_text(f"Channel {number} of conv1.norm")


def test_a_channel_that_only_a_later_layer_has_can_be_followed(page: Page) -> None:
    choose_tab(page, "Why")
    page.locator("#why-layer input").click()
    page.get_by_role("option", name="conv5.norm").click()
    expect(page.locator("#maps .caption")).to_contain_text("Output of conv5.norm")
    channel = page.locator("#maps button[data-channel] >> nth=5")
    number = int(channel.get_attribute("data-channel") or 0)
    assert number > 47, "conv1 has as many channels; choose another one"
    channel.click()
    choose_tab(page, "Worked out")
    expect(page.locator("#worked .sentence")).to_contain_text(f"Channel {number} of conv5.norm")
    choose_tab(page, "Statistics")
    expect(page.locator("#statistics .sentence")).to_contain_text(f"channel {number} of conv5.norm")


def test_all_tabs_with_a_batch_share_the_same_batch(page: Page) -> None:
    page.locator("#try-blurred-digits").click()
    expect(page.locator("#modes .sentence")).to_contain_text("31 blurred digits")
    for title, place in (("Why", "#why"), ("Worked out", "#worked")):
        choose_tab(page, title)
        expect(page.locator(f"{place} .sentence")).to_contain_text("31 blurred digits")
    page.locator("#worked-count input[type=number]").fill("3")
    expect(page.locator("#worked .sentence")).to_contain_text("3 blurred digits")
    choose_tab(page, "Your digit")
    expect(page.locator("#modes .sentence")).to_contain_text("3 blurred digits")
    expect(page).to_have_url(re.compile(r"count=3&kind=blurred$"))


def test_a_pixel_is_chosen_by_click_and_by_arrow_key(page: Page) -> None:
    choose_tab(page, "Worked out")
    first = page.locator("#worked [data-grid] >> nth=0")
    box = first.bounding_box()
    assert box is not None
    first.click(position={"x": box["width"] * 12.5 / 24, "y": box["height"] * 4.5 / 24})
    expect(page.locator("#worked .sentence")).to_contain_text("row 4, column 12")
    page.locator("#worked [data-grid] >> nth=0").press("ArrowDown")
    expect(page.locator("#worked .sentence")).to_contain_text("row 5, column 12")
