"""Fixtures: a running app and a Chromium, each started once per session."""

import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from benchmarks.running_app import CHROMIUM_ARGS, Served, chromium_path, open_app, serve_logged, watch_errors
from tests.windows import new_window, visited

# pytest-xdist starts a process per core; more threads only wait for each other, in processes that tests start too
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
# without bytecode, each process that the tests start would compile what it imports, and pytest rewrite all assertions
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Files that open most tabs. One process runs them: each process has an app of its own, whose first answers take long.
ALL_TABS = (
    "demo/test_frame.py",
    "demo/test_tabs.py",
    "demo/test_url_state.py",
    "demo/test_teachers_mode.py",
    "demo/test_lesson.py",
    "demo/test_shared_controls.py",
    "demo/test_take_home.py",
)
# The slowest files, longest first. They start first, so that pytest-xdist's processes end at about the same time.
LONGEST = (
    *ALL_TABS,
    "export/test_pipeline.py",
    "demo/test_live_training.py",
    "demo/test_kept_drawings.py",
    "examples/test_examples.py",
    "demo/test_pad.py",
    "examples/test_browser_example.py",
    "demo/test_app.py",
    "training/test_distributed.py",
    "test_lint_and_types.py",
    "diagnosis/test_checkup.py",
    "deploy/test_dynamic_axes.py",
    "data/test_preprocessing.py",
    "test_packaging.py",
    "demo/test_digits.py",
    "deploy/test_uncommon.py",
    "demo/test_cancellation.py",
    "deploy/test_certify.py",
    "training/test_surviving_kills.py",
    "benchmarks/test_drawing.py",
    "demo/test_fuzzing.py",
    "demo/test_one_network.py",
    "demo/test_space.py",
    "deploy/test_traceable.py",
    "test_damaged.py",
    "data/test_preprocessing_invariance.py",
    "deploy/test_onnx_inspection.py",
    "test_docs.py",
)
# `python -m demo`, whose tabs compute only what they show: computing ahead takes longer than all answers of the tests
WITHOUT_AHEAD = """
import runpy
import demo.ahead
demo.ahead.compute_ahead = lambda compute, model: None
runpy.run_module("demo", run_name="__main__")
"""


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config.option, "loadscopereorder"):  # pytest-xdist orders files by number of tests
        config.option.loadscopereorder = False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For `--dist loadfile`: the tests of a file, and those of all files of ALL_TABS, run in one process."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class TabsTogether(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "all tabs" if file.endswith(ALL_TABS) else file

    return TabsTogether(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_computing() -> Iterator[None]:
    """Wait for what tabs compute ahead; a later test may change the default dtype of PyTorch, as `certify` does."""
    yield
    for thread in threading.enumerate():
        if thread.name == "compute ahead":
            thread.join()


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve_logged(tmp_path_factory.mktemp("app") / "log", ("-c", WITHOUT_AHEAD)) as served:
        yield served


@pytest.fixture(scope="session")
def app_url(app: Served) -> str:
    return app.url


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let connections to other machines raise OSError."""

    def refuse(*_: object) -> None:
        raise OSError("a test tried to use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # pages of one window share their process and compiled scripts
        arguments = [*CHROMIUM_ARGS, "--process-per-site"]
        chromium = playwright.chromium.launch(executable_path=chromium_path(), args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def window(browser: Browser, app_url: str) -> BrowserContext:
    """One browser window for the whole session."""
    return new_window(browser, app_url)


@pytest.fixture(scope="session")
def other_window(browser: Browser, app_url: str) -> BrowserContext:
    return new_window(browser, app_url)


@pytest.fixture
def desktop(window: BrowserContext) -> Iterator[BrowserContext]:
    """The window of a new visitor."""
    with visited(window):
        yield window


@pytest.fixture
def elsewhere(other_window: BrowserContext) -> Iterator[BrowserContext]:
    """The window of another new visitor, which shares nothing with the first one's."""
    with visited(other_window):
        yield other_window


@pytest.fixture
def blank(desktop: BrowserContext) -> Iterator[Page]:
    """A page that has opened nothing yet; fails the test if it wrote an error to the console."""
    page = desktop.new_page()
    errors = watch_errors(page)
    yield page
    page.close()
    assert errors == []


@pytest.fixture
def page(blank: Page, app_url: str) -> Page:
    """The app, opened at 1280×900 and ready; fails the test if the page wrote an error to the console."""
    open_app(blank, app_url)
    return blank
