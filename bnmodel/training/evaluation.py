"""Predictions, loss and accuracy, in eval mode."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnmodel.data import Digits

EVALUATION_BATCH = 100  # fixed, so that losses are bitwise reproducible; small enough for the CPU's cache


def predict_log_probs(model: nn.Module, images: Tensor) -> Tensor:
    """(N, 1, 28, 28) → (N, 10), in eval mode and in fixed batches. Restores the mode of every module."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            return torch.cat([model(batch) for batch in images.split(EVALUATION_BATCH)])
    finally:
        for module, training in modes:  # some may have been frozen in eval mode
            module.training = training


def evaluate(model: nn.Module, digits: Digits) -> tuple[float, float]:
    """Mean loss (nats) and accuracy over all samples, in eval mode."""
    log_probs, labels = predict_log_probs(model, digits.images).cpu().double(), digits.labels.cpu()  # MPS lacks float64
    return F.nll_loss(log_probs, labels).item(), (log_probs.argmax(1) == labels).double().mean().item()
