"""Batch normalisation in eager mode; its gradient is written out, since that of autograd is slower."""

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from bnmodel.nn import channel_sums
from bnmodel.nn.channel_sums import along_rows, blocks, channel_sum, fused_sums, has_fused_sums, like, total_of, wide
from bnmodel.nn.sync_batchnorm import add_over_processes

BATCHED = torch._C._dispatch_key_parse("Batched")  # a gradient under is_grads_batched=True
NEAR = 8  # |μ| in standard deviations, up to which x·scale − μ·scale loses at most three bits


class BatchNormStep(torch.autograd.Function):
    """(x, γ, β, μ, σ², ε, n, synchronised) → y. Where n > 0, μ and σ² are those of x, over n values per channel.

    With g = ∂L/∂y, and every sum over a channel, the chain rule gives

        ∂L/∂β = Σ g                      ∂L/∂γ = Σ g·(x − μ) / √(σ² + ε)
        ∂L/∂μ = −γ/√(σ² + ε) · Σ g       ∂L/∂σ² = −γ/√(σ² + ε) · Σ g·(x − μ) / (2·(σ² + ε))
        ∂L/∂x = γ/√(σ² + ε) · g          and, where n > 0, + ∂L/∂σ² · 2·(x − μ)/n + ∂L/∂μ / n
    """

    @staticmethod
    def forward(ctx, x, gamma, beta, mean, var, eps, count, synchronised):  # type: ignore[no-untyped-def]
        scale, inverse_std = scales(gamma, var, eps, x)
        ctx.eps, ctx.count, ctx.synchronised = eps, count, synchronised
        ctx.near = count == 0 or (mean.is_cpu and float((mean * inverse_std).abs().max()) <= NEAR)
        if count == 0:  # a training step before the backward pass would change running statistics
            mean = mean if ctx.needs_input_grad[3] else mean.clone()
            var = var if ctx.needs_input_grad[4] else var.clone()
        ctx.save_for_backward(x, gamma, mean, var, scale, inverse_std)
        return normalise(x, scale, beta, mean, ctx.near)

    @staticmethod
    def backward(ctx, g):  # type: ignore[no-untyped-def]
        x, gamma, mean, var, scale, inverse_std = ctx.saved_tensors
        if ctx.synchronised and (torch.is_grad_enabled() or _is_batched(g)):
            raise RuntimeError(
                "CustomBatchNorm: expected a backward pass without create_graph=True or is_grads_batched=True, since "
                "with synchronised=True the gradient can be neither differentiated again nor batched"
            )
        differentiable = not ctx.synchronised and (torch.is_grad_enabled() or transformed(g))  # then nothing in place
        if differentiable:  # the statistics as functions of x
            if ctx.count:
                var, mean = torch.var_mean(wide(x), [0, *range(2, x.dim())], correction=0)
            scale, inverse_std = scales(gamma, var, ctx.eps, x)
        if not (ctx.count or any(ctx.needs_input_grad[1:])):  # a frozen layer
            return g * like(scale, x), *[None] * 7
        near = ctx.near and ctx.count > 0 and not differentiable
        if x.numel() <= channel_sums.BLOCK:
            x, g = wide(x), wide(g)
        products, total = _gradient_sums(x, g, mean.to(scale.dtype), near)
        grad_x, grad_gamma, grad_beta, grad_mean, grad_var = None, products * inverse_std, total, None, None
        if ctx.needs_input_grad[3] or ctx.needs_input_grad[4]:
            grad_mean, grad_var = total * -scale, grad_gamma * inverse_std * scale / -2
        if ctx.synchronised:  # x moves the mean and variance of every process
            products, total = add_over_processes(products, total)
        if ctx.needs_input_grad[0] and not ctx.count:
            grad_x = g * like(scale, x)
        elif ctx.needs_input_grad[0]:
            share = scale / -ctx.count
            through_var, through_mean = products * inverse_std * (inverse_std * share), total * share
            if differentiable:
                grad_x = (x - like(mean, x)) * like(through_var, x) + like(through_mean, x) + g * like(scale, x)
            else:
                grad_x = normalise(x, through_var, through_mean, mean, near, (g, scale))
        grads = (grad_x, grad_gamma, grad_beta, grad_mean, grad_var)
        return *(grad if want else None for grad, want in zip(grads, ctx.needs_input_grad, strict=False)), *[None] * 3


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of x, (C,) each and detached, in two passes, without the cancellation of E[x²] − μ²."""
    x = wide(x.detach()) if x.numel() <= channel_sums.BLOCK else x.detach()
    parts, n = blocks(x), max(1, x.numel() // x.size(1))
    mean = total_of([channel_sum(wide(part)) for (part,) in parts]).div_(n)
    of_x = like(mean, x)
    squares = [channel_sum(torch.ops.aten.mse_loss.default(wide(part), of_x, 0)) for (part,) in parts]
    return mean, total_of(squares).div_(n)


def scales(gamma: Tensor | None, var: Tensor, eps: float, x: Tensor) -> tuple[Tensor, Tensor]:
    """γ/√(σ² + ε) and 1/√(σ² + ε), (C,) each, in the dtype of x, at least float32."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    inverse_std = torch.rsqrt((var if var.dtype == dtype else var.to(dtype)) + eps)
    return inverse_std if gamma is None else inverse_std * gamma.to(dtype), inverse_std


def normalise(
    x: Tensor,
    scale: Tensor,
    shift: Tensor | None,
    mean: Tensor,
    near: bool = True,
    added: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """(x − μ)·scale + shift, in the dtype of x; with `added` = (g, factor), + g·factor.

    Where μ is `near` 0, in one pass: x·scale + (shift − μ·scale).
    """
    shift = scale.new_zeros(()) if shift is None else shift
    if near:
        shift = torch.addcmul(shift, mean, scale, value=-1)
    shift, scale = like(shift.to(scale.dtype), x), along_rows(scale, x)
    if near and added is None and x.dtype == scale.dtype:
        return torch.addcmul(shift, x, scale)
    y, mean = torch.empty_like(x), like(mean, x)
    for part, out, *g in blocks(x, y) if added is None else blocks(x, y, added[0]):
        into = out if out.dtype == scale.dtype else None
        part = wide(part) if near else torch.sub(part, mean, out=into)
        part = torch.addcmul(shift, part, scale, out=part if into is None else into)
        if added is not None:
            part.addcmul_(wide(g[0]), like(added[1], x))
        if into is None:
            out.copy_(part)
    return y


def transformed(x: Tensor) -> bool:
    """Whether compilation, torch.func, forward-mode AD, a batched gradient, a tensor subclass or a dispatch mode, such
    as that of make_fx, rules out in-place operations and reading values.
    """
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or forward_ad._current_level >= 0
        or type(x) not in (Tensor, nn.Parameter)
        or _is_batched(x)
    )


def _is_batched(x: Tensor) -> bool:
    return not torch.compiler.is_compiling() and torch._C._dispatch_keys(x).has(BATCHED)


def _gradient_sums(x: Tensor, g: Tensor, mean: Tensor, near: bool) -> tuple[Tensor, Tensor]:
    """Σ g·(x − μ) and Σ g of each channel; where μ is `near` 0, as Σ g·x − μ·Σ g."""
    if near and has_fused_sums(x, g):
        products, total = fused_sums(x, g)
    else:
        sums, of_x = [], like(mean, x)
        for part, of_y in blocks(x, g):
            of_y = wide(of_y)
            sums.append((channel_sum(of_y * (part if near else part - of_x)), channel_sum(of_y)))
        products, total = (total_of(of_parts) for of_parts in zip(*sums, strict=True))
    return torch.addcmul(products, mean, total, value=-1) if near else products, total
