"""Population statistics for every batch norm, layer after layer (precise BN, Wu & Johnson 2021, section 3)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from bnmodel.deploy.copying import detached_copy
from bnmodel.diagnosis.batches import Batch, Forward, call, read_batches, required_inputs
from bnmodel.diagnosis.batchnorms import Norm, batches_tracked, named_batch_norms, running_statistics
from bnmodel.diagnosis.deviation import expected_in_training
from bnmodel.diagnosis.moments import Moments, Statistics
from bnmodel.diagnosis.observing import bare, before_each_call, borrowed, device_of, observe, random_state_kept


class _Reached(Exception):
    """Ends a pass at the layer that it is for."""


def recalibrate(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    forward: Forward | None = None,
    inplace: bool = False,
    track: bool = False,
) -> nn.Module:
    """A copy of `model` whose running statistics are those of `batches`; weights and modes stay as they are.

    Layer after layer in the order of the first call, with the whole model in eval mode: a layer gets the exact mean
    and unbiased variance of its input, given the new statistics of all layers before it. The result does not depend
    on how the data are split into batches, on momentum, or on dropout. It costs half a pass per layer.

    A layer called several times per pass gets the average over its calls, as in training.

    Args:
        model: any module with torch's batch norms, bnmodel's, or subclasses of either.
        batches: of training data, as for `diagnose`; targets are ignored. Some hundred samples suffice.
        forward: forward(model, batch), for models that are called otherwise.
        inplace: change `model` itself.
        track: give running statistics to layers that keep none (track_running_stats=False).

    Returns:
        The copy, or `model` if in place. Layers that are not called stay as they are, and without `track` those that
        keep no running statistics.

    Raises:
        ValueError: no batches, or an input is not finite. In place, layers before that one are changed already.
        ExportError: the model cannot be copied; with `inplace` it need not be.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected an nn.Module, received {type(model).__name__}")
    result = model if inplace else detached_copy(model)
    inner = bare(result)
    norms = named_batch_norms(result)
    with random_state_kept():
        wanted = None if forward is not None else required_inputs(inner)
        given = read_batches(batches, device_of(inner), wanted, "batches")
    if track:
        _track(norms.values())
    new: dict[str, tuple[Tensor, Tensor]] = {}
    with borrowed(inner):
        order = observe(inner, norms, given[:1], forward, lambda *_: None).order
        for name in order:
            norm = norms[name]
            if running_statistics(norm) is None:
                continue
            population = _input_statistics(inner, norm, given, forward)
            if not bool(population.mean.isfinite().all() and population.var.isfinite().all()):
                raise ValueError(f"{name}: expected finite inputs, received NaN or infinity; check data and weights")
            new[name] = _stored(norm, population)
            norm._buffers["running_mean"], norm._buffers["running_var"] = new[name]
    for name, (mean, var) in new.items():
        running = running_statistics(norms[name])
        if running is not None:
            running[0].copy_(mean)
            running[1].copy_(var)
        count = batches_tracked(norms[name])
        if count == 0:  # else the layer would count as never updated
            norms[name].num_batches_tracked.add_(len(given))  # type: ignore[union-attr]
    return result


def _track(norms: Iterable[Norm]) -> None:
    """Give running statistics as at initialisation to layers that keep none."""
    for norm in norms:
        if running_statistics(norm) is None:
            like = next(iter(norm.parameters()), torch.zeros(()))
            kept = nn.BatchNorm1d(norm.num_features, device=like.device, dtype=like.dtype)
            norm._buffers.update(kept._buffers)
            norm.track_running_stats = True


def _input_statistics(model: nn.Module, norm: Norm, batches: list[Batch], forward: Forward | None) -> Statistics:
    """Of `norm`'s input over all batches; each pass ends at the layer's last call, known from the first batch."""
    calls: dict[int, Moments] = {}
    last: int | None = None
    samples = 0

    def hook(_: str, index: int, __: nn.Module, x: Tensor) -> None:
        own = calls.get(index)
        if own is None:
            own = calls[index] = Moments()
            if index:
                own.centre, own.subtract = calls[0].centre, calls[0].subtract
        own.add(x.detach(), samples)
        if index == last:
            raise _Reached

    for batch in batches:
        samples = batch.samples
        with before_each_call({"": norm}, hook):
            try:
                call(model, batch, forward)
            except _Reached:
                continue
        last = len(calls) - 1 if last is None and len(calls) == 1 else last
    parts = [found for own in calls.values() if (found := own.statistics()) is not None]
    whole = calls[0]
    for other in list(calls.values())[1:]:
        whole = whole.merged(other)
    statistics = whole.statistics()
    if statistics is None:
        raise ValueError("batches: expected values for every batch norm, received none")
    return expected_in_training(parts, statistics)


def _stored(norm: Norm, population: Statistics) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance as buffers of the layer's type."""
    running = running_statistics(norm)
    if running is None:
        raise ValueError("expected running statistics, received None")
    unbiased = population.var * (population.values / max(population.values - 1, 1))
    return population.mean.to(running[0]), unbiased.to(running[1])
