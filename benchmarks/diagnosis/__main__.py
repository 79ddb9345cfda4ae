"""Measure `diagnose`: planted faults × codes, healthy networks, time.  python -m benchmarks.diagnosis [--seeds N]

Writes benchmarks/results/diagnosis.json; `python -m benchmarks.readme` puts it into docs/diagnosis.md.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from statistics import median
from typing import Any

import torch
from torch import nn
from torchvision import models

from benchmarks import write
from benchmarks.diagnosis import networks as zoo
from benchmarks.diagnosis.faults import FAULTS, Fault, norms
from benchmarks.diagnosis.healthy import HEALTHY, grayscale, handed_in
from benchmarks.diagnosis.table import confusion_table
from bnmodel.diagnosis import diagnose, watch
from bnmodel.findings import SEVERITIES

Inputs = list[torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    seeds = range(parser.parse_args().seeds)
    torch.set_num_threads(1)
    times = {name: ratio(*timed) for name, timed in TIMED.items()}  # first, since training fragments the heap
    result = {
        "seeds": len(seeds),
        "faults": {fault.name: planted(fault, seeds) for fault in FAULTS},
        "healthy": healthy(seeds),
        "time": times,
        "watch": watch_overhead(),
    }
    write("diagnosis", result)
    print(confusion_table(result))


def planted(fault: Fault, seeds: range) -> dict[str, Any]:
    """How often each code was reported, by its worst severity."""
    counts: dict[str, Counter[str]] = {}
    for seed in seeds:
        case = fault.make(seed)
        report = diagnose(case.model, case.batches, **case.options)
        for code in report.codes:
            worst = min((f.severity for f in report.findings if f.code == code), key=SEVERITIES.index)
            counts.setdefault(code, Counter())[worst] += 1
        print(fault.name, sorted(report.codes), flush=True)
    return {"expected": fault.code, "reported": {code: dict(count) for code, count in counts.items()}}


def healthy(seeds: range) -> dict[str, Any]:
    """Check-ups of healthy networks, each passed in in several ways, and the false alarms among them."""
    networks, checkups, alarms = 0, 0, []
    for seed in seeds:
        for network in HEALTHY:
            if seed and network.large:
                continue
            networks += 1
            for way, model, batches in handed_in(network.trained(seed), network.data()):
                checkups += 1
                report = diagnose(model, batches)
                if not report.sound:
                    alarms.append({"network": network.name, "seed": seed, "way": way, "report": str(report)})
            print(network.name, "alarms so far:", len(alarms), flush=True)
    return {"networks": networks, "checkups": checkups, "alarms": alarms}


def with_fused_activations() -> nn.Module:
    """timm's BatchNormAct2d, a subclass of BatchNorm2d with the activation inside."""
    model: nn.Module = import_module("timm").create_model("mobilenetv2_050", num_classes=10)
    return model


def images(size: int, channels: int = 3) -> Callable[[], Inputs]:
    return lambda: list(torch.randn(256, channels, size, size).split(16))


TIMED: dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs]]] = {
    "resnet18": (models.resnet18, images(112)),
    "mobilenet_v3_small": (models.mobilenet_v3_small, images(160)),
    "densenet121": (models.densenet121, images(96)),
    "U-Net": (lambda: zoo.UNet(16), images(64, 1)),
    "LSTM": (lambda: zoo.Recurrent(28, 128), images(28, 1)),
    "DataParallel": (lambda: nn.DataParallel(models.resnet18()), images(96)),
}
if find_spec("timm"):
    TIMED["timm's BatchNormAct2d"] = with_fused_activations, images(128)


def ratio(build: Callable[[], nn.Module], inputs: Callable[[], Inputs]) -> dict[str, float]:
    """Processor time of a check-up relative to an evaluation pass over the same batches, median of alternating rounds.

    For a sound network, and for the same after train-mode passes over darker images.
    """
    torch.manual_seed(0)
    model, batches = build(), inputs()
    for layer in norms(model).values():
        layer.momentum = None  # the average over the batches: a sound network

    @torch.no_grad()
    def evaluate(change: Callable[[torch.Tensor], torch.Tensor] = lambda x: x) -> None:
        for batch in batches:
            model(change(batch))

    model.train()
    evaluate()
    result = {}
    for state in ("sound", "drifted"):
        if state == "drifted":
            for layer in norms(model.train()).values():
                layer.momentum = 0.3
            evaluate(lambda x: 0.3 * x - 1)
        model.eval()
        evaluate()
        rounds = []
        for _ in range(3):
            alone = _seconds(evaluate)
            rounds.append(_seconds(lambda: diagnose(model, batches)) / alone)
        result[state] = median(rounds)
    return result


def watch_overhead() -> dict[str, float]:
    """Processor time that `watch` adds to a training step, as a share; minima of alternating rounds."""
    result = {}
    for name, build, batch, steps, rounds in (
        ("resnet18, batches of 16", lambda: grayscale(models.resnet18), 16, 20, 3),
        ("CNN with 3 norms, batches of 64", lambda: zoo.cnn(), 64, 40, 15),
        ("MLP with 2 norms, batches of 64", lambda: zoo.mlp(64), 64, 100, 15),
    ):
        data = zoo.digits()
        model = zoo.built(build, data)
        train = partial(zoo.train, model, data, steps, batch)
        train()
        plain, watched = [], []
        for _ in range(rounds):
            plain.append(_seconds(train))
            with watch(model):
                watched.append(_seconds(train))
        result[name] = min(watched) / min(plain) - 1
    return result


def _seconds(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


if __name__ == "__main__":
    main()
