"""A probability that means what it says: of all answers given with 80 %, four in five should be right.

Guo et al. (2017, arXiv 1706.04599): dividing the logits by one number, the temperature, fitted on validation data, is
enough. It changes no answer, only how sure it is, and it folds into the last layer, so that an exported file has it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from bnmodel.nn.models import Network, RobustCNN

COLDEST, HOTTEST = 0.05, 20.0  # temperatures tried


def calibration_error(log_probs: Tensor, labels: Tensor, bins: int = 15) -> float:
    """The expected calibration error in [0, 1]: how far the share of right answers is from their mean probability.

    Args:
        log_probs: (N, 10).
        labels: (N,).
        bins: of the winner's probability, of equal width, each counting with its answers (Guo et al., eq. 3).
    """
    probability, answer = log_probs.double().exp().max(dim=1)
    gap = (answer == labels).double() - probability  # (N,)
    index = (probability * bins).ceil().long().clamp(1, bins) - 1
    return float(torch.zeros(bins).double().index_add_(0, index, gap).abs().sum() / len(labels))


def fit_temperature(log_probs: Tensor, labels: Tensor) -> float:
    """The temperature that makes `labels` (N,) most likely under `log_probs` (N, 10); > 1 makes less sure.

    The loss has one minimum in 1 / temperature, found by golden section on its logarithm.
    """
    log_probs = log_probs.double()

    def loss(logarithm: float) -> float:
        scaled = F.log_softmax(log_probs / torch.tensor(logarithm).double().exp(), dim=1)
        return float(F.nll_loss(scaled, labels))

    low, high = (float(torch.tensor(t).log()) for t in (COLDEST, HOTTEST))
    golden = (5**0.5 - 1) / 2
    while high - low > 1e-4:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return float(torch.tensor((low + high) / 2).exp())


@torch.no_grad()
def fold_temperature(model: Network, temperature: float) -> None:
    """Divide the logits of `model` by `temperature`, in place, in its last layer."""
    last = model.dense if isinstance(model, RobustCNN) else model.dense2
    last.weight.div_(temperature)
    last.bias.div_(temperature)
