"""The layer alone, forward and backward on (64, 10, 12, 12): torch's C++ one, ours, and the lecture's naive one."""

import time
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks import write
from benchmarks.training import NaiveBatchNorm
from bnmodel import CustomBatchNorm

ROUNDS, STEPS = 30, 50


def step(layer: nn.Module, x: Tensor, gradient: Tensor) -> None:
    layer(x).backward(gradient)


def main() -> None:
    x = torch.randn(64, 10, 12, 12, requires_grad=True)
    gradient = torch.randn_like(x)
    layers = {"torch": nn.BatchNorm2d(10), "CustomBatchNorm": CustomBatchNorm(10), "naive": NaiveBatchNorm(10)}
    seconds: dict[str, list[float]] = {name: [] for name in layers}
    for _ in range(ROUNDS):  # in turns: the machine is shared
        for name, layer in layers.items():
            started = time.perf_counter()
            for _ in range(STEPS):
                step(layer, x, gradient)
            seconds[name].append((time.perf_counter() - started) / STEPS)
    times = {name: median(values) for name, values in seconds.items()}
    result = {"microseconds": {name: s * 1e6 for name, s in times.items()}}
    result["times_torch"] = {name: s / times["torch"] for name, s in times.items()}
    write("batchnorm", result)
    for name, s in times.items():
        print(f"{name:16s} {s * 1e6:7.0f} µs  {s / times['torch']:.1f} × torch")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
