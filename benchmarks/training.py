"""Time to validation loss 0.0370 on MNIST: the lecture's loop and the recipe `fast`, with a profile of both.

python -m benchmarks.training --data-root DIR

The lecture's loop has a DataLoader that transforms each sample, a batch norm in five naive steps, and reads the loss
after every step. Both train the lecture's network on the lecture's split.
"""

import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import MNIST

from benchmarks import data_root_option, write
from bnmodel import data
from bnmodel.nn.models import build
from bnmodel.training import fit
from bnmodel.training.allocator import keep_freed_memory
from bnmodel.training.history import Epoch
from bnmodel.training.recipes import FAST
from bnmodel.training.trainer import Training

TARGET = 0.0370
MAX_EPOCHS = 100
PROFILED_STEPS, PROFILED_OPERATIONS = 100, 8
Curve = list[tuple[float, float]]  # (seconds since the start, validation loss) after each epoch


class NaiveBatchNorm(nn.Module):
    """Batch norm line by line, with running statistics as plain attributes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.running_mean, self.running_var = torch.zeros(1, channels, 1, 1), torch.ones(1, channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            mean = x.mean(dim=(0, 2, 3), keepdim=True)
            var = ((x - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
            normalised = (x - mean) / torch.sqrt(var + 1e-5)
            self.running_mean = 0.9 * self.running_mean + 0.1 * mean.detach()
            self.running_var = 0.9 * self.running_var + 0.1 * var.detach()
        else:
            normalised = (x - self.running_mean) / torch.sqrt(self.running_var + 1e-5)
        return self.gamma * normalised + self.beta


def lecture_network() -> nn.Module:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 5), nn.MaxPool2d(2), nn.ReLU(), NaiveBatchNorm(outputs), nn.Dropout(0.5)]

    head = [nn.Flatten(), nn.Linear(320, 50), nn.ReLU(), nn.Linear(50, 10), nn.LogSoftmax(dim=1)]
    return nn.Sequential(*block(1, 10), *block(10, 20), *head)


def lecture_data(root: Path) -> tuple[DataLoader[Any], DataLoader[Any]]:
    mnist = MNIST(str(root), train=True, transform=transforms.ToTensor())
    train_index, validation_index = train_test_split(range(len(mnist)), test_size=0.2, random_state=42)
    train_loader = DataLoader(Subset(mnist, train_index), batch_size=64, shuffle=True)
    return train_loader, DataLoader(Subset(mnist, validation_index), batch_size=64)


def lecture_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[tuple[Tensor, Tensor]]
) -> float:
    model.train()
    train_loss = 0.0
    for images, labels in batches:
        optimizer.zero_grad()
        loss = F.nll_loss(model(images), labels)
        loss.backward()
        optimizer.step()
        train_loss += loss.item()
    return train_loss


def lecture_model() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = lecture_network()
    return model, torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=1e-4)


def lecture_loop(root: Path) -> Curve:
    """Train until TARGET."""
    torch.manual_seed(0)
    train_loader, validation_loader = lecture_data(root)
    model, optimizer = lecture_model()
    curve: Curve = []
    started = time.perf_counter()
    while len(curve) < MAX_EPOCHS and (not curve or curve[-1][1] > TARGET):
        lecture_epoch(model, optimizer, train_loader)
        model.eval()
        total = 0.0
        with torch.no_grad():
            for images, labels in validation_loader:
                total += F.nll_loss(model(images), labels, reduction="sum").item()
        curve.append((time.perf_counter() - started, total / len(validation_loader.dataset)))  # type: ignore[arg-type]
        say("lecture's loop", curve)
    return curve


def fast(root: Path) -> Curve:
    """Train all epochs of the recipe."""
    torch.manual_seed(FAST.seed)
    train, validation = data.split(data.load_mnist(True, root))
    curve: Curve = []
    started = time.perf_counter()

    def note(epoch: Epoch) -> None:
        curve.append((time.perf_counter() - started, epoch.validation_loss))
        say("fast", curve)

    fit(build(FAST.model), train, validation, FAST, progress=False, on_epoch=note)
    return curve


def spent(work: Callable[[], object]) -> dict[str, float]:
    """The operations with the largest shares of self time in `work`."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        work()
    times = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    longest = sorted(times, key=times.__getitem__, reverse=True)[:PROFILED_OPERATIONS]
    return {name: round(times[name] / sum(times.values()), 3) for name in longest}


def profiles(root: Path) -> dict[str, dict[str, float]]:
    """Profile some training steps of both, without validation."""
    batches = islice(lecture_data(root)[0], PROFILED_STEPS)
    digits = data.load_mnist(True, root)
    fast_training = Training(build(FAST.model), digits[: PROFILED_STEPS * FAST.batch_size], digits[:100], FAST, "cpu")
    return {
        "lecture_loop": spent(lambda: lecture_epoch(*lecture_model(), batches)),
        "fast": spent(lambda: next(fast_training.epochs())),
    }


def say(name: str, curve: Curve) -> None:
    seconds, loss = curve[-1]
    print(f"{name}: epoch {len(curve)}, {seconds:.0f} s, validation loss {loss:.4f}", flush=True)


def seconds_to_target(curve: Curve) -> float | None:
    return next((seconds for seconds, loss in curve if loss <= TARGET), None)


def main() -> None:
    root = data_root_option(__doc__)
    before, slow, after = fast(root), lecture_loop(root), fast(root)  # twice, since the machine's speed drifts
    ours = [seconds for seconds in map(seconds_to_target, (before, after)) if seconds is not None]
    theirs = seconds_to_target(slow)
    if theirs is None or len(ours) < 2:
        raise SystemExit(f"validation loss {TARGET} was not reached: lecture's loop {theirs}, fast {ours}")
    epoch_seconds = slow[-1][0] / len(slow)
    result = {
        "target_validation_loss": TARGET,
        "lecture_loop": {"epochs": len(slow), "seconds_per_epoch": epoch_seconds, "seconds_to_target": theirs},
        "fast": {
            "epochs": len(before),
            "seconds_per_epoch": (before[-1][0] + after[-1][0]) / (len(before) + len(after)),
            "seconds_to_target": ours,
            "best_validation_loss": min(loss for _, loss in before),
        },
        "times_sooner": theirs / max(ours),
        "share_of_the_time": profiles(root),
    }
    write("training", result)
    print(f"to validation loss {TARGET}: {theirs:.0f} s and {max(ours):.0f} s, {theirs / max(ours):.1f} × faster")


if __name__ == "__main__":
    keep_freed_memory()
    main()
