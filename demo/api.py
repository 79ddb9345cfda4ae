"""Named endpoints for programs."""

from collections.abc import Callable
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image, ImageOps

from export.runtime import Recognizer

LONGEST_SIDE = 4096  # pixels; larger images are reduced to this
SHORTEST_SIDE = 8
DESCRIPTION = (
    "Recognise one handwritten digit in an image file of any mode, size and polarity: dark on light, light on dark or "
    'transparent. Returns {"label": 0 … 9 or null for a blank image, "probabilities": ten numbers, "blank": bool}.'
)


def build_api(find: Callable[[str], Recognizer], model: str) -> None:
    """`/predict`, answered by the model called `model`."""

    def predict(image: str | None) -> dict[str, Any]:
        answer = find(model).read(read_canvas(image))
        return {"label": answer.label, "probabilities": answer.probabilities.tolist(), "blank": answer.blank}

    # gr.File, not gr.Image, which opens the file itself and words its own errors; gr.api would take any path
    image = gr.File(type="filepath", visible=False, label="image")
    result = gr.JSON(visible=False, label="answer")
    gr.Button(visible=False).click(
        predict, [image], [result], api_name="predict", api_description=DESCRIPTION, concurrency_limit=4
    )


def read_canvas(path: str | None) -> np.ndarray:
    """An image file of any mode → uint8 (H, W, 4) RGBA, sides of 8 … 4096.

    Raises:
        gr.Error: none, not an image, damaged, too large or too small.
    """
    if path is None:
        raise gr.Error("image: expected an image file, received none; pass one with gradio_client.handle_file(path)")
    try:
        with Image.open(path) as image:
            canvas = _to_rgba(image)
    except Image.DecompressionBombError as error:
        raise gr.Error(f"image: expected at most 178 million pixels, received more ({error}); reduce it") from error
    except (OSError, ValueError, SyntaxError) as error:  # PIL raises each of these for one damage or another
        received = type(error).__name__ if str(path) in str(error) else error  # no path of this machine to the outside
        raise gr.Error(
            f"image: expected a PNG, JPEG or the like, received what cannot be read as an image ({received}); "
            f"save it again, as PNG for example"
        ) from error
    height, width = canvas.shape[:2]
    if min(height, width) < SHORTEST_SIDE:
        raise gr.Error(
            f"image: expected sides of at least {SHORTEST_SIDE} pixels (when the longer one is at most "
            f"{LONGEST_SIDE}), received {width}×{height}; enlarge it, or crop it to the digit"
        )
    return canvas


def _to_rgba(image: Image.Image) -> np.ndarray:
    """An opened image → uint8 (H, W, 4), upright and no longer than LONGEST_SIDE."""
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))  # keeps the aspect ratio, never enlarges
    image = ImageOps.exif_transpose(image)  # as a phone was held
    if image.mode.startswith(("I", "F")):  # 16 or 32 bits a pixel, which PIL's conversion would cut off at 255
        values = np.nan_to_num(np.asarray(image, np.float64))
        span = float(np.ptp(values))
        image = Image.fromarray(((values - values.min()) * (255 / span if span else 0)).astype(np.uint8))
    return np.array(image.convert("RGBA"))
