"""Variance shift: running statistics that fit the input in train mode, as behind dropout (arXiv 1801.05134)."""

from itertools import accumulate

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from bnmodel.diagnosis.borrowing import borrowed
from bnmodel.diagnosis.deviation import deviation_of, expected_in_training
from bnmodel.diagnosis.examination import Examination
from bnmodel.diagnosis.observing import observe

FITS_IN_TRAIN_MODE = (
    "they fit its input in train mode: dropout, or another layer that differs between the modes, comes before it"
)
MOST_SAMPLES = 256


def _may_differ(module: nn.Module) -> bool:
    """Whether a module other than a batch norm may differ between the modes; the forward of other classes may."""
    if not type(module).__module__.startswith("torch.nn."):
        return True
    attributes = ("dropout", "track_running_stats")
    return isinstance(module, _DropoutNd) or any(getattr(module, name, 0) for name in attributes)


def fits_in_train_mode(examination: Examination, name: str) -> bool:
    """Whether the layer's running statistics fit its input if all modules but the batch norms are in train mode.

    Dropout adds variance. So the additional pass is made only if the running variances are too large.
    """
    model, norms, found = examination.model, examination.norms, examination.deviations[name]
    others = [module for module in model.modules() if module not in norms.values()]
    if found.log_ratio < found.distance or found.mean_log_ratio > 0 or not any(map(_may_differ, others)):
        return False
    totals = accumulate(batch.samples for batch in examination.batches)
    batches = [batch for batch, total in zip(examination.batches, totals, strict=True) if total <= MOST_SAMPLES]
    with borrowed(model):
        for module in others:
            module.training = True
        try:
            seen = observe(model, norms, batches or examination.batches[:1], examination.forward, lambda *_: None)
        except Exception:  # in train mode, a model may need targets
            return False
    if name not in seen:
        return False
    expected = expected_in_training(seen.by_call.get(name, []), seen.whole[name])
    in_train_mode = deviation_of(norms[name], expected, len(seen.order))
    return in_train_mode is not None and in_train_mode.size < 0.5 * found.size
