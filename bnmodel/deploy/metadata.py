"""Metadata inside exported files: inputs and outputs, the batch norms that were folded, versions."""

from collections.abc import Sequence
from typing import Any

import onnx
import onnxruntime
import torch
from torch import nn

from bnmodel.deploy.capture import Captured
from bnmodel.deploy.preflight import named_norms

STATE = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
GREEK = {"weight": "gamma", "bias": "beta"}


def described(captured: Captured) -> dict[str, Any]:
    """Inputs and outputs with their dynamic axes, and notes on restrictions."""
    return {
        "inputs": [port.describe() for port in captured.inputs],
        "outputs": [port.describe() for port in captured.outputs],
        "batched": captured.batched,
        "notes": captured.notes,
    }


def describe_norms(model: nn.Module, folded: Sequence[str], kept: dict[str, str]) -> dict[str, Any]:
    """Statistics, γ and β of every batch norm, which would be lost by folding; names of those folded and kept."""
    norms = {}
    for name, norm in named_norms(model).items():
        values = {GREEK.get(key, key): _plain(getattr(norm, key)) for key in STATE if getattr(norm, key) is not None}
        norms[name] = {"eps": norm.eps, "momentum": norm.momentum, **values}
    return {"batch_norms": norms, "batch_norms_folded": list(folded), "batch_norms_not_folded": kept}


def _plain(tensor: torch.Tensor) -> Any:
    """A list of numbers, with as many digits as their type holds."""
    if not tensor.is_floating_point():
        return tensor.tolist()
    digits = 17 if tensor.dtype == torch.float64 else 9
    return [float(f"{value:.{digits}g}") for value in tensor.flatten().tolist()]


def versions(opset: int | None) -> dict[str, Any]:
    return {
        "torch": torch.__version__.split("+")[0],
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "onnx_opset": opset,
    }
