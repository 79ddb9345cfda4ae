"""Conversion of batch norms between torch's layers and CustomBatchNorm, for a layer or a whole model."""

import copy
import warnings
import weakref
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _LazyNormBase

from bnmodel.nn.batchnorm import CustomBatchNorm, to_float32

TORCH_TYPES = {layer.__name__: layer for layer in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)}


def convert_batchnorm(
    model: nn.Module, to: str = "custom", inplace: bool = False, dimensions: int | None = None
) -> nn.Module:
    """Replace every batch norm of `model` by its equivalent CustomBatchNorm or torch layer.

    Values, options, mode, device, dtype, `requires_grad` and hooks stay; a module or parameter used in several places
    stays shared. In place the parameters are the same objects, so an optimiser keeps working. As in a copy, a layer
    that was compiled by `layer.compile()` is no longer compiled.

    Half-precision running statistics become float32 in a CustomBatchNorm, and take the dtype of `weight` in torch's
    layer, which requires one dtype. Batch norms of any other class, including subclasses and lazy layers, stay
    unchanged, with a warning, and so does a SyncBatchNorm with its own process group.

    Args:
        model: any module; if it is a batch norm itself, its replacement is returned.
        to: "custom" for CustomBatchNorm (synchronised where the layer is a SyncBatchNorm), or "torch" for
            BatchNorm1d, 2d, 3d or SyncBatchNorm.
        inplace: change `model`; otherwise a deep copy.
        dimensions: 1, 2 or 3, the spatial axes of layers that do not come from a torch layer and are not synchronised.
            For to="torch" only.

    Returns:
        The converted model.

    Raises:
        ValueError: `to` or `dimensions` is none of these, `dimensions` is needed and not given, or a lazy batch norm
            would be copied.
        TypeError: `model` is no module, or a TorchScript module, which cannot be changed.
    """
    if to not in ("custom", "torch"):
        raise ValueError(f"to: expected 'custom' or 'torch', received {to!r}")
    if dimensions is not None:
        _require_dimensions(dimensions)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected an nn.Module, received {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("model: expected a plain module, received TorchScript; convert the model before scripting it")
    if not inplace:
        _require_no_lazy_norms(model)
    targets = {name: _target(name, layer, to, dimensions) for name, layer in model.named_modules()}
    if not inplace:
        model = copy.deepcopy(model)
    replacements: dict[nn.Module, nn.Module] = {}
    for name, layer in list(model.named_modules()):
        target = targets[name]
        if target is not None:
            replacements[layer] = convert_layer(layer, target)
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child in replacements:
                module._modules[name] = replacements[child]
    return replacements.get(model, model)


def _require_dimensions(dimensions: Any) -> None:
    if type(dimensions) is not int or dimensions not in (1, 2, 3):
        raise ValueError(f"dimensions: expected 1, 2 or 3, received {dimensions!r}")


def _require_no_lazy_norms(model: nn.Module) -> None:
    for name, layer in model.named_modules():
        if isinstance(layer, _LazyNormBase):
            raise ValueError(
                f"{name or 'the layer'!r}: expected an initialised layer, received {type(layer).__name__}, which "
                "cannot be copied; run one batch through the model first"
            )


def from_torch(layer: nn.Module, target: type[CustomBatchNorm] = CustomBatchNorm) -> CustomBatchNorm:
    """A copy of a torch batch norm as a `target`.

    Raises:
        TypeError: another type of layer, subclasses included.
    """
    if type(layer) not in TORCH_TYPES.values():
        raise TypeError(f"from_torch: expected {', '.join(TORCH_TYPES)}, received {type(layer).__name__}")
    converted: CustomBatchNorm = convert_layer(copy.deepcopy(layer), target)
    return converted


def to_torch(layer: CustomBatchNorm, dimensions: int) -> nn.Module:
    """A copy of `layer` as torch's BatchNorm1d, 2d or 3d.

    Raises:
        ValueError: `dimensions` is not 1, 2 or 3.
    """
    _require_dimensions(dimensions)
    converted: nn.Module = convert_layer(copy.deepcopy(layer), TORCH_TYPES[f"BatchNorm{dimensions}d"])
    return converted


def convert_layer(layer: nn.Module, target: type[nn.Module]) -> Any:
    """`layer` as a `target`, with the same tensors and hooks: from one of `TORCH_TYPES` to CustomBatchNorm or back."""
    new: Any = target.__new__(target)
    new.__dict__.update(layer.__dict__)
    new._parameters, new._buffers = layer._parameters.copy(), layer._buffers.copy()
    new.__dict__.pop("_compiled_call_impl", None)  # of layer.compile(): a call of the old layer
    for hook in new._load_state_dict_pre_hooks.values():
        if hook.with_module:
            hook.module = weakref.ref(new)
    if issubclass(target, CustomBatchNorm):
        new.synchronised = isinstance(layer, nn.SyncBatchNorm)
        new.torch_type = type(layer).__name__
        new.__dict__.pop("process_group", None)
        to_float32(new._buffers)
        return new
    for name in ("synchronised", "torch_type"):
        new.__dict__.pop(name)
    if target is nn.SyncBatchNorm:
        new.process_group = None
    weight = new._parameters["weight"]
    if weight is not None and weight.dtype in (torch.float16, torch.bfloat16):
        for name in ("running_mean", "running_var"):
            buffer = new._buffers[name]
            new._buffers[name] = None if buffer is None else buffer.to(weight.dtype)
    return new


def _target(name: str, layer: nn.Module, to: str, dimensions: int | None) -> type[nn.Module] | None:
    """The class to convert `layer` to; None to leave it unchanged."""
    kind = type(layer)
    of_torch = kind in TORCH_TYPES.values()
    if not isinstance(layer, _BatchNorm) or (of_torch if to == "torch" else kind is CustomBatchNorm):
        return None
    if to == "custom" and of_torch and getattr(layer, "process_group", None) is None:
        return CustomBatchNorm
    if isinstance(layer, CustomBatchNorm) and kind is CustomBatchNorm:
        single = layer.torch_type if layer.torch_type != "SyncBatchNorm" else ""
        chosen = "SyncBatchNorm" if layer.synchronised else single
        if not chosen and dimensions is None:
            raise ValueError(
                f"dimensions: expected 1, 2 or 3, since {name or 'the layer'!r} comes from none of these layers; "
                f"received None"
            )
        return TORCH_TYPES[chosen or f"BatchNorm{dimensions}d"]
    warnings.warn(
        f"{name or 'the layer'!r} stays as it is: {kind.__name__} is not one of {', '.join(TORCH_TYPES)} or "
        f"CustomBatchNorm with the default process group",
        stacklevel=3,
    )
    return None
