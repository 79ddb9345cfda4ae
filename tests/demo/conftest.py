"""What the tests of the app share."""

import torch
from playwright.sync_api import expect

torch.set_num_threads(1)  # as the app does; more threads only wait for each other on a busy machine
expect.set_options(timeout=30_000)  # ms, for a busy machine
