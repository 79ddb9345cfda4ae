"""Time and memory of CustomBatchNorm relative to torch's C++ layer, alone and in a training step.

python -m benchmarks.batchnorm [--device cuda] [--modes eager] [--parts layers]

Alone: inference, and forward with backward, for five shapes, in float32 and bfloat16, eager and compiled. Training
steps: of SimpleCNN and of RobustCNN, which is channels-last, in float32 and under bfloat16 autocast. Times on the CPU
are processor times on one thread of one core, with memory kept as in `python -m bnmodel train`
(`bnmodel/training/allocator.py`). The layers alternate; a time is the minimum over all rounds. With --parts, the times
are only printed.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks import write
from benchmarks.training import NaiveBatchNorm
from bnmodel import CustomBatchNorm, SimpleCNN
from bnmodel.nn import convert_batchnorm
from bnmodel.nn.models import RobustCNN

TURNS, TURN_SECONDS, CASE_SECONDS = 60, 4e-3, 1.5
SHAPES = {  # and whether channels-last
    (64, 10, 12, 12): False,
    (128, 48, 24, 24): True,
    (32, 256, 14, 14): False,
    (256, 1024): False,
    (8, 64, 112, 112): False,
}
DTYPES = (torch.float32, torch.bfloat16)
Work = Callable[[], object]


def case_name(shape: tuple[int, ...], channels_last: bool) -> str:
    return f"{' × '.join(map(str, shape))}{', channels last' if channels_last else ''}"


def layer_works(layers: Mapping[str, nn.Module], x: Tensor, mode: str, compiled: bool) -> dict[str, Work]:
    """Inference, or forward and backward, of each layer."""
    gradient, wanted = torch.randn_like(x), x.detach().clone(memory_format=torch.preserve_format).requires_grad_()

    def forward_backward(call: Callable[[Tensor], Tensor]) -> None:
        wanted.grad = None  # accumulation would take extra time
        call(wanted).backward(gradient)

    works: dict[str, Work] = {}
    for name, layer in layers.items():
        layer.to(x.device).train(mode == "train")
        call = torch.compile(layer, fullgraph=True, dynamic=False) if compiled else layer
        works[name] = partial(forward_backward, call) if mode == "train" else torch.no_grad()(partial(call, x))
    return works


def training_work(model: nn.Module, batch_size: int, half: bool, device: str = "cpu") -> Work:
    images = torch.rand(batch_size, 1, 28, 28, device=device)
    labels = torch.randint(0, 10, (batch_size,), device=device)
    optimizer = torch.optim.SGD(model.train().to(device).parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=half):
            loss = F.nll_loss(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def transient_memory(work: Work, device: str) -> int:
    """Peak memory of `work` in bytes, beyond what is allocated before."""
    work()
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    held = peak = 0
    for event in sorted(profiled.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def seconds(work: Work, repeats: int, device: str) -> float:
    """Seconds per call: processor time on the CPU, time between two events on a GPU."""
    if device == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        for _ in range(repeats):
            work()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1e3 / repeats
    started = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - started) / repeats


def compare(works: dict[str, Work], device: str = "cpu") -> dict[str, dict[str, float]]:
    """Milliseconds of each function, the minimum of many rounds, and the ratio to those of the first function."""
    for work in works.values():
        seconds(work, 2, device)  # compiles, fills caches
    once = {name: seconds(work, 2, device) for name, work in works.items()}
    repeats = {name: max(1, round(TURN_SECONDS / once[name])) for name in works}
    turns = min(TURNS, max(7, round(CASE_SECONDS / sum(once[name] * repeats[name] for name in works))))
    least = dict.fromkeys(works, float("inf"))
    for turn in range(turns):
        for name in list(works)[:: 1 if turn % 2 else -1]:
            least[name] = min(least[name], seconds(works[name], repeats[name], device))
    first = next(iter(least.values()))
    return {name: {"milliseconds": best * 1e3, "times_torch": best / first} for name, best in least.items()}


def layer_rows(device: str, compiled: bool) -> list[dict[str, Any]]:
    """A row per shape, dtype and mode: milliseconds, × torch, and memory in sizes of x."""
    rows = []
    for shape, channels_last in SHAPES.items():
        theirs = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
        for dtype in DTYPES:
            memory_format = torch.channels_last if channels_last else torch.contiguous_format
            x = torch.randn(shape, dtype=dtype, device=device).contiguous(memory_format=memory_format)
            for mode in ("eval", "train"):
                torch.compiler.reset()  # it compiles at most eight versions of a function
                layers: dict[str, nn.Module] = {"torch": theirs(shape[1]), "CustomBatchNorm": CustomBatchNorm(shape[1])}
                first = mode == "train" and dtype == torch.float32 and shape == next(iter(SHAPES)) and not compiled
                if first and device == "cpu":  # its statistics are plain attributes, always on the CPU
                    layers["naive"] = NaiveBatchNorm(shape[1])
                works = layer_works(layers, x, mode, compiled)
                times = compare(works, device)
                size = x.numel() * x.element_size()
                for name, work in works.items():
                    times[name]["memory_in_x"] = transient_memory(work, device) / size
                row = {"shape": case_name(shape, channels_last), "dtype": str(dtype)[6:], "mode": mode}
                rows.append({**row, "compiled": compiled, "layers": times})
                _print(" ".join(row.values()) + (" compiled" if compiled else ""), times)
    return rows


def step_rows(device: str) -> dict[str, dict[str, dict[str, float]]]:
    steps: dict[str, tuple[type[nn.Module], int, bool]] = {
        "training step, SimpleCNN": (SimpleCNN, 64, False),
        "training step, RobustCNN": (RobustCNN, 128, False),
        "training step, RobustCNN, bfloat16": (RobustCNN, 128, True),
    }
    result = {}
    for name, (network, batch_size, half) in steps.items():
        theirs, ours = convert_batchnorm(network(), "torch", dimensions=2), network()
        works = {
            "torch": training_work(theirs, batch_size, half, device),
            "CustomBatchNorm": training_work(ours, batch_size, half, device),
        }
        result[name] = compare(works, device)
        _print(name, result[name])
    return result


def _print(name: str, times: dict[str, dict[str, float]]) -> None:
    cells = [
        f"{key} {t['milliseconds']:.3f} ms" + (f" {t['memory_in_x']:.1f} x" if "memory_in_x" in t else "")
        for key, t in times.items()
    ]
    print(f"{name:60s} {times['CustomBatchNorm']['times_torch']:.2f} ×  ({', '.join(cells)})", flush=True)


def _stay_on_one_core() -> None:
    """Pin the process to one core, unless it is pinned already."""
    if hasattr(os, "sched_setaffinity") and len(cores := os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {max(cores)})


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--modes", nargs="+", choices=("eager", "compiled"), default=("eager", "compiled"))
    parser.add_argument("--parts", nargs="+", choices=("layers", "steps"), default=("layers", "steps"))
    options = parser.parse_args(arguments)
    if options.device == "cpu":
        from bnmodel.training.allocator import keep_freed_memory

        torch.set_num_threads(1)
        _stay_on_one_core()
        keep_freed_memory()
    result: dict[str, Any] = {"device": options.device}
    if options.device == "cuda":
        result["device"] = torch.cuda.get_device_name()
    if "steps" in options.parts:
        result["cases"] = step_rows(options.device)
    if "layers" in options.parts:
        modes = [mode == "compiled" for mode in options.modes]
        result["layers"] = [row for compiled in modes for row in layer_rows(options.device, compiled)]
    if {"cases", "layers"} <= result.keys():  # the tables of the docs need both
        write("batchnorm" if options.device == "cpu" else f"batchnorm_{options.device}", result)


if __name__ == "__main__":
    main(sys.argv[1:])
