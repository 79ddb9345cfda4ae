"""Fold batch norms into the layer before or after them, exactly."""

import numpy as np
from graph import Graph, attribute, batch_norms, check, graphs, in_training, infer_ranks, opset
from onnx import ModelProto, NodeProto, helper, numpy_helper

DENSE = ("Gemm", "MatMul")
Affine = tuple[np.ndarray, np.ndarray]  # y = scale · x + shift, float64 (C,)


def fold(model: ModelProto, version: int) -> list[str]:
    """Fold batch norms in place; return the name of the value behind each, which the model before has, too."""
    ranks, values = infer_ranks(model), []  # values keep their names and ranks
    while folded := _fold_once(model, ranks, version):  # a norm may then be beside the layer behind another norm
        values += folded
    return values


def partner(graph: Graph, norm: NodeProto) -> NodeProto | None:
    """The linear layer into which `norm` can be folded: the one before it, else the one after it."""
    if affine_of(graph, norm) is None or any(norm.output[1:]):
        return None
    before = graph.producers.get(norm.input[0])
    if before is not None and _alone(graph, norm.input[0]):
        if _weight(graph, before) is not None:
            return before  # type: ignore[no-any-return]
        if (biased := _biased(graph, norm)) is not None:
            return biased[0]
    followers = graph.consumers[norm.output[0]]
    if len(followers) == 1 and norm.output[0] not in graph.outputs and followers[0].input[0] == norm.output[0]:
        after = followers[0]
        padded = after.op_type == "Conv" and (
            any(attribute(after, "pads", [])) or attribute(after, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
        )
        flat = after.op_type == "Conv" or graph.ranks.get(norm.input[0]) == 2
        if after.op_type in ("Conv", *DENSE) and not padded and flat and _weight(graph, after) is not None:
            return after  # type: ignore[no-any-return]
    return None


def _biased(graph: Graph, norm: NodeProto) -> tuple[NodeProto, np.ndarray] | None:
    """The linear layer before `norm` and the bias per channel that an Add between them adds; None if there is none."""
    add = graph.producers.get(norm.input[0])
    if add is None or add.op_type != "Add" or attribute(add, "broadcast"):  # of opset 6: along an axis
        return None
    for name, other in (add.input, reversed(add.input)):
        node, bias = graph.producers.get(name), graph.constant(other)
        weight = _weight(graph, node) if node is not None and bias is not None and _alone(graph, name) else None
        if weight is None:
            continue
        rank = 2 if node.op_type in DENSE else weight.ndim
        channels = ((1,) * (rank - bias.ndim) + bias.shape)[1]
        if bias.ndim <= rank and bias.size == channels and channels in (1, _outputs(node, weight)):
            return node, bias.reshape(-1)
    return None


def affine_of(graph: Graph, norm: NodeProto) -> Affine | None:
    """scale = γ/√(σ² + ε) and shift = β − μ · scale; None if they are not constant."""
    arrays = [graph.constant(name) for name in norm.input[1:5]]
    if len(arrays) < 4 or any(array is None for array in arrays):
        return None
    gamma, beta, mean, var = (np.asarray(array, np.float64) for array in arrays)
    if var.ndim != 1 or len({array.shape for array in (gamma, beta, mean, var)}) > 1:  # several axes: spatial=0
        return None
    spread = var + float(attribute(norm, "epsilon", 1e-5))
    if (var < 0).any() or (spread <= 0).any() or not np.isfinite([gamma, beta, mean, var]).all():
        return None
    scale = gamma / np.sqrt(spread)
    return scale, beta - mean * scale


def _alone(graph: Graph, name: str) -> bool:
    return len(graph.consumers[name]) == 1 and name not in graph.outputs


def _weight(graph: Graph, node: NodeProto) -> np.ndarray | None:
    """The weight of a convolution or dense layer with constant weight and bias; None for any other node."""
    if node.op_type not in ("Conv", "ConvTranspose", *DENSE):
        return None
    if node.op_type == "MatMul" and not graph.ranks.get(node.input[0]) == graph.ranks.get(node.input[1]) == 2:
        return None
    if node.op_type == "Gemm" and (attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0):
        return None
    if node.op_type == "Gemm" and attribute(node, "transA", 0):
        return None
    weight: np.ndarray | None = graph.constant(node.input[1])
    if len(node.input) > 2 and node.input[2] and weight is not None:
        bias = graph.constant(node.input[2])
        if bias is None or bias.size not in (1, *bias.shape[-1:]):  # Gemm also adds a matrix
            return None
    return weight


def _fold_once(model: ModelProto, ranks: dict[str, int], version: int) -> list[str]:
    """Go through all batch norms once; return the values behind those that were folded."""
    graph, folded = Graph(model.graph, ranks), []
    for norm in batch_norms(graph):
        if in_training(norm, version):
            continue
        node, affine = partner(graph, norm), affine_of(graph, norm)
        if node is None or affine is None:
            continue
        weight = np.asarray(_weight(graph, node), np.float64)
        bias = _bias(graph, node, weight)
        biased = _biased(graph, norm)
        if biased is not None and biased[0].output[0] == node.output[0]:  # the layer takes over what the Add adds
            bias = bias + biased[1]
            model.graph.node.remove(graph.producers[norm.input[0]])
            node.output[0] = norm.input[0]
        backwards = node.output[0] == norm.input[0]
        weight, bias = (_into_before if backwards else _into_after)(node, weight, bias, *affine)
        _replace(model, graph, node, weight, bias)
        if backwards:
            node.output[0] = norm.output[0]
        else:
            node.input[0] = norm.input[0]
        model.graph.node.remove(norm)
        graph = Graph(model.graph, ranks)
        folded.append(node.output[0])
    return folded


def _bias(graph: Graph, node: NodeProto, weight: np.ndarray) -> np.ndarray:
    outputs = _outputs(node, weight)
    stored = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    return np.zeros(outputs) if stored is None else np.broadcast_to(np.asarray(stored, np.float64).reshape(-1), outputs)


def _outputs(node: NodeProto, weight: np.ndarray) -> int:
    if node.op_type in DENSE:
        return int(weight.shape[0 if attribute(node, "transB", 0) else 1])
    if node.op_type == "ConvTranspose":
        return int(weight.shape[1]) * int(attribute(node, "group", 1))
    return int(weight.shape[0])


def _into_before(
    node: NodeProto, weight: np.ndarray, bias: np.ndarray, scale: np.ndarray, shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """W' = scale · W and b' = scale · b + shift along the output channels."""
    if node.op_type in DENSE:
        factor = scale[:, None] if attribute(node, "transB", 0) else scale[None, :]
        return weight * factor, bias * scale + shift
    spatial = (1,) * (weight.ndim - 2)
    if node.op_type == "ConvTranspose":  # (C_in, C_out/group, …): a group's rows hold that group's outputs
        groups = int(attribute(node, "group", 1))
        rows = np.repeat(scale.reshape(groups, -1), weight.shape[0] // groups, axis=0)  # (C_in, C_out/group)
        return weight * rows.reshape(*rows.shape, *spatial), bias * scale + shift
    return weight * scale.reshape(-1, 1, *spatial), bias * scale + shift


def _into_after(
    node: NodeProto, weight: np.ndarray, bias: np.ndarray, scale: np.ndarray, shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """W' = W · scale and b' = b + W · shift along the input channels."""
    if node.op_type in DENSE:
        if attribute(node, "transB", 0):
            return weight * scale[None, :], bias + weight @ shift
        return weight * scale[:, None], bias + shift @ weight
    groups = int(attribute(node, "group", 1))
    per_group = scale.reshape(groups, -1), shift.reshape(groups, -1)  # (group, C_in/group)
    rows = [np.repeat(values, weight.shape[0] // groups, axis=0) for values in per_group]  # (C_out, C_in/group)
    spatial = (1,) * (weight.ndim - 2)
    moved = (weight * rows[1].reshape(*rows[1].shape, *spatial)).reshape(weight.shape[0], -1).sum(1)
    return weight * rows[0].reshape(*rows[0].shape, *spatial), bias + moved


def _replace(model: ModelProto, graph: Graph, node: NodeProto, weight: np.ndarray, bias: np.ndarray) -> None:
    """Give `node` new weights: another node may share the old ones. A MatMul becomes a Gemm, which has a bias."""
    dtype = np.asarray(graph.constant(node.input[1])).dtype
    for index, array, word in ((1, weight, "weight"), (2, bias, "bias")):
        name = f"{node.output[0]}.folded_{word}"
        while any(tensor.name == name for tensor in model.graph.initializer):
            name += "_"
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array, dtype), name))
        if len(node.input) > index:
            node.input[index] = name
        else:
            node.input.append(name)
    if node.op_type == "MatMul":
        node.op_type = "Gemm"
    if node.op_type == "Gemm" and opset(model) < 7 and not attribute(node, "broadcast"):  # of the bias
        node.attribute.append(helper.make_attribute("broadcast", 1))


def drop_unused(model: ModelProto) -> None:
    """Remove initialisers that no node uses any more."""
    used = {name for each in graphs(model.graph) for node in each.node for name in node.input}
    used |= {value.name for value in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    names = {tensor.name for tensor in model.graph.initializer} - {tensor.name for tensor in kept}
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    inputs = [value for value in model.graph.input if value.name not in names]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    del model.graph.value_info[:]
    model.ir_version = max(model.ir_version, 4)  # before version 4, every initialiser had to be an input
    check(model)
