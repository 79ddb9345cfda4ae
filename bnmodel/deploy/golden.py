"""Golden vectors: inputs with the eager network's answers, as plain JSON that any language reads.

An array is {"shape": […], "type": "uint8" or "float32", "data": [flat numbers]}, with "divide_by" where the values
are those numbers divided by it, in float32.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from bnmodel.data import load_sample
from bnmodel.deploy.folding import ExportError
from bnmodel.io import atomic_write

FILE = "golden.json"
CASES = 20


@dataclass(frozen=True)
class Golden:
    """Inputs as they are run, and for each of them all outputs of the eager network."""

    inputs: list[np.ndarray]
    outputs: list[list[np.ndarray]]


def digit_inputs() -> list[np.ndarray]:
    """Two test digits of each class, float32 (1, 1, 28, 28) each."""
    sample = load_sample(train=False)
    chosen = [int(index) for label in range(10) for index in torch.nonzero(sample.labels == label)[:2, 0]]
    return [sample.images[index : index + 1].numpy() for index in chosen]


def canvas_inputs() -> list[np.ndarray]:
    """The same digits as drawings of four sizes, half of them dark on light, uint8 (H, W, 4) each."""
    sizes = ((28, 28), (32, 40), (44, 30), (36, 36))
    return [canvas(image[0, 0], *sizes[i % 4], dark=i % 2 == 0) for i, image in enumerate(digit_inputs())]


def canvas(digit: np.ndarray, height: int, width: int, dark: bool) -> np.ndarray:
    """`digit`, float32 (28, 28), enlarged or reduced into the middle of an opaque canvas, uint8 (height, width, 4)."""
    side = min(height, width)
    scaled = F.interpolate(torch.from_numpy(digit)[None, None], (side, side), mode="bilinear", antialias=True)[0, 0]
    ink = np.zeros((height, width), np.uint8)
    top, left = (height - side) // 2, (width - side) // 2
    ink[top : top + side, left : left + side] = (scaled * 255).round().byte().numpy()
    rgba = np.full((height, width, 4), 255, np.uint8)
    rgba[:, :, :3] = (255 - ink if dark else ink)[:, :, None]
    return rgba


def write(path: Path, models: dict[str, Golden]) -> None:
    content = {
        stem: [
            {"input": _encode(array), "outputs": [_encode(output) for output in outputs]}
            for array, outputs in zip(golden.inputs, golden.outputs, strict=True)
        ]
        for stem, golden in models.items()
    }
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, separators=(",", ":")) + "\n")


def read(path: Path) -> dict[str, Golden]:
    """Stem → its golden vectors; ExportError where the file is missing or damaged."""
    try:
        content = json.loads(path.read_text())
        return {
            stem: Golden(
                [_decode(case["input"]) for case in cases],
                [[_decode(output) for output in case["outputs"]] for case in cases],
            )
            for stem, cases in content.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExportError(f"{path}: missing or damaged ({error}); export the folder again") from error


def _encode(array: np.ndarray) -> dict[str, Any]:
    shape, flat = list(array.shape), array.ravel()
    if array.dtype == np.uint8:
        return {"shape": shape, "type": "uint8", "data": flat.tolist()}
    if array.dtype != np.float32:
        raise ValueError(f"golden vectors: expected uint8 or float32, received {array.dtype}")
    bytes_ = np.clip(np.round(flat * 255), 0, 255).astype(np.uint8)
    if np.array_equal(bytes_ / np.float32(255), flat):  # an 8-bit image: a fifth of the size
        return {"shape": shape, "type": "float32", "divide_by": 255, "data": bytes_.tolist()}
    short = (float(f"{x:.9g}") for x in flat)  # 9 digits are exact
    return {"shape": shape, "type": "float32", "data": [int(x) if x == int(x) else x for x in short]}


def _decode(array: dict[str, Any]) -> np.ndarray:
    if array["type"] not in ("uint8", "float32"):
        raise ValueError(f"type: expected uint8 or float32, received {array['type']!r}")
    values = np.array(array["data"], array["type"]).reshape(array["shape"])
    return values / np.float32(array["divide_by"]) if "divide_by" in array else values
