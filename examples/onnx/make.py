"""Make the three example files of the tab “Your model”: one network exported correctly, and with two mistakes.

    python -m examples.onnx.make

A small CNN is trained on the shipped digits. `sound.onnx` is its eval copy; `train-mode.onnx` was exported without
calling `eval()`; `never-updated.onnx` lost its running statistics, as after loading a checkpoint with `strict=False`.
"""

import copy
import warnings
from pathlib import Path

import onnx
import torch
import torch.nn.functional as F
from torch import nn

from bnmodel.data import load_sample

FOLDER = Path(__file__).parent


def network() -> nn.Module:
    """A CNN trained for four epochs on 1,000 digits."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 5, stride=2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )
    digits, optimiser = load_sample(train=True), torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(4):
        for batch in torch.randperm(len(digits)).split(50):
            optimiser.zero_grad()
            F.cross_entropy(model(digits.images[batch]), digits.labels[batch]).backward()
            optimiser.step()
    return model


def write(model: nn.Module, path: Path) -> None:
    """Export in the model's mode, without folding its batch norms."""
    mode = torch.onnx.TrainingMode.TRAINING if model.training else torch.onnx.TrainingMode.PRESERVE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.rand(2, 1, 28, 28),),
            str(path),
            dynamo=False,  # the newer exporter folds batch norms and ignores the mode
            training=mode,
            do_constant_folding=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
        )
    file = onnx.load(str(path))
    for node in file.graph.node:
        node.doc_string = ""
    onnx.save(file, str(path))


def main() -> None:
    trained = network()
    lost = copy.deepcopy(trained)
    for module in lost.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    for name, model, mode in (("sound", trained, False), ("train-mode", trained, True), ("never-updated", lost, False)):
        write(model.train(mode), FOLDER / f"{name}.onnx")


if __name__ == "__main__":
    main()
