"""The two networks of the lecture, each made from a small frozen config."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from bnmodel.batchnorm import CustomBatchNorm
from bnmodel.initializers import INITIALIZERS, initialize

ACTIVATIONS = {"relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}
NORM_PLACES = ("after", "before", "none")


def _require_positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}: expected at least 1, received {size}")


def _require_one_of(name: str, value: str, allowed) -> None:  # type: ignore[no-untyped-def]
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(allowed)}, received {value!r}")


@dataclass(frozen=True)
class SimpleMLPConfig:
    """One dense layer and its activation; biases start at zero."""

    in_features: int = 784
    out_features: int = 256
    activation: str = "relu"  # relu, sigmoid or tanh
    initializer: str = "he_normal"  # a name in INITIALIZERS

    def __post_init__(self) -> None:
        _require_positive(in_features=self.in_features, out_features=self.out_features)
        _require_one_of("activation", self.activation, ACTIVATIONS)
        _require_one_of("initializer", self.initializer, INITIALIZERS)


class SimpleMLP(nn.Module):
    """(N, in_features) → (N, out_features): what one layer makes of its input under an initialiser."""

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
    """The lecture's digit recogniser, and what may be varied of it."""

    norm: str = "after"  # batch norm after the activation (the lecture), "before" it (the paper), or "none"
    channels: tuple[int, int] = (10, 20)
    hidden: int = 50
    dropout: float = 0.5  # the share of activations dropped in training, in [0, 1)

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))  # JSON gives a list
        if len(self.channels) != 2:
            raise ValueError(f"channels: expected 2 widths, received {len(self.channels)}")
        _require_positive(first_channels=self.channels[0], second_channels=self.channels[1], hidden=self.hidden)
        _require_one_of("norm", self.norm, NORM_PLACES)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected a share in [0, 1), received {self.dropout}")


class ConvBlock(nn.Module):
    """Convolution 5×5, max-pool 2, ReLU and dropout, with the batch norm where the config puts it.

    norm="after":   convolution → max-pool → ReLU → batch norm → dropout
    norm="before":  convolution → batch norm → max-pool → ReLU → dropout

    Before the activation the norm stands right behind its convolution, so that it folds into it exactly (a negative
    γ would not commute with the max-pool).
    """

    def __init__(self, in_channels: int, out_channels: int, config: SimpleCNNConfig) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=5)
        self.norm = nn.Identity() if config.norm == "none" else CustomBatchNorm(out_channels)
        self.dropout = nn.Dropout(config.dropout)
        self.norm_before = config.norm == "before"

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, in, H, W) → (N, out, (H − 4) / 2, (W − 4) / 2), and what the batch norm received."""
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

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_with_norm_inputs(images)[0]

    def forward_with_norm_inputs(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """As `forward`, and what each batch norm received, by the norm's name: {"block1.norm": (N, C, H, W), …}."""
        x, norm1_input = self.block1(images)  # (N, 10, 12, 12)
        x, norm2_input = self.block2(x)  # (N, 20, 4, 4)
        x = torch.relu(self.dense1(x.flatten(1)))  # (N, 320) → (N, 50)
        log_probs = F.log_softmax(self.dense2(x), dim=1)  # (N, 10)
        return log_probs, {"block1.norm": norm1_input, "block2.norm": norm2_input}
