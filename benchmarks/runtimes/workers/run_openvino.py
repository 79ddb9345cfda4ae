"""OpenVINO on the CPU, in float32: its default is bfloat16 if the processor supports it.

Snippets, its fusion of elementwise operators, are turned off: they report loops in graphs that have none.
"""

import numpy as np
import openvino
from common import Job, Loaded, main


def load(work: Job) -> Loaded:
    file = work.file("onnx")
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "SNIPPETS_MODE": "DISABLE"}
    request = openvino.Core().compile_model(file, "CPU", settings).create_infer_request()

    def run(given: np.ndarray) -> list[np.ndarray]:
        return list(request.infer([given]).values())

    return Loaded(run, openvino.__version__.partition("-")[0], [file])


if __name__ == "__main__":
    main(load)
