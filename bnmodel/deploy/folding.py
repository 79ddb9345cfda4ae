"""A frozen copy of a network: eval mode, running statistics, batch norm folded into its neighbours.

With running statistics a batch norm is y = s·x + t with s = γ/√(σ² + ε) and t = β − s·μ, per channel. Behind a
convolution or dense layer, W·x + b, it becomes (s·W)·x + (s·b + t). In front of one it becomes (W·s)·x + (b + W·t),
exact where the layer does not pad with zeros, which would have to be −t/s. The sums are done in float64.
"""

import copy
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.modules.batchnorm import _BatchNorm

NORMS = (_BatchNorm,)  # torch's, and ours, which derives from it
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)  # in eval mode


class ExportError(Exception):
    """A network or a folder cannot be exported or loaded; the message says what was expected and what to do."""


@dataclass(frozen=True)
class Frozen:
    """`module`: the frozen copy. `folded`, `kept`: names of the batch norms folded, and of those that could not be."""

    module: nn.Module
    folded: list[str]
    kept: list[str]


def freeze(model: nn.Module, example: Tensor) -> Frozen:
    """An eval-mode copy of `model` with its batch norms folded; `model` itself, and its mode, stay as they are.

    `example` is any valid input, for the number of axes between the layers.

    Raises:
        ExportError: a weight or statistic is not finite, or a batch norm keeps no running statistics.
    """
    _require_exportable(model)
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    try:
        graph = _Tracer().trace(frozen)
    except Exception as error:  # torch.fx gives up on data-dependent Python in many ways
        warnings.warn(f"nothing folded, since torch.fx cannot trace {type(model).__name__}: {error}", stacklevel=2)
        return Frozen(frozen, [], list(named_norms(frozen)))
    traced = fx.GraphModule(frozen, graph)
    ShapeProp(traced).propagate(example)
    _drop_identities(traced)
    folded: list[str] = []
    kept: list[str] = []
    for node in list(traced.graph.nodes):
        if _module(traced, node, NORMS) is not None:
            (folded if _fold(traced, node) else kept).append(str(node.target))
    traced.graph.lint()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return Frozen(traced, folded, kept)


def named_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Batch norms, ours and torch's, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, NORMS)}


def _require_exportable(model: nn.Module) -> None:
    broken = [name for name, tensor in model.state_dict().items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ExportError(
            f"not finite: {', '.join(broken)}; the training diverged: train again at a lower learning rate"
        )
    for name, norm in named_norms(model).items():
        if norm.running_mean is None:
            raise ExportError(
                f"{name}: has no running statistics, so its answers depend on the batch and cannot be frozen; "
                f"train with track_running_stats=True"
            )


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, NORMS) or super().is_leaf_module(module, name)


def _module(traced: fx.GraphModule, node: fx.Node, kinds: tuple[type, ...]) -> nn.Module | None:
    """The module that `node` calls, if it is one of `kinds`."""
    module = traced.get_submodule(str(node.target)) if node.op == "call_module" else None
    return module if isinstance(module, kinds) else None


def _drop_identities(traced: fx.GraphModule) -> None:
    for node in list(traced.graph.nodes):
        if _module(traced, node, IDENTITIES) is not None:
            _bypass(traced, node)


def _bypass(traced: fx.GraphModule, node: fx.Node) -> None:
    node.replace_all_uses_with(node.all_input_nodes[0])
    traced.graph.erase_node(node)


def _fold(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Fold the batch norm that `node` calls into the layer before or behind it; False where that is not exact."""
    norm = _module(traced, node, NORMS)
    assert norm is not None
    scale, shift = _affine(norm)
    before = node.all_input_nodes[0]
    layer = _module(traced, before, LAYERS)
    if layer is not None and len(before.users) == 1 and _called_once(traced, before):
        _into_previous(layer, scale, shift)
        _bypass(traced, node)
        return True
    after, flattened = _only_user(node), False
    if after is not None and _is_flatten(traced, after):
        after, flattened = _only_user(after), True
    layer = _module(traced, after, LAYERS) if after is not None else None
    if after is None or layer is None or not _called_once(traced, after) or _pads(layer):
        return False
    axes = 2 if flattened else len(node.meta["tensor_meta"].shape)
    if axes != (2 if isinstance(layer, nn.Linear) else _weight_and_bias(layer)[0].dim()):
        return False  # a dense layer on (N, C, L) mixes the last axis, not the channels
    _into_next(layer, scale, shift)
    _bypass(traced, node)
    return True


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """s, t of y = s·x + t in eval mode, float64 (C,) each."""
    assert isinstance(norm, _BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -scale * norm.running_mean.double()
    return scale, shift if norm.bias is None else shift + norm.bias.double()


def _into_previous(layer: nn.Module, scale: Tensor, shift: Tensor) -> None:
    weight, bias = _weight_and_bias(layer)
    _store(layer, weight * scale.view(-1, *[1] * (weight.dim() - 1)), bias * scale + shift)


def _into_next(layer: nn.Module, scale: Tensor, shift: Tensor) -> None:
    """`weight` (out, in, *kernel); behind a flattening each channel stands for in / C neighbouring features."""
    weight, bias = _weight_and_bias(layer)
    groups = getattr(layer, "groups", 1)
    repeat = weight.size(1) * groups // len(scale)
    scale, shift = scale.repeat_interleave(repeat), shift.repeat_interleave(repeat)  # (in × groups,)
    of_output = torch.arange(weight.size(0)) // (weight.size(0) // groups)  # the group each output belongs to
    per_input = [-1, weight.size(1)] + [1] * (weight.dim() - 2)
    scale, shift = (v.view(groups, -1)[of_output].view(per_input) for v in (scale, shift))  # (out, in, 1, 1)
    _store(layer, weight * scale, bias + (weight * shift).flatten(1).sum(1))


def _weight_and_bias(layer: nn.Module) -> tuple[Tensor, Tensor]:
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    return weight.double(), bias.double() if isinstance(bias, Tensor) else weight.new_zeros(weight.size(0)).double()


def _store(layer: nn.Module, weight: Tensor, bias: Tensor) -> None:
    dtype = next(layer.parameters()).dtype
    layer.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    layer.bias = nn.Parameter(bias.to(dtype), requires_grad=False)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _called_once(traced: fx.GraphModule, node: fx.Node) -> bool:
    """A layer that is called twice, as in a network that shares weights, cannot take the fold of one call."""
    return sum(other.op == "call_module" and other.target == node.target for other in traced.graph.nodes) == 1


def _is_flatten(traced: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(traced.get_submodule(str(node.target)), nn.Flatten)
    return node.target in ("flatten", torch.flatten) and node.args[1:] == (1,)


def _pads(layer: nn.Module) -> bool:
    padding = getattr(layer, "padding", 0)  # (p, …), "same" or "valid"
    return padding != "valid" and (isinstance(padding, str) or (isinstance(padding, tuple) and any(padding)))
