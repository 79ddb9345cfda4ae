"""ExecuTorch with XNNPACK, from the pt2 file."""

from importlib.metadata import version

import numpy as np
import torch
from common import Job, Loaded, main
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.runtime import Runtime


def load(work: Job) -> Loaded:
    torch.set_num_threads(1)
    program = torch.export.load(work.file("pt2"))
    file = work.folder / f"{work.stem}.pte"
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    file.write_bytes(lowered.buffer)
    method = Runtime.get().load_program(file).load_method("forward")

    def run(given: np.ndarray) -> list[np.ndarray]:
        return [output.numpy() for output in method.execute([torch.from_numpy(given)])]

    return Loaded(run, version("executorch"), [file])


if __name__ == "__main__":
    main(load)
