"""The check-up measured: planted faults × codes, healthy networks, time.  python -m benchmarks.diagnosis [--seeds N]

Writes benchmarks/results/diagnosis.json; `python -m benchmarks.readme` puts it into docs/diagnosis.md.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    seeds = range(parser.parse_args().seeds)
    torch.set_num_threads(1)
    result = {
        "seeds": len(seeds),
        "faults": {fault.name: planted(fault, seeds) for fault in FAULTS},
        "healthy": healthy(seeds),
        "time": {name: ratio(build) for name, build in TIMED.items()},
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
    """Check-ups of healthy networks, handed in in several ways; errors and warnings among them."""
    networks, checkups, alarms = 0, 0, []
    for seed in seeds:
        for network in HEALTHY:
            networks += 1
            for way, model, batches in handed_in(network.trained(seed), network.data()):
                checkups += 1
                report = diagnose(model, batches)
                if not report.sound:
                    alarms.append({"network": network.name, "seed": seed, "way": way, "report": str(report)})
            print(network.name, "alarms so far:", len(alarms), flush=True)
    return {"networks": networks, "checkups": checkups, "alarms": alarms}


TIMED: dict[str, Callable[[], tuple[nn.Module, list[torch.Tensor]]]] = {
    "resnet18": lambda: (models.resnet18(), list(torch.randn(128, 3, 112, 112).split(32))),
    "mobilenet_v3_small": lambda: (models.mobilenet_v3_small(), list(torch.randn(128, 3, 160, 160).split(32))),
    "densenet121": lambda: (models.densenet121(), list(torch.randn(64, 3, 112, 112).split(16))),
    "U-Net": lambda: (zoo.UNet(16), list(torch.randn(128, 1, 96, 96).split(16))),
    "LSTM": lambda: (zoo.Recurrent(28, 128), list(torch.randn(512, 1, 28, 28).split(64))),
}


def ratio(build: Callable[[], tuple[nn.Module, list[torch.Tensor]]]) -> float:
    """Time of a check-up over that of one evaluation pass on the same batches, processor time, best of three."""
    torch.manual_seed(0)
    model, batches = build()
    for layer in norms(model).values():
        layer.momentum = None  # the average over the batches: a sound network
    model.train()
    with torch.no_grad():
        for batch in batches:
            model(batch)
    model.eval()

    def evaluate() -> None:
        with torch.no_grad():
            for batch in batches:
                model(batch)

    evaluate()
    alone, checked = [], []
    for _ in range(3):
        alone.append(_seconds(evaluate))
        checked.append(_seconds(lambda: diagnose(model, batches)))
    return min(checked) / min(alone)


def watch_overhead(steps: int = 40) -> dict[str, float]:
    """Time of a watched training step over that of a plain one, minus 1."""
    result = {}
    for name, build, data in (
        ("resnet18 on MNIST", lambda: grayscale(models.resnet18), zoo.mnist()),
        ("small CNN on MNIST", lambda: zoo.cnn(16), zoo.mnist()),
    ):
        model = zoo.built(build, data)
        ratios = []
        for _ in range(7):  # in turns: the machine may be busy
            plain = _seconds(lambda: zoo.train(model, data, steps, 32))  # noqa: B023
            with watch(model):
                ratios.append(_seconds(lambda: zoo.train(model, data, steps, 32)) / plain)  # noqa: B023
        result[name] = median(ratios) - 1
    return result


def _seconds(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


if __name__ == "__main__":
    main()
