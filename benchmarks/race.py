"""Time to about 99% on MNIST's test set: the recipe `sprint` against a public recipe without batch norm.

python -m benchmarks.race --data-root DIR

Both train once on all 60,000 training digits, from memory; only training is timed. The other recipe has two
convolutions of 24 and 32 channels, a dense layer of 256, Adam and a one-cycle schedule. Five seeds each, alternating,
on one thread. Processor times are compared, since the machine may be shared; wall times are recorded too.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import mean, median

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import data_root_option, write
from bnmodel import data
from bnmodel.data import Digits
from bnmodel.training.allocator import keep_freed_memory
from bnmodel.training.evaluation import evaluate
from bnmodel.training.recipes import SPRINT
from bnmodel.training.trainer import Training, new_network

SEEDS = range(5)


def opponent(train: Digits, seed: int) -> nn.Module:
    """Train on standardised pixels in batches of 256 for one epoch: Adam, one-cycle schedule with peak 0.01."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        *(nn.Conv2d(1, 24, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(24, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 5 * 5, 256), nn.ReLU(), nn.Linear(256, 10), nn.LogSoftmax(dim=1)),
    )
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.7, 0.9))
    batches = torch.randperm(len(train)).split(256)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=len(batches))
    for index in batches:
        loss = F.nll_loss(model(train.images[index]), train.labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    return model


def sprint(train: Digits, seed: int) -> nn.Module:
    """Train the recipe; the validation on a hundred digits takes negligible time."""
    model, generator = new_network(replace(SPRINT, seed=seed))
    training = Training(model, train, train[:100], replace(SPRINT, seed=seed), "cpu", generator)
    for _ in training.epochs():
        pass
    training.finish()
    return model


def standardised(digits: Digits, mean: float, spread: float) -> Digits:
    return Digits((digits.images - mean) / spread, digits.labels)


def main() -> None:
    root = data_root_option(__doc__)
    train, test = data.load_mnist(True, root), data.load_mnist(False, root)
    centre, spread = train.images.mean().item(), train.images.std().item()
    theirs = standardised(train, centre, spread), standardised(test, centre, spread)
    racers: dict[str, tuple[Callable[[Digits, int], nn.Module], Digits, Digits]] = {
        "opponent": (opponent, *theirs),
        "sprint": (sprint, train, test),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in racers}  # processor and wall time, in seconds
    accuracy: dict[str, list[float]] = {name: [] for name in racers}
    for seed in SEEDS:
        for name, (run, digits, test_digits) in racers.items():
            before = time.process_time(), time.perf_counter()
            model = run(digits, seed)
            taken = time.process_time() - before[0], time.perf_counter() - before[1]
            times[name].append(taken)
            accuracy[name].append(evaluate(model, test_digits)[1])
            print(
                f"seed {seed}  {name:8s}  processor {taken[0]:5.1f} s  clock {taken[1]:5.1f} s  "
                f"test accuracy {accuracy[name][-1]:.2%}",
                flush=True,
            )
    result = {
        name: {
            "processor_seconds": [processor for processor, _ in times[name]],
            "clock_seconds": [clock for _, clock in times[name]],
            "test_accuracy": accuracy[name],
            "mean_test_accuracy": mean(accuracy[name]),
        }
        for name in racers
    }
    pairs = list(zip(times["sprint"], times["opponent"], strict=True))
    share, clock_share = (median(ours[kind] / theirs[kind] for ours, theirs in pairs) for kind in (0, 1))
    write("race", {**result, "share_of_the_opponents_time": share, "by_the_clock": clock_share})
    for name in racers:
        print(f"{name:8s}  mean test accuracy {mean(accuracy[name]):.3%}")
    print(f"sprint takes {share:.2f} of the opponent's processor time, {clock_share:.2f} by the clock")


if __name__ == "__main__":
    torch.set_num_threads(1)
    keep_freed_memory()
    main()
