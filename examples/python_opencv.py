"""digits.onnx with OpenCV and numpy alone, compared with the golden vectors.

python examples/python_opencv.py [CHECKPOINT_DIR]
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

TOLERANCE = 2e-5
Run = Callable[[np.ndarray], Sequence[np.ndarray]]


def array(golden: dict[str, Any]) -> np.ndarray:
    values = np.array(golden["data"], golden["type"]).reshape(golden["shape"])
    return values / np.float32(golden["divide_by"]) if "divide_by" in golden else values


def load(path: Path) -> Run:
    network = cv2.dnn.readNetFromONNX(str(path))

    def run(given: np.ndarray) -> Sequence[np.ndarray]:
        network.setInput(cv2.Mat(given))  # a plain array with a short last axis would be read as an image with channels
        return network.forward(network.getUnconnectedOutLayersNames())

    return run


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
    return 0 if agrees(folder / "digits.onnx", golden["digits"]) else 1


if __name__ == "__main__":
    sys.exit(main())
