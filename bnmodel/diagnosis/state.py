"""Findings from the state of single layers: buffers, γ and mode."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from bnmodel.diagnosis.batchnorms import (
    Norm,
    amplification,
    batches_tracked,
    initial_weight,
    running_statistics,
    scale_of,
)
from bnmodel.diagnosis.moments import Statistics, array
from bnmodel.diagnosis.outcome import Gain
from bnmodel.findings import Finding

NEGLIGIBLE = 1e-3  # γ relative to the layer's largest, or to 10 if that is larger
CONSTANT = 1e-10  # variance relative to the squared mean: rounding errors
HALF_MAX = 65504.0  # largest number in half precision
HALF_AMPLIFICATION = 4096.0  # 1 / √(smallest subnormal): a variance below it becomes 0 in half precision
LEAST_SAMPLES = 8  # for a channel that varied in training to count as constant
MANY = 0.25  # of a layer's channels

RECALIBRATE = "model = bnmodel.recalibrate(model, training_batches)"
LOAD_EARLIER = "model.load_state_dict(state)  # of a checkpoint before the weights became NaN; train with a lower rate"


def invalid(name: str, norm: Norm, model: nn.Module) -> Finding | None:
    """NaN or infinite γ or β; NaN, infinite or negative values in the running statistics.

    New statistics do not help if other weights of `model` are not finite either.
    """
    broken_parameters = [key for key, value in norm.named_parameters(recurse=False) if not value.isfinite().all()]
    if broken_parameters:
        return Finding(
            "invalid-statistics",
            "error",
            name,
            f"NaN or infinite values in {' and '.join(broken_parameters)}",
            LOAD_EARLIER,
        )
    running = running_statistics(norm)
    if running is None:
        return None
    mean, var = running
    broken = ~(torch.isfinite(mean) & torch.isfinite(var) & (var >= 0))
    if not bool(broken.any()):
        return None
    counts = [
        (int((mean.isnan() | var.isnan()).sum()), "NaN"),
        (int((mean.isinf() | var.isinf()).sum()), "infinite"),
        (int((var < 0).sum()), "of negative variance"),
    ]
    what = ", ".join(f"{count} {word}" for count, word in counts if count)
    diverged = not all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    return Finding(
        "invalid-statistics",
        "error",
        name,
        f"{int(broken.sum())} of {len(mean)} channels have invalid running statistics ({what})",
        LOAD_EARLIER if diverged else f"model.get_submodule({name!r}).reset_running_stats(); {RECALIBRATE}",
    )


def invalid_input(populations: Mapping[str, Statistics], order: Iterable[str]) -> Finding | None:
    """NaN, infinite values or values whose squares overflow in the input of the first layer that receives some."""
    for name in order:
        population = populations[name]
        broken = ~(np.isfinite(population.mean) & np.isfinite(population.var))
        if broken.any():
            large = np.isfinite(population.mean).all()
            what = "values too large for a variance" if large else "NaN or infinite values"
            return Finding(
                "invalid-statistics",
                "error",
                name,
                f"the layer's input holds {what} in {int(broken.sum())} of {len(broken)} channels, so that its "
                "statistics cannot be checked",
                "assert all(x.abs().max() < 1e6 for x in inputs)  # if it holds: the weights have diverged"
                if large
                else "assert all(x.isfinite().all() for x in inputs)  # if they are: an overflow before the layer, "
                "as in half precision",
            )
    return None


def never_updated(name: str, norm: Norm) -> Finding | None:
    """Running mean 0 and variance 1 in every channel, as at initialisation."""
    running = running_statistics(norm)
    if running is None or bool((running[0] != 0).any()) or bool((running[1] != 1).any()):
        return None
    seen = batches_tracked(norm)
    count = "batches are not counted" if seen is None else f"{seen} batches counted"
    why = (
        "momentum = 0 never updates them"
        if norm.momentum == 0 and seen
        else "the layer was never in training mode, or its buffers were not saved or not loaded (strict=False)"
    )
    return Finding(
        "never-updated",
        "error",
        name,
        f"running mean is 0 and running variance 1 in all {norm.num_features} channels ({count}): {why}",
        f"{RECALIBRATE}  # or load the buffers: model.load_state_dict(state, strict=True)",
    )


def batch_statistics(name: str, norm: Norm, dependent: bool = False) -> Finding | None:
    """Batch statistics in eval mode: the layer keeps no others, or its own forward ignores them."""
    if running_statistics(norm) is None:
        reason = "the layer keeps no running statistics (track_running_stats=False)"
        remedy = RECALIBRATE.replace(")", ", track=True)")
    elif dependent:
        plain = next(each.__name__ for each in type(norm).__mro__ if each.__module__.startswith("torch."))
        reason = f"{type(norm).__name__}.forward ignores the running statistics"
        remedy = f"model.get_submodule({name!r}).__class__ = nn.{plain}; {RECALIBRATE}"
    else:
        return None
    message = f"{reason}: in eval mode an answer depends on the rest of its batch"
    return Finding("batch-statistics-in-eval", "error", name, message, remedy)


def functional(name: str) -> Finding:
    """F.batch_norm with batch statistics in eval mode, in the forward of a module that is no batch norm."""
    return Finding(
        "batch-statistics-in-eval",
        "error",
        name,
        "forward calls F.batch_norm with training=True: in eval mode an answer depends on the rest of its batch",
        "y = F.batch_norm(x, running_mean, running_var, weight, bias, training=self.training)  # in forward",
    )


def mixed_modes(norms: dict[str, Norm], modes: dict[str, bool], root_training: bool) -> Finding | None:
    """Batch norms in different modes; or all in training mode within a model in eval mode.

    Args:
        norms: those that were called, in order.
        modes: name → `training` as the model was passed in.
        root_training: mode of the model itself.
    """
    tracking = [name for name, norm in norms.items() if running_statistics(norm) is not None]
    training = [name for name in tracking if modes[name]]
    evaluating = [name for name in tracking if not modes[name]]
    if not training or (root_training and not evaluating):
        return None
    odd = evaluating if root_training else training
    odd_mode, mode = ("eval", "train") if root_training else ("train", "eval")
    listed = ", ".join(odd[:3]) + (f" and {len(odd) - 3} more" if len(odd) > 3 else "")
    consequence = (
        "their running statistics are not updated, and they do not use those of the batch"
        if root_training
        else "their outputs depend on the batch, and each forward pass updates their running statistics"
    )
    return Finding(
        "mixed-modes",
        "error",
        odd[0],
        f"{len(odd)} of {len(tracking)} batch norms are in {odd_mode} mode in a model in {mode} mode: {listed}; "
        + consequence,
        "model.eval()  # before predicting; in training, call model.train() first and freeze layers after it",
    )


def negligible(size: np.ndarray) -> np.ndarray:
    """(C,) bool: |γ| ≈ 0, compared with the layer's largest."""
    found: np.ndarray = size <= NEGLIGIBLE * min(max(float(size.max()), NEGLIGIBLE), 10.0)
    return found


def dead_channels(
    norm: Norm, samples: int, *populations: tuple[np.ndarray, np.ndarray], features: bool = False
) -> np.ndarray:
    """(C,) bool: γ ≈ 0, or an input that is constant in all `populations` (mean, variance).

    A constant channel with a running variance may be a rectified one that is merely inactive on these samples. It is
    dead if it is constant at another value than 0, or if the layer's inputs are not rectified. If the inputs are
    `features` of the data, such as pixels at the border, it may be constant here at any value.
    """
    scale = scale_of(norm)
    dead = np.zeros(norm.num_features, dtype=bool) if scale is None else negligible(np.abs(array(scale)))
    constant = np.logical_and.reduce([var <= CONSTANT * mean**2 + 1e-12 for mean, var in populations])
    running = running_statistics(norm)
    if running is None:
        dead |= constant
        return dead
    remaining = initial_weight(norm)  # of the initial variance, 1
    limit = max(10 * norm.eps, 2 * remaining if remaining < 0.01 else 0.0)
    inactive = array(running[1]) > limit
    if samples >= LEAST_SAMPLES and not features:
        means = np.stack([mean for mean, _ in populations])
        inactive &= (means >= 0).all() & (means == 0).all(0)  # only after a rectifier
    dead |= constant & ~inactive
    return dead


def dead(name: str, norm: Norm, found: np.ndarray, features: bool = False) -> Finding | None:
    """A note for a few dead channels, a warning from a quarter of the layer on.

    Constant `features` of the data, and a γ of exactly 0 in all channels, as at the start of a residual branch, count
    as notes only.
    """
    count, channels = int(found.sum()), len(found)
    if not count:
        return None
    scale = scale_of(norm)
    if scale is not None and not bool(scale.any()):
        return Finding(
            "dead-channels",
            "note",
            name,
            f"γ is 0 in all {channels} channels, as at the start of a residual branch: the layer's output is constant",
            f"model.get_submodule({name!r}).weight.requires_grad_()  # then train on; or prune the branch",
        )
    serious = found if not features else np.zeros_like(found) if scale is None else negligible(np.abs(array(scale)))
    remedy = (
        "optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0)"
        "  # train again: lower learning rate, no weight decay on γ; or prune these channels"
        if serious.any()
        else "x = x[:, training_x.std(0) > 0]  # or keep them: features that are constant in the data do no harm"
    )
    return Finding(
        "dead-channels",
        "warning" if serious.sum() >= MANY * channels else "note",
        name,
        f"{count} of {channels} channels have a constant output (γ ≈ 0, or constant input): "
        + ", ".join(map(str, np.flatnonzero(found)[:8]))
        + (" …" if count > 8 else ""),
        remedy,
    )


def exploding(name: str, norm: Norm, peak: float | None) -> Finding | None:
    """Outputs beyond 65,504, or a variance that rounds to 0 in half precision."""
    if running_statistics(norm) is None:
        return None
    gain = amplification(norm)
    gain = gain.nan_to_num(0.0, posinf=math.inf)
    largest = float(gain.max())
    overflows = largest > HALF_MAX or (peak is not None and peak > HALF_MAX)
    if not overflows and largest < HALF_AMPLIFICATION:
        return None
    count = int((gain >= min(HALF_AMPLIFICATION, largest)).sum())
    reached = "" if peak is None else f"; outputs reach {peak:.3g}, half precision holds {HALF_MAX:.0f}"
    return Finding(
        "exploding-channels",
        "warning" if overflows or count >= MANY * len(gain) else "note",
        name,
        f"{count} of {len(gain)} channels are amplified up to {largest:.3g} times "
        f"(|γ|/√(running variance + ε), ε = {norm.eps:g}){reached}",
        f"model.get_submodule({name!r}).eps = 1e-5  # or larger; keep this layer in float32, or remove features that "
        "hardly vary"
        if norm.eps < 1e-5
        else f"model.get_submodule({name!r}).float()  # keep this layer in float32, or train it again with a smaller γ",
    )


def exploding_now(name: str, norm: Norm, amplified: Tensor, peak: float, gain: Gain) -> Finding:
    """Strongly amplified channels that harm the outputs: features that were constant in training."""
    return Finding(
        "exploding-channels",
        gain.severity,
        name,
        f"{int(amplified.sum())} of {len(amplified)} channels hardly varied in training and are amplified up to "
        f"{float(amplification(norm).max()):.3g} times; outputs reach {peak:.3g}; repaired: {gain}",
        "model = bnmodel.recalibrate(model, batches)  # these, in which the features vary; or train without them",
    )
