"""Screenshots of the app for README and docs.  python -m benchmarks.figures"""

from PIL import Image
from playwright.sync_api import Page, expect

from benchmarks import ROOT
from benchmarks.app import browser
from benchmarks.running_app import draw, open_app, serve

DOCS = ROOT / "docs"
MOST_BYTES = 300_000
FLAGGED_ONE = [(0.40, 0.33), (0.56, 0.2), (0.5, 0.85)]  # a 1 that is misread in train mode


def main() -> None:
    DOCS.mkdir(exist_ok=True)
    with serve() as url, browser() as open_page:
        for theme in ("light", "dark"):
            page = open_page()
            page.set_viewport_size({"width": 1280, "height": 1090})  # the first tab down to its batch
            open_app(page, f"{url}/?__theme={theme}")
            draw(page, FLAGGED_ONE)
            expect(page.locator("#modes .sentence")).not_to_contain_text("xample")
            page.mouse.move(0, 0)
            save(page, f"app-{theme}.png")
            if theme == "light":
                for tab, name in (("Chance", "chance"), ("Faults", "faults")):
                    page.get_by_role("tab", name=tab, exact=True).click()
                    page.wait_for_selector(f"#{name} .figure")
                    expect(page.locator("[role=tabpanel] .pending")).to_have_count(0)
                    save(page, f"{name}.png", (f"#tab-{name}", f"#{name}"))


def save(page: Page, name: str, part: tuple[str, str] | None = None) -> None:
    """Save a screenshot in 256 colours of the page, or of it from the top of one element to the end of another."""
    path = DOCS / name
    if part is None:
        page.screenshot(path=path)
    else:
        first, last = (page.locator(one).bounding_box() for one in part)
        assert first is not None
        assert last is not None
        end = last["y"] + last["height"]
        around = {"x": first["x"] - 20, "y": first["y"], "width": first["width"] + 40, "height": end - first["y"] + 20}
        page.screenshot(path=path, full_page=True, clip=around)  # type: ignore[arg-type]
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    assert path.stat().st_size < MOST_BYTES, f"{path}: {path.stat().st_size:,} bytes"
    print(f"{path.relative_to(ROOT)}: {image.width}×{image.height}, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
