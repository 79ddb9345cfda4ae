"""Forward passes that observe the inputs of the batch norms, or give the batch norms other statistics.

Every pass runs with the whole model in eval mode. Batch statistics, or repaired ones, are put into the buffers of the
batch norms before each call. Dropout therefore stays off, momentum does not matter, and layers whose training path
needs a GPU (SyncBatchNorm) work as well.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from bnmodel.diagnosis.batch_dependence import FunctionalNorms, depends_on_batch
from bnmodel.diagnosis.batches import Batch, Forward, call
from bnmodel.diagnosis.batchnorms import Norm, amplification, running_statistics, takes
from bnmodel.diagnosis.moments import Moments, Statistics, array, batch_moments

HIGH_AMPLIFICATION = 100.0  # from here on, a channel's largest output is measured

Values: TypeAlias = Tensor | np.ndarray
Substitute = Callable[[str, int, Tensor], tuple[Values, Values] | None]
"""(layer, index of the call within the pass, input) → mean and variance to use, or None for the layer's own."""
Part: TypeAlias = tuple[Tensor, Tensor, int]
"""Mean, variance and values per channel of one batch."""


@contextmanager
def before_each_call(
    norms: Mapping[str, nn.Module], hook: Callable[[str, int, Any, Tensor], None]
) -> Iterator[Counter[str]]:
    """Call hook(name, index of the call, module, input) before each call of a norm; yield the counts, to be cleared.

    Calls whose input does not have the layer's channels on axis 1 are skipped.
    """
    counts: Counter[str] = Counter()

    def called(name: str) -> Callable[..., None]:
        def pre_hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else next(iter(kwargs.values()))
            if not takes(module, x):
                return
            if torch.is_inference_mode_enabled():  # by a decorator of forward; such tensors cannot be used outside
                with torch.inference_mode(False), torch.no_grad():
                    hook(name, counts[name], module, x)
            else:
                hook(name, counts[name], module, x)
            counts[name] += 1

        return pre_hook

    handles = [norm.register_forward_pre_hook(called(name), with_kwargs=True) for name, norm in norms.items()]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def layers_of_features(model: nn.Module, norms: Mapping[str, nn.Module], found: set[str]) -> Iterator[None]:
    """While active, add to `found` the norms that are called before any other module with parameters."""
    used: list[nn.Module] = []

    def norm_called(name: str) -> Callable[..., None]:
        return lambda *_: None if used else found.add(name)

    norm_modules = set(norms.values())
    handles = [norm.register_forward_pre_hook(norm_called(name)) for name, norm in norms.items()]
    for module in model.modules():
        if module not in norm_modules and next(module.parameters(recurse=False), None) is not None:
            handles.append(module.register_forward_pre_hook(lambda module, _: used.append(module)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class Observed:
    """Measurements of one pass in eval mode.

    Attributes:
        order: layers in the order of their first call.
        calls: layer → calls per pass, at most.
        whole: layer → statistics of its input, all calls together.
        by_call: layer → statistics per call, for layers that are called more than once.
        centres: layer → (C,) near the mean if raw moments would cancel, else None.
        peaks: layer → largest |output| of its strongly amplified channels.
        values: layer → values per channel in the largest batch.
        dependent: layers whose output for a sample depends on the rest of the batch.
        functional: other modules that call F.batch_norm with batch statistics.
        features: layers that are called before any other module with parameters, so that their input is the data.
    """

    order: list[str] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    whole: dict[str, Statistics] = field(default_factory=dict)
    by_call: dict[str, list[Statistics]] = field(default_factory=dict)
    centres: dict[str, Tensor | None] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    values: dict[str, int] = field(default_factory=dict)
    dependent: set[str] = field(default_factory=set)
    functional: list[str] = field(default_factory=list)
    features: set[str] = field(default_factory=set)

    def __contains__(self, layer: str) -> bool:
        return layer in self.whole


def observe(
    model: nn.Module,
    norms: dict[str, Norm],
    batches: Iterable[Batch],
    forward: Forward | None,
    consume: Callable[[Batch, Any], None],
) -> Observed:
    """One pass in eval mode; `consume` gets each batch and its outputs."""
    result = Observed()
    moments: dict[str, list[Moments]] = {}  # layer → a sum per call
    amplified = {name: found for name, norm in norms.items() if (found := _amplified(norm)) is not None}
    samples = 0

    def hook(name: str, index: int, module: nn.Module, x: Tensor) -> None:
        calls = moments.setdefault(name, [])
        if not calls and depends_on_batch(module, x):
            result.dependent.add(name)
        if index == len(calls):
            calls.append(Moments(calls[0] if calls else None))
        calls[index].add(x.detach(), samples)
        result.values[name] = max(result.values.get(name, 0), x.numel() // max(x.size(1), 1))
        if name in amplified and x.numel():
            channels, mean, gain = amplified[name]
            far = (x[:, channels].float() - mean.view(1, -1, *[1] * (x.dim() - 2))).abs()
            peak = far.transpose(0, 1).flatten(1).amax(1) * gain
            result.peaks[name] = max(result.peaks.get(name, 0.0), float(peak.max()))

    functional = FunctionalNorms(model)
    with before_each_call(norms, hook) as counts:
        for number, batch in enumerate(batches):
            samples = batch.samples
            counts.clear()
            same_random_numbers(batch)
            with ExitStack() as stack:
                if number == 0:
                    stack.enter_context(functional)
                    stack.enter_context(layers_of_features(model, norms, result.features))
                outputs = call(model, batch, forward)
            consume(batch, outputs)
    result.functional = list(functional.found)
    _summarise(moments, result)
    return result


def _summarise(moments: dict[str, list[Moments]], result: Observed) -> None:
    """Put the statistics of each layer, from its sums per call, into `result`."""
    for name, calls in moments.items():
        statistics = reduce(Moments.merged, calls).statistics()
        if statistics is None:
            continue
        result.order.append(name)
        result.calls[name] = len(calls)
        result.whole[name] = statistics
        result.centres[name] = calls[0].centre if calls[0].subtract else None
        if len(calls) > 1:
            result.by_call[name] = [each for part in calls if (each := part.statistics()) is not None]


def same_random_numbers(batch: Batch) -> None:
    """Seed what a forward draws in eval mode, such as samples of a latent, alike in every pass over a batch."""
    if torch.accelerator.is_available():
        torch.manual_seed(batch.number)
    else:  # the same, a hundred times as fast
        torch.default_generator.manual_seed(batch.number)


def _amplified(norm: Norm) -> tuple[Tensor, Tensor, Tensor] | None:
    """Index, running mean and amplification (K,) of strongly amplified channels, or None if there are none."""
    statistics = running_statistics(norm)
    if statistics is None:
        return None
    gain = amplification(norm)
    channels = torch.nonzero(gain > HIGH_AMPLIFICATION).flatten()
    return (channels, statistics[0].float()[channels], gain[channels]) if len(channels) else None


def run(
    model: nn.Module,
    norms: dict[str, Norm],
    batches: Iterable[Batch],
    forward: Forward | None,
    substitute: Substitute,
) -> Iterator[tuple[Batch, Any]]:
    """Yield each batch with the model's outputs; `substitute` chooses the statistics of each call.

    A batch for which it raises TooFewValues is left out.
    """
    own = {name: found for name, norm in norms.items() if (found := running_statistics(norm)) is not None}

    def hook(name: str, index: int, module: nn.Module, x: Tensor) -> None:
        chosen = substitute(name, index, x)
        if name in own:
            mean, var = own[name]
            if chosen is not None:
                mean, var = torch.as_tensor(chosen[0]).to(mean), torch.as_tensor(chosen[1]).to(var)
            module._buffers.update(running_mean=mean, running_var=var)

    try:
        with before_each_call(norms, hook) as counts:
            for batch in batches:
                counts.clear()
                same_random_numbers(batch)
                try:
                    outputs = call(model, batch, forward)
                except TooFewValues:
                    continue
                yield batch, outputs
    finally:
        for name, (mean, var) in own.items():
            norms[name]._buffers.update(running_mean=mean, running_var=var)


class TooFewValues(Exception):
    """A batch with one value per channel has no batch statistics."""


def run_with_batch_statistics(
    model: nn.Module,
    norms: dict[str, Norm],
    batches: Iterable[Batch],
    forward: Forward | None,
    centres: dict[str, Tensor | None],
    consume: Callable[[Batch, Any], None],
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """One pass in which every batch norm uses its batch's statistics, as in train mode; all else as in eval mode.

    Batches with one value per channel in some layer are left out.

    Returns:
        Mean and biased variance, (C,) float64, of each layer's input over all batches.
    """
    parts: dict[str, list[Part]] = {}

    def substitute(name: str, _: int, x: Tensor) -> tuple[Tensor, Tensor] | None:
        values = x.numel() // max(x.size(1), 1)
        if values == 0:
            return None
        if values == 1:
            raise TooFewValues(name)
        mean, var = batch_moments(x, centres.get(name))
        parts.setdefault(name, []).append((mean, var, values))
        return mean, var

    for batch, outputs in run(model, norms, batches, forward, substitute):
        consume(batch, outputs)
    return {name: pooled(own) for name, own in parts.items()}


def pooled(parts: list[Part]) -> tuple[np.ndarray, np.ndarray]:
    """From mean, variance and values per batch: total variance = mean of variances + variance of means."""
    means, variances, values = zip(*parts, strict=True)
    batch_mean, batch_var = array(torch.stack(means)), array(torch.stack(variances))  # (B, C)
    mean = np.average(batch_mean, axis=0, weights=values)
    return mean, np.average(batch_var + (batch_mean - mean) ** 2, axis=0, weights=values)
