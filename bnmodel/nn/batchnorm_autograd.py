"""Batch normalisation as an eager step with its gradient written out; autograd's own takes three times as long."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from bnmodel.nn.sync_batchnorm import add_over_processes, pool_statistics

BATCHED = torch._C._dispatch_key_parse("Batched")  # what is_grads_batched=True gives the backward pass
BLOCK = 2**18  # values computed at a time, so that what is written in between stays in the processor's cache
NEAR = 8  # |μ| in standard deviations, up to which x·scale − μ·scale loses at most three bits


class BatchNormStep(torch.autograd.Function):
    """(x, γ, β, μ, σ², ε, synchronised) → y, μ, σ², n; where μ and σ² are None, those of x.

    With n values per channel, g = ∂L/∂y, and every sum over a channel, the chain rule gives

        ∂L/∂β = Σ g                      ∂L/∂γ = Σ g·(x − μ) / √(σ² + ε)
        ∂L/∂μ = −γ/√(σ² + ε) · Σ g       ∂L/∂σ² = −γ/√(σ² + ε) · Σ g·(x − μ) / (2·(σ² + ε))
        ∂L/∂x = γ/√(σ² + ε) · g          and, where μ and σ² are those of x, + ∂L/∂σ² · 2·(x − μ)/n + ∂L/∂μ / n

    Memory is slower than arithmetic, so x is passed over as seldom as possible, and nothing of its size is kept.
    """

    @staticmethod
    def forward(ctx, x, gamma, beta, mean, var, eps, synchronised):  # type: ignore[no-untyped-def]
        ctx.eps, ctx.of_x, ctx.synchronised, ctx.count = eps, mean is None, synchronised, x.numel() // x.size(1)
        values = wide(x) if x.numel() <= BLOCK else x  # half precision at once, or block by block
        if ctx.of_x:
            mean, var = _statistics(values)
            if synchronised:
                ctx.count, mean, var = pool_statistics(ctx.count, mean, var)
            ctx.mark_non_differentiable(mean, var)
            ctx.set_materialize_grads(False)  # of mean and var
        scale, inverse_std = scales(gamma, var, eps, x.dtype)
        ctx.near = not ctx.of_x or _near(mean, inverse_std)
        ctx.save_for_backward(x, gamma, mean, var, scale, inverse_std)
        y = normalise(values, scale, beta, mean, ctx.near).to(x.dtype)
        return (y, mean, var, ctx.count) if ctx.of_x else (y, None, None, ctx.count)

    @staticmethod
    def backward(ctx, g, *_):  # type: ignore[no-untyped-def]
        if g is None:
            return (None,) * 7
        x, gamma, mean, var, scale, inverse_std = ctx.saved_tensors
        wanted, dtype = ctx.needs_input_grad, x.dtype
        differentiable = torch.is_grad_enabled() or transformed(g)  # so nothing in place
        if differentiable and ctx.synchronised:
            raise RuntimeError(
                "CustomBatchNorm: expected a backward pass without create_graph=True, since with synchronised=True "
                "the gradient cannot be differentiated again"
            )
        if differentiable:
            if ctx.of_x:
                var, mean = torch.var_mean(wide(x), [0, *range(2, x.dim())], correction=0)
            scale, inverse_std = scales(gamma, var, ctx.eps, x.dtype)
            centred, g = x - like(mean, x), g.to(scale.dtype)
            products, total = _channel_sum(g * centred), _channel_sum(g)
        else:
            if x.numel() <= BLOCK:
                x, g = wide(x), wide(g)
            products, total = _gradient_sums(x, g, mean.to(scale.dtype), ctx.near and ctx.of_x)
        grad_gamma, grad_beta, grad_mean, grad_var = products * inverse_std, total, None, None
        if wanted[3] or wanted[4]:
            grad_mean, grad_var = total * -scale, grad_gamma * inverse_std * scale / -2
        if ctx.synchronised:  # x moves the mean and variance of every process
            products, total = add_over_processes(products, total)
        grad_x = None
        if wanted[0] and not ctx.of_x:
            grad_x = (g * like(scale, x)).to(dtype)
        elif wanted[0]:
            share = scale / -ctx.count
            through_var, through_mean = products * inverse_std * (inverse_std * share), total * share
            if differentiable:
                grad_x = g * like(scale, x) + (centred * like(through_var, x) + like(through_mean, x))
            else:
                grad_x = _gradient_of_x(x, g, scale, through_var, through_mean, mean, ctx.near)
            grad_x = grad_x.to(dtype)
        grads = (grad_x, grad_gamma, grad_beta, grad_mean, grad_var)
        return *(grad if want else None for grad, want in zip(grads, wanted, strict=False)), None, None


def scales(gamma: Tensor | None, var: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """γ/√(σ² + ε) and 1/√(σ² + ε), (C,) each, in float32 for half precision."""
    dtype = at_least_float32(dtype)
    inverse_std = torch.rsqrt((var if var.dtype == dtype else var.to(dtype)) + eps)
    return inverse_std if gamma is None else inverse_std * gamma.to(dtype), inverse_std


def normalise(x: Tensor, scale: Tensor, beta: Tensor | None, mean: Tensor, near: bool = True) -> Tensor:
    """(x − μ)·scale + β, where μ is `near` 0 in one pass: x·scale + (β − μ·scale)."""
    shift = scale.new_zeros(()) if beta is None else beta
    if near:
        shift = torch.addcmul(shift, mean, scale, value=-1)
    shift, scale = like(shift.to(scale.dtype), x), _along_rows(scale, x)
    if near and x.dtype == scale.dtype:
        return torch.addcmul(shift, x, scale)
    y, mean = torch.empty_like(x), like(mean, x)
    for part, out in _blocks(x, y):
        into = out if out.dtype == scale.dtype else None
        part = wide(part) if near else torch.sub(part, mean, out=into)
        torch.addcmul(shift, part, scale, out=part)
        if into is None:
            out.copy_(part)
    return y


def transformed(x: Tensor) -> bool:
    """Whether torch.func, forward-mode AD, a batched gradient or a tensor subclass rules out operations in place."""
    return (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or type(x) not in (Tensor, nn.Parameter)
        or torch._C._dispatch_keys(x).has(BATCHED)
    )


def like(values: Tensor, x: Tensor) -> Tensor:
    """(C,) → (C, 1, …), to meet `x`."""
    return values if x.dim() == 2 else values.view((-1,) + (1,) * (x.dim() - 2))


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def wide(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.to(torch.float32)


def _along_rows(values: Tensor, x: Tensor) -> Tensor:
    """(C,) → (C, 1, …), written out over x's rows, where addcmul would otherwise go value by value."""
    values = like(values, x)
    if x.dim() == 2 or x.stride(1) == 1:
        return values
    shape = x.shape[1:] if x.size(-1) < 64 else (*values.shape[:-1], x.size(-1))  # short rows: whole channels
    return values.expand(shape).contiguous()


def _near(mean: Tensor, inverse_std: Tensor) -> bool:
    return mean.is_cpu and float((mean * inverse_std).abs().max()) <= NEAR


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of x, (C,) each, in two passes, without the cancellation of E[x²] − μ²."""
    parts, n = _blocks(x), max(1, x.numel() // x.size(1))
    mean = _total([_channel_sum(wide(part)) for (part,) in parts]).div_(n)
    of_x = like(mean, x)
    squares = [_channel_sum(torch.ops.aten.mse_loss.default(wide(part), of_x, 0)) for (part,) in parts]
    return mean, _total(squares).div_(n)


def _gradient_sums(x: Tensor, g: Tensor, mean: Tensor, near: bool) -> tuple[Tensor, Tensor]:
    """Σ g·(x − μ) and Σ g of each channel; where μ is `near` 0, as Σ g·x − μ·Σ g."""
    if near and _has_fused_sums(x, g):
        products, total = _fused_sums(x, g)
    else:
        sums, of_x = [], like(mean, x)
        for part, of_y in _blocks(x, g):
            of_y = wide(of_y)
            product = of_y * part if near else (part - of_x).mul_(of_y)
            sums.append((_channel_sum(product), _channel_sum(of_y)))
        products, total = (_total(of_parts) for of_parts in zip(*sums, strict=True))
    return torch.addcmul(products, mean, total, value=-1) if near else products, total


def _gradient_of_x(
    x: Tensor, g: Tensor, scale: Tensor, through_var: Tensor, through_mean: Tensor, mean: Tensor, near: bool
) -> Tensor:
    """scale·g + through_var·(x − μ) + through_mean."""
    if near:
        through_mean = torch.addcmul(through_mean, through_var, mean, value=-1)
    scale, factor, shift, mean = like(scale, x), _along_rows(through_var, x), like(through_mean, x), like(mean, x)
    gradient = torch.empty_like(x)
    for part, of_y, out in _blocks(x, g, gradient):
        into = out if out.dtype == scale.dtype else None
        part = wide(part) if near else torch.sub(part, mean, out=into)
        part = torch.addcmul(shift, part, factor, out=into).addcmul_(wide(of_y), scale)
        if into is None:
            out.copy_(part)
    return gradient


def _blocks(*tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """The tensors along axis 0 in blocks for the processor's cache."""
    x = tensors[0]
    if x.numel() <= BLOCK or not x.is_cpu:
        return (tensors,)
    rows = max(1, BLOCK * len(x) // x.numel())
    return list(zip(*(tensor.split(rows) for tensor in tensors), strict=True))


def _total(sums: Sequence[Tensor]) -> Tensor:
    return sums[0] if len(sums) == 1 else torch.stack(list(sums)).sum(0)


def _channel_sum(x: Tensor) -> Tensor:
    """(N, C, *spatial) → (C,). Over space first, then over the batch: two short sums round less than a long one."""
    if x.dim() == 2:
        return x.sum(0)
    if x.stride(1) == 1:  # channels last: whole rows are added up
        return x.movedim(1, -1).flatten(1, -2).sum(1).sum(0)
    return x.sum(dim=list(range(2, x.dim()))).sum(0)


def _has_fused_sums(x: Tensor, g: Tensor) -> bool:
    onednn = x.is_cpu and x.dtype == g.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    large = x.numel() > BLOCK and len(x) >= 16  # with a smaller batch oneDNN takes ten times as long
    return onednn and large and x.dim() == 4 and x.stride(1) == g.stride(1) == 1


def _fused_sums(x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Σ g·x and Σ g of each channel in one pass.

    γ·x + β is a depthwise 1 × 1 convolution, whose gradient oneDNN has for channels last.
    """
    gamma = x.new_ones(x.size(1), 1, 1, 1)
    _, products, total = torch.ops.aten.convolution_backward(
        g, x, gamma, [len(gamma)], [1, 1], [0, 0], [1, 1], False, [0, 0], len(gamma), [False, True, True]
    )
    return products.view(-1), total
