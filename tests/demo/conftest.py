"""What the tests of the app share."""

import torch

torch.set_num_threads(1)  # as the app does; more threads only wait for each other on a busy machine
