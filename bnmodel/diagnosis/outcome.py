"""What a model's outputs say, sample by sample, and how two passes over the same batches compare.

The comparison is paired: both passes see the same samples, so their difference is far more certain than either.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bnmodel.diagnosis.batches import Batch, named_tensors
from bnmodel.findings import Severity

Loss = Callable[[Any, Any], Tensor]
Kind = Literal["accuracy", "loss", "answers"]

MAX_ENTRIES = 1024  # of one sample's output that are compared
MOVED = 0.5  # a numeric output has changed if it moved by more, in standard deviations over samples
Z99, Z999 = 2.576, 3.291
ERROR = {"accuracy": 0.05, "loss": 0.20, "answers": 0.10}
WARNING = {"accuracy": 0.01, "loss": 0.04, "answers": 0.03}


@dataclass
class Head:
    """One output of one batch.

    Attributes:
        answers: (N, P) int64 class indices, or float32 values.
        correct: (N,) share of right answers in [0, 1], or None.
        losses: (N,), or None.
    """

    answers: Tensor
    correct: Tensor | None = None
    losses: Tensor | None = None


@dataclass(frozen=True)
class Outcome:
    """How good the outputs are.

    Attributes:
        samples: how many were seen.
        loss: mean over samples, or None without targets.
        accuracy: in [0, 1], or None where targets are not classes.
    """

    samples: int
    loss: float | None
    accuracy: float | None

    def __str__(self) -> str:
        parts = [] if self.accuracy is None else [f"accuracy {self.accuracy:.1%}"]
        parts += [] if self.loss is None else [f"loss {self.loss:.4g}"]
        return ", ".join(parts) or "no targets"


@dataclass(frozen=True)
class Gain:
    """What a repair changes in the outputs.

    Attributes:
        kind: "accuracy" in points, "loss" as a share of it, "answers" as the share of samples that change.
        value, lower, upper: estimate and 99 % interval.
        samples: compared.
    """

    kind: Kind
    value: float
    lower: float
    upper: float
    samples: int

    @property
    def severity(self) -> Severity:
        """As the thresholds of this module say; a gain that may be chance is a note."""
        if self.value >= ERROR[self.kind] and self.lower > WARNING[self.kind]:
            return "error"
        least = WARNING[self.kind] / 2 if self.kind == "answers" else 0.0
        return "warning" if self.value >= WARNING[self.kind] and self.lower > least else "note"

    @property
    def decided(self) -> bool:
        """Whether more samples would hardly change the severity."""
        half = (self.upper - self.value) * Z999 / Z99
        return self.value - half > ERROR[self.kind] or self.value + half < WARNING[self.kind]

    def __str__(self) -> str:
        if self.kind == "accuracy":
            return f"{self.value * 100:+.1f} points of accuracy"
        if self.kind == "loss":
            return f"{-self.value:+.0%} loss"
        return f"{self.value:.1%} of the answers change"


def score(batch: Batch, outputs: Any, loss: Loss | None) -> list[Head]:
    """The heads of a batch's outputs: those that targets fit, or without targets all of them."""
    found = [
        (name, tensor.detach())
        for name, tensor in named_tensors(outputs)
        if tensor.dim() and tensor.size(0) == batch.samples and not tensor.is_complex()
    ]
    targets = [(name, t) for name, t in named_tensors(batch.targets) if t.dim() and t.size(0) == batch.samples]
    heads = []
    if len(targets) == 1 and loss is None:
        heads = [head for _, output in found if (head := _fit(output, targets[0][1])) is not None][:1]
    elif len(targets) > 1 and loss is None:
        by_name = dict(targets)
        for index, (name, output) in enumerate(found):
            target = by_name.get(name, targets[index][1] if index < len(targets) else None)
            head = None if target is None else _fit(output, target)
            heads += [] if head is None else [head]
    elif loss is not None and batch.targets is not None:
        head = next((head for _, o in found for _, t in targets if (head := _fit(o, t)) is not None), None)
        head = head or Head(_answers(found[0][1]) if found else torch.zeros(batch.samples, 0))
        head.losses = _own_losses(loss, outputs, batch)
        heads = [head]
    return heads or [Head(_answers(output)) for _, output in found]


def _own_losses(loss: Loss, outputs: Any, batch: Batch) -> Tensor:
    """`loss` of each sample where outputs and targets can be sliced, else the batch's for each."""

    def sliced(value: Any, index: int) -> Any:
        if isinstance(value, Tensor):
            return value[index : index + 1] if value.dim() and value.size(0) == batch.samples else value
        if isinstance(value, dict):
            return {key: sliced(item, index) for key, item in value.items()}
        if type(value) in (tuple, list):
            return type(value)(sliced(item, index) for item in value)
        raise TypeError(type(value).__name__)

    whole = float(loss(outputs, batch.targets))
    try:
        each = torch.tensor(
            [float(loss(sliced(outputs, i), sliced(batch.targets, i))) for i in range(batch.samples)],
            dtype=torch.float64,
        )
    except Exception:  # the loss takes whole batches only
        return torch.full((batch.samples,), whole, dtype=torch.float64)
    if not math.isclose(float(each.mean()), whole, rel_tol=0.05, abs_tol=1e-6):  # a sum, or coupled samples
        each = each * (whole / float(each.mean())) if float(each.mean()) else torch.full_like(each, whole)
    return each


def _fit(output: Tensor, target: Tensor) -> Head | None:
    """Score `output` against `target`, or None where their shapes do not fit."""
    if not output.is_floating_point():
        return None
    if target.dim() == 2 and target.size(1) == 1 and output.dim() == 2 and output.size(1) > 1:
        target = target[:, 0]
    whole_numbers = not target.is_floating_point() and target.dtype != torch.bool
    if whole_numbers and output.dim() == target.dim() + 1:
        if output.size(1) > 1 and output.shape[2:] == target.shape[1:]:
            return _classes(output, target)
        if output.size(-1) > 1 and output.shape[:-1] == target.shape:
            return _classes(output.movedim(-1, 1), target)
    if output.numel() != target.numel() or output.shape[0] != target.shape[0]:
        return None
    output, target = output.reshape(len(output), -1).float(), target.reshape(len(target), -1).float()
    binary = bool(((target == 0) | (target == 1)).all())
    if binary and target.size(1) > 1 and bool((target.sum(1) == 1).all()):
        return _classes(output, target.argmax(1))
    if binary:
        probability = bool(((output >= 0) & (output <= 1)).all())
        answers = output > (0.5 if probability else 0)
        clamped = output.clamp(1e-7, 1 - 1e-7)
        losses = (
            F.binary_cross_entropy(clamped, target, reduction="none")
            if probability
            else F.binary_cross_entropy_with_logits(output, target, reduction="none")
        )
        correct = (answers == (target > 0.5)).double().mean(1)
        return Head(answers.long().cpu(), correct.cpu(), losses.double().mean(1).cpu())
    return Head(_answers(output), None, (output - target).double().square().mean(1).cpu())


def _classes(output: Tensor, target: Tensor) -> Head:
    output = output.float().reshape(len(output), output.size(1), -1)  # (N, K, P)
    target = target.long().reshape(len(output), -1)  # (N, P)
    valid = (target >= 0) & (target < output.size(1))  # ignore_index
    sums = output.sum(1)
    if bool((output >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        log_probs = output.clamp(min=1e-12).log()
    else:
        log_probs = F.log_softmax(output, dim=1)
    answers = output.argmax(1)
    counts = valid.sum(1).clamp(min=1)
    nll = -log_probs.gather(1, target.clamp(0, output.size(1) - 1).unsqueeze(1)).squeeze(1)
    correct = ((answers == target) & valid).sum(1).double() / counts
    losses = (nll.double() * valid).sum(1) / counts
    return Head(_thinned(answers).cpu(), correct.cpu(), losses.cpu())


def _answers(output: Tensor) -> Tensor:
    """(N, P): the class of (N, K ≥ 2) outputs, otherwise the values."""
    if not output.is_floating_point():
        return _thinned(output.reshape(len(output), -1)).long().cpu()
    if output.dim() == 2 and output.size(1) >= 2:
        return output.argmax(1, keepdim=True).cpu()
    return _thinned(output.reshape(len(output), -1)).float().cpu()


def _thinned(values: Tensor) -> Tensor:
    step = -(-values.size(1) // MAX_ENTRIES) if values.dim() > 1 and values.size(1) else 1
    return values[:, ::step]


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
            None if losses is None else float(losses.mean()),
            None if correct is None else float(correct.mean()),
        )

    def _joined(self, name: str) -> Tensor | None:
        for index in range(max((len(heads) for heads in self.heads.values()), default=0)):
            parts = [getattr(heads[index], name) for heads in self.heads.values() if len(heads) > index]
            if parts and all(part is not None for part in parts):
                return torch.cat(parts)
        return None

    def gains_over(self, before: "Scores") -> list[Gain]:
        """What this pass gains over `before`, one or more per head, on the batches that both have."""
        indices = [index for index in self.heads if index in before.heads]
        gains = []
        for head in range(min((len(self.heads[i]) for i in indices), default=0)):
            pairs = [(before.heads[i][head], self.heads[i][head]) for i in indices if head < len(before.heads[i])]
            gains += _head_gains(pairs)
        return gains


def _head_gains(pairs: list[tuple[Head, Head]]) -> list[Gain]:
    old, new = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if all(head.correct is not None for head in (*old, *new)):
        difference = torch.cat([n.correct - o.correct for o, n in pairs])  # type: ignore[operator]
        return [_interval("accuracy", difference, 1.0)]
    if all(head.losses is not None for head in (*old, *new)):
        was = torch.cat([head.losses for head in old])  # type: ignore[misc]
        now = torch.cat([head.losses for head in new])  # type: ignore[misc]
        if not bool(was.isfinite().all()) and bool(now.isfinite().all()):
            return [Gain("loss", 1.0, 1.0, 1.0, len(was))]
        scale = float(was.abs().mean())
        return [_interval("loss", was - now, scale)] if scale > 0 and math.isfinite(scale) else []
    return [_interval("answers", changed(pairs).double(), 1.0)]


def _interval(kind: Kind, difference: Tensor, scale: float) -> Gain:
    """Estimate and 99 % interval of a mean."""
    count = len(difference)
    difference = torch.nan_to_num(difference.double(), 0.0, 0.0, 0.0) / scale
    value = float(difference.mean()) if count else 0.0
    # one dissenting sample more: a handful of agreeing samples is no certainty
    padding = 1.0 / count if count and kind != "loss" else 0.0
    spread = float(difference.var(correction=0)) if count else 1.0
    half = Z99 * math.sqrt((spread + padding) / max(count - 1, 1))
    return Gain(kind, value, value - half, value + half, count)


def changed(pairs: list[tuple[Head, Head]]) -> Tensor:
    """(N,) share of each sample's answers that differ between the two passes."""
    before = torch.cat([old.answers for old, _ in pairs])
    after = torch.cat([new.answers for _, new in pairs])
    if not before.is_floating_point():
        return (before != after).double().mean(1) if before.size(1) else torch.zeros(len(before))
    if not before.size(1):
        return torch.zeros(len(before))
    spread = before.std(0, correction=0)
    floor = 1e-3 * float(before.std(correction=0)) + 1e-12
    moved = (after - before).abs() / spread.clamp(min=floor)
    return (~(moved <= MOVED)).double().mean(1)  # NaN counts as changed
