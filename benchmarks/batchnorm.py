"""What CustomBatchNorm costs, against torch's C++ layer: alone, and in a whole step of training.

Alone: inference, and forward with backward, over five shapes in float32 and bfloat16, time and transient memory,
eager and with `--compiled` compiled too; and the lecture's naive layer. The whole step is of the lecture's network and
of RobustCNN, which is channels-last, in float32 and under bfloat16 autocast. Processor time on one thread, in turns,
and the median of the ratios of each turn, since the machine is shared. Memory as in `python -m bnmodel train`, for all
alike: `bnmodel/training/allocator.py`.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import write
from benchmarks.training import NaiveBatchNorm
from bnmodel import CustomBatchNorm, SimpleCNN
from bnmodel.nn import convert_batchnorm
from bnmodel.nn.models import RobustCNN
from bnmodel.training.allocator import keep_freed_memory

TURNS = 20
SHAPES = {(64, 10, 12, 12): False, (128, 48, 24, 24): True, (128, 96, 10, 10): True, (128, 192, 5, 5): True}
LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "torch": nn.BatchNorm2d,
    "CustomBatchNorm": CustomBatchNorm,
    "naive": NaiveBatchNorm,
}
FIVE_SHAPES = {
    (64, 10, 12, 12): False,
    (128, 48, 24, 24): True,
    (32, 256, 14, 14): False,
    (256, 1024): False,
    (8, 64, 112, 112): False,
}
Work = Callable[[], object]


def case_name(shape: tuple[int, ...], channels_last: bool) -> str:
    return f"{' × '.join(map(str, shape))}{', channels last' if channels_last else ''}"


def layer_work(layer: nn.Module, shape: tuple[int, ...], channels_last: bool) -> Work:
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.randn(shape).contiguous(memory_format=memory_format).requires_grad_()
    gradient = torch.randn_like(x)
    return lambda: layer(x).backward(gradient)


def training_work(model: nn.Module, batch_size: int, half: bool) -> Work:
    images, labels = torch.rand(batch_size, 1, 28, 28), torch.randint(0, 10, (batch_size,))
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = F.nll_loss(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def forward_backward(call: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, gradient: torch.Tensor) -> None:
    call(x).backward(gradient)


def modes(
    shape: tuple[int, ...], channels_last: bool, dtype: torch.dtype, compiled: bool
) -> dict[str, dict[str, Work]]:
    """Inference and training of torch's layer and ours, by mode and layer."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.randn(shape, dtype=dtype).contiguous(memory_format=memory_format)
    gradient, wanted = torch.randn_like(x), x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    works: dict[str, dict[str, Work]] = {"eval": {}, "train": {}}
    theirs = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
    for name, layer in (("torch", theirs), ("CustomBatchNorm", CustomBatchNorm)):
        for mode in works:
            module = layer(shape[1]).train(mode == "train")
            call = torch.compile(module, fullgraph=True) if compiled else module
            if mode == "eval":
                works[mode][name] = torch.no_grad()(partial(call, x))
            else:
                works[mode][name] = partial(forward_backward, call, wanted, gradient)
    return works


def transient_memory(work: Work, x_bytes: int) -> float:
    """The most that `work` holds at a time beyond what it began with, in sizes of x."""
    work()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    held = peak = 0
    results = profile.profiler.kineto_results
    for event in sorted(results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak / x_bytes


def layer_table(compiled: bool) -> list[dict[str, Any]]:
    """A row per shape, dtype and mode: × torch in time, and transient memory of both in sizes of x."""
    rows = []
    for shape, channels_last in FIVE_SHAPES.items():
        for dtype in (torch.float32, torch.bfloat16):
            values = torch.Size(shape).numel()
            for mode, works in modes(shape, channels_last, dtype, compiled).items():
                times = compare(works, repeats=max(1, 1_000_000 // values))["CustomBatchNorm"]["times_torch"]
                memory = {name: transient_memory(work, values * dtype.itemsize) for name, work in works.items()}
                row = {"shape": case_name(shape, channels_last), "dtype": str(dtype), "mode": mode}
                rows.append({**row, "compiled": compiled, "times_torch": times, "memory_in_x": memory})
                torchs, ours = memory.values()
                print(
                    f"{' '.join(row.values()):60s} {times:.2f} ×, memory {ours:.1f} x (torch {torchs:.1f})", flush=True
                )
    return rows


def compare(works: dict[str, Work], repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds and their ratio to the first, for each."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(TURNS + 3):
        for name, work in works.items():
            started = time.process_time()
            for _ in range(repeats):
                work()
            if turn >= 3:  # the first ones warm up
                seconds[name].append((time.process_time() - started) / repeats)
    first = next(iter(seconds.values()))
    return {
        name: {
            "milliseconds": median(times) * 1e3,
            "times_torch": median(t / reference for t, reference in zip(times, first, strict=True)),
        }
        for name, times in seconds.items()
    }


def main() -> None:
    rows = [row for compiled in (False, True)[: 1 + ("--compiled" in sys.argv)] for row in layer_table(compiled)]
    result: dict[str, dict[str, dict[str, float]]] = {}
    for shape, channels_last in SHAPES.items():
        name = f"layer, {case_name(shape, channels_last)}"
        works = {key: layer_work(layer(shape[1]), shape, channels_last) for key, layer in LAYERS.items()}
        result[name] = compare(works, repeats=20 if channels_last else 50)  # until the caches are its own
    steps: dict[str, tuple[type[nn.Module], int, bool]] = {
        "training step, SimpleCNN": (SimpleCNN, 64, False),
        "training step, RobustCNN": (RobustCNN, 128, False),
        "training step, RobustCNN, bfloat16": (RobustCNN, 128, True),
    }
    for name, (network, batch_size, half) in steps.items():
        works = {
            "torch": training_work(convert_batchnorm(network(), "torch", dimensions=2), batch_size, half),
            "CustomBatchNorm": training_work(network(), batch_size, half),
        }
        result[name] = compare(works, repeats=1 if network is RobustCNN else 8)
    alone = next(iter(result.values()))
    table = {
        "microseconds": {name: times["milliseconds"] * 1e3 for name, times in alone.items()},
        "times_torch": {name: times["times_torch"] for name, times in alone.items()},
    }
    write("batchnorm", {**table, "layers": rows, "cases": result})
    for name, times in result.items():
        cells = [f"{key} {t['milliseconds']:.2f} ms ({t['times_torch']:.2f} ×)" for key, t in times.items()]
        print(f"{name:42s} {'  '.join(cells)}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    keep_freed_memory()
    main()
