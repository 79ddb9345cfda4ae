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


def pool_statistics(shares: Tensor, means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance, (C, 1), of batches p that make up a whole, from those of each, (P, C, 1).

    With the shares nₚ/n of the values, (P,) (Chan et al. 1979, eq. 2.1):

        μ = Σ nₚ/n · μₚ        σ² = Σ nₚ/n · (σₚ² + (μₚ − μ)²)
    """
    shares = shares.view(-1, 1, 1)
    mean = (shares * means).sum(0)
    return mean, (shares * (variances + (means - mean).square())).sum(0)


def gather_statistics(count: int, mean: Tensor, var: Tensor) -> tuple[int, Tensor, Tensor]:
    """A process's count, mean and biased variance, (C, 1) → those of the whole batch."""
    own = torch.stack((torch.full_like(mean, count), mean, var))  # (3, C, 1)
    everyones = [torch.empty_like(own) for _ in range(processes())]
    dist.all_gather(everyones, own)
    counts, means, variances = torch.stack(everyones, dim=1)  # (processes, C, 1) each
    total = counts[:, 0].sum()
    return int(total), *pool_statistics(counts[:, 0] / total.clamp(min=1), means, variances)


def add_over_processes(products: Tensor, sums: Tensor) -> Tensor:
    """The gradient's two sums over all processes, (2, *shape): each x moves the statistics of every process.

    The gradients of γ and β stay a process's share: who averages or adds gradients treats them like all others.
    """
    everyones = torch.stack((products, sums))
    dist.all_reduce(everyones)
    return everyones
