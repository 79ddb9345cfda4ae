"""One training on several processes: each takes its share of every batch, and all arrive at the same weights.

    torchrun --nproc-per-node 2 -m bnmodel train --recipe fast

The batches and the gradients are those of one process, to rounding: the recipe's batch size is that of all shares
together, batch norms are synchronised, and the loss is the mean over the whole batch. Dropout and augmentation draw
from another chance in every process. Without torchrun every function here leaves things as they are.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bnmodel.nn.batchnorm import CustomBatchNorm
from bnmodel.nn.sync_batchnorm import processes


@contextmanager
def process_group(device: str = "auto") -> Iterator[None]:
    """Join the processes that torchrun started, if it did: through NCCL on CUDA, else through Gloo."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # what "cuda" means from here on
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process, 0 … processes − 1; 0 writes the files."""
    return dist.get_rank() if processes() > 1 else 0


def synchronise(model: nn.Module) -> nn.Module:
    """Let the batch norms of `model` take their statistics over all processes; `model` itself, changed."""
    for module in model.modules():
        if isinstance(module, CustomBatchNorm):
            module.synchronised = True
    return model


def share(batch: Tensor) -> Tensor:
    """This process's part of what all have; the parts differ by one at most, and the last may be empty."""
    return batch.tensor_split(processes())[rank()]


def weight(count: int, of: int) -> float:
    """What to multiply the mean loss of `count` out of `of` digits with, so that gradients average to the whole's."""
    return count * processes() / of


def parallel(model: nn.Module) -> nn.Module:
    """`model`, with its gradients averaged over all processes in the backward pass."""
    if processes() == 1:
        return model
    # its buffers need no broadcasting: synchronised batch norms have the same statistics everywhere
    return DistributedDataParallel(synchronise(model), broadcast_buffers=False)


def total(values: Tensor) -> Tensor:
    """The sum over all processes, everywhere."""
    if processes() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values
