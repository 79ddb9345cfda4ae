"""Golden vectors: inputs with the network's outputs in float64, as plain JSON that any language reads.

An array is {"shape": […], "type": "float32", "data": [flat numbers]}. With "divide_by", the values are the numbers
divided by it, in float32. Large arrays have "base64", their little-endian bytes, in place of "data". bfloat16 is
written as float32.
"""

import base64
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bnmodel.deploy.errors import ExportError
from bnmodel.io import atomic_write

FILE = "golden.json"
LARGE = 16_384  # elements
TYPES = ("float32", "float64", "float16", "uint8", "int8", "int16", "int32", "int64", "bool", "complex64")
Arrays = list[np.ndarray]


@dataclass(frozen=True)
class Golden:
    """Inputs and outputs of a network: a list of cases, each a list of arrays."""

    inputs: list[Arrays]
    outputs: list[Arrays]


def write(path: Path, models: dict[str, Golden]) -> None:
    content = {
        stem: [
            {**_encode_inputs(inputs), "outputs": [_encode(output) for output in outputs]}
            for inputs, outputs in zip(golden.inputs, golden.outputs, strict=True)
        ]
        for stem, golden in models.items()
    }
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n")


def read(path: Path) -> dict[str, Golden]:
    """File stem → golden vectors; ExportError if the file is missing or damaged."""
    try:
        content = json.loads(path.read_text())
        return {
            stem: Golden(
                [[_decode(array) for array in case.get("inputs") or [case["input"]]] for case in cases],
                [[_decode(output) for output in case["outputs"]] for case in cases],
            )
            for stem, cases in content.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ExportError(f"{path}: missing or damaged ({error}); export the folder again") from error


def _encode_inputs(inputs: Arrays) -> dict[str, Any]:
    encoded = [_encode(array) for array in inputs]
    return {"input": encoded[0]} if len(encoded) == 1 else {"inputs": encoded}


def _encode(array: np.ndarray) -> dict[str, Any]:
    kind, flat = str(array.dtype), array.ravel()
    if kind not in TYPES:
        raise ValueError(f"golden vectors: expected one of {', '.join(TYPES)}, received {kind}")
    head: dict[str, Any] = {"shape": list(array.shape), "type": kind}
    floats = kind.startswith("float")
    if kind == "float32":
        bytes_ = np.round(np.clip(np.nan_to_num(flat), 0, 1) * 255).astype(np.uint8)
        if np.array_equal(bytes_ / np.float32(255), flat):  # an 8-bit image: a fifth of the size
            return {**head, "divide_by": 255, "data": bytes_.tolist()}
    if flat.size > LARGE or kind == "complex64" or (floats and not np.isfinite(flat).all()):
        little = np.ascontiguousarray(flat).astype(flat.dtype.newbyteorder("<"))
        return {**head, "base64": base64.b64encode(little.tobytes()).decode()}
    if not floats:
        return {**head, "data": flat.astype(np.int64).tolist()}
    digits = 17 if kind == "float64" else 9  # enough to be exact
    short = (float(f"{x:.{digits}g}") for x in flat.tolist())
    return {**head, "data": [int(x) if x == int(x) and (x or math.copysign(1, x) > 0) else x for x in short]}


def _decode(array: dict[str, Any]) -> np.ndarray:
    kind = array["type"]
    if kind not in TYPES:
        raise ValueError(f"type: expected one of {', '.join(TYPES)}, received {kind!r}")
    if "base64" in array:
        values: np.ndarray = np.frombuffer(base64.b64decode(array["base64"]), np.dtype(kind).newbyteorder("<"))
        shaped: np.ndarray = values.astype(kind).reshape(array["shape"])
        return shaped
    values = np.array(array["data"], kind).reshape(array["shape"])
    divided: np.ndarray = values / np.float32(array["divide_by"]) if "divide_by" in array else values
    return divided
