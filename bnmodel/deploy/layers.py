"""Linear operators of a graph that can take up a scale and a shift: convolutions, their transposes, dense layers."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from bnmodel.deploy.affine import Affine, shape
from bnmodel.deploy.constants import Constants

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
    """

    node: fx.Node
    kind: str
    weight: Tensor
    bias: Tensor
    groups: int = 1
    padded: bool = False  # with zeros
    changed: bool = False

    @property
    def source(self) -> fx.Node:
        """The operator's input."""
        name = {"addmm": "mat1", "mm": "self", "matmul": "self"}.get(self.kind, "input")
        source = named_arguments(self.node)[name]
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
        vectors = affine.along(self.in_axis)
        if vectors is None:
            return False
        # with a shift, zeros at the border would have to become −shift / scale
        return affine.only_scales() or not (self.padded or self.kind in TRANSPOSED)

    def accepts_after(self, affine: Affine) -> bool:
        return affine.along(self.out_axis) is not None

    def apply_after(self, affine: Affine) -> None:
        """s · (W x + b) + t = (s W) x + (s b + t)."""
        scale, shift = self._vectors(affine, self.out_axis, len(self.bias))
        if self.kind in TRANSPOSED:
            per_output = scale.view(self.groups, 1, -1)  # weight (groups · in, out / groups, …)
            weight = self.weight.view(self.groups, -1, self.weight.size(1), *self.weight.shape[2:])
            tail = [1] * (self.weight.dim() - 2)
            self.weight = (weight * per_output.view(self.groups, 1, -1, *tail)).view(self.weight.shape)
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


def layer_of(node: fx.Node, constant: Constants) -> Layer | None:
    """The linear operator at `node`, or None where it is none or its weights depend on the input."""
    if node.op != "call_function" or not str(node.target).startswith("aten."):
        return None
    kind = str(node.target).split(".")[1]
    arguments = named_arguments(node)
    if kind in CONVOLUTIONS or kind in TRANSPOSED:
        source, weight, bias = arguments["input"], arguments["weight"], arguments.get("bias")
    elif kind == "convolution":
        return _plain_convolution(node, arguments, constant)
    elif kind == "linear":
        source, weight, bias = arguments["input"], arguments["weight"], arguments.get("bias")
    elif kind == "addmm":
        source, weight, bias = arguments["mat1"], arguments["mat2"], arguments["self"]
        if arguments.get("beta", 1) != 1 or arguments.get("alpha", 1) != 1:
            return None
    elif kind in ("mm", "matmul"):
        source, weight, bias = arguments["self"], arguments.get("mat2", arguments.get("other")), None
    else:
        return None
    weight_value, bias_value = _value(weight, constant), _value(bias, constant)
    if weight_value is None or (bias is not None and bias_value is None) or _value(source, constant) is not None:
        return None
    if kind in ("addmm", "mm", "matmul"):
        if weight_value.dim() != 2:
            return None
        weight_value = weight_value.t()
    if kind in DENSE and weight_value.dim() != 2:
        return None
    groups = int(arguments.get("groups", 1))
    outputs = weight_value.size(1) * groups if kind in TRANSPOSED else weight_value.size(0)
    if bias_value is not None and bias_value.numel() != outputs:
        return None
    bias_value = torch.zeros(outputs, dtype=torch.float64) if bias_value is None else bias_value.flatten()
    return Layer(node, kind, weight_value, bias_value, groups, _pads(arguments.get("padding", 0)))


def _plain_convolution(node: fx.Node, arguments: dict[str, Any], constant: Constants) -> Layer | None:
    weight = _value(arguments["weight"], constant)
    bias = _value(arguments.get("bias"), constant)
    if weight is None or (arguments.get("bias") is not None and bias is None):
        return None
    groups, spatial = int(arguments["groups"]), weight.dim() - 2
    kind = f"conv_transpose{spatial}d" if arguments["transposed"] else f"conv{spatial}d"
    outputs = weight.size(1) * groups if arguments["transposed"] else weight.size(0)
    bias = torch.zeros(outputs, dtype=torch.float64) if bias is None else bias
    return Layer(node, kind, weight, bias, groups, _pads(arguments["padding"]))


def _pads(padding: object) -> bool:
    if isinstance(padding, str):
        return padding != "valid"
    return any(padding) if isinstance(padding, (list, tuple)) else bool(padding)


def _value(argument: object, constant: Constants) -> Tensor | None:
    return constant.get(argument) if isinstance(argument, fx.Node) else None


def named_arguments(node: fx.Node) -> dict[str, Any]:
    """Arguments of an operator by their schema's names, defaults included."""
    assert isinstance(node.target, torch._ops.OpOverload)
    schema = node.target._schema.arguments
    found = {one.name: one.default_value for one in schema if one.has_default_value()}
    return {**found, **dict(zip([one.name for one in schema], node.args, strict=False)), **node.kwargs}
