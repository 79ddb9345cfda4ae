"""Passes over the batches that leave the model exactly as it was.

Every pass runs with the whole model in eval mode. Batch statistics, or repaired ones, are put into the buffers of the
batch norms before each call, so dropout stays off, momentum does not matter, and layers whose training path needs a
GPU (SyncBatchNorm) work as well.
"""

import copy
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnmodel.diagnosis.batches import Batch, Forward, call
from bnmodel.diagnosis.batchnorms import Norm, running_statistics, scale_of, takes
from bnmodel.diagnosis.moments import Moments, Statistics, batch_moments

HIGH_AMPLIFICATION = 100.0  # channels from here on are measured for their largest output

Substitute = Callable[[str, int, Tensor], tuple[Tensor, Tensor] | None]
"""(layer, call within the pass, its input) → mean and variance to normalise with, or None for the layer's own."""


def bare(model: nn.Module) -> nn.Module:
    """The module inside torch.compile's, DataParallel's and DistributedDataParallel's wrappers: hooks work there."""
    while True:
        if isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        else:
            return model


def device_of(model: nn.Module) -> torch.device | None:
    """Where the first parameter or buffer is."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return None


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Restore the global random state of torch, CUDA, NumPy and Python afterwards."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def _eagerly() -> AbstractContextManager[Any]:
    """Run compiled parts eagerly: hooks would make them compile again. Without torch._dynamo there are none."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def borrowed(model: nn.Module) -> Iterator[None]:
    """Put `model` into eval mode without gradients; restore attributes, buffers and random state afterwards."""
    attributes = [(module, dict(vars(module))) for module in model.modules()]  # `training` is one
    containers = [
        (value, copy.copy(value)) for _, own in attributes for value in own.values() if type(value) in (list, dict)
    ]
    contents = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    with random_state_kept(), torch.no_grad(), _eagerly():
        try:
            for module, _ in attributes:
                module.training = False
            yield
        finally:
            for module, own in attributes:
                vars(module).clear()
                vars(module).update(own)
            for container, before in containers:
                container.clear()
                container.extend(before) if isinstance(container, list) else container.update(before)
            for buffer, before in contents:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)


@contextmanager
def _out_of_inference_mode() -> Iterator[None]:
    """Where forward is decorated with it, as tensors that are made in this mode cannot be added to outside."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


@contextmanager
def before_each_call(
    norms: Mapping[str, nn.Module], hook: Callable[[str, int, Any, Tensor], None]
) -> Iterator[Counter[str]]:
    """Call hook(name, number of this call, module, input) before each call of a norm; yield the counts, to clear.

    Calls of a subclass that has its channels elsewhere than on axis 1 are passed over.
    """
    counts: Counter[str] = Counter()

    def called(name: str) -> Callable[..., None]:
        def pre_hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else next(iter(kwargs.values()))
            if takes(module, x):
                with _out_of_inference_mode():
                    hook(name, counts[name], module, x)
                counts[name] += 1

        return pre_hook

    handles = [norm.register_forward_pre_hook(called(name), with_kwargs=True) for name, norm in norms.items()]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class Observed:
    """What one pass in eval mode shows.

    Attributes:
        order: layers in the order of their first call.
        calls: layer → calls per pass, at most.
        whole: layer → statistics of its input, all calls together.
        by_call: layer → statistics per call, for layers that are called more than once.
        centres: layer → (C,) near the mean where raw moments would cancel, else None.
        peaks: layer → largest |output| of its strongly amplified channels.
        values: layer → values per channel in the largest batch.
        dependent: layers whose output for a sample depends on the rest of the batch.
    """

    order: list[str] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    whole: dict[str, Statistics] = field(default_factory=dict)
    by_call: dict[str, list[Statistics]] = field(default_factory=dict)
    centres: dict[str, Tensor | None] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    values: dict[str, int] = field(default_factory=dict)
    dependent: set[str] = field(default_factory=set)

    def __contains__(self, layer: str) -> bool:
        return layer in self.whole


def run(
    model: nn.Module,
    norms: dict[str, Norm],
    batches: Iterable[Batch],
    forward: Forward | None,
    substitute: Substitute | None = None,
) -> Iterator[tuple[Batch, Any]]:
    """Yield each batch with the model's outputs; `substitute` chooses the statistics of each call.

    A batch for which it raises TooFewValues is left out.
    """
    own = {name: dict(norm._buffers) for name, norm in norms.items() if running_statistics(norm) is not None}

    def hook(name: str, index: int, module: nn.Module, x: Tensor) -> None:
        chosen = substitute(name, index, x) if substitute is not None else None
        if name not in own or (chosen is None and module._buffers["running_mean"] is own[name]["running_mean"]):
            return
        for key, value in zip(("running_mean", "running_var"), chosen or (None, None), strict=True):
            before = own[name][key]
            module._buffers[key] = before if value is None else value.to(before)

    try:
        with before_each_call(norms if substitute is not None else {}, hook) as counts:
            for batch in batches:
                counts.clear()
                try:
                    outputs = call(model, batch, forward)
                except TooFewValues:
                    continue
                yield batch, outputs
    finally:
        for name, buffers in own.items():
            norms[name]._buffers.update(buffers)


def observe(
    model: nn.Module,
    norms: dict[str, Norm],
    batches: Iterable[Batch],
    forward: Forward | None,
    consume: Callable[[Batch, Any], None],
) -> Observed:
    """One pass in eval mode; `consume` gets each batch and its outputs."""
    result = Observed()
    moments: dict[tuple[str, int], Moments] = {}
    amplified = {name: found for name, norm in norms.items() if (found := _amplified(norm)) is not None}
    samples = 0

    def hook(name: str, index: int, module: nn.Module, x: Tensor) -> None:
        own = moments.get((name, index))
        if own is None:
            own = moments[name, index] = Moments()
            if index == 0:
                result.order.append(name)
                if _depends_on_batch(module, x):
                    result.dependent.add(name)
            else:
                first = moments[name, 0]
                own.centre, own.subtract = first.centre, first.subtract
        own.add(x.detach(), samples)
        result.values[name] = max(result.values.get(name, 0), x.numel() // max(x.size(1), 1))
        if name in amplified and x.numel():
            channels, mean, amplification = amplified[name]
            far = (x[:, channels].float() - mean.view(1, -1, *[1] * (x.dim() - 2))).abs()
            peak = far.transpose(0, 1).flatten(1).amax(1) * amplification
            result.peaks[name] = max(result.peaks.get(name, 0.0), float(peak.max()))

    with before_each_call(norms, hook) as counts:
        for batch in batches:
            samples = batch.samples
            counts.clear()
            consume(batch, call(model, batch, forward))
    for name in result.order:
        own = [part for (layer, _), part in moments.items() if layer == name]
        result.calls[name] = len(own)
        whole = own[0]
        for other in own[1:]:
            whole = whole.merged(other)
        statistics = whole.statistics()
        if statistics is not None:
            result.whole[name] = statistics
            result.centres[name] = own[0].centre if own[0].subtract else None
            if len(own) > 1:
                result.by_call[name] = [each for part in own if (each := part.statistics()) is not None]
    result.order = [name for name in result.order if name in result.whole]
    return result


def _depends_on_batch(norm: nn.Module, x: Tensor) -> bool:
    """Whether a subclass with a forward of its own normalises with its batch in eval mode, too."""
    forward = type(norm).forward
    if forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward) or len(x) < 2:
        return False
    count = len(x) // 2
    try:
        first, again, alone = (forward(norm, each)[:count] for each in (x, x, x[:count]))
        same, invariant = (torch.allclose(first, each, 1e-2, 1e-2, equal_nan=True) for each in (again, alone))
    except Exception:  # it takes other arguments, or returns no tensor
        return False
    return same and not invariant


def _amplified(norm: Norm) -> tuple[Tensor, Tensor, Tensor] | None:
    """Index, running mean and amplification (K,) of strongly amplified channels, or None if there are none."""
    statistics = running_statistics(norm)
    if statistics is None:
        return None
    mean, _ = statistics
    gain = amplification(norm)
    channels = torch.nonzero(gain > HIGH_AMPLIFICATION).flatten()
    return (channels, mean.float()[channels], gain[channels]) if len(channels) else None


def amplification(norm: Norm) -> Tensor:
    """|γ| / √(σ² + ε) of each channel in eval mode, (C,)."""
    statistics = running_statistics(norm)
    if statistics is None:
        raise ValueError("amplification: expected running statistics, received None")
    scale = scale_of(norm)
    inverse = torch.rsqrt(statistics[1].detach().float() + norm.eps)
    return inverse if scale is None else inverse * scale.detach().float().abs()


@dataclass
class Pooled:
    """Population statistics from per-batch ones: total variance = mean of variances + variance of means."""

    parts: list[tuple[Tensor, Tensor, int]] = field(default_factory=list)  # mean, biased variance (C,), values

    def mean_var(self) -> tuple[Tensor, Tensor]:
        """(C,), (C,) float64, on the CPU."""
        means = torch.stack([part[0] for part in self.parts]).cpu().double()
        variances = torch.stack([part[1] for part in self.parts]).cpu().double()
        weights = torch.tensor([[float(part[2])] for part in self.parts], dtype=torch.float64)
        weights /= weights.sum()
        mean = (weights * means).sum(0)
        return mean, (weights * (variances + (means - mean).square())).sum(0)


class TooFewValues(Exception):
    """A batch with one value per channel has no batch statistics."""


def run_with_batch_statistics(
    model: nn.Module,
    norms: dict[str, Norm],
    batches: Iterable[Batch],
    forward: Forward | None,
    centres: dict[str, Tensor | None],
    consume: Callable[[Batch, Any], None],
) -> dict[str, Pooled]:
    """One pass in which every batch norm uses its batch's statistics, as in train mode; all else as in eval mode.

    Batches with one value per channel in some layer are left out.

    Returns:
        The pooled statistics of each layer's input.
    """
    pooled: dict[str, Pooled] = {}

    def substitute(name: str, _: int, x: Tensor) -> tuple[Tensor, Tensor] | None:
        values = x.numel() // max(x.size(1), 1)
        if values == 0:
            return None
        if values == 1:
            raise TooFewValues(name)
        mean, var = batch_moments(x, centres.get(name))
        pooled.setdefault(name, Pooled()).parts.append((mean, var, values))
        return mean, var

    for batch, outputs in run(model, norms, batches, forward, substitute):
        consume(batch, outputs)
    return pooled
