"""What CustomBatchNorm costs, against torch's C++ layer: alone, and in a whole step of training.

Alone: forward and backward, contiguous and channels-last, and the lecture's naive layer beside them. The whole step is
of the lecture's network, and of RobustCNN, which is channels-last, in float32 and under bfloat16 autocast. Processor
time on one thread, in turns, and the median of the ratios of each turn, since the machine is shared. Memory as in
`python -m bnmodel train`, for all alike: `bnmodel/training/allocator.py`.
"""

import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import write
from benchmarks.training import NaiveBatchNorm
from bnmodel import CustomBatchNorm, SimpleCNN
from bnmodel.nn.models import RobustCNN
from bnmodel.training.allocator import keep_freed_memory

TURNS = 20
SHAPES = {(64, 10, 12, 12): False, (128, 48, 24, 24): True, (128, 96, 10, 10): True, (128, 192, 5, 5): True}
LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "torch": nn.BatchNorm2d,
    "CustomBatchNorm": CustomBatchNorm,
    "naive": NaiveBatchNorm,
}
Work = Callable[[], None]


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


def with_torchs(model: nn.Module) -> nn.Module:
    """Every CustomBatchNorm replaced by torch's layer."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, CustomBatchNorm):
                setattr(module, name, child.to_torch(2))
    return model


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
    result: dict[str, dict[str, dict[str, float]]] = {}
    for shape, channels_last in SHAPES.items():
        name = f"layer, {' × '.join(map(str, shape))}{', channels last' if channels_last else ''}"
        works = {key: layer_work(layer(shape[1]), shape, channels_last) for key, layer in LAYERS.items()}
        result[name] = compare(works, repeats=20 if channels_last else 50)  # until the caches are its own
    steps: dict[str, tuple[type[nn.Module], int, bool]] = {
        "training step, SimpleCNN": (SimpleCNN, 64, False),
        "training step, RobustCNN": (RobustCNN, 128, False),
        "training step, RobustCNN, bfloat16": (RobustCNN, 128, True),
    }
    for name, (network, batch_size, half) in steps.items():
        works = {
            "torch": training_work(with_torchs(network()), batch_size, half),
            "CustomBatchNorm": training_work(network(), batch_size, half),
        }
        result[name] = compare(works, repeats=1 if network is RobustCNN else 8)
    alone = next(iter(result.values()))
    table = {
        "microseconds": {name: times["milliseconds"] * 1e3 for name, times in alone.items()},
        "times_torch": {name: times["times_torch"] for name, times in alone.items()},
    }
    write("batchnorm", {**table, "cases": result})
    for name, times in result.items():
        cells = [f"{key} {t['milliseconds']:.2f} ms ({t['times_torch']:.2f} ×)" for key, t in times.items()]
        print(f"{name:42s} {'  '.join(cells)}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    keep_freed_memory()
    main()
