"""digits.onnx and sketch.onnx with OpenVINO and numpy alone, compared with the golden vectors.

python examples/python_openvino.py [CHECKPOINT_DIR]
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino

TOLERANCE = 2e-5
Run = Callable[[np.ndarray], Sequence[np.ndarray]]


def array(golden: dict[str, Any]) -> np.ndarray:
    values = np.array(golden["data"], golden["type"]).reshape(golden["shape"])
    return values / np.float32(golden["divide_by"]) if "divide_by" in golden else values


def load(path: Path) -> Run:
    # the default precision may be bfloat16, and the fusion of snippets reports a loop in sketch.onnx
    settings = {"INFERENCE_PRECISION_HINT": "f32", "SNIPPETS_MODE": "DISABLE"}
    request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()
    return lambda given: [output.copy() for output in request.infer([given]).values()]


def agrees(path: Path, cases: list[dict[str, Any]]) -> bool:
    """Run one file on its golden inputs and print the differences from the golden outputs."""
    run = load(path)
    largest, differing = np.float32(0), 0
    for case in cases:
        outputs = run(array(case["input"]))
        expected = [array(output) for output in case["outputs"]]
        if [output.shape for output in outputs] != [output.shape for output in expected]:
            raise ValueError(f"{path.name}: the outputs have other shapes than the golden vectors")
        largest = np.max([largest, *(np.abs(a - b).max() for a, b in zip(outputs, expected, strict=True))])
        differing += int(outputs[0].argmax() != expected[0].argmax())
    print(f"{path.name}: {len(cases)} golden vectors, largest difference {largest:.1e}, labels differing {differing}")
    return len(cases) > 0 and bool(largest <= TOLERANCE) and differing == 0


def main() -> int:
    default = Path(__file__).resolve().parent.parent / "checkpoints" / "lecture"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    golden = json.loads((folder / "golden.json").read_text())
    return 0 if all([agrees(folder / f"{stem}.onnx", golden[stem]) for stem in ("digits", "sketch")]) else 1


if __name__ == "__main__":
    sys.exit(main())
