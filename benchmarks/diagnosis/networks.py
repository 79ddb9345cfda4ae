"""Small networks of varied architecture and data, and their training, for the benchmark and tests of `diagnose`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Batches = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Data:
    """Training and test inputs and targets; `loss` of (outputs, targets)."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    loss: Callable[[Any, Tensor], Tensor]

    def batches(self, size: int = 64, part: str = "test") -> Batches:
        """The data in order, in batches of `size`; a last batch of one sample is left out."""
        inputs, targets = getattr(self, part)
        return [pair for pair in zip(inputs.split(size), targets.split(size), strict=True) if len(pair[0]) > 1]


@lru_cache(maxsize=1)
def digits() -> Data:
    """scikit-learn's 8×8 digits, (N, 1, 8, 8) standardised."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(found.images, dtype=torch.float32)[order].unsqueeze(1) / 8 - 1
    y = torch.tensor(found.target)[order]
    return Data((x[:1297], y[:1297]), (x[1297:], y[1297:]), F.cross_entropy)


@lru_cache(maxsize=1)
def mnist() -> Data:
    """The sample of MNIST that ships with bnmodel, (N, 1, 28, 28)."""
    from bnmodel.data import load_sample

    train, test = load_sample(train=True), load_sample(train=False)
    return Data((train.images, train.labels), (test.images, test.labels), F.cross_entropy)


@lru_cache(maxsize=1)
def regression() -> Data:
    """Friedman's first function of 10 features (Friedman 1991), (N, 10) → (N, 1)."""
    x = torch.rand(2000, 10, generator=torch.Generator().manual_seed(1))
    y = 10 * (torch.pi * x[:, 0] * x[:, 1]).sin() + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    y = ((y - y.mean()) / y.std()).unsqueeze(1)
    x = x * torch.arange(1, 11) + 3
    return Data((x[:1500], y[:1500]), (x[1500:], y[1500:]), F.mse_loss)


@lru_cache(maxsize=1)
def segmentation() -> Data:
    """Which pixels of a noisy digit are ink, (N, 1, 8, 8) → (N, 8, 8)."""
    base = digits()
    generator = torch.Generator().manual_seed(2)

    def noisy(x: Tensor) -> tuple[Tensor, Tensor]:
        return x + 0.7 * torch.randn(x.shape, generator=generator), (x[:, 0] > 0).long()

    return Data(noisy(base.train[0]), noisy(base.test[0]), F.cross_entropy)


def cnn(width: int = 12, norm: Callable[..., nn.Module] = nn.BatchNorm2d, **options: Any) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        norm(width, **options),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        norm(2 * width, **options),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.LazyLinear(32),
        nn.BatchNorm1d(32, **options),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


def relu_first(width: int = 12, **options: Any) -> nn.Module:
    """Batch norm after the activation, with dropout."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3),
        nn.ReLU(),
        nn.BatchNorm2d(width, **options),
        nn.Dropout2d(0.1),
        nn.Conv2d(width, 2 * width, 3),
        nn.ReLU(),
        nn.BatchNorm2d(2 * width, **options),
        nn.Flatten(),
        nn.LazyLinear(48),
        nn.ReLU(),
        nn.BatchNorm1d(48, **options),
        nn.Dropout(0.3),
        nn.Linear(48, 10),
    )


def mlp(
    inputs: int, outputs: int = 10, width: int = 64, depth: int = 2, input_norm: bool = False, **options: Any
) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    layers += [nn.BatchNorm1d(inputs, **options)] if input_norm else []
    for index in range(depth):
        layers += [nn.Linear(width if index else inputs, width), nn.BatchNorm1d(width, **options), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


class Residual(nn.Module):
    def __init__(self, width: int, zero_init: bool = False, **options: Any) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, **options)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width, **options)
        if zero_init:
            nn.init.zeros_(self.bn2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


def resnet(width: int = 12, blocks: int = 2, zero_init: bool = False, **options: Any) -> nn.Module:
    stem = [nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width, **options), nn.ReLU()]
    body = [Residual(width, zero_init, **options) for _ in range(blocks)]
    return nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


class UNet(nn.Module):
    def __init__(self, width: int = 8, classes: int = 2, **options: Any) -> None:
        super().__init__()

        def block(inputs: int, outputs: int) -> nn.Module:
            return nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs, **options), nn.ReLU()
            )

        self.down1, self.down2, self.up = block(1, width), block(width, 2 * width), block(3 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.down1(x)
        coarse = F.interpolate(self.down2(F.max_pool2d(fine, 2)), scale_factor=2.0)
        return self.head(self.up(torch.cat([fine, coarse], 1)))


class Recurrent(nn.Module):
    """Rows of the image as a sequence; batch norm over (N, C, L) inputs and over the last state."""

    def __init__(self, rows: int = 8, width: int = 32, **options: Any) -> None:
        super().__init__()
        self.bn_in = nn.BatchNorm1d(rows, **options)
        self.lstm = nn.LSTM(rows, width, batch_first=True)
        self.bn_out = nn.BatchNorm1d(width, **options)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        sequence = self.bn_in(x.squeeze(1).transpose(1, 2)).transpose(1, 2)
        return self.head(self.bn_out(self.lstm(sequence)[0][:, -1]))


class Siamese(nn.Module):
    """One branch for two inputs: the digit and `second` of it."""

    def __init__(self, second: Callable[[Tensor], Tensor], **options: Any) -> None:
        super().__init__()
        self.second = second
        self.branch = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12, **options), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
        )
        self.head = nn.Sequential(nn.LazyLinear(32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.branch(x), self.branch(self.second(x))], 1))


def built(build: Callable[[], nn.Module], data: Data, seed: int = 0) -> nn.Module:
    """The network with `seed`, its lazy modules initialised."""
    torch.manual_seed(seed)
    model = build()
    model.eval()
    with torch.no_grad():
        model(data.train[0][:2])
    return model.train()


def shuffled(data: Data, size: int, steps: int, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """`steps` batches of training data, shuffled every epoch; incomplete ones are dropped."""
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = data.train
    done = 0
    while done < steps:
        for index in torch.randperm(len(inputs), generator=generator).split(size):
            if len(index) < size or done == steps:
                break
            yield inputs[index], targets[index]
            done += 1


def train(
    model: nn.Module,
    data: Data,
    steps: int = 120,
    size: int = 64,
    lr: float = 3e-3,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    schedule: bool = False,
    seed: int = 0,
) -> nn.Module:
    """Train in the usual loop; the model stays in train mode."""
    own = optimizer(model.parameters(), lr=lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(own, steps) if schedule else None
    model.train()
    for inputs, targets in shuffled(data, size, steps, seed):
        own.zero_grad()
        data.loss(model(inputs), targets).backward()
        own.step()
        if decay is not None:
            decay.step()
    return model


def sgd(parameters: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=5e-4)


def trained(build: Callable[[], nn.Module], data: Data, seed: int = 0, **options: Any) -> nn.Module:
    return train(built(build, data, seed), data, seed=seed, **options)


def cnn_of_digits() -> nn.Module:
    """A factory without arguments, for the command line."""
    return built(cnn, digits())
