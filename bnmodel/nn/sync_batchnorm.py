"""Batch norm statistics and gradients over all processes of torch.distributed.

As in `torch.nn.SyncBatchNorm`, but on any device that torch.distributed supports, including the CPU. Every process
must take part. Their batches may differ in size and may be empty.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def processes() -> int:
    """The size of the default process group; 1 if torch.distributed is not initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def pool_statistics(count: int, mean: Tensor, var: Tensor) -> tuple[int, Tensor, Tensor]:
    """Count, mean (C,) and biased variance (C,) of one process's batch → those of all batches together.

    With the count nₚ, mean μₚ and variance σₚ² of each process p (Chan et al. 1979, eq. 2.1):

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
    """Sums over all processes, stacked: every x contributes to the statistics of every process.

    The gradients of γ and β are not summed here; DistributedDataParallel averages them like all others.
    """
    everyones = torch.stack((products, sums))
    dist.all_reduce(everyones)
    return everyones
