"""digits.onnx and sketch.onnx with onnxruntime and numpy alone, compared with the golden vectors.

python examples/python_onnx.py [CHECKPOINT_DIR]
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

TOLERANCE = 1e-5


def array(golden: dict[str, Any]) -> np.ndarray:
    values = np.array(golden["data"], golden["type"]).reshape(golden["shape"])
    return values / np.float32(golden["divide_by"]) if "divide_by" in golden else values


def agrees(path: Path, cases: list[dict[str, Any]]) -> bool:
    """Run one file on its golden inputs and print the differences from the golden outputs."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    largest, differing = np.float32(0), 0
    for case in cases:
        outputs = session.run(None, {name: array(case["input"])})
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
