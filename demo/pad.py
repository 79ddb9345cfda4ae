"""The drawing pad: our own canvas, with the live answer beneath it, in Gradio's HTML component.

Its value is the drawing as a PNG data URL (280×280 RGBA), "" while it is blank. While the pen moves, its script calls
`recognize` directly; at pen-up it sets the value and the page hears of it (see `demo.page`).
"""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from bnmodel.data import load_sample
from demo.images import as_ink, decode_canvas, grey, png_url
from demo.server.validation import refusal, shown
from export.recogniser import Recognizer

HERE = Path(__file__).parent
EXAMPLE = 1  # which digit of each class, counted from 0


def build_pad(find: Callable[[str], Recognizer], model: str) -> gr.HTML:
    """The pad, answered by the recogniser that `find` returns for a model's name; `model` is the first one's."""

    def recognize(request: Any) -> dict[str, Any]:
        """{"canvas": data URL, "model": name} → what the pad shows. Called by pad.js.

        Raises:
            gr.Error: something else, or a model that is not there.
        """
        if not isinstance(request, dict) or not isinstance(request.get("model"), str):
            raise refusal(f"drawing: expected a canvas and a model's name, received {shown(request)}; reload the page")
        answer = find(request["model"]).read(drawing(request.get("canvas")))
        return {
            "label": answer.label,
            "probabilities": answer.probabilities.tolist(),
            "digit": base64.b64encode(grey(answer.digit).tobytes()).decode(),  # 28·28 bytes
        }

    return gr.HTML(
        value="",
        elem_id="pad",
        html_template=(HERE / "pad.html").read_text(encoding="utf-8"),
        css_template=(HERE / "pad.css").read_text(encoding="utf-8"),
        js_on_load="\n".join((HERE / name).read_text(encoding="utf-8") for name in ("drawing.js", "pad.js")),
        apply_default_css=False,
        server_functions=[recognize],
        examples=[{"label": label, "url": png_url(as_ink(digit))} for label, digit in enumerate(example_digits())],
        model=model,
    )


def drawing(url: Any) -> np.ndarray:
    """What the pad sent → uint8 (280, 280, 4) RGBA.

    Raises:
        gr.Error: something else came.
    """
    try:
        return decode_canvas(url)
    except ValueError as error:
        raise refusal(str(error)) from error


def example_digits() -> np.ndarray:
    """float32 (10, 28, 28): one digit of each class, from the shipped test sample."""
    sample = load_sample(train=False)
    chosen = [int((sample.labels == label).nonzero()[EXAMPLE, 0]) for label in range(10)]
    return sample.images[chosen, 0].numpy()
