"""Core ML: conversion only, since it runs only on Apple's systems."""

import coremltools
import torch
from common import Job, Loaded, main

LOGICAL = {
    "aten.__and__.Tensor": torch.ops.aten.logical_and.default,
    "aten.__or__.Tensor": torch.ops.aten.logical_or.default,
}
"""Operators on booleans → equivalents that Core ML's converter has."""


def load(work: Job) -> Loaded:
    program = torch.export.load(work.file("pt2"))
    given = torch.from_numpy(work.inputs[0])
    if given.dtype == torch.uint8:  # Core ML has no byte inputs: export the graph for float32
        module = program.module(check_guards=False)
        for node in [node for node in module.graph.nodes if "assert" in str(node.target)]:
            module.graph.erase_node(node)
        for node in module.graph.nodes:
            node.target = LOGICAL.get(str(node.target), node.target)
        module.recompile()
        program = torch.export.export(module, (given.to(torch.float32),))
    file = work.folder / f"{work.stem}.mlpackage"
    program = program.run_decompositions()
    coremltools.convert(program, minimum_deployment_target=coremltools.target.iOS17).save(str(file))
    return Loaded(None, coremltools.__version__, [one for one in file.rglob("*") if one.is_file()])


if __name__ == "__main__":
    main(load)
