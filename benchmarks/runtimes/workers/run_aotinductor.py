"""AOTInductor: the pt2 file compiled ahead of time by PyTorch."""

from pathlib import Path

import numpy as np
import torch
from common import Job, Loaded, main


def load(work: Job) -> Loaded:
    torch.set_num_threads(1)
    program = torch.export.load(work.file("pt2"))
    program.example_inputs = ((torch.from_numpy(work.inputs[1]),), {})
    file = Path(torch._inductor.aoti_compile_and_package(program, package_path=str(work.folder / "compiled.pt2")))
    network = torch._inductor.aoti_load_package(str(file))

    def run(given: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            answer = network(torch.from_numpy(given))
        return [output.numpy() for output in (answer if isinstance(answer, (tuple, list)) else [answer])]

    return Loaded(run, torch.__version__, [file])


if __name__ == "__main__":
    main(load)
