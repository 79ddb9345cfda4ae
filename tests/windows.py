"""Browser windows that tests share, each with the state of a new visitor."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, BrowserContext

PATIENCE = 120_000  # ms, for a busy machine


def new_window(browser: Browser, url: str) -> BrowserContext:
    """A window with a cache of its own. Its first page stays open, and so does the process of the pages after it."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE)
    context.new_page().goto(f"{url}/health")
    return context


@contextmanager
def visited(window: BrowserContext) -> Iterator[BrowserContext]:
    """Afterwards the window is that of a new visitor: no stored data, pages or permissions."""
    yield window
    first, *opened = window.pages
    for page in opened:
        page.close()
    first.evaluate("localStorage.clear()")
    window.clear_cookies()
    window.clear_permissions()
