"""Compare the outputs of two passes over the same batches.

The comparison is paired: both passes see the same samples, so their difference is far more certain than either. For a
pass over some of the batches, a pass over all of them with similar outputs serves as a control variate (regression
estimator: Cochran 1977, *Sampling Techniques*, chapter 7).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bnmodel.diagnosis.scoring import Head
from bnmodel.findings import SEVERITIES, Severity

Kind = Literal["accuracy", "balanced accuracy", "loss", "answers"]

LEAST_CONTROLLED = 16  # samples from which a control variate is used
FIELD = 64  # values of a sample from which they count as those of an image or series
MOVED = 0.5  # a numeric output has changed if it moved by more, in standard deviations over samples
CHANCE = 1.5  # largest mean recall over classes that counts as chance, relative to 1/classes
RARE = 8  # least number of samples of the rarest class for balanced accuracy
IMBALANCED = 3  # least ratio of the largest class to the smallest for it
VARIED = 0.95  # share of samples with the same answer from which (N, K) outputs are not scores of classes
SHIFTED = 0.4  # least root mean square movement of a sample's scores for a changed answer to count, in that unit
Z99, Z999 = 2.576, 3.291
ERROR = {"accuracy": 0.05, "balanced accuracy": 0.05, "loss": 0.20, "answers": 0.10}
WARNING = {"accuracy": 0.01, "balanced accuracy": 0.01, "loss": 0.04, "answers": 0.03}


@dataclass(frozen=True)
class Outcome:
    """Loss and accuracy of one pass.

    Attributes:
        samples: how many were seen.
        loss: mean over samples, or None without targets.
        accuracy: in [0, 1], or None if targets are not classes.
    """

    samples: int
    loss: float | None
    accuracy: float | None

    def __str__(self) -> str:
        parts = [] if self.accuracy is None else [f"accuracy {self.accuracy:.1%}"]
        parts += [] if self.loss is None else [f"loss {self.loss:.4g}"]
        return ", ".join(parts)


@dataclass(frozen=True)
class Gain:
    """Effect of a repair on the outputs.

    Attributes:
        kind: "accuracy", or "balanced accuracy" if a sample has several targets or classes are rare, in [−1, 1];
            "loss", relative to that before; "answers", the share of samples that change.
        value, lower, upper: estimate and 99% interval.
        samples: compared.
    """

    kind: Kind
    value: float
    lower: float
    upper: float
    samples: int

    @property
    def severity(self) -> Severity:
        """By the thresholds ERROR and WARNING; a gain that may be chance is a note."""
        if self.value >= ERROR[self.kind] and self.lower > WARNING[self.kind]:
            return "error"
        least = WARNING[self.kind] / 2 if self.kind == "answers" else 0.0
        return "warning" if self.value >= WARNING[self.kind] and self.lower > least else "note"

    @property
    def decided(self) -> bool:
        """Whether more samples would hardly change the severity."""
        half = (self.upper - self.value) * Z999 / Z99
        return self.value - half > ERROR[self.kind] or self.value + half < WARNING[self.kind]

    @property
    def small(self) -> bool:
        """Whether the estimate is a note."""
        return self.value < WARNING[self.kind]

    def __str__(self) -> str:
        if self.kind in ("accuracy", "balanced accuracy"):
            return f"{self.value * 100:+.1f} points of {self.kind}"
        if self.kind == "loss":
            return f"{-self.value:+.0%} loss"
        return f"{self.value:.1%} of the predictions change"


class Scores:
    """Heads of one pass, batch by batch. Batches are indexed, so that passes over some of them can be compared."""

    def __init__(self) -> None:
        self.heads: dict[int, list[Head]] = {}

    def outcome(self) -> Outcome:
        """Means over the samples of all batches, of the first head that has targets."""
        samples = sum(len(heads[0].answers) for heads in self.heads.values() if heads)
        correct, losses = self._joined("correct"), self._joined("losses")
        return Outcome(
            samples,
            None if losses is None or not len(losses) else float(losses.mean()),
            None if correct is None or not len(correct) else float(correct.mean()),
        )

    def by_chance(self) -> bool:
        """Whether the outputs do not tell the targets' classes apart, three or more, and are at least twice as many.

        They may be embeddings. A classifier without training has about as many outputs as there are classes.
        """
        correct, classes = self._joined("correct"), self._joined("classes")
        if correct is None or classes is None or any(len(heads) != 1 for heads in self.heads.values()):
            return False
        unlabelled = [head.unlabelled for heads in self.heads.values() for head in heads]
        outputs = [one.values for one in unlabelled if one is not None and one.values is not None]
        if len(outputs) < len(unlabelled):
            return False
        width = outputs[0].size(1)
        found, inverse, counts = classes.unique(return_inverse=True, return_counts=True)
        recall = inverse.bincount(weights=correct) / counts
        few = len(counts) > 2 and width >= 2 * (int(found.max()) + 1)
        return few and float(recall.mean()) <= CHANCE / len(counts)

    def collapsed(self) -> bool:
        """Whether nearly all samples have the same answer."""
        answers = self._joined("answers")
        return answers is None or int(answers.flatten().bincount().max()) >= VARIED * len(answers)

    def without_targets(self, indices: Iterable[int]) -> None:
        """Forget the targets in some batches: the values of the outputs are compared instead."""
        for index in indices:
            self.heads[index] = [head.unlabelled or head for head in self.heads[index]]

    def accuracy_lost(self, reference: "Scores") -> str:
        """Accuracy here and on the reference if it is lower by as much as an error, beyond chance; otherwise ""."""
        here, there = self._joined("correct"), reference._joined("correct")
        if here is None or there is None or min(len(here), len(there)) < 2:
            return ""
        lost = float(there.mean() - here.mean())
        half = Z99 * math.sqrt(sum(max(float(part.var()), 1 / len(part)) / len(part) for part in (here, there)))
        if lost < ERROR["accuracy"] or lost - half <= WARNING["accuracy"]:
            return ""
        return f"accuracy {here.mean():.1%} instead of {there.mean():.1%} on the reference"

    def _joined(self, name: str) -> Tensor | None:
        for index in range(max((len(heads) for heads in self.heads.values()), default=0)):
            parts = [getattr(heads[index], name) for heads in self.heads.values() if len(heads) > index]
            if parts and all(part is not None for part in parts):
                return torch.cat(parts)
        return None

    def pairs(self, before: "Scores", indices: Sequence[int]) -> list[list[tuple[Head, Head]]]:
        """For each head that both have in all batches of `indices`: (before, this) per batch."""
        heads = min((min(len(self.heads[i]), len(before.heads[i])) for i in indices), default=0)
        return [[(before.heads[i][head], self.heads[i][head]) for i in indices] for head in range(heads)]

    def gains_over(self, before: "Scores", control: "Scores | None" = None) -> list[Gain]:
        """Gain of this pass over `before`, per head, on the batches that both have.

        Args:
            before: the pass to compare with.
            control: a pass over more of the batches, with outputs like this one's.
        """
        indices = [index for index in self.heads if index in before.heads]
        more: list[list[tuple[Head, Head]]] = []
        if control is not None and all(index in control.heads for index in indices):
            others = [index for index in control.heads if index in before.heads and index not in self.heads]
            more = control.pairs(before, [*indices, *others])
        gains = []
        for head, pairs in enumerate(self.pairs(before, indices)):
            gain = _gain(pairs, more[head] if head < len(more) else None)
            gains += [] if gain is None else [gain]
        return gains


def worst(gains: Sequence[Gain]) -> Gain | None:
    """The most serious gain; among equally serious ones, the largest."""
    return min(gains, key=lambda each: (SEVERITIES.index(each.severity), -each.value), default=None)


def disagreement(one: Scores, other: Scores) -> float | None:
    """Share of the answers that differ, for the head that differs most; None if nothing can be compared."""
    indices = [index for index in other.heads if index in one.heads]
    shares = [float(changed(pairs).mean()) for pairs in other.pairs(one, indices)]
    return max(shares, default=None)


def _gain(pairs: list[tuple[Head, Head]], control: list[tuple[Head, Head]] | None) -> Gain | None:
    """Gain of pairs (before, after); `control` begins with the same samples."""
    kind, difference, scale = _differences(pairs)
    if kind == "loss" and bool(difference.isinf().any()):
        return Gain("loss", 1.0, 1.0, 1.0, len(difference))
    if not (scale > 0 and math.isfinite(scale)):
        return None
    more = None
    if control is not None:
        other, values, _ = _differences(control)
        more = values if other == kind and bool(values.isfinite().all()) else None
    gains = [_interval(kind, difference, scale, more)]
    weights = _class_weights(pairs) if kind == "accuracy" else None
    if weights is not None:
        others = _class_weights(control) if control is not None and more is not None else None
        weighted = None if more is None or others is None else more * others
        gains.append(_interval("balanced accuracy", difference * weights, 1.0, weighted))
    return worst(gains)


def _class_weights(pairs: list[tuple[Head, Head]]) -> Tensor | None:
    """(N,) weights that give each class the same share; None unless classes of enough samples are imbalanced."""
    if any(old.classes is None for old, _ in pairs):
        return None
    classes = torch.cat([old.classes for old, _ in pairs])  # type: ignore[misc]
    _, inverse, counts = classes.unique(return_inverse=True, return_counts=True)
    if len(counts) < 2 or int(counts.min()) < RARE or int(counts.max()) < IMBALANCED * int(counts.min()):
        return None
    weights: Tensor = (len(classes) / (len(counts) * counts.double()))[inverse]
    return weights


def _differences(pairs: list[tuple[Head, Head]]) -> tuple[Kind, Tensor, float]:
    """Kind of comparison, (N,) float64 gains of the samples, and their unit."""
    old, new = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if all(head.gauge is not None for head in (*old, *new)):
        kind: Kind = "accuracy" if all(head.balanced is None for head in new) else "balanced accuracy"
        return kind, torch.cat([n.gauge - o.gauge for o, n in pairs]).double(), 1.0  # type: ignore[operator]
    if all(head.losses is not None for head in (*old, *new)):
        was = torch.cat([head.losses for head in old]).double()  # type: ignore[misc]
        now = torch.cat([head.losses for head in new]).double()  # type: ignore[misc]
        if not bool(was.isfinite().all()) and bool(now.isfinite().all()):
            return "loss", torch.full_like(was, math.inf), 1.0
        return "loss", was - now, float(was.abs().mean())
    return "answers", changed(pairs).double(), 1.0


def _interval(kind: Kind, difference: Tensor, scale: float, control: Tensor | None = None) -> Gain:
    """Estimate and 99% interval of a mean; `control` are like differences of these samples and of more."""
    count = len(difference)
    difference = torch.nan_to_num(difference, 0.0, 0.0, 0.0) / scale
    value = float(difference.mean()) if count else 0.0
    spread = float(difference.var(correction=0)) if count else 1.0
    variance = spread / max(count - 1, 1)
    if control is not None and len(control) > count >= LEAST_CONTROLLED:
        control = control / scale
        own = control[:count]
        own_spread = float(own.var(correction=0))
        slope = float(((own - own.mean()) * (difference - value)).mean()) / own_spread if own_spread else 0.0
        slope = min(max(slope, 0.0), 1.0)
        value += slope * float(control.mean() - own.mean())
        rest = float((difference - slope * own).var(correction=0)) / (count - 2)
        variance = rest + slope**2 * float(control.var(correction=0)) / len(control)
    # as if one more sample disagreed: a few agreeing samples prove little
    padding = 1.0 / (count * max(count - 1, 1)) if count and kind != "loss" else 0.0
    half = Z99 * math.sqrt(variance + padding)
    return Gain(kind, value, value - half, value + half, count)


def _moved(before: Tensor, after: Tensor) -> Tensor:
    """(N,) whether the values of a sample moved at all: the index of the largest of many features changes easily."""
    distance = ((after - before) / before.std(0, correction=0).clamp(min=1e-12)).square().mean(1).sqrt()
    return ~(distance <= SHIFTED)  # NaN counts as moved


def changed(pairs: list[tuple[Head, Head]]) -> Tensor:
    """(N,) share of each sample's answers that differ between the two passes."""
    if len({old.answers.shape[1] for old, _ in pairs}) > 1:  # sequences of different lengths
        return torch.cat([changed([pair]) for pair in pairs])
    if any(old.answers.shape != new.answers.shape for old, new in pairs):
        return torch.ones(sum(len(old.answers) for old, _ in pairs))
    before = torch.cat([old.answers for old, _ in pairs])
    after = torch.cat([new.answers for _, new in pairs])
    if not before.size(1):
        return torch.zeros(len(before))
    if not before.is_floating_point():
        if any(old.values is None or new.values is None for old, new in pairs):
            return (before != after).double().mean(1)
        old_values = torch.cat([old.values for old, _ in pairs])  # type: ignore[misc]
        new_values = torch.cat([new.values for _, new in pairs])  # type: ignore[misc]
        if int(before.flatten().bincount().max()) < VARIED * len(before):
            return ((before != after).flatten() & _moved(old_values, new_values)).double()
        before, after = old_values, new_values  # always the same index: values of different size, not classes
    varying = (before != before[:1]).any(0) | (after != before).any(0)  # constants, such as padding, do not count
    if not bool(varying.any()):
        return torch.zeros(len(before))
    before, after = before[:, varying], after[:, varying]
    spread = before.std(0, correction=0)
    share = 0.1 if before.size(1) >= FIELD else 1e-3  # pixels have one unit; a few values may have several
    floor = share * float(before.std(correction=0)) + 1e-12
    moved = (after - before).abs() / spread.clamp(min=floor)
    return (~(moved <= MOVED)).double().mean(1)  # NaN counts as changed
