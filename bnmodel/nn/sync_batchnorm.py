"""Batch normalisation over a batch that several processes hold a part of each.

The counterpart of `torch.nn.SyncBatchNorm`, on any device that torch.distributed reaches, the CPU among them.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from bnmodel.nn.batchnorm_autograd import at_least_float32, like


def processes() -> int:
    """How many train together; 1 where torch.distributed is not in use."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def synchronised_batch_norm(
    x: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, int]:
    """`batch_norm` with the statistics of the batches of all processes; every process must call it.

    Args:
        x: this process's part, (N, C) or (N, C, *spatial). N may differ from process to process, and be 0.
        gamma, beta: (C,) scale and shift, the same everywhere, or None for 1 and 0.

    Returns:
        y, shaped and typed like `x`; the mean (C,) and the biased variance (C,) of the whole batch; its number of
        values per channel.
    """
    y, mean, var, count = _SynchronisedStep.apply(x, gamma, beta, eps)
    return y, mean, var, int(count)


class _SynchronisedStep(torch.autograd.Function):
    """From each process p its count nₚ, mean μₚ and squared deviations Mₚ, a channel (Chan et al. 1979, eq. 2.1):

        n = Σ nₚ        μ = Σ nₚ·μₚ / n        σ² = Σ (Mₚ + nₚ·(μₚ − μ)²) / n

    without the cancellation of E[x²] − μ². Every x moves the mean and variance of every process, so the gradient's two
    sums are over all processes, and otherwise as in `batch_norm`, g = ∂L/∂y:

        ∂L/∂x = γ/√(σ² + ε) · (g − Σ g / n − (x − μ) · Σ g·(x − μ) / (n·(σ² + ε)))

    ∂L/∂γ and ∂L/∂β are this process's share: who averages or adds gradients over processes treats them like all others.
    """

    @staticmethod
    def forward(ctx, x, gamma, beta, eps):  # type: ignore[no-untyped-def]
        values = x.to(at_least_float32(x.dtype))
        rows = values.movedim(1, -1).reshape(-1, x.size(1))  # (nₚ, C)
        count = torch.full_like(rows[:1].sum(0), len(rows))  # (C,)
        own_mean = rows.sum(0) / count.clamp(min=1)
        own = torch.stack((count, own_mean, (rows - own_mean).square().sum(0)))  # (3, C)
        everyones = [torch.empty_like(own) for _ in range(processes())]
        dist.all_gather(everyones, own)
        counts, means, squares = torch.stack(everyones, dim=1)  # (processes, C) each
        total = counts.sum(0)
        mean = (counts * means).sum(0) / total
        var = (squares + counts * (means - mean).square()).sum(0) / total
        inverse_std = torch.rsqrt(var + eps)
        scale = inverse_std if gamma is None else inverse_std * gamma
        y = (values - like(mean, x)) * like(scale, x)
        if beta is not None:
            y += like(beta, x)
        ctx.has_beta = beta is not None
        ctx.save_for_backward(x, gamma, mean, inverse_std, total)
        ctx.mark_non_differentiable(mean, var, total)
        return y.to(x.dtype), mean, var, total[0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g, _mean, _var, _total):  # type: ignore[no-untyped-def]
        x, gamma, mean, inverse_std, total = ctx.saved_tensors
        g, centred = g.to(mean.dtype), x.to(mean.dtype) - like(mean, x)
        axes = [0, *range(2, x.dim())]
        own = torch.stack((g.sum(axes), (g * centred).sum(axes)))  # (2, C)
        everyones = own.clone()
        dist.all_reduce(everyones)
        mean_g, mean_gx = everyones / total  # (C,) each
        scale = inverse_std if gamma is None else inverse_std * gamma
        grad_x = (g - like(mean_g, x) - centred * like(mean_gx * inverse_std**2, x)) * like(scale, x)
        grad_beta, grad_gamma = own[0], own[1] * inverse_std
        return grad_x.to(x.dtype), None if gamma is None else grad_gamma, grad_beta if ctx.has_beta else None, None
