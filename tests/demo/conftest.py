"""What the tests of the app share."""

import threading
from collections.abc import Iterator

import pytest
import torch
from playwright.sync_api import expect

torch.set_num_threads(1)  # as the app does; more threads only wait for each other on a busy machine
expect.set_options(timeout=30_000)  # ms, for a busy machine


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_computing() -> Iterator[None]:
    """Wait for what tabs compute ahead; a later test may change the default dtype of PyTorch, as `certify` does."""
    yield
    for thread in threading.enumerate():
        if thread.name == "compute ahead":
            thread.join()
