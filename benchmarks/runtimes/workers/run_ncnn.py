"""ncnn, converted by pnnx from ONNX."""

import subprocess
from importlib.metadata import version
from pathlib import Path

import ncnn
import numpy as np
import pnnx
from common import Job, Loaded, main

TYPES = {"float32": "f32", "uint8": "u8"}


def load(work: Job) -> Loaded:
    param = converted(work)
    weights = param.with_suffix(".bin")
    network = ncnn.Net()
    network.opt.num_threads = 1
    network.opt.use_fp16_storage = network.opt.use_fp16_arithmetic = network.opt.use_fp16_packed = False
    if network.load_param(str(param)) or network.load_model(str(weights)):
        raise RuntimeError("the converted file cannot be loaded")
    entry, exits = network.input_names()[0], list(network.output_names())

    def run(given: np.ndarray) -> list[np.ndarray]:
        values = given[0] if work.stem == "digits" else given.astype(np.float32)  # a Mat has no batch axis
        with network.create_extractor() as extractor:
            extractor.input(entry, ncnn.Mat(np.ascontiguousarray(values)).clone())
            found = [extractor.extract(name) for name in exits]
        if any(status for status, _ in found):
            raise RuntimeError(f"extract returned {[status for status, _ in found]}")
        return [np.array(output) for _, output in found]

    return Loaded(run, version("ncnn"), [param, weights])


def converted(work: Job) -> Path:
    """The .ncnn.param file.

    Raises:
        RuntimeError: pnnx failed, or ncnn lacks a layer of the file.
    """
    first = work.inputs[0]
    shape = f"inputshape=[{','.join(map(str, first.shape))}]{TYPES[str(first.dtype)]}"
    tool = Path(pnnx.__file__).with_name("pnnx")
    command = [str(tool), work.file("onnx").name, shape, "fp16=0"]
    done = subprocess.run(command, cwd=work.folder, capture_output=True, text=True)
    param = work.folder / f"{work.stem}.ncnn.param"
    if done.returncode or not param.exists():
        said = (done.stdout + done.stderr).encode("ascii", "ignore").decode()  # without the frames of its tables
        raise RuntimeError(f"pnnx: exit {done.returncode}: {' '.join(said[-300:].split())}")
    layers = {line.split()[0] for line in param.read_text().splitlines()[2:]}
    missing = sorted(layer for layer in layers if "." in layer or layer.startswith(("aten", "pnnx")))
    if missing:
        raise RuntimeError(f"no layer for {', '.join(missing)}")
    return param


if __name__ == "__main__":
    main(load)
