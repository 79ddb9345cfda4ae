"""Post-process an exported ONNX model: lowest possible opset, which more runtimes support, and no metadata but ours."""

import itertools
import re
from collections.abc import Iterator, Sequence

import onnx

from bnmodel.deploy.errors import ExportError, first_line
from bnmodel.deploy.signature import Port

OLDEST_OPSET = 13
REDUCTIONS = ("ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd")
EQUAL_SINCE = {
    **dict.fromkeys((("Add", 14), ("Sub", 14), ("Mul", 14), ("Div", 14), ("Relu", 14), ("Reshape", 14)), 13),
    **dict.fromkeys((("Where", 16), ("GreaterOrEqual", 16), ("LessOrEqual", 16), ("LeakyRelu", 16), ("PRelu", 16)), 13),
    **dict.fromkeys((("Shape", 15), ("Pad", 18), ("Split", 18), *((name, 18) for name in REDUCTIONS)), 13),
}
"""Operator and version → an older version with the same meaning. The newer one has more types, or attributes that are
dropped at their defaults. Before version 18 the axes of reductions were an attribute."""


def finished(
    model: onnx.ModelProto, inputs: Sequence[Port], outputs: Sequence[Port], opset: int | None
) -> onnx.ModelProto:
    """Strip metadata, name ports and axes, lower the opset without changing any operator's meaning, and check.

    Args:
        model: may be changed in place.
        inputs, outputs: their names, and those of dynamic axes.
        opset: the version to declare; None for the lowest.
    """
    _strip(model)
    _outputs_from_nodes(model.graph)
    _name_ports(model, [port.name for port in (*inputs, *outputs)])
    _rename_axes(model, [port.shape for port in inputs])
    _wide_indices(model.graph)
    for graph in _graphs(model):
        _drop_defaults(graph)
    version = opset_of(model)
    lowest = max(OLDEST_OPSET, lowest_opset(model))
    if (opset or lowest) < 18:
        for graph in _graphs(model):
            _axes_as_attributes(graph)
    wanted = lowest if opset is None else opset
    if wanted < lowest or wanted > version:
        try:
            model = onnx.version_converter.convert_version(model, wanted)
        except RuntimeError as error:
            reason = re.sub(r"^.*Assertion .* failed: ", "", first_line(error))  # after a line of onnx's source
            raise ExportError(
                f"opset: onnx cannot convert this network to {wanted} ({reason}); ask for {lowest} or more"
            ) from error
        for graph in _graphs(model):
            _drop_defaults(graph)
    else:
        for entry in model.opset_import:
            if entry.domain in ("", "ai.onnx"):
                entry.version = wanted
    model.ir_version = max(7, onnx.helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True))
    onnx.checker.check_model(model, full_check=True)
    return model


def serialized(model: onnx.ModelProto, metadata: str, key: str) -> bytes:
    """The bytes of the file, with one metadata property."""
    onnx.helper.set_model_props(model, {key: metadata})
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators that a model declares."""
    version: int = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return version


def lowest_opset(model: onnx.ModelProto) -> int:
    """The oldest opset in which every operator of the model has the same meaning as in the model's own."""
    version, types = opset_of(model), _types(model)
    constants = {tensor.name for graph in _graphs(model) for tensor in getattr(graph, "initializer", ())}
    nodes = (node for graph in _graphs(model) for node in graph.node)
    return max((_since(node, version, types, constants) for node in nodes if not node.domain), default=1)


def _since(node: onnx.NodeProto, version: int, types: dict[str, str], constants: set[str]) -> int:
    since: int = onnx.defs.get_schema(node.op_type, version, "").since_version
    older = EQUAL_SINCE.get((node.op_type, since), since)
    computed = node.op_type in REDUCTIONS and len(node.input) > 1 and node.input[1] not in constants
    named = {attribute.name for attribute in node.attribute}
    if older == since or computed or named - set(onnx.defs.get_schema(node.op_type, older, "").attributes):
        return since
    if node.op_type == "Pad" and len(node.input) > 3:  # axes
        return since
    return older if _accepts(onnx.defs.get_schema(node.op_type, older, ""), node, types) else since


def _accepts(schema: onnx.defs.OpSchema, node: onnx.NodeProto, types: dict[str, str]) -> bool:
    """Whether an operator's definition takes the types of a node's inputs."""
    for index, name in enumerate(node.input):
        if name and index < len(schema.inputs) and types.get(name) not in schema.inputs[index].types:
            return False
    return True


def _types(model: onnx.ModelProto) -> dict[str, str]:
    """Name of a value → its type, such as "tensor(float)"."""
    found: dict[str, str] = {}
    for graph in _graphs(onnx.shape_inference.infer_shapes(model)):
        for value in (*graph.input, *graph.output, *graph.value_info) if isinstance(graph, onnx.GraphProto) else ():
            found[value.name] = value.type.tensor_type.elem_type
        found |= {tensor.name: tensor.data_type for tensor in getattr(graph, "initializer", ())}
    names = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}
    return {name: f"tensor({names[kind]})" for name, kind in found.items()}


def _axes_as_attributes(graph: onnx.GraphProto) -> None:
    constants = {tensor.name: tensor for tensor in getattr(graph, "initializer", ())}
    for node in graph.node:
        if node.op_type in REDUCTIONS and len(node.input) > 1 and node.input[1] in constants:
            axes = onnx.numpy_helper.to_array(constants[node.input.pop()]).tolist()
            node.attribute.append(onnx.helper.make_attribute("axes", axes))
    used = {name for node in graph.node for name in node.input}
    for tensor in list(getattr(graph, "initializer", ())):
        if tensor.name not in used:
            graph.initializer.remove(tensor)


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The graph, its subgraphs, and the bodies of functions."""
    waiting = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else []
                waiting += list(attribute.graphs)


def _strip(model: onnx.ModelProto) -> None:
    """Remove the exporter's metadata of graphs, nodes and values: stack traces with paths, module names, versions."""
    del model.metadata_props[:]
    model.doc_string = model.producer_version = ""
    for graph in _graphs(model):
        del graph.metadata_props[:]
        graph.doc_string = ""
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
        values = [graph.input, graph.output] if isinstance(graph, onnx.GraphProto) else []
        for value in [value for group in (*values, graph.value_info) for value in group]:
            del value.metadata_props[:]
            value.doc_string = ""
        for tensor in getattr(graph, "initializer", ()):
            del tensor.metadata_props[:]
            tensor.doc_string = ""
    if not model.graph.name or "/" in model.graph.name:
        model.graph.name = "main_graph"


def _name_ports(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Name inputs and outputs, in order, and rename other values that have one of these names."""
    graphs = list(_graphs(model))
    values = [
        value
        for graph in graphs
        if isinstance(graph, onnx.GraphProto)
        for group in (graph.input, graph.output, graph.value_info, graph.initializer)
        for value in group
    ]
    used = {value.name for value in values} | {name for graph in graphs for node in graph.node for name in node.output}
    renamed = dict(zip([port.name for port in (*model.graph.input, *model.graph.output)], names, strict=True))
    for name in (used & set(names)) - set(renamed):
        renamed[name] = next(new for n in itertools.count(1) if (new := f"{name}_value{n}") not in used)
    for value in values:
        value.name = renamed.get(value.name, value.name)
    for graph in graphs:
        for node in graph.node:
            node.input[:] = [renamed.get(name, name) for name in node.input]
            node.output[:] = [renamed.get(name, name) for name in node.output]


def _outputs_from_nodes(graph: onnx.GraphProto) -> None:
    """Copy stored constants that are outputs: an output has to come from an operator."""
    outputs = {value.name for value in graph.output}
    for tensor in [one for one in graph.initializer if one.name in outputs]:
        name = f"{tensor.name}_constant"
        for node in graph.node:
            node.input[:] = [name if one == tensor.name else one for one in node.input]
        graph.node.append(onnx.helper.make_node("Identity", [name], [tensor.name]))
        tensor.name = name


def _wide_indices(graph: onnx.GraphProto) -> None:
    """Cast the int32 indices of scatters and gathers by coordinates, which ONNX defines for int64 only."""
    narrow = {value.name for value in graph.value_info if value.type.tensor_type.elem_type == onnx.TensorProto.INT32}
    for index, node in reversed(list(enumerate(graph.node))):
        if node.op_type in ("ScatterND", "GatherND") and node.input[1] in narrow:
            name = f"{node.output[0]}_indices"
            cast = onnx.helper.make_node("Cast", [node.input[1]], [name], to=onnx.TensorProto.INT64)
            graph.node.insert(index, cast)
            node.input[1] = name


def _rename_axes(model: onnx.ModelProto, shapes: Sequence[Sequence[int | str]]) -> None:
    names: dict[str, str] = {}
    for value, shape in zip(model.graph.input, shapes, strict=False):
        for dimension, size in zip(value.type.tensor_type.shape.dim, shape, strict=False):
            if isinstance(size, str) and dimension.dim_param:
                names.setdefault(dimension.dim_param, size)
    if not names:
        return
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, names)) + r")\b")
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = pattern.sub(lambda found: names[found[0]], dimension.dim_param)


def _drop_defaults(graph: onnx.GraphProto) -> None:
    """Remove attributes at their default value, which older versions of an operator may not have."""
    constants = {tensor.name: tensor for tensor in getattr(graph, "initializer", ())}
    for node in graph.node:
        if node.domain or node.op_type == "STFT":  # onnx infers the shapes of an STFT without `onesided` wrongly
            continue
        schema = _schema(node.op_type)
        for attribute in list(node.attribute):
            known = schema.attributes.get(attribute.name) if schema is not None else None
            default = known is not None and known.default_value.type != 0
            if default and _value(known.default_value) == _value(attribute):  # type: ignore[union-attr]
                node.attribute.remove(attribute)
        if node.op_type == "Reshape" and not _has_zero(constants.get(node.input[1])):
            for attribute in [one for one in node.attribute if one.name == "allowzero"]:
                node.attribute.remove(attribute)


def _schema(operator: str) -> onnx.defs.OpSchema | None:
    """The operator's definition in opset 18; None if there is none."""
    try:
        return onnx.defs.get_schema(operator, 18, "")
    except onnx.defs.SchemaError:
        return None


def _value(attribute: onnx.AttributeProto) -> object:
    return onnx.helper.get_attribute_value(attribute)


def _has_zero(tensor: onnx.TensorProto | None) -> bool:
    """Whether a constant shape has a size of 0; a computed shape (None) has the sizes of non-empty tensors."""
    return tensor is not None and bool((onnx.numpy_helper.to_array(tensor) == 0).any())
