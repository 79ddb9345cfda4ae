"""tract, an inference engine in Rust, through its Python package; a canvas's size is fixed at load."""

from importlib.metadata import version
from typing import Any

import numpy as np
import tract
from common import Job, Loaded, main

TYPES = {"float32": "f32", "uint8": "u8"}


def load(work: Job) -> Loaded:
    file = work.file("onnx")
    plans: dict[tuple[int, ...], Any] = {}

    def run(given: np.ndarray) -> list[np.ndarray]:
        if given.shape not in plans:
            model = tract.onnx().load(str(file))
            if work.stem != "digits":  # digits has a dynamic batch axis
                model.set_input_fact(0, ",".join([*map(str, given.shape), TYPES[str(given.dtype)]]))
            plans[given.shape] = model.into_model().into_runnable()
        return [output.to_numpy() for output in plans[given.shape].run([given])]

    return Loaded(run, version("tract"), [file])


if __name__ == "__main__":
    main(load)
