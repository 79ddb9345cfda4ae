"""Sums and factors per channel, in few passes over memory: batch normalisation is memory-bound."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

BLOCK = 2**18  # values computed at a time, so that intermediate results stay in the CPU's cache


def like(values: Tensor, x: Tensor) -> Tensor:
    """(C,) → (C, 1, …), which broadcasts to the shape of x."""
    return values if x.dim() == 2 else values.view((-1,) + (1,) * (x.dim() - 2))


def wide(x: Tensor) -> Tensor:
    """x in float32, or float64 if it is."""
    return x if x.dtype in (torch.float32, torch.float64) else x.to(torch.float32)


def along_rows(values: Tensor, x: Tensor) -> Tensor:
    """(C,) → (C, 1, …), expanded along the rows of x, since addcmul is not vectorised over a broadcast axis."""
    values = like(values, x)
    if x.dim() == 2 or x.stride(1) == 1:
        return values
    shape = x.shape[1:] if x.size(-1) < 64 else (*values.shape[:-1], x.size(-1))  # short rows: whole channels
    return values.expand(shape).contiguous()


def blocks(*tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """The tensors along axis 0 in blocks that fit the CPU's cache."""
    x = tensors[0]
    if x.numel() <= BLOCK or not x.is_cpu:
        return (tensors,)
    rows = max(1, BLOCK * len(x) // x.numel())
    return list(zip(*(tensor.split(rows) for tensor in tensors), strict=True))


def total_of(sums: Sequence[Tensor]) -> Tensor:
    """The sums of all blocks, added up."""
    return sums[0] if len(sums) == 1 else torch.stack(list(sums)).sum(0)


def channel_sum(x: Tensor) -> Tensor:
    """(N, C, *spatial) → (C,). Over space first, then over the batch: two short sums round less than a long one."""
    if x.dim() == 2:
        return x.sum(0)
    if x.stride(1) == 1:  # channels last: whole rows are added up
        return x.movedim(1, -1).flatten(1, -2).sum(1).sum(0)
    return x.sum(dim=list(range(2, x.dim()))).sum(0)


def has_fused_sums(x: Tensor, g: Tensor) -> bool:
    """Whether `fused_sums` takes x and g, and is faster."""
    enabled = torch.backends.mkldnn.is_available() and torch._C._get_mkldnn_enabled()
    onednn = enabled and x.is_cpu and x.dtype == g.dtype == torch.float32
    large = x.numel() > BLOCK and len(x) >= 16  # with a smaller batch oneDNN takes ten times as long
    return onednn and large and x.dim() == 4 and x.stride(1) == g.stride(1) == 1


def fused_sums(x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Σ g·x and Σ g of each channel in one pass.

    γ·x + β is a depthwise 1 × 1 convolution, whose gradient oneDNN computes for channels-last tensors.
    """
    gamma = x.new_ones(x.size(1), 1, 1, 1)
    _, products, total = torch.ops.aten.convolution_backward(
        g, x, gamma, [len(gamma)], [1, 1], [0, 0], [1, 1], False, [0, 0], len(gamma), [False, True, True]
    )
    return products.view(-1), total
