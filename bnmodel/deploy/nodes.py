"""Properties of a graph and its nodes: inputs and results; operator, arguments, shape, type, layer and users."""

from typing import Any

import torch
from torch import Tensor, fx

Size = Any  # int or torch.SymInt
READ_SHAPE_OF_SECOND = ("reshape_as", "view_as", "expand_as")


def placeholders(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op == "placeholder"]


def results_of(graph: fx.Graph) -> tuple[fx.Node, ...]:
    """The nodes that a flat graph returns."""
    output = next(node for node in graph.nodes if node.op == "output")
    return tuple(output.args[0])


def operator_name(node: fx.Node) -> str:
    """aten.conv2d.default → "conv2d"; "" for anything but an ATen operator."""
    namespace, *name = str(node.target).split(".")
    return name[0] if node.op == "call_function" and namespace == "aten" else ""


def named_arguments(node: fx.Node) -> dict[str, Any]:
    """Argument name → value, with defaults, from the operator's schema."""
    assert isinstance(node.target, torch._ops.OpOverload)
    schema = node.target._schema.arguments
    found = {one.name: one.default_value for one in schema if one.has_default_value()}
    return {**found, **dict(zip([one.name for one in schema], node.args, strict=False)), **node.kwargs}


def pads(padding: object) -> bool:
    """Whether a convolution or pool with this `padding` argument pads."""
    if isinstance(padding, str):
        return padding != "valid"
    return any(padding) if isinstance(padding, (list, tuple)) else bool(padding)


def shape(node: fx.Node) -> list[Size]:
    """Sizes of a node's value; a symbol that the tracer found to be constant becomes an int."""
    return [
        int(size) if isinstance(size, torch.SymInt) and size.node.expr.is_number else size
        for size in node.meta["val"].shape
    ]


def same_size(a: Size, b: Size) -> bool:
    """Whether two sizes are equal for all values of their symbols."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    return bool(_expression(a) - _expression(b) == 0)


def _expression(size: Size) -> Any:
    import sympy

    return sympy.Integer(size) if isinstance(size, int) else sympy.expand(size.node.expr)


def same_shape(a: fx.Node, b: fx.Node) -> bool:
    one, other = shape(a), shape(b)
    return len(one) == len(other) and all(map(same_size, one, other))


def dtype_of(node: fx.Node) -> torch.dtype:
    dtype: torch.dtype = node.meta["val"].dtype
    return dtype


def type_name(node: fx.Node) -> str:
    """The type's name in certificates, such as "float32"."""
    return str(dtype_of(node)).removeprefix("torch.")


def is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)


def is_float(node: fx.Node) -> bool:
    return is_tensor(node) and dtype_of(node).is_floating_point


def layer_name(node: fx.Node) -> str:
    """Qualified name of the module that a node was traced in; the node's own name if there is none."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(list(stack.values())), ("",))[0] if stack else ""
    return str(path).removeprefix("model").removeprefix(".") or node.name


def readers(node: fx.Node) -> list[fx.Node]:
    """The users of a node that read its values; some read only its shape."""
    return [user for user in node.users if not _reads_shape_only(user, node)]


def _reads_shape_only(user: fx.Node, node: fx.Node) -> bool:
    name = operator_name(user)
    return name == "sym_size" or (name in READ_SHAPE_OF_SECOND and user.args[0] is not node)


def branch_of(node: fx.Node) -> fx.Graph | None:
    """The graph of a branch of `torch.cond`; None for any other node."""
    module = node.graph.owning_module
    found = getattr(module, str(node.target), None) if node.op == "get_attr" and module is not None else None
    return found.graph if isinstance(found, fx.GraphModule) else None
