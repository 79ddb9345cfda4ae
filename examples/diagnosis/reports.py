"""Five public reports about batch norm, reproduced: what the user saw, the diagnosis, and the effect of recalibration.

python examples/diagnosis/reports.py [NAME …]
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torchvision import models

sys.path.insert(0, str(Path(__file__).parents[2]))

import bnmodel
from benchmarks.diagnosis import faults
from benchmarks.diagnosis import networks as zoo
from benchmarks.diagnosis.faults import Case
from benchmarks.diagnosis.healthy import grayscale


@dataclass(frozen=True)
class Report:
    """The address of a report, the symptom, and a function that reproduces it with digits."""

    source: str
    symptom: str
    make: Callable[[], Case]


def fresh_layer() -> Case:
    """A network in eval mode that never ran in train mode, so that its statistics are the initial ones."""
    return faults.weights_only_checkpoint(0)


def slow_average() -> Case:
    """torchvision's MobileNetV3 has momentum 0.01: after 150 steps the initial statistics still weigh a fifth."""
    model = zoo.built(lambda: grayscale(models.mobilenet_v3_small), zoo.digits())
    return faults.case(zoo.train(model, zoo.digits(), steps=150))


def frozen_parameters_only() -> Case:
    """All parameters frozen, then passes of a blank image in train mode, which change the running statistics."""
    model = faults.healthy(0, zoo.resnet, steps=150, schedule=True).requires_grad_(False).train()
    for _ in range(5):
        model(torch.zeros(1, 1, 8, 8))
    return faults.case(model)


def norms_in_train_mode() -> Case:
    """A segmentation network in eval mode with its batch norms in train mode, as it was exported."""
    model = zoo.trained(zoo.UNet, zoo.segmentation(), steps=80).eval()
    for norm in faults.norms(model).values():
        norm.train()
    return Case(model, zoo.segmentation().batches(), {})


def no_statistics() -> Case:
    """track_running_stats=False: eval mode and the exported file use batch statistics."""
    return faults.no_running_statistics(0)


REPORTS = {
    "pytorch-5406": Report(
        "https://github.com/pytorch/pytorch/issues/5406", "outputs differ between train() and eval()", fresh_layer
    ),
    "pytorch-4741": Report(
        "https://github.com/pytorch/pytorch/issues/4741", "high error in eval mode, low in train mode", slow_average
    ),
    "vision-2079": Report(
        "https://github.com/pytorch/vision/issues/2079",
        "outputs in eval mode change after one pass in train mode, without any update of the weights",
        frozen_parameters_only,
    ),
    "onnxruntime-26584": Report(
        "https://github.com/microsoft/onnxruntime/issues/26584",
        "a U-Net exported with its batch norms in train mode differs from the one in eval mode",
        norms_in_train_mode,
    ),
    "pytorch-75252": Report(
        "https://github.com/pytorch/pytorch/issues/75252",
        "batch norms without running statistics are exported in training mode",
        no_statistics,
    ),
}


def show(name: str) -> None:
    report = REPORTS[name]
    case = report.make()
    print(f"== {name}: {report.symptom}\n   {report.source}\n")
    print(bnmodel.diagnose(case.model, case.batches, **case.options))
    data = zoo.segmentation() if report.make is norms_in_train_mode else zoo.digits()
    cured: nn.Module = bnmodel.recalibrate(case.model, data.batches(64, "train"), track=True).eval()
    after = bnmodel.diagnose(cured, case.batches, **case.options)
    print(f"\n   recalibrated, in eval mode: {after.eval_outcome}; {'sound' if after.sound else sorted(after.codes)}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:] or REPORTS:
        show(name)
