"""Data-parallel training: each process computes a part of every batch.

    torchrun --nproc-per-node 2 -m bnmodel train --recipe fast

Up to rounding, batches and gradients are those of a single process: the recipe's batch size counts all parts, batch
norms are synchronised, and the loss is the mean over the whole batch. Each process has its own random numbers for
dropout and augmentation. Without torchrun, the functions here have no effect.
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
    """Join the process group of torchrun, if any, with NCCL on CUDA and Gloo elsewhere."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # makes it the device "cuda"
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """The rank of this process. Rank 0 writes the files."""
    return dist.get_rank() if processes() > 1 else 0


@contextmanager
def first_process_first() -> Iterator[None]:
    """Let the first process run the block before the others."""
    if processes() > 1 and rank() > 0:
        dist.barrier()
    try:
        yield
    finally:
        if processes() > 1 and rank() == 0:
            dist.barrier()


def synchronise(model: nn.Module) -> nn.Module:
    """Make the batch norms of `model` use statistics over all processes, in place; returns `model`."""
    for module in model.modules():
        if isinstance(module, CustomBatchNorm):
            module.synchronised = True
    return model


def own_part(batch: Tensor) -> Tensor:
    """This process's part of `batch`. Parts differ by at most one sample, and the last may be empty."""
    return batch.tensor_split(processes())[rank()]


def loss_weight(count: int, of: int) -> float:
    """Factor for the mean loss of a part, `count` of `of` samples: averaged gradients then equal those of the batch."""
    return count * processes() / of


def parallel(model: nn.Module) -> nn.Module:
    """`model`, wrapped so that the backward pass averages its gradients over all processes."""
    if processes() == 1:
        return model
    # synchronised batch norms have the same buffers in all processes already
    return DistributedDataParallel(synchronise(model), broadcast_buffers=False)


def total(values: Tensor) -> Tensor:
    """The sum over all processes."""
    if processes() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values
