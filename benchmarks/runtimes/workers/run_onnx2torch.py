"""onnx2torch: an ONNX file as a torch module."""

from importlib.metadata import version

import numpy as np
import torch
from common import Job, Loaded, main
from onnx2torch import convert


def load(work: Job) -> Loaded:
    file = work.file("onnx")
    torch.set_num_threads(1)
    network = convert(str(file)).eval()

    def run(given: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            answer = network(torch.from_numpy(given))
        return [output.numpy() for output in (answer if isinstance(answer, (tuple, list)) else [answer])]

    return Loaded(run, version("onnx2torch"), [file])


if __name__ == "__main__":
    main(load)
