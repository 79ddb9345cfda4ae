"""Convert a dynamically quantised model to float32, to test whether quantisation makes it depend on the batch."""

import numpy as np
from graph import Graph, graphs
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

COPIED = ("hidden_size", "direction", "activations", "activation_alpha", "activation_beta", "clip", "input_forget")


class _Other(Exception):
    """The graph has a form of dynamic quantisation that is not known here."""


def without_quantisation(model: ModelProto) -> ModelProto | None:
    """A copy that computes in float32 with the same weights; None if it has an unknown form of quantisation."""
    plain = ModelProto()
    plain.CopyFrom(model)
    graph, nodes, integers = Graph(model.graph, {}), list(model.graph.node), _dynamic_integers(model)
    if any(_dynamic(node) for inner in list(graphs(model.graph))[1:] for node in inner.node):
        return None
    del plain.graph.node[:], plain.graph.value_info[:]
    try:
        for node in nodes:
            plain.graph.node.extend(_replaced(plain, graph, node, integers))
    except _Other:
        return None
    return plain


def _dynamic(node: NodeProto) -> bool:
    return node.op_type.startswith("DynamicQuantize")


def _dynamic_integers(model: ModelProto) -> set[str]:
    """Names of the integers that dynamic quantisation gives, which are numbers of type float in the copy."""
    return {name for node in model.graph.node if node.op_type == "DynamicQuantizeLinear" for name in node.output}


def _replaced(model: ModelProto, graph: Graph, node: NodeProto, integers: set[str]) -> list[NodeProto]:
    """The nodes of the copy in the place of one node."""
    match node.op_type:
        case "DynamicQuantizeLinear":  # x = scale · (integer − zero point) with scale 1 and zero point 0
            values, scale, zero = node.output
            stored = [_store(model, name, np.float32(value)) for name, value in ((scale, 1), (zero, 0))]
            identities = [(node.input[0], values), *zip(stored, (scale, zero), strict=True)]
            return [helper.make_node("Identity", [given], [name]) for given, name in identities]
        case "MatMulInteger" | "ConvInteger":
            return _multiplied(node, integers)
        case "DequantizeLinear" if node.input[0] in integers:
            return [helper.make_node("Identity", [node.input[0]], [node.output[0]])]
        case "DynamicQuantizeMatMul":
            weight = _store(model, node.output[0], _weights(graph, [*node.input[1:4]]))
            product = f"{node.output[0]}.product"
            bias = node.input[4] if len(node.input) > 4 else ""
            matmul = helper.make_node("MatMul", [node.input[0], weight], [product if bias else node.output[0]])
            return [matmul, *([helper.make_node("Add", [product, bias], [node.output[0]])] if bias else [])]
        case "DynamicQuantizeLSTM":
            return [_lstm(model, graph, node)]
    if _dynamic(node) or any(name in integers for name in node.input if node.op_type not in ("Mul", "Cast")):
        raise _Other
    return [node]


def _multiplied(node: NodeProto, integers: set[str]) -> list[NodeProto]:
    """A product of integers as one of floats: each operand less its zero point."""
    nodes, operands = [], []
    for index in (0, 1):
        name = node.input[index]
        zero = node.input[index + 2] if len(node.input) > index + 2 else ""
        for given in (name, zero) if zero else (name,):
            cast = helper.make_node("Cast", [given], [f"{node.output[0]}.{index}{given}"], to=TensorProto.FLOAT)
            nodes.append(cast)
        operands.append(f"{node.output[0]}.{index}{name}")
        if zero:
            difference = f"{operands[-1]}.shifted"
            nodes.append(helper.make_node("Sub", [operands[-1], f"{node.output[0]}.{index}{zero}"], [difference]))
            operands[-1] = difference
    product = helper.make_node(node.op_type.removesuffix("Integer"), operands, [node.output[0]])
    product.attribute.extend(node.attribute)
    return [*nodes, product]


def _lstm(model: ModelProto, graph: Graph, node: NodeProto) -> NodeProto:
    """An LSTM with the weights of a quantised one, which holds them transposed."""
    inputs = [*node.input, *[""] * (12 - len(node.input))]
    for index, scale in ((1, 8), (2, 10)):
        weights = _weights(graph, [inputs[index], inputs[scale], inputs[scale + 1]])
        inputs[index] = _store(model, f"{node.name}{node.output[0]}.{index}", weights.transpose(0, 2, 1))
    lstm = helper.make_node("LSTM", inputs[:8], list(node.output))
    lstm.attribute.extend(each for each in node.attribute if each.name in COPIED)
    return lstm


def _weights(graph: Graph, names: list[str]) -> np.ndarray:
    """scale · (integer − zero point); scale and zero point are one per tensor, or per direction and column."""
    arrays = [graph.constant(name) if name else np.zeros((), np.float32) for name in names]
    if len(arrays) < 2 or any(array is None for array in arrays):
        raise _Other
    integers, *others = (np.asarray(array, np.float32) for array in arrays)
    if integers.ndim == 3:  # directions × rows × columns
        others = [each.reshape(each.shape[0], 1, -1) if each.ndim else each for each in others]
    return np.asarray((integers - (others[1] if len(others) > 1 else 0)) * others[0], np.float32)


def _store(model: ModelProto, near: str, values: np.ndarray | np.float32) -> str:
    """Add an initialiser and return its name."""
    name = f"{near}.plain"
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
    return name
