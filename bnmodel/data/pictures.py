"""Open image files of any mode and orientation."""

import numpy as np
from PIL import Image, ImageOps

LONGEST_SIDE = 2048  # pixels; larger images are reduced to this
SHORTEST_SIDE = 8


def to_rgba(image: Image.Image) -> np.ndarray:
    """An opened image as uint8 (H, W, 4), upright by its EXIF orientation, reduced to sides of at most LONGEST_SIDE.

    Values of 16 or 32 bits are scaled from their range to 0 … 255; PIL would clip them at 255.
    """
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))  # keeps the aspect ratio, never enlarges
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        values = np.nan_to_num(np.asarray(image, np.float64))
        span = float(np.ptp(values))
        image = Image.fromarray(((values - values.min()) * (255 / span if span else 0)).astype(np.uint8))
    return np.array(image.convert("RGBA"))
