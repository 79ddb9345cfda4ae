"""Batch normalisation as an eager step with its gradient written out; autograd's own takes three times as long."""

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from bnmodel.nn.sync_batchnorm import add_over_processes, pool_statistics

BATCHED = torch._C._dispatch_key_parse("Batched")  # what is_grads_batched=True gives the backward pass
BLOCK = 2**18  # values of half precision computed at a time: their float32 copies fit the processor's cache


class BatchNormStep(torch.autograd.Function):
    """(x, γ, β, μ, σ², ε, synchronised) → y, μ, σ², n; where μ and σ² are None, those of x.

    With n values per channel, g = ∂L/∂y, and every sum over a channel, the chain rule gives

        ∂L/∂β = Σ g                      ∂L/∂γ = Σ g·(x − μ) / √(σ² + ε)
        ∂L/∂μ = −γ/√(σ² + ε) · Σ g       ∂L/∂σ² = −γ/√(σ² + ε) · Σ g·(x − μ) / (2·(σ² + ε))
        ∂L/∂x = γ/√(σ² + ε) · g          and, where μ and σ² are those of x, + ∂L/∂σ² · 2·(x − μ)/n + ∂L/∂μ / n

    Memory is slower than arithmetic: so few passes, in place where the values are our own, and nothing of x's size
    is kept but x.
    """

    @staticmethod
    def forward(ctx, x, gamma, beta, mean, var, eps, synchronised):  # type: ignore[no-untyped-def]
        ctx.eps, ctx.of_x, ctx.synchronised = eps, mean is None, synchronised
        ctx.count = x.numel() // x.size(1)
        if not ctx.of_x:
            ctx.save_for_backward(x, gamma, mean, var)
            return scale_and_shift(x, gamma, beta, mean, var, eps), None, None, ctx.count
        mean, var, centred = _statistics(x)  # (C,), (C,)
        if synchronised:
            (ctx.count, mean, var), centred = pool_statistics(ctx.count, mean, var), None
        ctx.save_for_backward(x, gamma, mean, var)
        ctx.mark_non_differentiable(mean, var)
        scale = like(_scale(gamma, var, eps, mean.dtype)[0], x)
        shift = None if beta is None else like(beta.to(mean.dtype), x)
        if centred is not None:
            return _affine_(centred, scale, shift).to(x.dtype), mean, var, ctx.count
        y = torch.empty_like(x)
        for part, out in zip(_blocks(x), _blocks(y), strict=True):
            out.copy_(_affine_(_centred(part, like(mean, x)), scale, shift))
        return y, mean, var, ctx.count

    @staticmethod
    def backward(ctx, g, *_):  # type: ignore[no-untyped-def]
        x, gamma, mean, var = ctx.saved_tensors
        dtype = at_least_float32(x.dtype)
        in_place = not torch.is_grad_enabled() and not transformed(g)
        if not in_place and ctx.synchronised:
            raise RuntimeError(
                "CustomBatchNorm: expected a backward pass without create_graph=True, since with synchronised=True "
                "the gradient cannot be differentiated again"
            )
        if not in_place and ctx.of_x:  # as functions of x, to be differentiated
            var, mean = torch.var_mean(x.to(dtype), [0, *range(2, x.dim())], correction=0)
        scale, inverse_std = (like(values, x) for values in _scale(gamma, var, ctx.eps, dtype))
        mean = like(mean.to(dtype), x)
        if in_place:
            products, grad_beta, centred = _gradient_sums(x, g, mean)  # (1, C, 1, …), (1, C, 1, …)
        else:
            centred, g = x.to(dtype) - mean, g.to(dtype)
            products, grad_beta = _channel_sum(g * centred), _channel_sum(g)
        grad_gamma, total = products * inverse_std, grad_beta
        if ctx.synchronised:  # x moves the mean and variance of every process
            products, total = add_over_processes(products, total)
        grad_mean, grad_var = total * -scale, products * inverse_std.square() * scale / -2
        through = (grad_var * (2 / ctx.count), grad_mean / ctx.count) if ctx.of_x else None
        grad_x = None
        if in_place and ctx.needs_input_grad[0]:
            grad_x = _gradient_of_x(x, g, mean, scale, through, centred)
        elif ctx.needs_input_grad[0]:
            grad_x = g * scale if through is None else g * scale + (centred * through[0] + through[1])
            grad_x = grad_x.to(x.dtype)
        of_channels = (values.reshape(-1) for values in (grad_gamma, grad_beta, grad_mean, grad_var))
        wanted = zip((grad_x, *of_channels), ctx.needs_input_grad, strict=False)
        return *(gradient if needed else None for gradient, needed in wanted), None, None


def scale_and_shift(
    x: Tensor, gamma: Tensor | None, beta: Tensor | None, mean: Tensor, var: Tensor, eps: float
) -> Tensor:
    """`batch_norm` with given statistics as one multiply-add per value, x · scale + shift."""
    dtype = at_least_float32(x.dtype)
    scale, _ = _scale(gamma, var, eps, dtype)
    mean = mean.to(dtype)
    shift = -mean * scale if beta is None else torch.addcmul(beta.to(dtype), mean, scale, value=-1)
    scale, shift = like(scale, x), like(shift, x)
    if x.dtype == dtype:
        return torch.addcmul(shift, x, scale) if x.stride(1) == 1 else x.mul(scale).add_(shift)
    y = torch.empty_like(x)
    for part, out in zip(_blocks(x), _blocks(y), strict=True):
        out.copy_(_affine_(part.to(dtype), scale, shift))
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
    """(C,) → (1, C, 1, …), to meet `x`."""
    return values.view([1, -1] + [1] * (x.dim() - 2))


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _scale(gamma: Tensor | None, var: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """γ/√(σ² + ε) and 1/√(σ² + ε), (C,) each."""
    inverse_std = torch.rsqrt(var.to(dtype) + eps)
    return inverse_std if gamma is None else inverse_std * gamma.to(dtype), inverse_std


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Mean and biased variance of x, (C,) each, and x − mean where that is one block.

    In two passes over the values, without the cancellation of E[x²] − μ².
    """
    dtype, parts, count = at_least_float32(x.dtype), _blocks(x), max(1, x.numel() // x.size(1))
    mean = _total([_channel_sum(part.to(dtype)) for part in parts]) / count
    if len(parts) == 1:
        centred = _centred(x, mean)
        return mean.flatten(), (_sum_of_squares(centred) / count).flatten(), centred
    return mean.flatten(), (_total([_sum_of_squares(_centred(part, mean)) for part in parts]) / count).flatten(), None


def _gradient_sums(x: Tensor, g: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Σ g·(x − μ) and Σ g of each channel, (1, C, 1, …), and x − μ where that is one block."""
    parts = _blocks(x)
    if len(parts) == 1:
        centred = _centred(x, mean)
        return *_products_and_sum(centred, g.to(mean.dtype)), centred
    sums = [
        _products_and_sum(_centred(p, mean), q.to(mean.dtype))
        for p, q in zip(parts, g.split(len(parts[0])), strict=True)
    ]
    products, totals = (_total(list(of_parts)) for of_parts in zip(*sums, strict=True))
    return products, totals, None


def _gradient_of_x(
    x: Tensor, g: Tensor, mean: Tensor, scale: Tensor, through: tuple[Tensor, Tensor] | None, centred: Tensor | None
) -> Tensor:
    """scale · g + through[0] · (x − μ) + through[1]; in place of `centred`, where that is given."""

    def of_part(centred: Tensor, g: Tensor) -> Tensor:
        if through is None:
            return g.to(scale.dtype) * scale
        return _affine_(centred, *through).addcmul_(g.to(scale.dtype), scale)

    if centred is not None:
        return of_part(centred, g).to(x.dtype)
    gradient = torch.empty_like(x)
    for part, of_y, out in zip(parts := _blocks(x), g.split(len(parts[0])), _blocks(gradient), strict=True):
        out.copy_(of_part(_centred(part, mean), of_y))
    return gradient


def _blocks(x: Tensor) -> tuple[Tensor, ...]:
    """x along axis 0 in blocks for the cache, where its values need converting; else as a whole."""
    if x.dtype == at_least_float32(x.dtype) or x.device.type != "cpu" or x.numel() <= BLOCK:
        return (x,)
    blocks: tuple[Tensor, ...] = x.split(max(1, BLOCK * len(x) // x.numel()))
    return blocks


def _centred(x: Tensor, mean: Tensor) -> Tensor:
    return x - mean if x.dtype == mean.dtype else x.to(mean.dtype).sub_(mean)


def _total(sums: list[Tensor]) -> Tensor:
    return sums[0] if len(sums) == 1 else torch.stack(sums).sum(0)


def _channel_sum(x: Tensor) -> Tensor:
    """(N, C, *spatial) → (1, C, 1, …). Over space first, then over the batch: two short sums round less than a long."""
    if x.dim() > 2 and x.stride(1) == 1:  # channels last: whole rows are added up
        return like(x.movedim(1, -1).flatten(1, -2).sum(1).sum(0), x)
    return (x.sum(dim=list(range(2, x.dim())), keepdim=True) if x.dim() > 2 else x).sum(0, keepdim=True)


def _sum_of_squares(x: Tensor) -> Tensor:
    if x.dim() == 2 or x.stride(1) == 1:
        return _channel_sum(x.square())
    norms: Tensor = torch.linalg.vector_norm(x, dim=list(range(2, x.dim())), keepdim=True)
    return norms.square().sum(0, keepdim=True)


def _products_and_sum(x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """x and g, (N, C, *spatial) → Σ g·x and Σ g of each channel, (1, C, 1, …)."""
    onednn = x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    if not (onednn and x.dim() == 4 and x.stride(1) == g.stride(1) == 1 and x.numel() > BLOCK):
        return _channel_sum(g * x), _channel_sum(g)
    # γ·x + β is a depthwise 1 × 1 convolution, whose gradient oneDNN has for channels last: both sums in one pass,
    # faster from some size on
    gamma = x.new_ones(x.size(1), 1, 1, 1)
    _, products, total = torch.ops.aten.convolution_backward(
        g, x, gamma, [len(gamma)], [1, 1], [0, 0], [1, 1], False, [0, 0], len(gamma), [False, True, True]
    )
    return like(products, x), like(total, x)


def _affine_(x: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
    """x · scale + shift, both (1, C, 1, …), in place."""
    if shift is None:
        return x.mul_(scale)
    if x.stride(1) == 1:  # channels last: in one pass
        return torch.addcmul(shift, x, scale, out=x)
    return x.mul_(scale).add_(shift)  # where both factors repeat along a row, addcmul goes value by value
