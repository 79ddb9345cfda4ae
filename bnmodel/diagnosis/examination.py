"""What a check-up has measured, shared by its rules, and the passes that measure what a repair changes."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from bnmodel.diagnosis import state
from bnmodel.diagnosis.batches import Batch, Forward, mixed
from bnmodel.diagnosis.batchnorms import Norm, running_statistics
from bnmodel.diagnosis.deviation import Deviation, deviation, expected_in_training
from bnmodel.diagnosis.moments import Statistics
from bnmodel.diagnosis.observing import Observed, Pooled, Substitute, observe, run, run_with_batch_statistics
from bnmodel.diagnosis.outcome import Gain, Scores, worst
from bnmodel.diagnosis.scoring import Loss, score

TINY = 12  # effective values per channel below which batch statistics are a lottery: noise of 0.3 σ
MIXED_BATCH, MIXED_SAMPLES = 64, 256  # batches made where the given ones mislead
LEAST_COMPARED = 16  # samples before a clear comparison may stop
QUARTER, HALF = 64, 128  # samples from which a quarter, half of the data settles a note, a warning


@dataclass
class Examination:
    """What is known so far. Layers are named as in the model that was handed in."""

    model: nn.Module
    norms: dict[str, Norm]
    batches: list[Batch]
    forward: Forward | None
    loss: Loss | None
    modes: dict[str, bool]
    root_training: bool
    batch: int  # samples in a batch, median
    seen: Observed = field(default_factory=Observed)
    expected: dict[str, Statistics] = field(default_factory=dict)  # what the running statistics should be
    deviations: dict[str, Deviation] = field(default_factory=dict)  # in eval mode
    own: dict[str, Deviation] = field(default_factory=dict)  # with batch statistics in the layers before
    pooled: dict[str, Pooled] = field(default_factory=dict)
    in_eval: Scores = field(default_factory=Scores)
    in_train: Scores = field(default_factory=Scores)

    def measure(self) -> None:
        """One pass in eval mode and one with batch statistics."""
        self.seen = observe(self.model, self.norms, self.batches, self.forward, self._into(self.in_eval))
        self.pooled = run_with_batch_statistics(
            self.model, self.norms, self.batches, self.forward, self.seen.centres, self._into(self.in_train)
        )
        self._measure_deviations()

    def called(self) -> dict[str, Norm]:
        """The layers that these batches reach, in the order of their first call."""
        return {name: self.norms[name] for name in self.seen.order}

    def position(self, name: str) -> int:
        """In the order of the first call; -1 for other names."""
        return self.seen.order.index(name) if name in self.seen.order else -1

    def population(self, name: str) -> tuple[Tensor, Tensor]:
        """Mean and variance that the running statistics should have."""
        return self.expected[name].mean, self.expected[name].var

    def dead(self, name: str) -> Tensor:
        """(C,) bool: channels that are dead in eval mode and with batch statistics in the layers before."""
        whole = self.seen.whole[name]
        populations = [(whole.mean, whole.var)]
        if name in self.pooled:
            populations.append(self.pooled[name].mean_var())
        return state.dead_channels(self.norms[name], whole.samples, *populations)

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

    def repaired(self, substitute: Substitute, threshold: float | None = None) -> Gain | None:
        """What the outputs gain under `substitute`, on as few batches as settle it.

        It ends as soon as more samples would hardly change the severity; a note is also settled by a quarter of the
        data, a warning by half of it. With a `threshold`, it ends when it is clear on which side of it the gain is.
        """
        scores = Scores()
        consume = self._into(scores)
        total = sum(batch.samples for batch in self.batches)
        gain, compared = None, 0
        least = LEAST_COMPARED if self._batch_statistics_gain_nothing() else QUARTER
        for batch, outputs in run(self.model, self.norms, self._spread(), self.forward, substitute):
            consume(batch, outputs)
            compared += batch.samples
            gains = scores.gains_over(self.in_eval, self.in_train)
            gain = worst(gains)
            if gain is None:
                break
            clear = threshold is not None and not gain.lower <= threshold <= gain.upper
            if compared >= LEAST_COMPARED and (clear or all(each.decided for each in gains)):
                break
            if compared >= max(total / 4, least) and all(each.small for each in gains):
                break
            if compared >= max(total / 2, HALF) and gain.severity != "note":
                break
        return gain

    def _batch_statistics_gain_nothing(self) -> bool:
        """Whether the control variate says that there is nothing to gain."""
        gains = self.in_train.gains_over(self.in_eval) if self.in_train.heads else []
        return bool(gains) and all(gain.small for gain in gains) and not self.batches_mislead()

    def pool_mixed(self) -> None:
        """Batch statistics once more, on batches with samples from all parts of the data."""
        batches = mixed(self.batches, MIXED_BATCH, MIXED_SAMPLES) if self.forward is None else None
        if batches is None:
            return
        self.pooled = run_with_batch_statistics(
            self.model, self.norms, batches, None, self.seen.centres, lambda *_: None
        )
        self.own.clear()
        self._measure_deviations()

    def batches_mislead(self) -> bool:
        """Whether statistics of these batches are far from the population's: too few values, or sorted by class."""
        noise = [value for name in self.seen.order if (value := self.batch_noise(name)) is not None]
        if noise and max(noise) > TINY**-0.5:
            return True
        targets = [batch.targets for batch in self.batches]
        if not all(isinstance(t, Tensor) and t.dim() == 1 and not t.is_floating_point() for t in targets):
            return False
        most = max(len(t.unique()) for t in targets)
        return 2 * most < len(torch.cat(targets).unique())

    def deviations_from(self, reference: list[Batch]) -> dict[str, Deviation]:
        """Each layer's deviation from the population of other batches."""
        seen = observe(self.model, self.norms, reference, self.forward, lambda *_: None)
        found = {}
        for name in seen.order:
            running = running_statistics(self.norms[name])
            if running is not None:
                expected = expected_in_training(seen.by_call.get(name, []), seen.whole[name])
                found[name] = deviation(*running, self.norms[name].eps, expected, len(seen.order))
        return found

    def _into(self, scores: Scores) -> Callable[[Batch, Any], None]:
        """A consumer that scores each batch."""
        index = {id(batch): position for position, batch in enumerate(self.batches)}

        def consume(batch: Batch, outputs: Any) -> None:
            scores.heads[index[id(batch)]] = score(batch, outputs, self.loss)

        return consume

    def _spread(self) -> list[Batch]:
        """The batches in an order that visits all parts of the data early."""
        count = len(self.batches)
        step = next((s for s in range(max(int(count * 0.618), 1), count + 1) if math.gcd(s, count) == 1), 1)
        return [self.batches[index * step % count] for index in range(count)]

    def _measure_deviations(self) -> None:
        layers = len(self.seen.order)
        for name, norm in self.called().items():
            whole = self.seen.whole[name]
            expected = self.expected[name] = expected_in_training(self.seen.by_call.get(name, []), whole)
            running = running_statistics(norm)
            if running is None:
                continue
            self.deviations[name] = deviation(*running, norm.eps, expected, layers)
            if name in self.pooled:
                mean, var = self.pooled[name].mean_var()
                scale = ((var + norm.eps) / (whole.var + norm.eps)).nan_to_num(1.0)
                alone = replace(
                    whole,
                    mean=mean,
                    var=var,
                    mean_error=whole.mean_error.nan_to_num(0.0) * scale.sqrt(),
                    var_error=whole.var_error.nan_to_num(0.0) * scale,
                )
                self.own[name] = deviation(*running, norm.eps, alone, layers)


def given(statistics: dict[str, tuple[Tensor, Tensor]]) -> Substitute:
    """Statistics per layer, in every call."""
    return lambda name, _, __: statistics.get(name)
