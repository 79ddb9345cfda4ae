"""Linear operators that a scale and a shift can be folded into: convolutions, transposed ones and dense layers."""

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from bnmodel.deploy.affine import Affine
from bnmodel.deploy.constants import Constants
from bnmodel.deploy.errors import ExportError
from bnmodel.deploy.nodes import dtype_of, layer_name, named_arguments, operator_name, pads, shape

CONVOLUTIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3}
TRANSPOSED = {"conv_transpose1d": 1, "conv_transpose2d": 2, "conv_transpose3d": 3}
DENSE = ("linear", "addmm", "mm", "matmul")


@dataclass
class Layer:
    """One linear operator with its current weights in float64.

    Attributes:
        node: the operator.
        weight: (out, in / groups, *kernel); transposed convolutions (in, out / groups, *kernel).
        bias: (out,).
        padded: with zeros.
    """

    node: fx.Node
    kind: str
    weight: Tensor
    bias: Tensor
    groups: int = 1
    padded: bool = False
    changed: bool = False

    @property
    def source(self) -> fx.Node:
        """The operator's input."""
        source = named_arguments(self.node)[OPERANDS[self.kind][0] if self.kind in OPERANDS else "input"]
        assert isinstance(source, fx.Node)
        return source

    @property
    def spatial(self) -> int:
        return (CONVOLUTIONS | TRANSPOSED).get(self.kind, 0)

    @property
    def out_axis(self) -> int:
        return len(shape(self.node)) - 1 - self.spatial

    @property
    def in_axis(self) -> int:
        return len(shape(self.source)) - 1 - self.spatial

    def accepts_before(self, affine: Affine) -> bool:
        """Whether scaling and shifting the input equals changing weight and bias."""
        # with a shift, padding of −shift / scale instead of 0 would be needed
        keeps_border = affine.only_scales() or not (self.padded or self.kind in TRANSPOSED)
        return keeps_border and affine.along(self.in_axis) is not None

    def accepts_after(self, affine: Affine) -> bool:
        return affine.along(self.out_axis) is not None

    def apply_after(self, affine: Affine) -> None:
        """s · (W x + b) + t = (s W) x + (s b + t)."""
        scale, shift = self._vectors(affine, self.out_axis, len(self.bias))
        if self.kind in TRANSPOSED:
            weight = self.weight.unflatten(0, (self.groups, -1))  # (groups, in / groups, out / groups, *kernel)
            per_output = scale.view(self.groups, 1, -1, *[1] * self.spatial)
            self.weight = (weight * per_output).flatten(0, 1)
        else:
            self.weight = self.weight * scale.view(-1, *[1] * (self.weight.dim() - 1))
        self.bias = self.bias * scale + shift
        self.changed = True

    def apply_before(self, affine: Affine) -> None:
        """W (s · x + t) + b = (W s) x + (b + W t)."""
        if self.kind in TRANSPOSED:
            scale, _ = self._vectors(affine, self.in_axis, self.weight.size(0))
            self.weight = self.weight * scale.view(-1, *[1] * (self.weight.dim() - 1))
        else:
            scale, shift = self._vectors(affine, self.in_axis, self.weight.size(1) * self.groups)
            of_output = torch.arange(self.weight.size(0)) // (self.weight.size(0) // self.groups)
            per_input = [-1, self.weight.size(1)] + [1] * (self.weight.dim() - 2)
            scale, shift = (v.view(self.groups, -1)[of_output].view(per_input) for v in (scale, shift))
            self.bias = self.bias + (self.weight * shift).flatten(1).sum(1)
            self.weight = self.weight * scale
        self.changed = True

    @staticmethod
    def _vectors(affine: Affine, axis: int, count: int) -> tuple[Tensor, Tensor]:
        vectors = affine.along(axis)
        assert vectors is not None
        return vectors.scale.expand(count), vectors.shift.expand(count)


class Layers:
    """The linear operators of a graph, with their weights while norms are folded into them."""

    def __init__(self, graph: fx.GraphModule, constants: Constants) -> None:
        self._graph = graph
        self._constants = constants
        self._found: dict[fx.Node, Layer] = {}

    def at(self, node: fx.Node) -> Layer | None:
        """The linear operator at `node`; None if it is another operator or its weights depend on the input."""
        if node not in self._found:
            found = _layer_of(node, self._constants)
            if found is None:
                return None
            self._found[node] = found
        return self._found[node]

    def store(self) -> None:
        """Write the folded weights into the graph, as new buffers: the old ones may be used elsewhere."""
        for count, layer in enumerate(self._found.values()):
            if layer.changed:
                _store(self._graph, layer, f"folded_{count}")


def _store(graph: fx.GraphModule, layer: Layer, name: str) -> None:
    node, source, attributes = layer.node, layer.source, []
    weight, bias = layer.weight.to(dtype_of(node)), layer.bias.to(dtype_of(node))
    if not (weight.isfinite().all() and bias.isfinite().all()):
        raise ExportError(
            f"{layer_name(node)}: expected finite weights after folding a batch norm, received NaN or infinity from an "
            "extreme variance; recalibrate the statistics"
        )
    for suffix, value in (("weight", weight), ("bias", bias)):
        graph.register_buffer(f"{name}_{suffix}", value.contiguous())
        with graph.graph.inserting_before(node):
            attributes.append(graph.graph.get_attr(f"{name}_{suffix}"))
    if layer.spatial:
        node.args = (source, *attributes, *node.args[3:])
        node.kwargs = {key: value for key, value in node.kwargs.items() if key not in ("input", "weight", "bias")}
    else:
        node.target = torch.ops.aten.linear.default
        node.args, node.kwargs = (source, *attributes), {}


OPERANDS = {
    "addmm": ("mat1", "mat2", "self"),
    "mm": ("self", "mat2", ""),
    "matmul": ("self", "other", ""),
}
"""Operator → names of its input, weight and bias, if they are not "input", "weight" and "bias"."""


def _layer_of(node: fx.Node, constants: Constants) -> Layer | None:
    kind = operator_name(node)
    if kind not in {*CONVOLUTIONS, *TRANSPOSED, *DENSE, "convolution"}:
        return None
    given = named_arguments(node)
    source, weight, bias = (given.get(name) for name in OPERANDS.get(kind, ("input", "weight", "bias")))
    weight_value, bias_value = constants.get(weight), constants.get(bias)
    if weight_value is None or (bias is not None and bias_value is None) or constants.get(source) is not None:
        return None
    if kind in DENSE and (weight_value.dim() != 2 or given.get("beta", 1) != 1 or given.get("alpha", 1) != 1):
        return None
    if kind == "convolution":
        kind = f"conv{'_transpose' if given['transposed'] else ''}{weight_value.dim() - 2}d"
    weight_value = weight_value.t() if kind in OPERANDS else weight_value
    groups = int(given.get("groups", 1))
    outputs = weight_value.size(1) * groups if kind in TRANSPOSED else weight_value.size(0)
    if bias_value is None:
        bias_value = torch.zeros(outputs, dtype=torch.float64)
    if bias_value.shape[-1:] != (outputs,) or bias_value.numel() != outputs:
        return None
    return Layer(node, kind, weight_value, bias_value.flatten(), groups, pads(given.get("padding", 0)))
