"""Digits and drawings on which this project's exported files are compared with the network."""

import numpy as np
import torch
import torch.nn.functional as F

from bnmodel.data import load_sample


def digit_inputs() -> list[np.ndarray]:
    """Two test digits of each class, float32 (1, 1, 28, 28) each."""
    sample = load_sample(train=False)
    chosen = [int(index) for label in range(10) for index in torch.nonzero(sample.labels == label)[:2, 0]]
    return [sample.images[index : index + 1].numpy() for index in chosen]


def canvas_inputs(size: tuple[int, int] | None = None) -> list[np.ndarray]:
    """The same digits as drawings of four sizes, or of `size`; half of them dark on light; uint8 (H, W, 4) each."""
    sizes = ((28, 28), (32, 40), (44, 30), (36, 36)) if size is None else (size,)
    return [canvas(image[0, 0], *sizes[i % len(sizes)], dark=i % 2 == 0) for i, image in enumerate(digit_inputs())]


def canvas(digit: np.ndarray, height: int, width: int, dark: bool) -> np.ndarray:
    """`digit`, float32 (28, 28), resized to fit the centre of an opaque canvas, uint8 (height, width, 4).

    dark: dark ink on light paper; otherwise light ink on dark paper.
    """
    side = min(height, width)
    scaled = F.interpolate(torch.from_numpy(digit)[None, None], (side, side), mode="bilinear", antialias=True)[0, 0]
    ink = np.zeros((height, width), np.uint8)
    top, left = (height - side) // 2, (width - side) // 2
    ink[top : top + side, left : left + side] = (scaled * 255).round().byte().numpy()
    rgba = np.full((height, width, 4), 255, np.uint8)
    rgba[:, :, :3] = (255 - ink if dark else ink)[:, :, None]
    return rgba
