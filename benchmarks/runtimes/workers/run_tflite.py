"""TensorFlow Lite (LiteRT), from the pt2 file, converted by litert-torch."""

from importlib.metadata import version

import litert_torch
import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from common import Job, Loaded, main


def load(work: Job) -> Loaded:
    shapes = {given.shape for given in work.inputs}
    if len(shapes) > 1:
        raise ValueError(f"a file is converted for one shape of the input, received {sorted(shapes)}")
    module = convertible(torch.export.load(work.file("pt2")).module(check_guards=False))
    file = work.folder / f"{work.stem}.tflite"
    litert_torch.convert(module, (torch.from_numpy(work.inputs[0]),)).export(str(file))
    network = Interpreter(str(file), num_threads=1)
    network.allocate_tensors()
    entry = network.get_input_details()[0]["index"]
    outputs = [detail["index"] for detail in network.get_output_details()]

    def run(given: np.ndarray) -> list[np.ndarray]:
        network.set_tensor(entry, given)
        network.invoke()
        return [network.get_tensor(index) for index in outputs]

    return Loaded(run, version("ai-edge-litert"), [file])


def convertible(module: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """Drop assertions, which the converter lacks."""
    for node in [node for node in module.graph.nodes if "assert" in str(node.target)]:
        module.graph.erase_node(node)
    module.recompile()
    module.eval = lambda: module  # type: ignore[method-assign]  # the converter calls eval(), which raises here
    return module


if __name__ == "__main__":
    main(load)
