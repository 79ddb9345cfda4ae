"""Named endpoints for gradio_client, plain HTTP and MCP. `docs/http-api.md` shows how to call them."""

import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
import numpy as np
import torch
from gradio.components import Component
from PIL import Image
from torch import Tensor

from bnmodel.data.pictures import LONGEST_SIDE, SHORTEST_SIDE, to_rgba
from bnmodel.experiments import modes
from bnmodel.experiments.batch_spread import run as run_spread
from bnmodel.experiments.other_samples import KINDS, MAX_OTHERS, other_samples
from demo.models import Model
from demo.server.validation import is_number, refusal, shown
from demo.shared_controls import MAX_SEED
from export.recogniser import Number

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")  # not EPS, for which PIL starts a program
MOST_PIXELS = 50_000_000  # 200 MB when decoded
AT_ONCE = 4  # calls of all three endpoints together
DECODING = threading.Lock()  # one image at a time, to limit memory
warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `read_canvas` refuses such an image
IMAGE = (
    "an image file of any mode, size and polarity: dark on light, light on dark or transparent; over MCP a data: URL"
)
PREDICT = (
    f"Recognise a handwritten digit or number in {IMAGE}. "
    'Returns {"label": 0 … 9 or null for a blank image or several digits, "probabilities": ten numbers, "blank": bool, '
    '"number": its digits as a string, or null if there is none, more than eight, or one below 50%, '
    '"digits": [{"label", "probability", "box": left, top, right, bottom in pixels of the upright image}]}, in reading '
    "order."
)
COMPARE_MODES = (
    f"What batch normalisation does to one handwritten digit, in {IMAGE}: its probabilities in eval mode (running "
    "statistics), and in train mode in a batch with `companions` (0 … 255) other digits. `kind` of the other digits: "
    f"{', '.join(KINDS)}; `digit_class` (0 … 9) applies to “one class” only; the same `seed` gives the same "
    'digits. Returns {"label_eval", "label_train", "probabilities_eval", "probabilities_train"}.'
)
BATCH_SPREAD = (
    f"How much a train-mode answer depends on chance: the digit in {IMAGE}, in 100 random batches of `batch_size` "
    '(1 … 256). Returns {"label": the answer in eval mode, "eval_probability", "flipped": share of the batches in '
    'which another digit wins, "quantiles": {batch size: 10%, 50% and 90% quantile of the label\'s probability}}.'
)
SPREAD_BATCHES = 100


def build_api(model: Model) -> None:
    """Add /predict, /compare_modes and /batch_spread, answered by `model`."""
    answers = Answers(model)
    kind = gr.Textbox("random", visible=False, label="kind")
    _endpoint("predict", PREDICT, answers.predict, [])
    others = [_number("companions", 31), kind, _number("digit_class", 1), _number("seed", 0)]
    _endpoint("compare_modes", COMPARE_MODES, answers.compare_modes, others)
    _endpoint("batch_spread", BATCH_SPREAD, answers.batch_spread, [_number("batch_size", 32), _number("seed", 0)])


class Answers:
    """What the endpoints return, from one network. MCP clients see the docstrings' descriptions of the arguments."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def predict(self, image: dict[str, Any] | None) -> dict[str, Any]:
        """Arguments as MCP clients see them.

        Args:
            image: the picture; over MCP as a data: URL ("data:image/png;base64,…"), http URLs are refused
        """
        canvas, scale = read_image(path_of(image))
        answer = self.model.recognizer.read(canvas)
        number = Number(()) if answer.blank else self.model.recognizer.read_numbers(canvas)
        several = number.too_many or len(number.digits) > 1
        return {
            "label": None if several else answer.label,
            "probabilities": answer.probabilities.tolist(),
            "blank": answer.blank,
            "number": number.text,
            "digits": [
                {"label": one.label, "probability": one.probability, "box": [edge * scale for edge in one.box]}
                for one in number.digits
            ],
        }

    def compare_modes(
        self, image: dict[str, Any] | None, companions: float, kind: str, digit_class: float, seed: float
    ) -> dict[str, Any]:
        """Arguments as MCP clients see them.

        Args:
            image: the picture; over MCP as a data: URL ("data:image/png;base64,…"), http URLs are refused
            companions: how many other images share the batch, 0 … 255
            kind: of the other images: random, one class, copies, blurred, inverted, blank or noise
            digit_class: the class of the other images, 0 … 9, where `kind` is "one class"
            seed: of the choice of the other images, 0 … 2³¹ − 1; the same seed gives the same images
        """
        if kind not in KINDS:
            raise refusal(f"kind: expected one of {', '.join(KINDS)}, received {shown(kind)}; choose one of these")
        count = whole("companions", companions, 0, MAX_OTHERS)
        label = whole("digit_class", digit_class, 0, 9)
        seed = whole("seed", seed, 0, MAX_SEED)
        digit = read_digit(path_of(image), self.model)
        result = modes.compare(self.model.network, digit, other_samples(kind, count, seed, digit, label))
        return {
            "label_eval": int(result.eval_probabilities.argmax()),
            "label_train": int(result.train_probabilities.argmax()),
            "probabilities_eval": result.eval_probabilities.tolist(),
            "probabilities_train": result.train_probabilities.tolist(),
        }

    def batch_spread(self, image: dict[str, Any] | None, batch_size: float, seed: float) -> dict[str, Any]:
        """Arguments as MCP clients see them.

        Args:
            image: the picture; over MCP as a data: URL ("data:image/png;base64,…"), http URLs are refused
            batch_size: images per batch, the given one included, 1 … 256
            seed: of the choice of the other images, 0 … 2³¹ − 1
        """
        size = whole("batch_size", batch_size, 1, 256)
        seed = whole("seed", seed, 0, MAX_SEED)
        result = run_spread(self.model.network, read_digit(path_of(image), self.model), size, SPREAD_BATCHES, seed)
        return {
            "label": result.label,
            "eval_probability": result.eval_probability,
            "flipped": result.flipped,
            "quantiles": dict(zip(map(str, result.sizes), result.quantiles.tolist(), strict=True)),
        }


def _endpoint(name: str, description: str, answer: Callable[..., Any], others: Sequence[Component]) -> None:
    """Add an endpoint that takes an image and `others`; its components are not on the page."""
    # gr.Image would open the file and word its own errors; gr.api would accept any path
    image = gr.File(type="filepath", visible=False, label="image")
    example = {"path": "digit.png", "url": "digit.png", "meta": {"_type": "gradio.FileData"}}
    image.example_payload = lambda: example  # type: ignore[method-assign]  # in Gradio's page "Use via API"
    result = gr.JSON(visible=False, label="answer")
    gr.Button(visible=False).click(
        answer,
        [image, *others],
        [result],
        api_name=name,
        api_description=description,
        preprocess=False,  # gr.File's leaves an empty file behind; demo/server/middleware.py has checked the values
        concurrency_limit=AT_ONCE,
        concurrency_id="programs",
    )


def path_of(image: dict[str, Any] | None) -> str | None:
    """The path in Gradio's description of an uploaded file."""
    return image["path"] if image else None


def _number(label: str, value: int) -> gr.Number:
    return gr.Number(value, visible=False, label=label)


def whole(name: str, value: Any, low: int, high: int) -> int:
    """`value` as an integer in low … high.

    Raises:
        gr.Error: `value` is anything else.
    """
    if not is_number(value) or value != value // 1 or not low <= value <= high:
        raise refusal(
            f"{name}: expected a whole number {low} … {high}, received {shown(value)}; choose one in that range"
        )
    return int(value)


def read_digit(path: str | None, model: Model) -> Tensor:
    """The network's input for an image file: float32 (28, 28).

    Raises:
        gr.Error: the image cannot be read, or is blank.
    """
    answer = model.recognizer.read(read_canvas(path))
    if answer.blank:
        raise refusal("image: expected a digit, received a blank image; draw one that stands out from the background")
    return torch.from_numpy(answer.digit)


def read_canvas(path: str | None) -> np.ndarray:
    """The canvas of `read_image`."""
    return read_image(path)[0]


def read_image(path: str | None) -> tuple[np.ndarray, float]:
    """Read an image file of any mode as uint8 (H, W, 4) RGBA with sides of 8 … 2048.

    Returns:
        The canvas, and how many times larger the image was.

    Raises:
        gr.Error: no file, not an image, or one that is damaged, too large or too small.
    """
    if path is None:
        raise refusal("image: expected an image file, received none; pass one with gradio_client.handle_file(path)")
    try:
        with DECODING, Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError  # PIL does so from 179 million pixels on
            longest = max(image.size)
            canvas = to_rgba(image)
    except Image.DecompressionBombError as error:
        raise refusal(
            f"image: expected at most {MOST_PIXELS / 1e6:.0f} million pixels, received more (a decompression bomb?); "
            "reduce it"
        ) from error
    except Exception as error:  # PIL raises many kinds
        received = type(error).__name__ if str(path) in str(error) else error  # reveal no path of this machine
        raise refusal(
            f"image: expected a PNG, JPEG or the like, received a file that is not a readable image ({received}); "
            f"save it again, for example as PNG"
        ) from error
    height, width = canvas.shape[:2]
    if min(height, width) < SHORTEST_SIDE:
        raise refusal(
            f"image: expected sides of at least {SHORTEST_SIDE} pixels (when the longer one is at most "
            f"{LONGEST_SIDE}), received {width}×{height}; enlarge it, or crop it to the digit"
        )
    return canvas, longest / max(canvas.shape[:2])
