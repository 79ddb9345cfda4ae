"""Apache TVM, compiled from ONNX for the CPU."""

import numpy as np
import onnx
import tvm
from common import Job, Loaded, main
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx


def load(work: Job) -> Loaded:
    file = work.file("onnx")
    model = from_onnx(onnx.load(file), shape_dict={}, keep_params_in_input=False)
    executable = tvm.compile(model, target="llvm")
    machine = relax.VirtualMachine(executable, tvm.cpu())

    def run(given: np.ndarray) -> list[np.ndarray]:
        answer = machine["main"](tvm.runtime.tensor(given))
        outputs = [answer] if isinstance(answer, tvm.runtime.Tensor) else list(answer)
        return [output.numpy() for output in outputs]

    return Loaded(run, tvm.__version__, [file])


if __name__ == "__main__":
    main(load)
