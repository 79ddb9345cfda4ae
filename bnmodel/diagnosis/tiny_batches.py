"""Batch statistics that predict worse than running ones: in train mode, and with too few values per channel."""

from bnmodel.diagnosis.batchnorms import running_statistics
from bnmodel.diagnosis.examination import TINY, Examination
from bnmodel.diagnosis.outcome import worst
from bnmodel.diagnosis.state import RECALIBRATE
from bnmodel.findings import Finding, Severity

LARGER = "in training: larger batches, nn.SyncBatchNorm over processes, or nn.GroupNorm"


def tiny_batches(examination: Examination, explained: bool) -> Finding | None:
    """A finding for the layer whose batches hold the fewest independent values, if fewer than 12.

    A warning if the layer is in train mode and eval mode would predict better, or if eval mode predicts worse than
    even such batch statistics and no other finding explains it (`explained`); otherwise a note.
    """
    found = examination.noise_of_layers()
    if not found:
        return None
    layer, noise = max(found.items(), key=lambda item: item[1])
    effective = 1 / noise**2 if noise else float("inf")
    if effective >= TINY:
        return None
    severity, effect = _consequence(examination, layer, explained)
    if examination.modes[layer] or severity == "note":
        remedy = "model.eval()  # when predicting; " + LARGER
    else:
        remedy = f"{RECALIBRATE}  # {LARGER}"
    return Finding(
        "tiny-batches",
        severity,
        layer,
        f"batches of {examination.batch} hold {effective:.1f} independent values per channel "
        f"({examination.seen.values[layer]} in all): batch means are off by {noise:.2f} σ in train mode{effect}",
        remedy,
    )


def training_mode(examination: Examination) -> Finding | None:
    """A warning if the whole model is in train mode and far more of its predictions would be right in eval mode."""
    if not examination.root_training or not all(examination.modes.values()):
        return None
    gains = examination.in_eval.gains_over(examination.in_train) if examination.in_train.heads else []
    gain = worst([gain for gain in gains if gain.kind == "accuracy"])
    if gain is None or gain.severity != "error":
        return None
    return Finding(
        "training-mode",
        "warning",
        "",
        f"the model is in train mode, in which an answer depends on the rest of its batch; eval mode instead: {gain}",
        "model.eval()  # before predicting",
    )


def _consequence(examination: Examination, layer: str, explained: bool) -> tuple[Severity, str]:
    in_eval, in_train = examination.in_eval, examination.in_train
    if examination.modes[layer] or running_statistics(examination.norms[layer]) is None:
        if not in_train.heads:
            return "warning", "; a batch of one value per channel cannot be normalised"
        gain = worst(in_eval.gains_over(in_train))
        if gain is not None:
            return "note" if gain.severity == "note" else "warning", f"; eval mode instead of train mode: {gain}"
    elif not explained:
        gain = worst([gain for gain in in_train.gains_over(in_eval) if gain.kind != "answers"])
        if gain is not None and gain.severity != "note":
            return "warning", f"; batch statistics instead of running ones: {gain}"
    return "note", ""
