"""The Gaussian blur of the experiments is that of torchvision."""

import pytest
import torch
from torchvision.transforms.v2.functional import gaussian_blur as torchvision_blur

from bnmodel.experiments.blur import gaussian_blur


@pytest.mark.parametrize(("size", "sigma"), [(9, 2.5), (13, 0.6), (13, 3.0)])
def test_the_blur_is_that_of_torchvision(size: int, sigma: float) -> None:
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    expected = torchvision_blur(images, [size, size], [sigma, sigma])
    torch.testing.assert_close(gaussian_blur(images, size, sigma), expected, rtol=1e-5, atol=1e-6)
