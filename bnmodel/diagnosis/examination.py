"""Measurements of one check-up, which its rules share, and the passes that measure the effect of a repair."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bnmodel.diagnosis import state
from bnmodel.diagnosis.batches import Batch, Forward, mixed
from bnmodel.diagnosis.batchnorms import Norm, running_statistics
from bnmodel.diagnosis.deviation import Deviation, deviation_of, expected_in_training
from bnmodel.diagnosis.moments import Statistics, array
from bnmodel.diagnosis.observing import (
    Observed,
    Substitute,
    Values,
    observe,
    run,
    run_with_batch_statistics,
)
from bnmodel.diagnosis.outcome import Gain, Scores, worst
from bnmodel.diagnosis.scoring import Loss, score

TINY = 12  # independent values per channel; with fewer, batch means are off by more than 0.29 σ
MIXED_BATCH, MIXED_SAMPLES = 64, 256  # of the batches that replace misleading ones
LEAST_COMPARED = 16  # samples before a clear comparison may stop
QUARTER, HALF = 64, 128  # samples before a note may stop at a quarter of the data, a warning at half of it


@dataclass
class Examination:
    """The model, its batches, and what has been measured so far. Layer names are those of the model as passed in."""

    model: nn.Module
    norms: dict[str, Norm]
    batches: list[Batch]
    forward: Forward | None
    loss: Loss | None
    modes: dict[str, bool]
    root_training: bool
    batch: int  # samples in a batch, median
    seen: Observed = field(default_factory=Observed)
    expected: dict[str, Statistics] = field(default_factory=dict)  # limit of the running statistics
    deviations: dict[str, Deviation] = field(default_factory=dict)  # in eval mode
    own: dict[str, Deviation] = field(default_factory=dict)  # with batch statistics in the layers before
    pooled: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)  # mean, variance; as `own`
    dead: dict[str, np.ndarray] = field(default_factory=dict)  # (C,) bool
    in_eval: Scores = field(default_factory=Scores)
    in_train: Scores = field(default_factory=Scores)
    in_reference: Scores = field(default_factory=Scores)
    embeddings: bool = False  # the targets are classes, but the outputs are not scores of these

    def measure(self) -> None:
        """One pass in eval mode and one with batch statistics."""
        self.seen = observe(self.model, self.norms, self.batches, self.forward, self._into(self.in_eval))
        self.pooled = run_with_batch_statistics(
            self.model, self.norms, self.batches, self.forward, self.seen.centres, self._into(self.in_train)
        )
        self._measure_deviations()
        self.dead = {name: self._dead(name) for name in self.seen.order}
        self._find_embeddings()

    def _find_embeddings(self) -> None:
        """Compare outputs by their values if they predict the targets no better than chance, and are not constant."""
        passes = (self.in_eval, self.in_train)
        if self.loss is not None or not all(scores.by_chance() for scores in passes):
            return
        self.embeddings = not (self.in_train.collapsed() or self.batches_mislead())
        for scores in passes if self.embeddings else ():
            scores.without_targets(scores.heads)

    def called(self) -> dict[str, Norm]:
        """The layers that were called, in the order of their first call."""
        return {name: self.norms[name] for name in self.seen.order}

    def position(self, name: str) -> int:
        """Index in the order of the first calls; -1 for other names."""
        return self.seen.order.index(name) if name in self.seen.order else -1

    def population(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance that the running statistics should have."""
        return self.expected[name].mean, self.expected[name].var

    def repair(self, name: str, alone: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance for measuring a repair: the population's, without the part that sampling explains.

        alone: of the population with batch statistics in the layers before.
        """
        population, running = self._alone(name) if alone else self.expected[name], running_statistics(self.norms[name])
        if running is None:
            return population.mean, population.var
        mean, var = map(array, running)
        return (
            _shrunk(mean, population.mean, population.mean_error),
            _shrunk(var, population.var, population.var_error),
        )

    def _dead(self, name: str) -> np.ndarray:
        """Channels that are dead in eval mode and with batch statistics in the layers before."""
        whole = self.seen.whole[name]
        populations = [(whole.mean, whole.var)]
        if name in self.pooled:
            populations.append(self.pooled[name])
        features = name in self.seen.features
        return state.dead_channels(self.norms[name], whole.samples, *populations, features=features)

    def batch_noise(self, name: str) -> float | None:
        """Standard deviation of a batch's mean in standard deviations of its values."""
        statistics = self.seen.whole[name]
        per_sample = statistics.values_per_sample()
        if math.isnan(per_sample):  # one sample, or no live channel
            if statistics.samples > 1:
                return None
            per_sample = 1.0
        rows = statistics.samples / sum(batch.samples for batch in self.batches) * self.batch
        effective = max(per_sample * rows / max(self.seen.calls[name], 1), 1.0)
        return float(effective**-0.5)

    def noise_of_layers(self) -> dict[str, float]:
        """`batch_noise` of the layers for which it is known."""
        return {name: noise for name in self.seen.order if (noise := self.batch_noise(name)) is not None}

    def scores_with(self, substitute: Substitute) -> Scores:
        """Of all batches, with the statistics of `substitute`."""
        scores = Scores()
        consume = self._into(scores)
        for batch, outputs in run(self.model, self.norms, self.batches, self.forward, substitute):
            consume(batch, outputs)
        return scores

    def repaired(
        self, substitute: Substitute, threshold: float | None = None, before: Scores | None = None
    ) -> Gain | None:
        """Gain of the outputs with the statistics of `substitute`, measured on as few batches as needed.

        It is the gain over `before`, or over eval mode.

        The pass ends as soon as more samples would hardly change the severity. A quarter of the data is enough for a
        note, half of it for a warning. With a `threshold`, it also ends when the interval of the gain excludes it.
        """
        scores, before = Scores(), before or self.in_eval
        consume = self._into(scores)
        total = sum(batch.samples for batch in self.batches)
        gain, compared = None, 0
        least = LEAST_COMPARED if self.batch_statistics_gain_nothing() else QUARTER
        for batch, outputs in run(self.model, self.norms, self._spread(), self.forward, substitute):
            consume(batch, outputs)
            compared += batch.samples
            gains = scores.gains_over(before, self.in_train)
            gain = worst(gains)
            if gain is None:
                break
            if compared < total and any(each.kind == "loss" for each in gains):
                continue  # a gain is relative to the loss of all batches
            clear = threshold is not None and not gain.lower <= threshold <= gain.upper
            if compared >= LEAST_COMPARED and (clear or all(each.decided for each in gains)):
                break
            if compared >= max(total / 4, least) and all(each.small for each in gains):
                break
            if compared >= max(total / 2, HALF) and gain.severity != "note":
                break
        return gain

    def repaired_alone(self, name: str, threshold: float | None = None) -> Gain | None:
        """As `repaired`, with the population's statistics in one layer."""
        return self.repaired(per_layer({name: self.repair(name)}), threshold)

    def batch_statistics_gain_nothing(self) -> bool:
        """Whether batch statistics, the control variate, gain nothing over eval mode."""
        gains = self.in_train.gains_over(self.in_eval) if self.in_train.heads else []
        return bool(gains) and all(gain.small for gain in gains) and not self.batches_mislead()

    def pool_mixed(self) -> None:
        """Measure batch statistics again, on batches with samples from all parts of the data."""
        batches = mixed(self.batches, MIXED_BATCH, MIXED_SAMPLES) if self.forward is None else None
        if batches is None:
            return
        self.pooled = run_with_batch_statistics(
            self.model, self.norms, batches, None, self.seen.centres, lambda *_: None
        )
        self._measure_deviations()

    def batches_mislead(self) -> bool:
        """Whether batch statistics are far from the population's: too few values, or batches sorted by class."""
        if max(self.noise_of_layers().values(), default=0.0) > TINY**-0.5:
            return True
        targets = [batch.targets for batch in self.batches]
        if not all(isinstance(t, Tensor) and t.dim() == 1 and not t.is_floating_point() for t in targets):
            return False
        most = max(len(t.unique()) for t in targets)
        return 2 * most < len(torch.cat(targets).unique())

    def deviations_from(self, reference: list[Batch]) -> dict[str, Deviation]:
        """Deviation of each layer's running statistics from the population of other batches."""
        consume = self._into(self.in_reference)
        return self._deviations(_expected(observe(self.model, self.norms, reference, self.forward, consume)))

    def _into(self, scores: Scores) -> Callable[[Batch, Any], None]:
        """A function that scores the outputs of a batch."""

        def consume(batch: Batch, outputs: Any) -> None:
            scores.heads[batch.number] = score(batch, outputs, self.loss)
            if self.embeddings:
                scores.without_targets((batch.number,))

        return consume

    def _spread(self) -> list[Batch]:
        """The batches in an order that visits all parts of the data early."""
        count = len(self.batches)
        step = next((s for s in range(max(int(count * 0.618), 1), count + 1) if math.gcd(s, count) == 1), 1)
        return [self.batches[index * step % count] for index in range(count)]

    def _measure_deviations(self) -> None:
        self.expected = _expected(self.seen)
        self.deviations = self._deviations(self.expected)
        self.own = self._deviations({name: self._alone(name) for name in self.seen.order if name in self.pooled})

    def _deviations(self, populations: Mapping[str, Statistics]) -> dict[str, Deviation]:
        """Per layer that keeps running statistics."""
        layers = len(self.seen.order)
        found = {name: deviation_of(self.norms[name], each, layers) for name, each in populations.items()}
        return {name: each for name, each in found.items() if each is not None}

    def _alone(self, name: str) -> Statistics:
        """The population with batch statistics in the layers before, with scaled standard errors."""
        whole, (mean, var), eps = self.seen.whole[name], self.pooled[name], self.norms[name].eps
        scale = np.nan_to_num((var + eps) / (whole.var + eps), nan=1.0)
        mean_error, var_error = np.nan_to_num(whole.mean_error) * np.sqrt(scale), np.nan_to_num(whole.var_error) * scale
        return replace(whole, mean=mean, var=var, mean_error=mean_error, var_error=var_error)


def _expected(seen: Observed) -> dict[str, Statistics]:
    return {name: expected_in_training(seen.by_call.get(name, []), seen.whole[name]) for name in seen.order}


def _shrunk(running: np.ndarray, population: np.ndarray, error: np.ndarray) -> np.ndarray:
    """From `running` towards `population` by the part of the difference that is not chance (James & Stein 1961)."""
    difference = population - running
    with np.errstate(all="ignore"):
        part = np.clip(1 - (np.nan_to_num(error) / difference) ** 2, 0.0, 1.0)
    moved: np.ndarray = np.where(np.isfinite(part), running + part * difference, population)
    return moved


def per_layer(statistics: Mapping[str, tuple[Values, Values]]) -> Substitute:
    """Mean and variance per layer, the same in each of its calls."""
    return lambda name, _, __: statistics.get(name)
