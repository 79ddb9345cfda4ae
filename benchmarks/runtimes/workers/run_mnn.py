"""MNN, converted from ONNX."""

import subprocess
import sys
from pathlib import Path

import MNN
import MNN.expr as F
import MNN.nn as nn
import numpy as np
from common import Job, Loaded, main, names


def load(work: Job) -> Loaded:
    file = work.folder / f"{work.stem}.mnn"
    command = [str(Path(sys.executable).with_name("mnnconvert")), "-f", "ONNX", "--modelFile", str(work.file("onnx"))]
    converted = subprocess.run([*command, "--MNNModel", str(file), "--bizCode", "x"], capture_output=True, text=True)
    if not file.exists():
        raise RuntimeError((converted.stdout + converted.stderr)[-300:])
    entries, exits = names(work.file("onnx"))
    network = nn.load_module_from_file(str(file), entries, exits, precision_mode=F.PrecisionMode.High)

    def run(given: np.ndarray) -> list[np.ndarray]:
        kind = F.uint8 if given.dtype == np.uint8 else F.float
        outputs = network.forward([F.const(given, list(given.shape), F.NCHW, kind)])
        if not outputs:
            raise RuntimeError("MNN: no outputs; the graph could not be set up")
        return [np.array(output.read()) for output in outputs]

    return Loaded(run, MNN.version(), [file])


if __name__ == "__main__":
    main(load)
