"""Checks before an export: wrappers, modes, weights and statistics of the network, then its traced graph."""

import random
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from bnmodel.deploy.copying import detached_copy, unregistered
from bnmodel.deploy.errors import ExportError, as_export_error
from bnmodel.deploy.loading import on_cpu
from bnmodel.deploy.nodes import branch_of, layer_name, named_arguments, operator_name

WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
    "OptimizedModule": "_orig_mod",
}
"""Class of a wrapper → attribute that holds the wrapped network."""
PASS_ON = ("QuantStub", "DeQuantStub", "QuantWrapper", "FloatFunctional")
"""Modules of torch's quantisation that have no effect before `prepare` adds observers, which are refused."""


@contextmanager
def isolated(what: str) -> Iterator[None]:
    """`as_export_error`, without the caller's autocast and default device; global random states are restored.

    Networks are run on the CPU, and may draw numbers.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 – the state of legacy calls
    with as_export_error(what), torch.random.fork_rng(devices=[]), on_cpu():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def exportable(module: nn.Module) -> nn.Module:
    """An eval-mode copy of `module` on the CPU, without gradients; the original is unchanged.

    Raises:
        ExportError: the network has a layer in train mode although its root is in eval mode, a batch norm without
            running statistics, or weights that are not finite, on the meta device or uninitialised; or it is scripted
            or quantised.
    """
    if not isinstance(module, nn.Module):
        raise ExportError(f"expected a torch.nn.Module, received {type(module).__name__}")
    module = _unwrapped(module)
    _refuse_kinds(module)
    with torch.no_grad():
        _refuse_tensors(module)
    if module.training:
        message = f"{type(module).__name__} is in train mode; its eval copy is exported"
        warnings.warn(message, stacklevel=4)
    else:
        _refuse_train_mode(module)
    copied = detached_copy(module)
    with suppress(NotImplementedError):  # the module of an ExportedProgram cannot change its mode
        copied.eval()
    for name, norm in named_norms(copied).items():
        _refuse_statistics(name, norm)
    return copied.requires_grad_(False).cpu()


@contextmanager
def only_its_layers(module: nn.Module) -> Iterator[None]:
    """Refuse, before it runs, a layer that `module` calls and that is not part of it, or is in train mode.

    `eval()`, `double()` and copies do not reach layers that a closure or an object of another class holds. Layers that
    are made in forward are harmless without parameters and buffers of their own, such as a slice of an nn.Sequential.

    Raises:
        ExportError: when such a layer is called.
    """
    registered = set(module.modules())
    held = {part for one in unregistered(module) for part in one.modules()}
    thread = threading.get_ident()

    def check(called: nn.Module, _: Any) -> None:
        if called in registered or threading.get_ident() != thread:
            return
        if called in held:
            where = "a layer that is not registered (hold it in an nn.ModuleList or nn.ModuleDict), "
            _refuse_train_mode(called, where)
        elif any(part not in registered and _has_tensors(part) for part in called.modules()):
            raise ExportError(
                f"{type(called).__name__}: the network calls this layer, but does not hold it as a module, so that "
                "eval() and state_dict() do not reach it; assign it to an attribute of a module, or to an nn.ModuleList"
            )

    hook = register_module_forward_pre_hook(check)
    # a compiled part would be compiled with the hook
    eagerly = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    try:
        with eagerly:
            yield
    finally:
        hook.remove()


def _has_tensors(layer: nn.Module) -> bool:
    """Whether a layer, without those inside it, has parameters or buffers."""
    return any(True for _ in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)))


def named_norms(module: nn.Module) -> dict[str, nn.Module]:
    """Batch norms, torch's and bnmodel's, by name."""
    return {name: part for name, part in module.named_modules() if isinstance(part, _BatchNorm)}


def _unwrapped(module: nn.Module) -> nn.Module:
    while (attribute := WRAPPERS.get(type(module).__name__)) is not None and hasattr(module, attribute):
        inner = getattr(module, attribute)
        message = f"{type(module).__name__}: the network that it wraps, {type(inner).__name__}, is exported"
        warnings.warn(message, stacklevel=5)
        if inner.training != module.training and not module.training:
            inner = detached_copy(inner).eval()
        module = inner
    return module


def _refuse_kinds(module: nn.Module) -> None:
    for name, part in module.named_modules():
        where, kind = name or "the network", type(part)
        if isinstance(part, torch.jit.ScriptModule):
            raise ExportError(f"{where}: scripted or traced ({kind.__name__}); export the original Python module")
        if kind.__name__ not in PASS_ON and (".ao." in f"{kind.__module__}." or "quantiz" in kind.__module__):
            raise ExportError(
                f"{where}: quantised or prepared for it ({kind.__module__}.{kind.__name__}); export the float network "
                "and quantise the exported file"
            )
    if type(module).forward is nn.Module.forward and "forward" not in vars(module):
        raise ExportError(f"{type(module).__name__} has no forward; export the network that uses it")


def _refuse_tensors(module: nn.Module) -> None:
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    lazy = [
        name for name, tensor in tensors.items() if isinstance(tensor, (UninitializedBuffer, UninitializedParameter))
    ]
    if lazy:
        raise ExportError(f"{', '.join(lazy)}: uninitialised (lazy layer); run one batch through the network first")
    meta = [name for name, tensor in tensors.items() if tensor.is_meta]
    if meta:
        raise ExportError(f"{_some(meta)}: on the meta device, without values; load the weights first")
    sparse = [f"{name} ({tensor.layout})" for name, tensor in tensors.items() if tensor.layout != torch.strided]
    if sparse:
        raise ExportError(f"{_some(sparse)}: expected dense weights; convert them with to_dense()")
    broken = [name for name, tensor in module.named_parameters() if _is_broken(tensor, infinite=False)]
    broken += [name for name, tensor in module.named_buffers() if _is_broken(tensor, infinite=True)]  # attention masks
    if broken:
        raise ExportError(f"not finite: {_some(broken)}; the training diverged: train again with a lower learning rate")


def _is_broken(tensor: Tensor, infinite: bool) -> bool:
    """Whether a tensor has NaN values or, unless `infinite` is allowed, infinite ones."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.is_quantized:
        return False
    return bool(tensor.isnan().any() if infinite else not tensor.isfinite().all())


def _refuse_train_mode(module: nn.Module, where: str = "") -> None:
    for name, part in module.named_modules():
        active = isinstance(part, (_BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.RReLU)) or (
            isinstance(part, _DropoutNd) and part.p > 0
        )
        if part.training and active:
            raise ExportError(
                f"{where}{name}: {type(part).__name__} in train mode, while the network is in eval mode; "
                f"call eval() on the network before the export"
            )


def _refuse_statistics(name: str, norm: nn.Module) -> None:
    mean, var = norm.running_mean, norm.running_var
    if mean is None or var is None:
        raise ExportError(
            f"{name}: expected a batch norm with running statistics, received one without, whose outputs in eval mode "
            "depend on the batch; train with track_running_stats=True, or recalibrate: "
            "bnmodel.recalibrate(model, batches, track=True)"
        )
    assert isinstance(mean, Tensor)
    assert isinstance(var, Tensor)
    if not (mean.isfinite().all() and var.isfinite().all()):
        raise ExportError(f"{name}: running statistics are not finite; recalibrate them, or train again")
    if (var + norm.eps <= 0).any():  # type: ignore[operator]
        raise ExportError(
            f"{name}: variance of {float(var.min()):.3g} in running_var, expected running_var + eps above 0 with eps = "
            f"{norm.eps:.3g}; recalibrate the statistics, or load the weights again"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def refuse_graph(graph: fx.Graph) -> None:
    """Raise ExportError if a traced graph uses batch statistics or random numbers."""
    varying: set[fx.Node] = set()  # depend on the input
    for node in graph.nodes:
        branch = branch_of(node)
        if branch is not None:
            refuse_graph(branch)
        if node.op == "placeholder" or not varying.isdisjoint(node.all_input_nodes):
            varying.add(node)
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        name = str(node.target)
        if operator_name(node).startswith("fake_quantize"):
            raise ExportError(
                f"{layer_name(node)}: fake quantisation ({name}); export the float network and quantise the exported "
                "file"
            )
        if "batch_norm" in name and node in varying and _in_training(node):
            raise ExportError(
                f"{layer_name(node)}: batch norm with batch statistics ({name}, training=True); "
                "call eval(), or keep running statistics"
            )
        if torch.Tag.nondeterministic_seeded in node.target.tags and _is_random(node):
            raise ExportError(
                f"{layer_name(node)}: random numbers in eval mode ({name}); pass training=self.training to the "
                "dropout, or pass the noise as an input"
            )


def _in_training(node: fx.Node) -> bool:
    if operator_name(node) != "batch_norm":  # decomposed
        return "no_training" not in str(node.target)
    given = named_arguments(node)
    return bool(given["training"]) or given["running_mean"] is None


def _is_random(node: fx.Node) -> bool:
    """Whether an operator that may draw random numbers does so: not with training=False or a dropout of 0."""
    given = named_arguments(node)
    switches = [given[name] for name in ("train", "training") if name in given]
    rates = [given[name] for name in ("dropout", "dropout_p", "p") if isinstance(given.get(name), (int, float))]
    return not ((switches and not any(switches)) or (rates and not any(rates)))
