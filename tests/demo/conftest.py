"""Waits for what tabs compute in the background."""

import threading
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_computing() -> Iterator[None]:
    """A later test in this process may change PyTorch's default dtype, as `certify` does."""
    yield
    for thread in threading.enumerate():
        if thread.name == "compute ahead":
            thread.join()
