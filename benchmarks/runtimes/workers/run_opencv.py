"""OpenCV's dnn module, 4 and 5."""

from typing import Any

import cv2
import numpy as np
from common import Job, Loaded, main


def load(work: Job) -> Loaded:
    file = work.file("onnx")
    cv2.setNumThreads(1)
    module: Any = cv2  # its stubs lack Mat
    network = cv2.dnn.readNetFromONNX(str(file))
    names = network.getUnconnectedOutLayersNames()

    def run(given: np.ndarray) -> list[np.ndarray]:
        network.setInput(module.Mat(given))  # a bare array of (H, W, 4) would be an image of four channels
        return list(network.forward(names))

    return Loaded(run, cv2.__version__, [file])


if __name__ == "__main__":
    main(load)
