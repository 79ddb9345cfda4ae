"""Answers, accuracy and loss of each sample from a model's outputs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, SupportsFloat

import torch
import torch.nn.functional as F
from torch import Tensor

from bnmodel.diagnosis.batches import Batch, named_tensors

Loss = Callable[[Any, Any], Tensor]

MAX_ENTRIES = 1024  # of one sample's output that are compared
MAX_POSITIONS = 4096  # of a sample, such as pixels, that are scored
DETECTED = 64  # of a detector's output per sample that are compared
LABELS = ("label", "labels", "target", "targets", "y")  # names of targets in a dict that holds inputs, too
UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)  # for which torch lacks most operators
MAX_BALANCED = 256  # classes up to which the accuracy of several targets per sample is balanced


@dataclass
class Head:
    """One output of the model for one batch, scored.

    Attributes:
        answers: (N, P) int64 class indices, or float32 values.
        classes: (N,) target of each sample, if it is one class.
        values: (N, K) float32 of which `answers` is the index of the largest, without targets: scores or features.
        correct: (N,) share of right answers in [0, 1], or None.
        losses: (N,), or None.
        balanced: (N,) mean recall over the classes present in a sample, if it has several targets: most pixels are
            background, most labels are absent.
        unlabelled: the same (N, K) outputs, which may be embeddings rather than scores, without the targets.
    """

    answers: Tensor
    correct: Tensor | None = None
    losses: Tensor | None = None
    balanced: Tensor | None = None
    classes: Tensor | None = None
    values: Tensor | None = None
    unlabelled: "Head | None" = None

    @property
    def gauge(self) -> Tensor | None:
        """The accuracy that passes are compared by."""
        return self.correct if self.balanced is None else self.balanced


def score(batch: Batch, outputs: Any, loss: Loss | None) -> list[Head]:
    """Score the outputs that fit the targets; if there are none, all outputs."""
    if type(outputs) in (list, tuple) and len(outputs) == batch.samples:
        outputs = _joined(outputs)
    targets = [(name, t.long() if t.dtype in UNSIGNED else t) for name, t in named_tensors(batch.targets) if t.dim()]
    if batch.targets is batch.inputs:
        targets = [(name, t) for name, t in targets if name.rpartition(".")[2].lower() in LABELS]
    found = [
        (name, tensor.detach())
        for name, tensor in named_tensors(outputs)
        if tensor.dim() and tensor.layout == torch.strided and not tensor.is_complex()
    ]
    batch = replace(batch, samples=_rows(batch, [o for _, o in found], [t for _, t in targets]))
    found, targets = ([(name, t) for name, t in part if t.size(0) == batch.samples] for part in (found, targets))
    heads = []
    if len(targets) == 1 and loss is None:
        heads = [head for _, output in found if (head := _fit(output, targets[0][1])) is not None][:1]
        if not heads:
            _require_classes([output for _, output in found], targets[0][1])
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
    return heads or [_unlabelled(output) for _, output in found]


def _rows(batch: Batch, outputs: list[Tensor], targets: list[Tensor]) -> int:
    """How many rows the outputs to score have: one per sample, or one per target, as for graphs of several nodes."""
    sizes = {output.size(0) for output in outputs}
    fitting = [batch.samples, *(target.size(0) for target in targets)]
    return next((rows for rows in fitting if rows in sizes), batch.samples)


def _joined(outputs: Sequence[Any]) -> Any:
    """Join a dict of tensors per sample, as a detector returns them, into one tensor per name, (N, 1, 1 + DETECTED).

    Sizes such as the number of boxes differ between samples: a row holds the size and the first values.
    """
    if not all(isinstance(each, Mapping) and each.keys() == outputs[0].keys() for each in outputs):
        return outputs
    joined = {}
    for name in outputs[0]:
        parts = [each[name].detach() for each in outputs if isinstance(each[name], Tensor)]
        if len(parts) == len(outputs):
            rows = torch.zeros(len(parts), 1, 1 + DETECTED)
            for row, part in zip(rows[:, 0], parts, strict=True):
                first = part.flatten()[:DETECTED]
                row[0], row[1 : 1 + len(first)] = len(part) if part.dim() else 1, first
            joined[name] = rows
    return joined


def _own_losses(loss: Loss, outputs: Any, batch: Batch) -> Tensor:
    """`loss` of each sample; that of the whole batch if outputs and targets cannot be sliced."""

    def sliced(value: Any, index: int) -> Any:
        if isinstance(value, Tensor):
            return value[index : index + 1] if value.dim() and value.size(0) == batch.samples else value
        if isinstance(value, dict):
            return {key: sliced(item, index) for key, item in value.items()}
        if type(value) in (tuple, list):
            return type(value)(sliced(item, index) for item in value)
        raise TypeError(type(value).__name__)

    total = loss(outputs, batch.targets)
    if isinstance(total, Tensor) and total.numel() != 1:
        raise ValueError(f"loss: expected a scalar, received {list(total.shape)}; return its .mean()")
    if not isinstance(total, (Tensor, SupportsFloat)):
        raise ValueError(f"loss: expected a function that returns a scalar, received {type(total).__name__} from it")
    whole = float(total)
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
    """Score `output` against `target`; None if their shapes do not fit."""
    if not output.is_floating_point():
        return None
    if target.dim() == 2 and target.size(1) == 1 and output.dim() == 2 and output.size(1) > 1:
        target = target[:, 0]
    whole_numbers = not target.is_floating_point() and target.dtype != torch.bool
    if whole_numbers and output.dim() == target.dim() + 1:
        if target.dim() == 1 and output.size(1) > 1 and bool(_unknown(target, output.size(1)).any()):
            return None
        if output.size(1) > 1 and output.shape[2:] == target.shape[1:]:
            return _classes(output, target)
        if output.size(-1) > 1 and output.shape[:-1] == target.shape:
            return _classes(output.movedim(-1, 1), target)
    if output.numel() != target.numel() or output.shape[0] != target.shape[0]:
        return None
    output, target = output.reshape(len(output), -1).float(), target.reshape(len(target), -1).float()
    binary = bool(((target == 0) | (target == 1)).all())
    sums = target.sum(1)
    if target.size(1) > 1 and bool((target >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        return _classes(output, target.argmax(1))  # one-hot, or smoothed
    if binary:
        probability = bool(((output >= 0) & (output <= 1)).all())
        answers = output > (0.5 if probability else 0)
        clamped = output.clamp(1e-7, 1 - 1e-7)
        losses = (
            F.binary_cross_entropy(clamped, target, reduction="none")
            if probability
            else F.binary_cross_entropy_with_logits(output, target, reduction="none")
        )
        right = (answers == (target > 0.5)).double()
        balanced = _balanced(right, target.long(), 2).cpu() if target.size(1) > 1 else None
        return Head(_thinned(answers).long().cpu(), right.mean(1).cpu(), losses.double().mean(1).cpu(), balanced)
    return Head(_answers(output), None, (output - target).double().square().mean(1).cpu())


def _unknown(target: Tensor, classes: int) -> Tensor:
    """Which targets are no class, nor the usual `ignore_index` of 255 or below 0."""
    return (target >= classes) & (target != 255)


def _require_classes(outputs: Sequence[Tensor], target: Tensor) -> None:
    """Raise ValueError if the only reason why no output fits is a class that it does not have."""
    sizes = [output.size(1) for output in outputs if output.is_floating_point() and output.dim() == 2]
    whole_numbers = not target.is_floating_point() and target.dtype != torch.bool and target.dim() == 1
    classes = max(sizes, default=1)
    if classes > 1 and whole_numbers and bool((unknown := _unknown(target, classes)).any()):
        raise ValueError(
            f"targets: expected classes 0 … {classes - 1}, received {int(target[unknown].max())}; "
            "number them from 0; if the outputs are no classes, pass loss=, or inputs without targets"
        )


def _classes(output: Tensor, target: Tensor) -> Head:
    unlabelled = _unlabelled(output) if output.dim() == 2 else None
    output = output.float().reshape(len(output), output.size(1), -1)  # (N, K, P)
    target = target.long().reshape(len(output), -1)  # (N, P)
    step = -(-target.size(1) // MAX_POSITIONS)
    output, target = output[:, :, ::step], target[:, ::step]
    valid = (target >= 0) & (target < output.size(1))  # ignore_index
    labelled = valid.any(1)
    output, target, valid = output[labelled], target[labelled], valid[labelled]
    sums = output.sum(1)
    if bool((output >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        log_probs = output.clamp(min=1e-12).log()
    else:
        log_probs = F.log_softmax(output, dim=1)
    answers = output.argmax(1)
    counts = valid.sum(1).clamp(min=1)
    nll = -log_probs.gather(1, target.clamp(0, output.size(1) - 1).unsqueeze(1)).squeeze(1)
    right = ((answers == target) & valid).double()
    correct = right.sum(1) / counts
    losses = ((nll.double() * valid).sum(1) / counts).cpu()
    if target.size(1) == 1 or output.size(1) > MAX_BALANCED:
        single = target[:, 0].cpu() if target.size(1) == 1 else None
        return Head(_thinned(answers).cpu(), correct.cpu(), losses, classes=single, unlabelled=unlabelled)
    balanced = _balanced(right, torch.where(valid, target, output.size(1)), output.size(1))
    return Head(_thinned(answers).cpu(), correct.cpu(), losses, balanced.cpu())


def _balanced(right: Tensor, target: Tensor, classes: int) -> Tensor:
    """(N,) mean recall over the classes in each row of `target` (N, P); `right` (N, P) is 0 or 1."""
    shape = len(target), classes + 1  # the last for targets that do not count
    present = right.new_zeros(shape).scatter_add_(1, target, torch.ones_like(right))[:, :classes]
    hits = right.new_zeros(shape).scatter_add_(1, target, right)[:, :classes]
    return (hits / present.clamp(min=1)).sum(1) / (present > 0).sum(1).clamp(min=1)


def _unlabelled(output: Tensor) -> Head:
    return Head(_answers(output), values=_scores(output))


def _answers(output: Tensor) -> Tensor:
    """(N, P): the class of (N, K ≥ 2) outputs, otherwise the values."""
    if not output.is_floating_point():
        return _thinned(output.reshape(len(output), -1)).long().cpu()
    if output.dim() == 2 and output.size(1) >= 2:
        return output.argmax(1, keepdim=True).cpu()
    return _thinned(output.reshape(len(output), -1)).float().cpu()


def _scores(output: Tensor) -> Tensor | None:
    """(N, K) outputs with K ≥ 2, which may be scores of classes or features; None for others."""
    several = output.is_floating_point() and output.dim() == 2 and output.size(1) >= 2
    return output.float().cpu() if several else None


def _thinned(values: Tensor) -> Tensor:
    step = -(-values.size(1) // MAX_ENTRIES) if values.dim() > 1 and values.size(1) else 1
    return values[:, ::step]
