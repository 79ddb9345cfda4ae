"""How far running statistics are from a population, what of that is chance, and what has caused it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from scipy.special import ndtri, stdtrit
from torch import Tensor

from bnmodel.diagnosis.batchnorms import Norm, batches_tracked, initial_weight, running_statistics
from bnmodel.diagnosis.moments import Statistics

FAMILYWISE = 1e-3  # probability of calling any channel of any layer different by chance
RMS_Z = 3.3  # root mean square of z over channels that is beyond chance even if all channels are one
LIMIT = 3.0  # a channel counts with at most this many standard deviations, or e-folds of variance
LEAST_SAMPLES = 4  # to tell a deviation from chance
FEW_SAMPLES = 8  # below this, a channel's own standard error is too uncertain
MATERIAL = 0.1  # deviations below this are not looked into: consequences cannot be large
NOTEWORTHY = 0.3  # what a steadily trained network shows at most: its average lags behind the weights
USUAL_BATCH = 32  # of training, where batches of one are given
LARGE_MOMENTUM = 0.3  # an average of less than six batches
OWN = 0.5  # a deviation from here on begins at the layer itself


@dataclass(frozen=True)
class Deviation:
    """Of running statistics from a population.

    Attributes:
        distance: root mean square over channels of |running − population mean|, in running standard deviations.
        log_ratio: root mean square of log(population variance / running variance).
        mean_log_ratio: its mean: positive where the running variance is too small.
        largest: the largest distance of a channel.
        certain: beyond the sampling error of the population, all channels and layers accounted for.

    `distance` and `log_ratio` are without the part that sampling explains.
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


def deviation(mean: Tensor, var: Tensor, eps: float, population: Statistics, layers: int = 1) -> Deviation:
    """Compare running statistics (C,) with a population; `layers` are tested together.

    Per channel, z = difference / standard error. The layer differs beyond chance if the largest |z| passes the
    Bonferroni threshold for 2·C·layers tests (Student's t), or the root mean square does alone.
    """
    mean, var = mean.detach().cpu().double(), var.detach().cpu().double()
    used = torch.isfinite(population.mean) & torch.isfinite(population.var) & torch.isfinite(mean) & (var >= 0)
    if not bool(used.any()):
        return Deviation(0.0, 0.0, 0.0, 0.0, False)
    mean, var = mean[used], var[used]
    far = (population.mean[used] - mean) / (var + eps).sqrt()
    far_error = population.mean_error[used] / (var + eps).sqrt()
    ratio = ((population.var[used] + eps) / (var + eps)).log()
    ratio_error = population.var_error[used] / (population.var[used] + eps)
    if population.samples < LEAST_SAMPLES:
        far_error, ratio_error, certain = torch.zeros_like(far), torch.zeros_like(ratio), False
    else:
        if population.samples < FEW_SAMPLES:  # by chance constant channels would seem exact
            far_error, ratio_error = (e.clamp(min=float(e.square().mean().sqrt())) for e in (far_error, ratio_error))
        certain = _beyond_chance(far, far_error, ratio, ratio_error, population.samples, layers)
    return Deviation(
        _excess(far, far_error), _excess(ratio, ratio_error), float(ratio.mean()), float(far.abs().max()), certain
    )


def _excess(values: Tensor, errors: Tensor) -> float:
    """Root mean square of `values`, less what their standard errors explain."""
    square = values.clamp(-LIMIT, LIMIT).square()
    return math.sqrt(max(float((square - torch.minimum(errors.square(), square)).mean()), 0.0))


def _beyond_chance(
    far: Tensor, far_error: Tensor, ratio: Tensor, ratio_error: Tensor, samples: int, layers: int
) -> bool:
    tests = 2 * len(far) * layers
    limit = float(stdtrit(samples - 1, 1 - FAMILYWISE / (2 * tests)))
    rms_limit = RMS_Z * float(stdtrit(samples - 1, 1 - 5e-4) / ndtri(1 - 5e-4))
    for values, errors in ((far, far_error), (ratio, ratio_error)):
        z = values.abs() / errors.clamp(min=1e-9)
        z = z[values.abs() > 1e-6]
        if len(z) and (float(z.max()) > limit or float(z.clamp(max=limit).square().mean().sqrt()) > rms_limit):
            return True
    return False


def expected_in_training(calls: Sequence[Statistics], whole: Statistics) -> Statistics:
    """What a running average converges to: for a layer called several times per pass, the mean over its calls."""
    if len(calls) < 2:
        return whole
    values = torch.tensor([float(each.values) for each in calls], dtype=torch.float64)
    weights = (values / values.sum()).unsqueeze(1)
    mean = (weights * torch.stack([each.mean for each in calls])).sum(0)
    var = (weights * torch.stack([each.var for each in calls])).sum(0)
    return replace(whole, mean=mean, var=var)


def momentum_noise(norm: Norm, population: Statistics, batch: int) -> tuple[float, float]:
    """What running mean and variance keep by chance after many batches of `batch` samples.

    An exponential average of independent batches has m/(2 − m) of their variance; the cumulative one 1/batches.

    Returns:
        Distance of the mean in standard deviations, and relative error of the variance: root mean square over channels.
    """
    momentum = norm.momentum
    share = 1 / max(batches_tracked(norm) or 1, 1) if momentum is None else momentum / (2 - momentum)
    var = population.var + norm.eps
    relative = population.sample_mean_var / var, population.sample_var_var / var.square()
    mean_noise, var_noise = (
        math.sqrt(max(share * float(torch.nan_to_num(each).mean()) / max(batch, 1), 0.0)) for each in relative
    )
    return mean_noise, var_noise


def cause(norm: Norm, population: Statistics, found: Deviation, batch: int) -> str:
    """The code for running statistics that differ from `population`.

    `unconverged-average`: the initial values still weigh (1 − momentum)^batches, and taking them out (Adam's bias
    correction) explains the difference, or the statistics are still near their initial values. A small weight matters
    where variances are far below the initial 1.
    `noisy-statistics`: the difference is what an average of so few batches has by chance: for the batch size at hand,
    or, from momentum 0.3 on, for batches of two. `stale-statistics` otherwise.
    """
    running = running_statistics(norm)
    if running is None:
        raise ValueError("cause: expected running statistics, received None")
    mean, var = (each.detach().cpu().double() for each in running)
    remaining = initial_weight(norm)
    if 0 < remaining < 1:
        corrected = mean / (1 - remaining), ((var - remaining) / (1 - remaining)).clamp(min=0)
        if deviation(*corrected, norm.eps, population).size < 0.7 * found.size:
            return "unconverged-average"
        near_start = deviation(
            torch.zeros_like(mean), torch.ones_like(var), norm.eps, replace(population, mean=mean, var=var)
        )
        way = deviation(torch.zeros_like(mean), torch.ones_like(var), norm.eps, population)
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
