"""Healthy networks: trained in usual ways, on several data sets, sizes and seeds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torchvision import models

from benchmarks.diagnosis import networks as zoo
from benchmarks.diagnosis.networks import Data
from bnmodel.nn.batchnorm import CustomBatchNorm


@dataclass(frozen=True)
class Healthy:
    """How to train a network without a fault; a `large` one with one seed only."""

    name: str
    build: Callable[[], nn.Module]
    data: Callable[[], Data] = zoo.digits
    options: dict[str, Any] = field(default_factory=dict)
    large: bool = False

    def trained(self, seed: int = 0) -> nn.Module:
        return zoo.trained(self.build, self.data(), seed, **self.options)


def flipped(x: Tensor) -> Tensor:
    return x.flip(-1)


def grayscale(build: Callable[..., nn.Module]) -> nn.Module:
    """One of torchvision's for ten classes and one input channel, without downsampling in the first layer."""
    model = build(num_classes=10)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            parent = model.get_submodule(name.rpartition(".")[0])
            new = nn.Conv2d(1, layer.out_channels, 3, padding=1, bias=layer.bias is not None)
            setattr(parent, name.rpartition(".")[2], new)
            return model
    raise ValueError("expected a convolution")


SGD = {"optimizer": zoo.sgd, "lr": 0.05, "schedule": True}
STEADY = {"lr": 1e-3, "schedule": True}

HEALTHY = (
    Healthy("cnn", lambda: zoo.cnn(), options={"steps": 88}),
    Healthy("cnn, 300 steps", lambda: zoo.cnn(), options={"steps": 300}),
    Healthy("cnn, wide", lambda: zoo.cnn(32), options={"steps": 120}),
    Healthy("cnn, narrow", lambda: zoo.cnn(4), options={"steps": 200}),
    Healthy("cnn, SGD", lambda: zoo.cnn(), options={"optimizer": zoo.sgd, "lr": 0.05, "steps": 150}),
    Healthy("cnn, SGD with cosine schedule", lambda: zoo.cnn(), options=SGD),
    Healthy("cnn, batches of 16", lambda: zoo.cnn(), options={"size": 16, "steps": 300}),
    Healthy("cnn, batches of 256", lambda: zoo.cnn(), options={"size": 256, "steps": 100}),
    Healthy("cnn, momentum 0.2", lambda: zoo.cnn(momentum=0.2)),
    Healthy("cnn, momentum 0.03", lambda: zoo.cnn(momentum=0.03), options={"steps": 400, "schedule": True}),
    Healthy("cnn, large learning rate", lambda: zoo.cnn(), options={"lr": 1e-2, "steps": 150, "schedule": True}),
    Healthy("cnn, no γ and β", lambda: zoo.cnn(affine=False), options={"steps": 200}),
    Healthy("cnn, CustomBatchNorm", lambda: zoo.cnn(norm=CustomBatchNorm)),
    Healthy("norm after ReLU, dropout", lambda: zoo.relu_first(), options={"steps": 300}),
    Healthy("norm after ReLU, wide", lambda: zoo.relu_first(24), options={"steps": 200, "lr": 1e-3}),
    Healthy("mlp", lambda: zoo.mlp(64), options={"steps": 200}),
    Healthy("mlp, input normalised", lambda: zoo.mlp(64, input_norm=True), options={"steps": 200}),
    Healthy("mlp, deep", lambda: zoo.mlp(64, depth=6), options={"steps": 300, "lr": 1e-3}),
    Healthy("mlp, wide", lambda: zoo.mlp(64, width=512), options={"steps": 150, "lr": 1e-3}),
    Healthy("resnet", lambda: zoo.resnet(), options={"steps": 200, "schedule": True}),
    Healthy("resnet, zero-init residual", lambda: zoo.resnet(zero_init=True), options={"steps": 250, "schedule": True}),
    Healthy("resnet, deep, SGD", lambda: zoo.resnet(8, 5), options={**SGD, "steps": 200}),
    Healthy("LSTM", lambda: zoo.Recurrent(), options={"steps": 300}),
    Healthy("siamese, same inputs", lambda: zoo.Siamese(flipped), options={"steps": 120}),
    Healthy("regression", lambda: zoo.mlp(10, 1, input_norm=True), zoo.regression, {"steps": 400}),
    Healthy("regression, deep", lambda: zoo.mlp(10, 1, 32, 4), zoo.regression, {"steps": 400, "lr": 1e-3}),
    Healthy("U-Net", lambda: zoo.UNet(), zoo.segmentation, {"steps": 120}),
    Healthy("U-Net, batches of 8", lambda: zoo.UNet(), zoo.segmentation, {"steps": 200, "size": 8, "schedule": True}),
    Healthy("MNIST cnn", lambda: zoo.cnn(8), zoo.mnist, {"steps": 120, "size": 32}),
    Healthy("MNIST mlp", lambda: zoo.mlp(784), zoo.mnist, {"steps": 150, "size": 50}),
    Healthy("MNIST, norm after ReLU", lambda: zoo.relu_first(8), zoo.mnist, {"steps": 120}),
    Healthy("resnet18", lambda: grayscale(models.resnet18), options={**STEADY, "steps": 60}, large=True),
    Healthy(
        "mobilenet_v3_small",
        lambda: grayscale(models.mobilenet_v3_small),
        options={**STEADY, "steps": 1200, "size": 32},
        large=True,
    ),
)


def handed_in(model: nn.Module, data: Data) -> Iterator[tuple[str, nn.Module, list[Any]]]:
    """The same network passed in different ways: modes, batch sizes, few samples, no targets."""
    inputs, targets = data.test
    ways = {
        "64": data.batches(64),
        "without targets": list(inputs.split(64)),
        "60 samples": data.batches(20)[:3],
        "60 samples without targets": list(inputs[:60].split(20)),
        "batches of 4": data.batches(4),
        "batches of 4 without targets": list(inputs.split(4)),
        "20 samples without targets": [inputs[:20]],
        "batches of 1": list(zip(inputs[:100].split(1), targets[:100].split(1), strict=True)),
        "training data": data.batches(64, "train"),
    }
    for way, batches in ways.items():
        yield way, model.eval(), batches
    yield "in train mode", model.train(), data.batches(64)
