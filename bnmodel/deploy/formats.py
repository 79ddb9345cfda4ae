"""Write TorchScript, ONNX and torch.export files from one folded graph; one writer per format.

Each file is complete: it holds weights and metadata (as JSON). Files hold no paths of the machine, and the same graph
gives the same bytes. TorchScript is deprecated since PyTorch 2.10 and not supported from Python 3.14 on;
`torch.export` (.pt2) replaces it. `torchscript()` is the one place where its warnings are silenced.
"""

import builtins
import io
import json
import math
import operator
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import HigherOrderOperator
from torch.export.graph_signature import InputKind
from torch.fx.graph import CodeGen
from torch.utils import _pytree as pytree

from bnmodel.deploy.axes import Axes
from bnmodel.deploy.errors import ExportError
from bnmodel.deploy.loading import METADATA
from bnmodel.deploy.nodes import placeholders, shape
from bnmodel.deploy.onnx_model import finished, serialized
from bnmodel.deploy.running_maxima import with_pooling
from bnmodel.deploy.signature import Port
from bnmodel.deploy.tracing import any_length, dynamic_linspace, exact_constants, export, quiet
from bnmodel.io import atomic_write

EXPORT_OPSETS = (18, 20)  # the exporter's own, and a second try for operators that need a newer one
LEFT_OUT = (".debug_pkl", "/.data/serialization_id")  # hold paths of this machine; a random number
CLASS_NUMBER = re.compile(rb"___torch_mangle_(\d+)")
TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node", "original_aten")


@dataclass
class Program:
    """A folded graph that can be written.

    Attributes:
        graph: takes and returns flat tensors.
        inputs, outputs: their names, types and shapes.
        axes: dynamic axes per input.
        example: valid inputs, with at least 2 elements along every dynamic axis.
        opset: of the ONNX file; None for the lowest that has the graph's operators.
    """

    graph: fx.GraphModule
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    axes: tuple[Axes, ...]
    example: tuple[Tensor, ...]
    opset: int | None = None

    @cached_property
    def exported(self) -> torch.export.ExportedProgram:
        program = export(self.graph, self.example, self.axes)
        for node in program.graph.nodes:
            for key in TRACES:
                node.meta.pop(key, None)
        program._example_inputs = None  # the caller's data
        _rename_inputs(program, [port.name for port in self.inputs])
        return program

    def is_fixed(self, exported: torch.export.ExportedProgram) -> bool:
        """Whether one of the dynamic axes is a constant in `exported`."""
        nodes = {node.name: node for node in placeholders(exported.graph)}
        inputs = zip(exported.graph_signature.user_inputs, self.axes, strict=True)
        return any(isinstance(shape(nodes[str(name)])[axis], int) for name, chosen in inputs for axis in chosen)

    @cached_property
    def onnx(self) -> Any:
        """The ONNX model, without metadata."""
        if complex_ := [port.name for port in (*self.inputs, *self.outputs) if port.type.startswith("complex")]:
            raise ExportError(
                f"ONNX Runtime takes no complex tensors ({', '.join(complex_)}); pass real and imaginary parts, as "
                "torch.view_as_real gives them"
            )
        opsets = EXPORT_OPSETS if self.opset is None or self.opset <= EXPORT_OPSETS[0] else (self.opset,)
        for opset in opsets[:-1]:
            with suppress(Exception):
                return self._onnx(opset)
        return self._onnx(opsets[-1])

    def _onnx(self, opset: int) -> Any:
        pooled = with_pooling(self.graph)
        with quiet(), any_length(), dynamic_linspace(), exact_constants():
            exported: Any = torch.onnx.export(
                self.exported if pooled is None else replace(self, graph=pooled).exported,
                dynamo=True,
                external_data=False,
                opset_version=opset,
                input_names=[f"__input_{index}" for index in range(len(self.inputs))],
                output_names=[f"__output_{index}" for index in range(len(self.outputs))],
                verbose=False,
            )
        return finished(exported.model_proto, self.inputs, self.outputs, self.opset)


def _rename_inputs(program: torch.export.ExportedProgram, names: Sequence[str]) -> None:
    """Restore the names of the inputs, which torch.export changes to lower case."""
    nodes = {node.name: node for node in program.graph.nodes}
    inputs = [one.arg for one in program.graph_signature.input_specs if one.kind == InputKind.USER_INPUT]
    for argument, name in zip(inputs, names, strict=True):
        if argument.name != name and name not in nodes:
            node = nodes[argument.name]
            argument.name = node.name = node.target = name


@contextmanager
def torchscript() -> Iterator[None]:
    """Silence TorchScript's deprecation warnings: users of an exported file can do nothing about them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=Warning)
        yield


def write_torchscript(program: Program, metadata: dict[str, Any], path: Path) -> None:
    if any(isinstance(node.target, HigherOrderOperator) for node in program.graph.graph.nodes):
        raise ExportError("TorchScript has no torch.cond; compute both branches, and choose with torch.where")
    buffer = io.BytesIO()  # saved to a path, the archive would carry the temporary file's name
    with torchscript(), quiet():
        # optimize_numerics folds batch norms too, and wrongly after a dense layer with several axes
        scripted = torch.jit.freeze(torch.jit.script(_scriptable(program.graph)).eval(), optimize_numerics=False)
        torch.jit.save(scripted, buffer, _extra_files={METADATA: json.dumps(metadata)})
    _write(path, repacked(buffer.getvalue()))


def write_onnx(program: Program, metadata: dict[str, Any], path: Path) -> None:
    model = program.onnx
    if narrow := [port.name for port in (*program.inputs, *program.outputs) if port.type == "bfloat16"]:
        raise ExportError(
            f"ONNX Runtime passes no bfloat16 to NumPy or from it ({', '.join(narrow)}); convert in forward, with "
            "tensor.float()"
        )
    _write(path, serialized(model, json.dumps(metadata), METADATA))


def write_pt2(program: Program, metadata: dict[str, Any], path: Path) -> None:
    buffer = io.BytesIO()
    exported = program.exported
    if program.is_fixed(exported):  # by the ONNX exporter, which shares its symbols
        exported = replace(program).exported
    if program.is_fixed(exported):
        raise ExportError("torch.export fixes a dynamic axis of the folded graph; leave it fixed, or use other formats")
    signature = exported.module_call_graph[0].signature
    if signature is not None and signature.out_spec.num_leaves == 1:  # a tensor rather than a tuple of one
        signature.out_spec = pytree.tree_structure(0)
    with quiet():
        torch.export.save(exported, buffer, extra_files={METADATA: json.dumps(metadata)})
    _write(path, repacked(buffer.getvalue()))


WRITERS: dict[str, Callable[[Program, dict[str, Any], Path], None]] = {
    "torchscript": write_torchscript,
    "onnx": write_onnx,
    "pt2": write_pt2,
}
"""By file ending."""


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def repacked(archive: bytes) -> bytes:
    """A zip archive with the same entries, without dates, and aligned to 64 bytes as torch's are.

    TorchScript numbers its classes per process; here they are numbered per file.
    """
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(result, "w") as target:
        numbers = {number: index for index, number in enumerate(_class_numbers(source))}
        for original in source.namelist():
            if original.endswith(LEFT_OUT):
                continue
            content = source.read(original)
            name = _renumbered(original.encode(), numbers).decode()
            if name.endswith((".py", "data.pkl")):
                content = _renumbered(content, numbers)
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            start = result.tell() + 30 + len(name.encode()) + 4
            padding = -start % 64
            entry.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
            target.writestr(entry, content)
    return result.getvalue()


def _class_numbers(archive: zipfile.ZipFile) -> list[bytes]:
    code = b" ".join(archive.read(name) for name in archive.namelist() if name.endswith(".py"))
    return sorted(set(CLASS_NUMBER.findall(code)), key=int)


def _renumbered(content: bytes, numbers: dict[bytes, int]) -> bytes:
    return CLASS_NUMBER.sub(lambda found: b"___torch_mangle_%d" % numbers.get(found[1], 0), content)


# ---- TorchScript from a graph of ATen operators

FUNCTIONS: dict[Any, Any] = {
    torch.sym_max: builtins.max,
    torch.sym_min: builtins.min,
    torch.sym_float: builtins.float,
    torch.sym_int: builtins.int,
    math.trunc: builtins.int,
}
ITEM = torch.ops.aten.item.default, torch.ops.aten._local_scalar_dense.default
PYTHON = {torch.SymInt: builtins.int, torch.SymFloat: builtins.float, torch.SymBool: builtins.bool}


def _scriptable(source: fx.GraphModule) -> fx.GraphModule:
    """The graph with operators that torch.jit.script compiles; sizes are computed, which keeps dynamic axes dynamic."""
    graph = fx.Graph()
    graph.set_codegen(CodeGen())
    values: dict[fx.Node, fx.Node] = {}
    attributes: dict[str, Any] = {}
    for node in source.graph.nodes:
        if node.op == "output":
            results = tuple(values[result] for result in node.args[0])
            graph.output(results[0] if len(results) == 1 else results)
            continue
        copied = values[node] = graph.node_copy(node, values.__getitem__)
        value, copied.meta = node.meta.get("val"), {}
        if node.op == "get_attr":
            copied.target = str(node.target).replace(".", "_")
            attributes[copied.target] = operator.attrgetter(str(node.target))(source)
        elif node.op == "call_function":
            _simplify(copied, value)
    return fx.GraphModule(attributes, graph).eval()


def _simplify(node: fx.Node, value: Any) -> None:
    """`value`: the node's result while the graph was traced, or None."""
    if node.target is torch.ops.aten.sym_size.int:
        node.target = torch.ops.aten.size
    elif node.target in ITEM and type(value) in PYTHON:  # TorchScript's have no type
        node.target = PYTHON[type(value)]
    elif isinstance(node.target, torch._ops.OpOverload):
        node.target = node.target.overloadpacket
        node.kwargs = {
            key: value for key, value in node.kwargs.items() if key not in ("device", "layout", "pin_memory")
        }
        if node.target is torch.ops.aten.full and "dtype" not in node.kwargs:  # float by default in TorchScript
            node.kwargs = {**node.kwargs, "dtype": getattr(value, "dtype", None)}
    elif node.target in FUNCTIONS:
        node.target = FUNCTIONS[node.target]
