"""Temperature scaling, which calibrates probabilities: of all predictions with 80%, four in five should be right.

The logits are divided by a temperature fitted on validation data (Guo et al. 2017, arXiv 1706.04599). This leaves the
predicted classes unchanged and folds into the last layer, so that exported files are calibrated too.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bnmodel.nn.models import Network, RobustCNN

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0


def calibration_error(log_probs: Tensor, labels: Tensor, bins: int = 15) -> float:
    """The expected calibration error in [0, 1]: mean gap between accuracy and confidence (Guo et al., eq. 3).

    Args:
        log_probs: (N, 10).
        labels: (N,).
        bins: number of equal-width bins of the highest probability, weighted by their numbers of samples.
    """
    probability, predicted = log_probs.double().exp().max(dim=1)
    gap = (predicted == labels).double() - probability  # (N,)
    index = (probability * bins).ceil().long().clamp(1, bins) - 1
    return float(torch.zeros(bins).double().index_add_(0, index, gap).abs().sum() / len(labels))


def fit_temperature(log_probs: Tensor, labels: Tensor) -> float:
    """The temperature in [0.05, 20] with the lowest negative log-likelihood of `labels` (N,), for `log_probs` (N, 10).

    A temperature above 1 makes the network less confident. The loss has a single minimum; the search is logarithmic.
    """
    from scipy.optimize import minimize_scalar  # slow to import

    log_probs = log_probs.double()

    def loss(log_temperature: float) -> float:
        return float(F.nll_loss(F.log_softmax(log_probs / math.exp(log_temperature), dim=1), labels))

    bounds = (math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-7})
    return math.exp(found.x)


@torch.no_grad()
def fold_temperature(model: Network, temperature: float) -> None:
    """Divide the logits of `model` by `temperature`, in place, by scaling its last layer."""
    last = model.dense if isinstance(model, RobustCNN) else model.dense2
    last.weight.div_(temperature)
    last.bias.div_(temperature)
