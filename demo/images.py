"""Conversions between data URLs, PIL images and arrays."""

import base64
import io
from functools import lru_cache

import numpy as np
from PIL import Image, UnidentifiedImageError

CANVAS_SIDE = 280  # pixels, what the pad sends
LONGEST_DATA_URL = 1_000_000  # characters; the pad's PNG has about 10,000


def decode_canvas(url: str) -> np.ndarray:
    """The pad's PNG data URL → uint8 (280, 280, 4) RGBA.

    Raises:
        ValueError: anything else.
    """
    prefix = "data:image/png;base64,"
    if not isinstance(url, str) or not url.startswith(prefix) or len(url) > LONGEST_DATA_URL:
        what = f"{len(url):,} characters beginning {url[:30]!r}" if isinstance(url, str) else type(url).__name__
        raise ValueError(f"drawing: expected a PNG data URL, received {what}; draw it again")
    try:
        with Image.open(io.BytesIO(base64.b64decode(url[len(prefix) :])), formats=["PNG"]) as image:
            if image.size != (CANVAS_SIDE, CANVAS_SIDE):
                raise ValueError(f"{image.width}×{image.height} pixels")
            return np.array(image.convert("RGBA"))
    except Exception as error:  # PIL raises many kinds
        what = "another format" if isinstance(error, UnidentifiedImageError) else str(error)
        raise ValueError(
            f"drawing: expected a PNG of {CANVAS_SIDE}×{CANVAS_SIDE} pixels, received {what}; draw it again"
        ) from error


def png_url(pixels: np.ndarray) -> str:
    """uint8 (H, W) grey or (H, W, 4) RGBA → a PNG data URL."""
    return _png_url(pixels.shape, pixels.tobytes())


@lru_cache(maxsize=4096)  # visitors see the same samples
def _png_url(shape: tuple[int, ...], content: bytes) -> str:
    buffer = io.BytesIO()
    pixels = np.frombuffer(content, np.uint8).reshape(shape)
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def grey(digit: np.ndarray) -> np.ndarray:
    """float (…) in [0, 1] → uint8 (…)."""
    pixels: np.ndarray = (np.clip(digit, 0, 1) * 255 + 0.5).astype(np.uint8)
    return pixels


def as_ink(digit: np.ndarray) -> np.ndarray:
    """float (28, 28), ink bright → uint8 (28, 28, 4), dark ink on a transparent sheet, as the pad draws it."""
    ink = np.zeros((*digit.shape, 4), np.uint8)
    ink[..., :3] = (0x14, 0x17, 0x1C)
    ink[..., 3] = grey(digit)
    return ink


def enlarge(pixels: np.ndarray) -> np.ndarray:
    """uint8 RGBA (H, W, 4) → (280, 280, 4), smoothly, as the pad enlarges a picture."""
    return np.array(Image.fromarray(pixels).resize((CANVAS_SIDE, CANVAS_SIDE), Image.Resampling.BICUBIC))


def diverging(values: np.ndarray, limit: float) -> np.ndarray:
    """float (H, W) in ±limit → uint8 (H, W, 4): green above 0, purple below, opaque at ±limit, transparent at 0."""
    shares = np.clip(values / max(limit, 1e-9), -1, 1)[..., None]
    colour = np.where(shares > 0, (0x00, 0x9E, 0x73), (0xB0, 0x5A, 0xB8))
    return np.concatenate((colour, 255 * np.abs(shares)), axis=-1).astype(np.uint8)
