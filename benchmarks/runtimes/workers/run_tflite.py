"""TensorFlow Lite (LiteRT), converted by onnx2tf."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from common import Job, Loaded, main


def load(work: Job) -> Loaded:
    tool = str(Path(sys.executable).with_name("onnx2tf"))
    command = [tool, "-i", str(work.file("onnx")), "-o", "tf", "-n", "-kat", "images", "canvas"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=work.folder)
    files = list((work.folder / "tf").glob("*_float32.tflite"))
    if not files:
        raise RuntimeError((done.stdout + done.stderr)[-400:])
    network = Interpreter(str(files[0]), num_threads=1)
    entry = network.get_input_details()[0]["index"]
    network.resize_tensor_input(entry, work.inputs[0].shape)
    network.allocate_tensors()
    outputs = [detail["index"] for detail in network.get_output_details()]
    shape = work.inputs[0].shape

    def run(given: np.ndarray) -> list[np.ndarray]:
        nonlocal shape
        if given.shape != shape:
            network.resize_tensor_input(entry, given.shape)
            network.allocate_tensors()
            shape = given.shape
        network.set_tensor(entry, given)
        network.invoke()
        return [network.get_tensor(index) for index in outputs]

    return Loaded(run, version("ai-edge-litert"), files)


if __name__ == "__main__":
    main(load)
