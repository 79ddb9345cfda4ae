"""Batch normalisation as an eager step with its gradient written out; autograd's own takes three times as long."""

import math
from collections.abc import Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from bnmodel.nn.sync_batchnorm import add_over_processes, gather_statistics, pool_statistics

BATCHED = torch._C._dispatch_key_parse("Batched")  # what is_grads_batched=True gives the backward pass
BLOCK = 2**19  # values that the CPU computes at a time: with their intermediate results they fit its cache


class BatchNormStep(torch.autograd.Function):
    """(x, γ, β, μ, σ², ε, synchronised) → y, μ, σ², n; where μ and σ² are None, those of x.

    With n values per channel, g = ∂L/∂y, and every sum over a channel, the chain rule gives

        ∂L/∂β = Σ g                      ∂L/∂γ = Σ g·(x − μ) / √(σ² + ε)
        ∂L/∂μ = −γ/√(σ² + ε) · Σ g       ∂L/∂σ² = −γ/√(σ² + ε) · Σ g·(x − μ) / (2·(σ² + ε))
        ∂L/∂x = γ/√(σ² + ε) · g          and, where μ and σ² are those of x, + ∂L/∂σ² · 2·(x − μ)/n + ∂L/∂μ / n

    Memory is slower than arithmetic: so the CPU takes a few channels or rows at a time, which stay in its cache, and
    nothing of x's size is kept but x. Half precision is computed in float32.
    """

    @staticmethod
    def forward(ctx, x, gamma, beta, mean, var, eps, synchronised):  # type: ignore[no-untyped-def]
        ctx.eps, ctx.of_x, ctx.synchronised = eps, mean is None, synchronised
        if not ctx.of_x:
            ctx.count = None
            ctx.save_for_backward(x, gamma, mean, var)
            return scale_and_shift(x, gamma, beta, mean, var, eps), None, None, None
        y, mean, var, ctx.count = _normalise(x, gamma, beta, eps, synchronised)
        ctx.save_for_backward(x, gamma, mean, var)
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var, ctx.count

    @staticmethod
    def backward(ctx, g, *_):  # type: ignore[no-untyped-def]
        x, gamma, mean, var = ctx.saved_tensors
        again = torch.is_grad_enabled() or transformed(g)  # the gradient is to be differentiated, or batched
        if again and ctx.synchronised:
            raise RuntimeError(
                "CustomBatchNorm: expected a backward pass without create_graph=True, since with synchronised=True "
                "the gradient cannot be differentiated again"
            )
        dtype = at_least_float32(x.dtype)
        if again and ctx.of_x:  # as functions of x
            var, mean = torch.var_mean(x.to(dtype), [0, *range(2, x.dim())], correction=0)
        x, rows = _dense(x)
        grad_x = None if again else torch.empty_like(x)
        inverse_std = torch.rsqrt(_column(var, dtype) + ctx.eps)
        scale = inverse_std if gamma is None else inverse_std * _column(gamma, dtype)
        of_x, of_y, out = _three_axes(x, rows), _three_axes(g, rows), _three_axes(grad_x, rows)
        whole = (of_x, of_y, out, _column(mean, dtype), scale, inverse_std)
        groups = [whole] if again or ctx.synchronised else _groups(*whole)
        results = [_gradients(ctx.count, ctx.synchronised, *group) for group in groups]
        if again:
            of_x = results[0][0].to(x.dtype)
            grad_x = of_x.view(len(x), *x.shape[2:], -1).movedim(-1, 1) if rows else of_x.view(x.shape)
        of_channels = [values.view(-1) for values in _joined([result[1:] for result in results])]
        gradients = (grad_x, *of_channels, *[None] * (6 - len(of_channels)))
        return tuple(value if needed else None for value, needed in zip(gradients, ctx.needs_input_grad, strict=True))


def scale_and_shift(
    x: Tensor, gamma: Tensor | None, beta: Tensor | None, mean: Tensor, var: Tensor, eps: float
) -> Tensor:
    """`batch_norm` with given statistics as one multiply-add per value, x · scale + shift."""
    dtype = at_least_float32(x.dtype)
    scale, mean = torch.rsqrt(_column(var, dtype) + eps), _column(mean, dtype)
    if gamma is not None:
        scale = scale * _column(gamma, dtype)
    shift = -mean * scale if beta is None else torch.addcmul(_column(beta, dtype), mean, scale, value=-1)
    x, rows = _dense(x)
    y = torch.empty_like(x)
    for *group, of_group, offset in _groups(_three_axes(x, rows), _three_axes(y, rows), scale, shift):
        for part, out in _split(group, 0):
            if part.dtype != dtype:
                out.copy_(_affine_(part.to(dtype), of_group, offset))
            elif _in_one_pass(part):
                torch.addcmul(offset, part, of_group, out=out)
            else:
                torch.mul(part, of_group, out=out).add_(offset)
    return y


def transformed(x: Tensor) -> bool:
    """Whether torch.func, forward-mode AD, a batched gradient or a tensor subclass rules out operations in place."""
    return (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or type(x) not in (Tensor, nn.Parameter)
        or torch._C._dispatch_keys(x).has(BATCHED)
    )


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _normalise(
    x: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float, synchronised: bool
) -> tuple[Tensor, Tensor, Tensor, int]:
    """y, the mean and biased variance of x, (C,) each, and how many values they are of."""
    dtype, count, statistics = at_least_float32(x.dtype), x.numel() // x.size(1), []
    x, rows = _dense(x)
    y = torch.empty_like(x)
    whole = (_three_axes(x, rows), _three_axes(y, rows), _column(gamma, dtype), _column(beta, dtype))
    for *group, of_gamma, shift in [whole] if synchronised else _groups(*whole):
        mean, var, centred = _statistics(group[0], group[1], dtype)
        if synchronised:
            (count, mean, var), centred = gather_statistics(count, mean, var), None
        statistics.append((mean, var))
        scale = torch.rsqrt(var + eps)
        if of_gamma is not None:
            scale = scale * of_gamma
        for part, out in _split(group, 0):
            _store(_affine_(_centred(part, mean, out) if centred is None else centred, scale, shift), out)
    mean, var = (values.view(-1) for values in _joined(statistics))
    return y, mean, var, count


def _statistics(x: Tensor, out: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
    """Mean and biased variance of x (N, C, S), (C, 1) each; and x − mean, in `out` if that fits, where x is one block.

    In two passes over each block, without the cancellation of E[x²] − μ².
    """
    if not x.is_cpu:
        var, mean = torch.var_mean(x.to(dtype), [0, 2], correction=0)
        return mean[:, None], var[:, None], None
    counts, of_blocks, blocks = [], [], _split((x, out), 0)
    for part, unused in blocks:
        values, count = part.to(dtype), max(1, part.numel() // part.size(1))
        mean = _channel_sum(values) / count
        unused = unused if len(blocks) == 1 else None  # elsewhere the cache is faster
        centred = torch.sub(part, mean, out=unused) if values is part else values.sub_(mean)
        roots = centred if x.size(2) == 1 else torch.linalg.vector_norm(centred, dim=2, keepdim=True)
        of_blocks.append((mean, roots.square().sum(0) / count))
        counts.append(count)
    if len(counts) == 1:
        return *of_blocks[0], centred
    shares = torch.tensor(counts, dtype=dtype) / sum(counts)
    return *pool_statistics(shares, *(torch.stack(values) for values in zip(*of_blocks, strict=True))), None


def _gradients(
    count: int | None,
    synchronised: bool,
    x: Tensor,
    g: Tensor,
    grad_x: Tensor | None,
    mean: Tensor,
    scale: Tensor,
    inverse_std: Tensor,
) -> tuple[Tensor, ...]:
    """∂L/∂x and, (C, 1) each, ∂L/∂γ and ∂L/∂β; where μ and σ² are given (no `count`), theirs too.

    ∂L/∂x is written into `grad_x`; without it, the result can be differentiated.
    """
    blocks: Sequence[Any] = [(x, g, None)] if grad_x is None else _split((x, g, grad_x), 0)
    sums = []
    for part, of_y, out in blocks:
        centred, of_y = _centred(part, mean, out if len(blocks) == 1 else None), of_y.to(mean.dtype)
        sums.append((_channel_sum(centred * of_y), _channel_sum(of_y)))
    products, total = sums[0] if len(sums) == 1 else (torch.stack(s).sum(0) for s in zip(*sums, strict=True))
    grad_gamma, grad_beta = products * inverse_std, total
    if synchronised:  # x moves the mean and variance of every process
        products, total = add_over_processes(products, total)
    share = scale / -(count or 1)
    grad_mean, slope = total * share, products * inverse_std.square() * share  # ∂L/∂μ / n and ∂L/∂σ² · 2/n
    if grad_x is None:
        grad_x = of_y * scale if count is None else of_y * scale + (centred * slope + grad_mean)
    else:
        for part, of_y, out in blocks:
            of_y = of_y.to(mean.dtype)
            if count is None:
                _store(of_y * scale, out)
                continue
            result = _affine_(centred if len(blocks) == 1 else _centred(part, mean, out), slope, grad_mean)
            _store(result.addcmul_(of_y, scale) if _in_one_pass(x) else result.add_(of_y * scale), out)
    return grad_x, grad_gamma, grad_beta, *((grad_mean, slope / 2) if count is None else ())


def _dense(x: Tensor) -> tuple[Tensor, bool]:
    """x without gaps in memory, and whether its channels are the last axis there."""
    if x.dim() == 2 or x.is_contiguous():
        return x, x.dim() == 2
    rows = x.movedim(1, -1).is_contiguous()
    return x if rows else x.contiguous(), rows


def _three_axes(x: Tensor | None, rows: bool) -> Any:
    """(N, C, *spatial) → (N, C, S), or (N·S, C, 1) where channels are last."""
    if x is None:
        return None
    return x.movedim(1, -1).reshape(-1, x.size(1), 1) if rows else x.reshape(len(x), x.size(1), math.prod(x.shape[2:]))


def _column(values: Tensor | None, dtype: torch.dtype) -> Any:
    """(C,) → (C, 1)"""
    return None if values is None else values.to(dtype).view(-1, 1)


def _groups(*tensors: Tensor | None) -> Sequence[Any]:
    """Tensors (N, C, S) and columns (C, 1) by groups of channels, where these lie apart."""
    x = tensors[0]
    assert x is not None
    return [tensors] if x.size(2) == 1 else _split(tensors, -2)


def _split(tensors: Sequence[Tensor | None], axis: int) -> Sequence[Any]:
    """Tensors of equal length along `axis` in pieces of which the first's fit the CPU's cache."""
    x = tensors[0]
    assert x is not None
    if x.numel() <= BLOCK or not x.is_cpu:
        return [tensors]
    length = max(1, BLOCK * x.size(axis) // x.numel())
    pieces = [repeat(None) if tensor is None else tensor.split(length, axis) for tensor in tensors]
    return list(zip(*pieces, strict=False))


def _joined(of_groups: Sequence[Sequence[Tensor]]) -> Sequence[Tensor]:
    """Columns of each group of channels → of all channels."""
    return of_groups[0] if len(of_groups) == 1 else [torch.cat(columns) for columns in zip(*of_groups, strict=True)]


def _channel_sum(x: Tensor) -> Tensor:
    """(N, C, S) → (C, 1). Over space first, then over the batch: two short sums round less than a long one."""
    return x.sum(0) if x.size(2) == 1 else x.sum(2, keepdim=True).sum(0)


def _centred(x: Tensor, mean: Tensor, out: Tensor | None) -> Tensor:
    """x − mean, in the dtype of `mean`; in `out`, where that has this dtype."""
    return torch.sub(x, mean, out=out) if x.dtype == mean.dtype else x.to(mean.dtype).sub_(mean)


def _affine_(x: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
    """x · scale + shift in place, x (N, C, S) and the others (C, 1)."""
    if shift is None:
        return x.mul_(scale)
    return torch.addcmul(shift, x, scale, out=x) if _in_one_pass(x) else x.mul_(scale).add_(shift)


def _in_one_pass(x: Tensor) -> bool:
    """Whether addcmul is fast: on the CPU it goes value by value where a column repeats along S."""
    return x.size(2) == 1 or not x.is_cpu


def _store(values: Tensor, out: Tensor) -> None:
    if values.dtype != out.dtype or values.data_ptr() != out.data_ptr():
        out.copy_(values)
