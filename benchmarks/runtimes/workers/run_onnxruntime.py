"""ONNX Runtime in Python."""

import onnxruntime
from common import Job, Loaded, main, onnxruntime_run


def load(work: Job) -> Loaded:
    file = work.file("onnx")
    return Loaded(onnxruntime_run(file), onnxruntime.__version__, [file])


if __name__ == "__main__":
    main(load)
