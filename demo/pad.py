"""The drawing pad: a canvas with the live answer below it, in Gradio's HTML component.

Its value is the drawing as a PNG data URL (280×280 RGBA), "" while it is blank; of several digits, the sheet of the
chosen one. While the pen moves, its script calls `recognize` directly; at pen-up it sets the value and notifies the
page (see `demo.page`).
"""

import base64
from collections.abc import Callable, Sequence
from hashlib import sha256
from threading import Lock
from typing import Any, TypeVar

import gradio as gr
import numpy as np
from cachetools import LRUCache, cached

from bnmodel.data import load_sample
from bnmodel.data.advice import advice
from demo import digits
from demo.images import as_ink, decode_canvas, grey, png_url
from demo.scripts import source
from demo.server.validation import is_number, refusal, shown
from export.recogniser import SURE, Answer, Recognizer

EXAMPLE = 1  # index of the example within its class
MOST_READ = 512  # drawings whose answers are kept
R = TypeVar("R")


def build_pad(
    find: Callable[[str], Recognizer], read: Callable[[Any, str], tuple[np.ndarray, Answer]], model: str
) -> gr.HTML:
    """Build the pad.

    Args:
        find: model name → recogniser.
        read: value of the pad and model name → sheet and answer.
        model: name of the model at first.
    """

    def recognize(request: Any) -> dict[str, Any]:
        """{"canvas": data URL, "model": name, "at": [x, y] or null} → what the pad shows. Called by pad.js.

        Raises:
            gr.Error: an invalid request, or an unknown model.
        """
        if not isinstance(request, dict) or not isinstance(request.get("model"), str):
            raise refusal(f"drawing: expected a canvas and a model's name, received {shown(request)}; reload the page")
        url, name = request.get("canvas"), request["model"]
        return reply(*read(url, name), *found(url, name), point(request.get("at")))

    @keep(MOST_READ)
    def found(url: str, name: str) -> tuple[list[digits.Found], bool]:
        return digits.find(find(name), *read(url, name))

    return gr.HTML(
        value="",
        elem_id="pad",
        html_template=source("pad.html"),
        css_template=source("pad.css"),
        js_on_load="\n".join(map(source, ("drawing.js", "pad.js", "picture.js"))),
        apply_default_css=False,
        server_functions=[recognize],
        examples=[{"label": label, "url": png_url(as_ink(digit))} for label, digit in enumerate(example_digits())],
        model=model,
    )


def reply(
    canvas: np.ndarray,
    answer: Answer,
    found: Sequence[digits.Found],
    too_many: bool,
    at: tuple[float, float] | None,
) -> dict[str, Any]:
    """What the pad shows for a drawing and its `answer`; of several digits `found`, for the one closest to `at`.

    `digits` is empty unless there are several; `canvas` is then the sheet of the `chosen` one, for the tabs. `advice`:
    why there is no sure answer, "" where there is one.
    """
    height, width = canvas.shape[:2]
    boxes = [one.box for one in found]
    chosen = None
    if found:
        chosen = digits.nearest(boxes, (at[0] * width, at[1] * height)) if at else 0
        answer = found[chosen].answer
    sure = all(_is_sure(one.answer) for one in found) if found else _is_sure(answer) and not too_many
    return {
        "label": answer.label,
        "probabilities": answer.probabilities.tolist(),
        "digit": base64.b64encode(grey(answer.digit).tobytes()).decode(),  # 28·28 bytes
        "advice": "" if sure else advice(canvas, -1 if too_many else max(1, len(found))),
        "digits": [
            {
                "label": one.answer.label,
                "probability": float(one.answer.probabilities.max()),
                "box": [edge / side for edge, side in zip(one.box, (width, height) * 2, strict=True)],
            }
            for one in found
        ],
        "chosen": chosen,
        "canvas": png_url(digits.alone(canvas, boxes, chosen)) if chosen is not None else "",
    }


def keep(maxsize: int) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Cache a function of a drawing's URL and other values; the URL itself, which may be long, is not kept."""

    def key(url: str, *others: str) -> tuple[bytes | str, ...]:
        return sha256(url.encode(errors="surrogatepass")).digest(), *others

    return cached(LRUCache(maxsize), key=key, lock=Lock())


def _is_sure(answer: Answer) -> bool:
    return not answer.blank and float(answer.probabilities.max()) >= SURE


def point(at: Any) -> tuple[float, float] | None:
    """Check a point sent by the pad, in shares of the sheet; None if no digit is chosen.

    Raises:
        gr.Error: anything else.
    """
    if at is None:
        return None
    if not isinstance(at, list) or len(at) != 2 or not all(is_number(share) and -1 <= share <= 2 for share in at):
        raise refusal(f"at: expected two numbers from -1 to 2, received {shown(at)}; reload the page")
    return float(at[0]), float(at[1])


def drawing(url: Any) -> np.ndarray:
    """Decode a drawing sent by the pad: uint8 (280, 280, 4) RGBA.

    Raises:
        gr.Error: anything else.
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
