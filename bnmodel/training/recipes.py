"""Training presets. Recipes are the only source of defaults; the command line is derived from them."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from bnmodel.nn.models import RobustCNNConfig, SimpleCNNConfig

SCHEDULES = ("constant", "one_cycle")


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a run, except the data."""

    name: str
    epochs: int  # at most
    patience: int  # epochs without improvement of the validation loss before training stops
    batch_size: int = 64
    learning_rate: float = 0.01  # the peak, for one_cycle
    momentum: float = 0.0  # Nesterov momentum of SGD
    weight_decay: float = 1e-4
    schedule: str = "constant"  # constant or one_cycle (Smith 2018, arXiv 1803.09820)
    averaging: int = 0  # number of last epochs, at a tenth of the rate, that are averaged (arXiv 1803.05407)
    seed: int = 0
    keeps_last: bool = False  # keep the last epoch, not the one with the lowest validation loss
    augmented: float = 0.0  # share of the digits that are augmented in every epoch, in [0, 1]
    plain: int = 0  # number of last epochs without augmentation
    channels_last: bool = False  # memory format of the network; faster on CPUs with many channels
    outliers: float = 0.0  # outliers (letters, scribbles, pairs) per digit, in [0, 1]
    calibrated: bool = False  # fit a temperature on the validation digits at the end
    model: SimpleCNNConfig | RobustCNNConfig = field(default_factory=SimpleCNNConfig)

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, received {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate: expected a number > 0, received {self.learning_rate}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: expected a number in [0, 1), received {self.momentum}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay: expected a number ≥ 0, received {self.weight_decay}")
        for name in ("augmented", "outliers"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a share in [0, 1], received {getattr(self, name)}")
        if not 0 <= self.averaging < self.epochs:
            raise ValueError(
                f"averaging: expected 0 … {self.epochs - 1} of the {self.epochs} epochs, received {self.averaging}"
            )
        if not 0 <= self.plain <= self.epochs:
            raise ValueError(f"plain: expected 0 … {self.epochs} epochs, received {self.plain}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule: expected one of {', '.join(SCHEDULES)}, received {self.schedule!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON and checkpoints."""
        return asdict(self)


LECTURE = Recipe("lecture", epochs=100, patience=20)
FAST = Recipe(
    "fast",
    epochs=2,
    patience=2,
    batch_size=128,
    learning_rate=0.2,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="one_cycle",
    channels_last=True,
    model=SimpleCNNConfig(dropout=0.0),  # two epochs are too few to overfit
)
SPRINT = Recipe(
    "sprint",
    epochs=1,
    patience=1,
    batch_size=96,
    learning_rate=0.2,
    momentum=0.9,
    schedule="one_cycle",
    channels_last=True,
    model=SimpleCNNConfig(channels=(8, 32), hidden=128, dropout=0.0),
)
ROBUST = Recipe(
    "robust",
    epochs=95,
    patience=95,
    batch_size=128,
    learning_rate=0.1,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="one_cycle",
    averaging=15,
    keeps_last=True,
    augmented=0.5,
    plain=5,
    outliers=0.15,
    calibrated=True,
    model=RobustCNNConfig(),
)
RECIPES = {recipe.name: recipe for recipe in (LECTURE, FAST, SPRINT, ROBUST)}
