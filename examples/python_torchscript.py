"""digits.torchscript and sketch.torchscript with torch alone, compared with the golden vectors.

python examples/python_torchscript.py [CHECKPOINT_DIR]
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TOLERANCE = 1e-5


def tensor(golden: dict[str, Any]) -> Tensor:
    values = torch.tensor(golden["data"], dtype=getattr(torch, golden["type"])).reshape(golden["shape"])
    return values / golden["divide_by"] if "divide_by" in golden else values


def agrees(path: Path, cases: list[dict[str, Any]]) -> bool:
    """Run one file on its golden inputs and print the differences from the golden outputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated, and still loads
        model = torch.jit.load(path, map_location="cpu")
    largest, differing = torch.zeros(()), 0
    for case in cases:
        with torch.inference_mode():
            answer = model(tensor(case["input"]))
        outputs = answer if isinstance(answer, tuple) else (answer,)
        expected = [tensor(output) for output in case["outputs"]]
        if [output.shape for output in outputs] != [output.shape for output in expected]:
            raise ValueError(f"{path.name}: the outputs have other shapes than the golden vectors")
        largest = torch.stack([largest, *((a - b).abs().max() for a, b in zip(outputs, expected, strict=True))]).max()
        differing += int(outputs[0].argmax() != expected[0].argmax())
    print(f"{path.name}: {len(cases)} golden vectors, largest difference {largest:.1e}, labels differing {differing}")
    return len(cases) > 0 and bool(largest <= TOLERANCE) and differing == 0


def main() -> int:
    default = Path(__file__).resolve().parent.parent / "checkpoints" / "lecture"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    golden = json.loads((folder / "golden.json").read_text())
    return 0 if all([agrees(folder / f"{stem}.torchscript", golden[stem]) for stem in ("digits", "sketch")]) else 1


if __name__ == "__main__":
    sys.exit(main())
