"""What the processes of torch.distributed exchange, so that a batch norm uses the statistics of all their batches.

The counterpart of `torch.nn.SyncBatchNorm`, on any device that torch.distributed reaches, the CPU among them. Every
process must take part. The processes' batches may differ in size, and be empty.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def processes() -> int:
    """The number of processes that train together; 1 where torch.distributed is not in use."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def pool_statistics(count: int, mean: Tensor, var: Tensor) -> tuple[int, Tensor, Tensor]:
    """A process's count, mean and biased variance, (C,) → those of the whole batch.

    From each process p its count nₚ, mean μₚ and variance σₚ² (Chan et al. 1979, eq. 2.1):

        n = Σ nₚ        μ = Σ nₚ·μₚ / n        σ² = Σ nₚ·(σₚ² + (μₚ − μ)²) / n
    """
    own = torch.stack((torch.full_like(mean, count), mean, var))  # (3, C)
    everyones = [torch.empty_like(own) for _ in range(processes())]
    dist.all_gather(everyones, own)
    counts, means, variances = torch.stack(everyones, dim=1)  # (processes, C) each
    total = counts.sum(0)
    shares = counts / total.clamp(min=1)
    mean = (shares * means).sum(0)
    var = (shares * (variances + (means - mean).square())).sum(0)
    return int(total[0]), mean, var


def add_over_processes(products: Tensor, sums: Tensor) -> Tensor:
    """The gradient's two sums over all processes, (2, *shape): each x moves the statistics of every process.

    The gradients of γ and β stay a process's share: who averages or adds gradients treats them like all others.
    """
    everyones = torch.stack((products, sums))
    dist.all_reduce(everyones)
    return everyones
