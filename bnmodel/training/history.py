"""The history of a run, one record per epoch, and early stopping."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bnmodel.io import read_checked, write_checked
from bnmodel.training.checkpoint import CheckpointError
from bnmodel.training.recipes import Recipe

HISTORY = "history.json"


@dataclass(frozen=True)
class Epoch:
    """One epoch. Losses are means over samples, in nats; accuracies are in [0, 1]."""

    epoch: int
    train_loss: float  # in training mode, while the weights change
    train_accuracy: float
    validation_loss: float  # in eval mode, at the end of the epoch
    validation_accuracy: float
    learning_rate: float
    seconds: float


@dataclass
class History:
    """All epochs so far. `stopped`: "finished", "early" (patience ran out) or "interrupted"."""

    epochs: list[Epoch] = field(default_factory=list)
    stopped: str = "interrupted"
    keeps_last: bool = False

    @property
    def best(self) -> Epoch:
        """The epoch whose weights are kept: the first with the lowest validation loss, or the last if `keeps_last`."""
        if self.keeps_last:
            return self.epochs[-1]
        return min(self.epochs, key=lambda epoch: epoch.validation_loss)

    @classmethod
    def read(cls, path: Path) -> "History":
        """Read a file written by `write`.

        Raises:
            CheckpointError: the file is missing, damaged, changed since it was written, or not a history.
        """
        try:
            content = read_checked(path)
            epochs = [Epoch(**epoch) for epoch in content["epochs"]]
            finite = all(math.isfinite(number) for epoch in epochs for number in asdict(epoch).values())
            if not epochs or not finite:
                raise ValueError("expected at least one epoch, and finite numbers")
            return cls(epochs, content["stopped"], content["recipe"].get("keeps_last", False))
        except FileNotFoundError:
            raise CheckpointError(f"{path}: no such file; python -m bnmodel train writes one") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{path}: damaged, or not the history of a run ({error!r}); restore it, or train again: "
                f"python -m bnmodel train --out {path.parent}"
            ) from error

    def write(self, path: Path, recipe: Recipe, dataset: str) -> None:
        """Write the history, with the recipe and a checksum, as JSON."""
        content: dict[str, Any] = {
            "recipe": recipe.to_dict(),
            "dataset": dataset,
            "stopped": self.stopped,
            "best_epoch": self.best.epoch,
            "best_validation_loss": self.best.validation_loss,
            "epochs": [asdict(epoch) for epoch in self.epochs],
        }
        write_checked(path, content)


class EarlyStopping:
    """Stop once the loss has not improved for `patience` epochs (Prechelt 1998)."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best = math.inf
        self.waited = 0

    def improved(self, loss: float) -> bool:
        """Record an epoch's loss; True if it is the best so far."""
        if loss < self.best:
            self.best, self.waited = loss, 0
            return True
        self.waited += 1
        return False

    @property
    def should_stop(self) -> bool:
        return self.waited >= self.patience
