"""Fixtures for the tests of the app."""

from unittest.mock import patch

import pytest
from playwright.sync_api import expect

with patch("inspect.getfile", side_effect=OSError):  # as in demo/__main__.py: no type stubs are written
    from demo.tabs import corruption, statistics, why

expect.set_options(timeout=30_000)  # ms, for a busy machine


@pytest.fixture(autouse=True)
def nothing_is_computed_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tabs that are shown in the test's process compute only what they show; in the app they compute ahead."""
    for tab in (corruption, statistics, why):
        monkeypatch.setattr(tab, "compute_ahead", lambda compute, model: None)
