"""An ONNX file as a graph: validated loading, constants, producers and consumers, batch norms."""

from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc")  # of operators that ONNX Runtime has

LARGEST = 2**24  # values of a constant that is given as one number and a shape


class FileError(Exception):
    """The file cannot be analysed; the message says why and what to do."""


def load(path: Path, external_data: bool) -> ModelProto:
    """Read and check a model, and inline its local functions.

    Raises:
        FileError: not ONNX, damaged, with custom operators, or with weights in other files that may not be read.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise FileError(f"expected an ONNX model, received a file that is not one ({first_line(error)})") from error
    if not model.graph.node and not model.graph.output:
        raise FileError("expected an ONNX model, received a file without a graph")
    _load_external(model, path, external_data)
    if model.functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    custom = sorted(
        {f"{n.domain}::{n.op_type}" for g in graphs(model.graph) for n in g.node if n.domain not in DOMAINS}
    )
    if custom:
        raise FileError(f"expected standard operators, received {', '.join(custom[:5])}; custom operators are refused")
    if 1 <= model.ir_version < 4:  # in which stored weights had to be inputs, too; runtimes do not insist
        model.ir_version = 4
    check(model)
    return model


def check(model: ModelProto) -> None:
    """Raise FileError if the model is not valid; inputs and outputs without a shape are accepted."""
    stated = [v.type.tensor_type for g in graphs(model.graph) for v in (*g.input, *g.output)]
    unknown = [each for each in stated if each.elem_type and not each.HasField("shape")]
    for each in unknown:
        each.shape.SetInParent()
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        raise FileError(f"expected a valid ONNX model, received an invalid one ({first_line(error)})") from error
    finally:
        for each in unknown:
            each.ClearField("shape")


def _load_external(model: ModelProto, path: Path, allowed: bool) -> None:
    """Load weights from files beside the model, by plain file names only."""
    external = [t for t in tensors(model.graph) if t.data_location == TensorProto.EXTERNAL]
    if not external:
        return
    remedy = "save it as one file: onnx.save_model(model, path, save_as_external_data=False)"
    if not allowed:
        raise FileError(f"expected one file, received a model whose weights are in other files; {remedy}")
    for tensor in external:
        name = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        plain = name not in ("", ".", "..") and PurePosixPath(name).name == name == PureWindowsPath(name).name
        if not plain or (path.parent / name).is_symlink() or not (path.parent / name).is_file():
            raise FileError(f"expected weights in a file beside the model, received the location {name!r}; {remedy}")
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:
        raise FileError(f"the external weights cannot be read ({first_line(error)}); {remedy}") from error


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and all graphs inside its nodes (If, Loop, Scan)."""
    yield graph
    for node in graph.node:
        for inner in _inside(node):
            yield from graphs(inner)


def _inside(node: NodeProto) -> list[GraphProto]:
    return [inner for each in node.attribute for inner in ([each.g] if each.HasField("g") else each.graphs)]


def _read_inside(node: NodeProto) -> set[str]:
    """Names of the values that the graphs inside a node read, which may be values of the outer graph."""
    inside = _inside(node)
    read = {name for graph in inside for each in graphs(graph) for node in each.node for name in node.input}
    return read | {value.name for graph in inside for value in graph.output}


def tensors(graph: GraphProto) -> Iterator[TensorProto]:
    for each in graphs(graph):
        yield from each.initializer
        for node in each.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def attribute(node: NodeProto, name: str, default: object = None) -> object:
    """The value of an attribute, or `default`."""
    for each in node.attribute:
        if each.name == name:
            return onnx.helper.get_attribute_value(each)
    return default


class Graph:
    """One graph's constants, producers and consumers by the names of its values.

    outer: the graph around it, whose values it can read; None for the main graph.
    """

    def __init__(self, proto: GraphProto, ranks: dict[str, int], outer: "Graph | None" = None) -> None:
        self.proto, self.ranks, self.outer = proto, ranks, outer
        self._read = [{*node.input, *_read_inside(node)} - {""} for node in proto.node]
        self.producers = {name: node for node in proto.node for name in node.output if name}
        self.consumers: dict[str, list[NodeProto]] = defaultdict(list)
        for node, names in zip(proto.node, self._read, strict=True):
            for name in names:
                self.consumers[name].append(node)
        self.outputs = {value.name for value in proto.output}
        self._types = {value.name: value.type.tensor_type.elem_type for value in (*proto.input, *proto.value_info)}
        self._constants = {tensor.name: tensor for tensor in proto.initializer}
        self.inputs = {value.name for value in proto.input} - self._constants.keys()
        if outer is not None:
            self.inputs |= outer.inputs

    def constant(self, name: str) -> np.ndarray | None:
        """The values of an initialiser or constant, also through a few operators; None for a computed value."""
        types: list[np.dtype] = []  # of the casts, from the last to the first
        for _ in range(8):
            if name in self._constants:
                return _cast(numpy_helper.to_array(self._constants[name]), types)
            node = self.producers.get(name)
            if node is None:
                known = None if self.outer is None or name in self.inputs else self.outer.constant(name)
                return None if known is None else _cast(known, types)
            if node.op_type in ("Constant", "ConstantOfShape", "Shape", "Expand"):
                known = _stored(node) if node.op_type == "Constant" else self._computed(node)
                return None if known is None else _cast(known, types)
            if node.op_type not in ("Identity", "Cast", "CastLike"):
                return None
            if node.op_type != "Identity":
                kind: Any = attribute(node, "to", 1) if node.op_type == "Cast" else self._types.get(node.input[1])
                if not kind:
                    return None
                types.append(onnx.helper.tensor_dtype_to_np_dtype(kind))
            name = node.input[0]
        return None

    def _computed(self, node: NodeProto) -> np.ndarray | None:
        """The values of a ConstantOfShape, Shape or Expand; None if they are huge or depend on a computed value."""
        given: Any = [self.constant(name) for name in node.input]
        if any(array is None for array in given):
            return None
        value: Any = attribute(node, "value")
        first, shape = given[0], given[-1]
        if node.op_type == "Shape":
            start: Any = attribute(node, "start", 0)
            end: Any = attribute(node, "end")
            return np.array(first.shape[start:end], np.int64)
        if node.op_type == "ConstantOfShape":
            first = np.zeros((), np.float32) if value is None else numpy_helper.to_array(value).reshape(-1)[0]
        if (shape < 0).any() or np.prod(shape, dtype=float) * first.size > LARGEST:
            return None
        return np.array(np.broadcast_to(first, np.broadcast_shapes(first.shape, shape.tolist())))

    def label(self, node: NodeProto) -> str:
        """The node's name, or the name of its first output."""
        return node.name or (node.output[0] if node.output else node.op_type)

    def descendants(self, names: set[str]) -> set[str]:
        """Names of all values computed from the values `names`, not only from their shapes."""
        reached = set(names)
        for node, read in zip(self.proto.node, self._read, strict=True):  # in topological order
            if node.op_type not in ("Shape", "Size") and not read.isdisjoint(reached):
                reached.update(name for name in node.output if name)
        return reached

    @cached_property
    def from_inputs(self) -> set[str]:
        """Names of the values that depend on the model's inputs or are random, as the noise of a generator."""
        random = {name for node in self.proto.node if node.op_type.startswith("Random") for name in node.output}
        outside = set() if self.outer is None else self.outer.from_inputs
        return self.descendants(self.inputs | random | outside)


def _stored(node: NodeProto) -> np.ndarray | None:
    """The values of a Constant; None if they are text or sparse."""
    for each in node.attribute:
        if each.name == "value":
            return numpy_helper.to_array(each.t)
        if each.name in ("value_float", "value_floats", "value_int", "value_ints"):
            return np.asarray(onnx.helper.get_attribute_value(each))
    return None


def _cast(array: np.ndarray, types: list[np.dtype]) -> np.ndarray:
    for each in reversed(types):
        array = array.astype(each)
    return array


def nested(graph: Graph) -> Iterator[Graph]:
    """The graph and all graphs inside its nodes, each with the graph around it."""
    yield graph
    for node in graph.proto.node:
        for proto in _inside(node):
            yield from nested(Graph(proto, graph.ranks, graph))


def batch_norms(graph: Graph) -> list[NodeProto]:
    return [node for node in graph.proto.node if node.op_type == "BatchNormalization"]


def in_training(node: NodeProto, version: int) -> bool:
    """Whether a BatchNormalization of opset `version` uses the statistics of its batch."""
    if version >= 14:
        return bool(attribute(node, "training_mode", 0))
    if version >= 7:
        return len([name for name in node.output if name]) > 1
    return not attribute(node, "is_test", 0)


def infer_ranks(model: ModelProto) -> dict[str, int]:
    """Name of a value → number of axes, as far as shape inference finds it."""
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception:
        graph = model.graph
    values = [*graph.value_info, *graph.input, *graph.output]
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in values if v.type.tensor_type.HasField("shape")}
    return ranks | {tensor.name: len(tensor.dims) for tensor in graph.initializer}


def opset(model: ModelProto) -> int:
    """Version of the standard operators."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
