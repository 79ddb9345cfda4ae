"""TensorFlow Lite (LiteRT), from the pt2 file, converted by litert-torch."""

from importlib.metadata import version

import litert_torch
import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from common import Job, Loaded, main

ATEN = torch.ops.aten


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
    """Replace operators that the converter or the interpreter lacks by equivalent ones.

    An index read from a tensor becomes a gather, and an identity matrix becomes a constant.
    """
    graph = module.graph
    for node in list(graph.nodes):
        if "assert" in str(node.target):
            graph.erase_node(node)
        elif node.target is ATEN.item.default:
            (select,) = node.users
            tensor, dim, _ = select.args
            with graph.inserting_before(select):
                index = graph.call_function(ATEN.reshape.default, (node.args[0], [1]))
                row = graph.call_function(ATEN.index_select.default, (tensor, dim, index))
                select.replace_all_uses_with(graph.call_function(ATEN.squeeze.dim, (row, dim)))
            graph.erase_node(select)
            graph.erase_node(node)
        elif node.target is ATEN.eye.default:
            name = f"constant_{node.name}"
            module.register_buffer(name, node.target(*node.args, **node.kwargs))
            with graph.inserting_before(node):
                node.replace_all_uses_with(graph.get_attr(name))
            graph.erase_node(node)
    module.recompile()
    module.eval = lambda: module  # type: ignore[method-assign]  # the converter calls eval(), which raises here
    return module


if __name__ == "__main__":
    main(load)
