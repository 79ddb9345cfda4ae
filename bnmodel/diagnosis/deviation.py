"""Deviation of running statistics from a population: its size, its significance and its cause."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri, stdtrit

from bnmodel.diagnosis.batchnorms import Norm, batches_tracked, initial_weight, running_statistics
from bnmodel.diagnosis.moments import Statistics, array

FAMILYWISE = 1e-3  # probability that any channel of any layer is called different by chance
RMS_Z = 3.3  # root mean square of z over channels that is beyond chance even if all channels are fully correlated
LIMIT = 3.0  # a channel counts with at most this many standard deviations, or e-folds of variance
LEAST_SAMPLES = 4  # to tell a deviation from chance
FEW_SAMPLES = 8  # below this, a channel's own standard error is too uncertain
MATERIAL = 0.1  # smaller deviations are not followed up: their consequences cannot be large
NOTEWORTHY = 0.3  # the largest in a steadily trained network, whose average lags behind the weights
USUAL_BATCH = 32  # batch size assumed in training if the given batches have one sample
LARGE_MOMENTUM = 0.3  # an average of less than six batches
OWN = 0.5  # from here on, the deviation begins at the layer itself


@dataclass(frozen=True)
class Deviation:
    """Deviation of running statistics from a population.

    Attributes:
        distance: root mean square over channels of |running − population mean|, in running standard deviations.
        log_ratio: root mean square of log(population variance / running variance).
        mean_log_ratio: mean of the same; positive if the running variance is too small.
        largest: the largest distance of a channel.
        certain: beyond the sampling error of the population, all channels and layers accounted for.

    The part that sampling explains is subtracted from `distance` and `log_ratio`.
    """

    distance: float
    log_ratio: float
    mean_log_ratio: float
    largest: float
    certain: bool

    @property
    def size(self) -> float:
        return max(self.distance, self.log_ratio)

    @property
    def material(self) -> bool:
        return self.certain and self.size >= MATERIAL


def deviation(mean: np.ndarray, var: np.ndarray, eps: float, population: Statistics, layers: int = 1) -> Deviation:
    """Compare running statistics (C,) with a population; `layers` are tested together.

    Per channel, z = difference / standard error. The layer differs beyond chance if the largest |z| passes the
    Bonferroni threshold for 2·C·layers tests (Student's t), or the root mean square does alone.
    """
    used = np.isfinite(population.mean) & np.isfinite(population.var) & np.isfinite(mean) & (var >= 0)
    if not used.any():
        return Deviation(0.0, 0.0, 0.0, 0.0, False)
    mean, var = mean[used], var[used]
    std = np.sqrt(var + eps)
    far = (population.mean[used] - mean) / std
    far_error = population.mean_error[used] / std
    ratio = np.log((population.var[used] + eps) / (var + eps))
    ratio_error = population.var_error[used] / (population.var[used] + eps)
    if population.samples < LEAST_SAMPLES:
        far_error, ratio_error, certain = np.zeros_like(far), np.zeros_like(ratio), False
    else:
        if population.samples < FEW_SAMPLES:  # by chance constant channels would seem exact
            far_error, ratio_error = (np.maximum(e, np.sqrt((e**2).mean())) for e in (far_error, ratio_error))
        certain = _beyond_chance(far, far_error, ratio, ratio_error, population.samples, layers)
    return Deviation(
        _excess(far, far_error), _excess(ratio, ratio_error), float(ratio.mean()), float(np.abs(far).max()), certain
    )


def deviation_of(norm: Norm, population: Statistics, layers: int = 1) -> Deviation | None:
    """`deviation` of a layer's running statistics; None if it keeps none."""
    running = running_statistics(norm)
    if running is None:
        return None
    mean, var = map(array, running)
    return deviation(mean, var, norm.eps, population, layers)


def _excess(values: np.ndarray, errors: np.ndarray) -> float:
    """Root mean square of `values`, minus the part that their standard errors explain."""
    square = np.clip(values, -LIMIT, LIMIT) ** 2
    return math.sqrt(max(float((square - np.minimum(errors**2, square)).mean()), 0.0))


def _beyond_chance(
    far: np.ndarray, far_error: np.ndarray, ratio: np.ndarray, ratio_error: np.ndarray, samples: int, layers: int
) -> bool:
    tests = 2 * len(far) * layers
    limit = float(stdtrit(samples - 1, 1 - FAMILYWISE / (2 * tests)))
    rms_limit = RMS_Z * float(stdtrit(samples - 1, 1 - 5e-4) / ndtri(1 - 5e-4))
    for values, errors in ((far, far_error), (ratio, ratio_error)):
        z = (np.abs(values) / np.maximum(errors, 1e-9))[np.abs(values) > 1e-6]
        if len(z) and (z.max() > limit or (np.minimum(z, limit) ** 2).mean() > rms_limit**2):
            return True
    return False


def expected_in_training(calls: Sequence[Statistics], whole: Statistics) -> Statistics:
    """The limit of the running averages: for a layer called several times per pass, the mean over its calls."""
    if len(calls) < 2:
        return whole
    mean, var = (
        np.average(values, axis=0, weights=[each.values for each in calls])
        for values in ([each.mean for each in calls], [each.var for each in calls])
    )
    return replace(whole, mean=mean, var=var)


def momentum_noise(norm: Norm, population: Statistics, batch: int) -> tuple[float, float]:
    """Noise of running mean and variance after many batches of `batch` samples.

    An exponential average of independent batches has m/(2 − m) of their variance, a cumulative average 1/batches.

    Returns:
        Distance of the mean in standard deviations, and relative error of the variance: root mean square over channels.
    """
    momentum = norm.momentum
    share = 1 / max(batches_tracked(norm) or 1, 1) if momentum is None else momentum / (2 - momentum)
    var = population.var + norm.eps
    relative = population.sample_mean_var / var, population.sample_var_var / var**2
    mean_noise, var_noise = (
        math.sqrt(max(share * float(np.nan_to_num(each).mean()) / max(batch, 1), 0.0)) for each in relative
    )
    return mean_noise, var_noise


def cause(norm: Norm, population: Statistics, found: Deviation, batch: int) -> str:
    """The code for running statistics that differ from `population`.

    `unconverged-average`: the initial values still have the weight (1 − momentum)^batches, and removing them (Adam's
    bias correction) explains the difference, or the statistics are still near their initial values. A small weight
    matters if variances are far below the initial 1.
    `noisy-statistics`: an average of so few batches differs as much by chance, for the given batch size or, from
    momentum 0.3 on, for batches of two. `stale-statistics` otherwise.
    """
    running = running_statistics(norm)
    assert running is not None
    mean, var = map(array, running)
    remaining = initial_weight(norm)
    if 0 < remaining < 1:
        corrected = mean / (1 - remaining), np.maximum((var - remaining) / (1 - remaining), 0)
        if deviation(*corrected, norm.eps, population).size < 0.7 * found.size:
            return "unconverged-average"
        start = np.zeros_like(mean), np.ones_like(var)
        near_start = deviation(*start, norm.eps, replace(population, mean=mean, var=var))
        way = deviation(*start, norm.eps, population)
        if remaining >= 0.3 and near_start.size < 0.8 * way.size:
            return "unconverged-average"
    mean_noise, var_noise = momentum_noise(norm, population, batch if batch > 1 else USUAL_BATCH)
    if found.distance <= 2 * mean_noise and found.log_ratio <= max(2 * var_noise, MATERIAL):
        return "noisy-statistics"
    if (
        norm.momentum is not None
        and norm.momentum >= LARGE_MOMENTUM
        and found.distance <= 3 * momentum_noise(norm, population, 2)[0]
    ):
        return "noisy-statistics"
    return "stale-statistics"
