"""Population statistics for every batch norm, layer after layer (precise BN, Wu & Johnson 2021, section 3)."""

import warnings
from collections.abc import Iterable
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bnmodel.deploy.copying import detached_copy
from bnmodel.diagnosis.batches import Batch, Forward, call, read_batches, require_functions, required_inputs
from bnmodel.diagnosis.batchnorms import Norm, batches_tracked, named_batch_norms, running_statistics
from bnmodel.diagnosis.borrowing import bare, borrowed, device_of, random_state_kept
from bnmodel.diagnosis.deviation import expected_in_training
from bnmodel.diagnosis.moments import Moments, Statistics
from bnmodel.diagnosis.observing import before_each_call, observe


class _Reached(Exception):
    """Ends a forward pass at the layer that is measured."""


def recalibrate(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    forward: Forward | None = None,
    inplace: bool = False,
    track: bool = False,
) -> nn.Module:
    """Return a copy of `model` with the running statistics of `batches`; weights and modes are unchanged.

    In the order of their first call, with the whole model in eval mode, each layer gets the exact mean and unbiased
    variance of its input, given the new statistics of the layers before it. The result does not depend on how the data
    are split into batches, on momentum, or on dropout. It takes a pass and about half a pass per layer.

    A layer called several times per pass gets the average over its calls, as in training.

    Args:
        model: any module with torch's batch norms, bnmodel's, or subclasses of either.
        batches: of training data, as for `diagnose`; targets are ignored. Some hundred samples suffice.
        forward: forward(model, batch), for models that take other arguments.
        inplace: change `model` itself.
        track: give running statistics to layers that keep none (track_running_stats=False).

    Returns:
        The copy, or `model` if in place. Layers that are not called are unchanged, and without `track` also those that
        keep no running statistics, with a warning. Another warning says if no layer is found or called.

    Raises:
        TypeError: `model` is no module, or `forward` no function.
        ValueError: no batches, or an input is not finite; no statistics are changed then.
        ExportError: the model cannot be copied; use `inplace`.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected an nn.Module, received {type(model).__name__}")
    require_functions(forward=forward)
    result = model if inplace else detached_copy(model)
    inner = bare(result)
    norms = named_batch_norms(result)
    with random_state_kept():
        wanted = None if forward is not None else required_inputs(inner)
        given = read_batches(batches, device_of(inner), wanted, "batches")
    without = [name for name, norm in norms.items() if running_statistics(norm) is None]
    if without and not track:
        warnings.warn(
            f"{', '.join(without[:3])}{' …' if len(without) > 3 else ''}: without running statistics "
            "(track_running_stats=False), so that there are none to recalibrate; pass track=True",
            stacklevel=2,
        )
    untracked = _track(norms.values()) if track else []
    try:
        new = _population_statistics(inner, norms, given, forward)
    except BaseException:
        for norm, buffers in untracked:
            norm._buffers.update(buffers)
            norm.track_running_stats = False
        raise
    if not new and not without:
        called = "was called" if norms else "was found"
        warnings.warn(f"no batch norm {called}, so that there are no statistics to recalibrate", stacklevel=2)
    for name, (mean, var) in new.items():
        norms[name].get_buffer("running_mean").copy_(mean)
        norms[name].get_buffer("running_var").copy_(var)
        if batches_tracked(norms[name]) == 0:  # else the layer would count as never updated
            norms[name].num_batches_tracked.add_(len(given))  # type: ignore[union-attr]
    return result


def _population_statistics(
    model: nn.Module, norms: dict[str, Norm], batches: list[Batch], forward: Forward | None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and unbiased variance of each layer's input, by the layer's name; the model is left as it was."""
    new: dict[str, tuple[Tensor, Tensor]] = {}
    with borrowed(model), np.errstate(all="ignore"):
        order = observe(model, norms, batches, forward, lambda *_: None).order
        for name in order:
            norm = norms[name]
            running = running_statistics(norm)
            if running is None:
                continue
            population = _input_statistics(model, norm, batches, forward)
            if not np.isfinite([population.mean, population.var]).all():
                raise ValueError(f"{name}: expected finite inputs, received NaN or infinity; check data and weights")
            if population.values < 2:
                raise ValueError(f"{name}: expected at least 2 values per channel, received 1; pass more samples")
            unbiased = population.var * (population.values / (population.values - 1))
            new[name] = torch.from_numpy(population.mean).to(running[0]), torch.from_numpy(unbiased).to(running[1])
            if not all(bool(each.isfinite().all()) for each in new[name]):
                raise ValueError(f"{name}: its statistics exceed {running[0].dtype}; convert the layer: .float()")
            norm._buffers["running_mean"], norm._buffers["running_var"] = new[name]
    return new


def _track(norms: Iterable[Norm]) -> list[tuple[Norm, dict[str, Tensor | None]]]:
    """Give initial running statistics to layers that keep none; return these with their buffers before."""
    changed = []
    for norm in norms:
        if running_statistics(norm) is None:
            like = next(iter(norm.parameters()), torch.zeros(()))
            kept = nn.BatchNorm1d(norm.num_features, device=like.device, dtype=like.dtype)
            changed.append((norm, dict(norm._buffers)))
            norm._buffers.update(kept._buffers)
            norm.track_running_stats = True
    return changed


def _input_statistics(model: nn.Module, norm: Norm, batches: list[Batch], forward: Forward | None) -> Statistics:
    """Statistics of `norm`'s input over all batches; a pass ends at the layer if it is called only once."""
    calls: list[Moments] = []
    once, samples = False, 0

    def hook(_: str, index: int, __: nn.Module, x: Tensor) -> None:
        if index == len(calls):
            calls.append(Moments(calls[0] if calls else None))
        calls[index].add(x.detach(), samples)
        if once:
            raise _Reached

    for batch in batches:
        samples = batch.samples
        with before_each_call({"": norm}, hook):
            try:
                call(model, batch, forward)
            except _Reached:
                continue
        once = len(calls) == 1
    parts = [found for own in calls if (found := own.statistics()) is not None]
    statistics = reduce(Moments.merged, calls).statistics()
    if statistics is None:
        raise ValueError("batches: expected values for every batch norm, received none")
    return expected_in_training(parts, statistics)
