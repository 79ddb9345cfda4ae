"""The networks: SimpleMLP and SimpleCNN of the lecture, and RobustCNN. Each has a frozen config."""

from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from bnmodel.nn.batchnorm import CustomBatchNorm
from bnmodel.nn.dropout import Dropout
from bnmodel.nn.init import INITIALIZERS, initialize

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}
NORM_PLACES = ("after", "before", "none")


def _require_positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if not isinstance(size, int):
            raise ValueError(f"{name}: expected an integer, received {size!r}")
        if size < 1:
            raise ValueError(f"{name}: expected at least 1, received {size}")


def _require_one_of(name: str, value: str, allowed: Collection[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(allowed)}, received {value!r}")


def _require_share(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{name}: expected a share in [0, 1), received {value}")


@dataclass(frozen=True)
class SimpleMLPConfig:
    """Configuration of SimpleMLP."""

    in_features: int = 784
    out_features: int = 256
    activation: str = "relu"  # relu, sigmoid or tanh
    initializer: str = "he_normal"  # a name in INITIALIZERS

    def __post_init__(self) -> None:
        _require_positive(in_features=self.in_features, out_features=self.out_features)
        _require_one_of("activation", self.activation, ACTIVATIONS)
        _require_one_of("initializer", self.initializer, INITIALIZERS)


class SimpleMLP(nn.Module):
    """One dense layer and its activation: (N, in_features) → (N, out_features). The bias starts at zero."""

    def __init__(self, config: SimpleMLPConfig = SimpleMLPConfig(), generator: Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.dense = nn.Linear(config.in_features, config.out_features)
        initialize(self.dense.weight, config.initializer, generator)
        nn.init.zeros_(self.dense.bias)

    def forward(self, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.config.activation](self.dense(x))


@dataclass(frozen=True)
class SimpleCNNConfig:
    """Configuration of SimpleCNN; the defaults are the lecture's."""

    norm: str = "after"  # batch norm after the activation (the lecture), "before" it (the paper), or "none"
    channels: tuple[int, int] = (10, 20)
    hidden: int = 50
    dropout: float = 0.5  # probability of dropping an activation in training, in [0, 1)
    initializer: str | None = None  # a name in INITIALIZERS, with zero biases; None: PyTorch's default

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))  # JSON gives a list
        if len(self.channels) != 2:
            raise ValueError(f"channels: expected 2 widths, received {len(self.channels)}")
        _require_positive(first_channels=self.channels[0], second_channels=self.channels[1], hidden=self.hidden)
        _require_one_of("norm", self.norm, NORM_PLACES)
        _require_share("dropout", self.dropout)
        if self.initializer is not None:
            _require_one_of("initializer", self.initializer, INITIALIZERS)


class ConvBlock(nn.Module):
    """Convolution 5×5, max-pool 2, ReLU and dropout, with batch norm at one of two positions.

    norm="after":   convolution → max-pool → ReLU → batch norm → dropout
    norm="before":  convolution → batch norm → max-pool → ReLU → dropout

    With "before" the norm directly follows the convolution, into which it folds exactly. After the max-pool it would
    not fold, since the two do not commute where γ is negative.
    """

    def __init__(self, in_channels: int, out_channels: int, config: SimpleCNNConfig) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=5)
        self.norm = nn.Identity() if config.norm == "none" else CustomBatchNorm(out_channels)
        self.dropout = Dropout(config.dropout)
        self.norm_before = config.norm == "before"

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, in, H, W) → (N, out, (H − 4) / 2, (W − 4) / 2), and the input of the batch norm."""
        if self.norm_before:
            norm_input = self.conv(x)
            x = torch.relu(F.max_pool2d(self.norm(norm_input), 2))
        else:
            norm_input = torch.relu(F.max_pool2d(self.conv(x), 2))
            x = self.norm(norm_input)
        return self.dropout(x), norm_input


class SimpleCNN(nn.Module):
    """Two convolution blocks and two dense layers: (N, 1, 28, 28) in [0, 1], ink bright → (N, 10) log-probabilities."""

    def __init__(self, config: SimpleCNNConfig = SimpleCNNConfig()) -> None:
        super().__init__()
        self.config = config
        first, second = config.channels
        self.block1 = ConvBlock(1, first, config)
        self.block2 = ConvBlock(first, second, config)
        self.dense1 = nn.Linear(second * 4 * 4, config.hidden)
        self.dense2 = nn.Linear(config.hidden, 10)
        if config.initializer is not None:
            for layer in (self.block1.conv, self.block2.conv, self.dense1, self.dense2):
                initialize(layer.weight, config.initializer)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_with_norm_inputs(images)[0]

    def forward_with_norm_inputs(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The output of `forward`, and the input of each batch norm by name: {"block1.norm": (N, C, H, W), …}."""
        x, norm1_input = self.block1(images)  # (N, 10, 12, 12)
        x, norm2_input = self.block2(x)  # (N, 20, 4, 4)
        x = torch.relu(self.dense1(x.flatten(1)))  # (N, 320) → (N, 50)
        log_probs = F.log_softmax(self.dense2(x), dim=1)  # (N, 10)
        return log_probs, {"block1.norm": norm1_input, "block2.norm": norm2_input}


@dataclass(frozen=True)
class RobustCNNConfig:
    """Configuration of RobustCNN."""

    norm: str = "before"  # batch norm before the activation, where it folds into its convolution; or "none"
    channels: tuple[int, int, int] = (48, 96, 192)
    dropout: float = 0.3  # before the dense layer: probability of dropping an activation in training, in [0, 1)

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))  # JSON gives a list
        if len(self.channels) != 3:
            raise ValueError(f"channels: expected 3 widths, received {len(self.channels)}")
        first, second, third = self.channels
        _require_positive(first_channels=first, second_channels=second, third_channels=third)
        _require_one_of("norm", self.norm, ("before", "none"))
        _require_share("dropout", self.dropout)


class RobustCNN(nn.Module):
    """Five convolutions and a dense layer: (N, 1, 28, 28) in [0, 1], ink bright → (N, 10) log-probabilities."""

    def __init__(self, config: RobustCNNConfig = RobustCNNConfig()) -> None:
        super().__init__()
        self.config = config
        first, second, third = config.channels

        def convolution(in_channels: int, out_channels: int, size: int, padding: int) -> nn.Sequential:
            normed = config.norm == "before"
            norm = CustomBatchNorm(out_channels) if normed else nn.Identity()
            conv = nn.Conv2d(in_channels, out_channels, size, padding=padding, bias=not normed)  # β is its bias
            return nn.Sequential(OrderedDict(conv=conv, norm=norm, activation=nn.ReLU()))

        self.conv1 = convolution(1, first, 5, 0)
        self.conv2 = convolution(first, second, 3, 0)
        self.conv3 = convolution(second, second, 3, 1)
        self.conv4 = convolution(second, third, 3, 1)
        self.conv5 = convolution(third, third, 3, 0)
        self.dropout = Dropout(config.dropout)
        self.dense = nn.Linear(third * 3 * 3, 10)
        self.to(memory_format=torch.channels_last)  # a training step takes a third less time

    def forward(self, images: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv1(images), 2)  # (N, 48, 12, 12)
        x = F.max_pool2d(self.conv3(self.conv2(x)), 2)  # (N, 96, 10, 10) → (N, 96, 5, 5)
        x = self.conv5(self.conv4(x))  # (N, 192, 5, 5) → (N, 192, 3, 3)
        return F.log_softmax(self.dense(self.dropout(x.flatten(1))), dim=1)


NETWORKS: dict[str, tuple[type, type]] = {
    "SimpleCNN": (SimpleCNN, SimpleCNNConfig),
    "RobustCNN": (RobustCNN, RobustCNNConfig),
}
"""The digit recognisers by name, with their configs."""

Network = SimpleCNN | RobustCNN


def build(config: SimpleCNNConfig | RobustCNNConfig) -> Network:
    """A new network of this config."""
    return SimpleCNN(config) if isinstance(config, SimpleCNNConfig) else RobustCNN(config)
