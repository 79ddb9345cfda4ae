"""Errors of batch normalisation: inputs and arguments that do not fit."""

from typing import List, Optional

from torch import Tensor


def check_arguments(values: List[Optional[Tensor]], x: Tensor) -> None:
    """Raise TypeError or ValueError unless `values`, which are γ, β, μ and σ², fit the input x."""
    if x.dim() < 2:
        raise ValueError(f"batch_norm: expected x of shape (N, C) or (N, C, *spatial), received {list(x.shape)}")
    if not x.is_floating_point():
        raise TypeError(f"batch_norm: expected floating-point x, received {x.dtype}")
    for value in values:
        if value is not None and (value.dim() != 1 or value.numel() != x.size(1)):
            raise ValueError(
                f"batch_norm: expected gamma, beta, mean and var of {x.size(1)} values (shape [{x.size(1)}]) for x of "
                f"shape {list(x.shape)}, received {value.numel()} (shape {list(value.shape)})"
            )
    if (values[2] is None) != (values[3] is None):
        raise ValueError("batch_norm: expected mean and var, or neither of them, received one")


def require_two_values(values: int, x: Tensor) -> None:
    """Raise ValueError if a batch has one value per channel, which has no variance."""
    if values == 1:
        raise ValueError(
            f"batch statistics: expected at least 2 values per channel, received {values} from shape {list(x.shape)}; "
            f"use a larger batch, or eval() to use the running statistics"
        )


def check_input(input: Tensor, num_features: int) -> None:
    """Raise TypeError or ValueError unless `input` is floating point, of 2 to 5 axes and `num_features` channels."""
    if not input.is_floating_point():
        raise TypeError(
            f"CustomBatchNorm: expected a floating-point input, received {input.dtype}; convert it first, e.g. "
            f"with input.float()"
        )
    if input.dim() < 2 or input.dim() > 5:
        raise ValueError(
            f"CustomBatchNorm: expected (N, C), (N, C, L), (N, C, H, W) or (N, C, D, H, W), "
            f"received {input.dim()} axes, shape {list(input.shape)}"
        )
    if input.size(1) != num_features:
        raise ValueError(
            f"CustomBatchNorm: expected {num_features} channels on axis 1, received {input.size(1)}, "
            f"shape {list(input.shape)}"
        )
