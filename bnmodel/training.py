"""Training with early stopping: the best epoch is kept, saved and restored."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from bnmodel.checkpoint import CheckpointError, copy_state, load_plain, save_checkpoint
from bnmodel.data import Digits
from bnmodel.files import atomic_write
from bnmodel.models import SimpleCNN
from bnmodel.recipes import Recipe

EVALUATION_BATCH = 100  # fixed, so that the loss is the same to the last bit; this small, it stays in the cache


class TrainingError(Exception):
    """The training cannot go on; the message says at which epoch and what to change."""


@dataclass(frozen=True)
class Epoch:
    """Losses are means over samples, in nats; accuracies are shares in [0, 1]."""

    epoch: int
    train_loss: float  # in training mode, while the weights move
    train_accuracy: float
    validation_loss: float  # in eval mode, at the end of the epoch
    validation_accuracy: float
    learning_rate: float
    seconds: float


@dataclass
class History:
    """What happened, epoch by epoch. `stopped`: "finished", "early" (patience ran out) or "interrupted"."""

    epochs: list[Epoch] = field(default_factory=list)
    stopped: str = "interrupted"

    @property
    def best(self) -> Epoch:
        """The epoch of the lowest validation loss, the first of equals."""
        return min(self.epochs, key=lambda epoch: epoch.validation_loss)


class EarlyStopping:
    """Stops once the loss has not fallen below its best for `patience` epochs (Prechelt 1998)."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best = math.inf
        self.waited = 0

    def improved(self, loss: float) -> bool:
        """Note this epoch's loss; True where it is the best so far."""
        if loss < self.best:
            self.best, self.waited = loss, 0
            return True
        self.waited += 1
        return False

    @property
    def should_stop(self) -> bool:
        return self.waited >= self.patience


def train_from_scratch(
    recipe: Recipe,
    train: Digits,
    validation: Digits,
    dataset: str,
    out: Path | str | None = None,
    resume: bool = False,
    device: str = "auto",
    progress: bool = True,
) -> tuple[SimpleCNN, History]:
    """A new network by `recipe`, from its seed alone: the same call gives the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = SimpleCNN(recipe.model)
        history = fit(model, train, validation, recipe, dataset, out, resume, device, progress)
    return model, history


def fit(
    model: SimpleCNN,
    train: Digits,
    validation: Digits,
    recipe: Recipe,
    dataset: str = "",
    out: Path | str | None = None,
    resume: bool = False,
    device: str = "auto",
    progress: bool = True,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> History:
    """Train `model` in place and leave it in eval mode with the weights and running statistics of its best epoch.

    Args:
        out: folder for best.pt (at every improvement), training.pt (at every epoch) and history.json; None: no files.
        resume: go on from `out`/training.pt where there is one.
        device: "auto" takes CUDA, then MPS, then the CPU.
        on_epoch: called after every epoch.

    Ctrl-C ends the training cleanly after at least one epoch; the best so far is kept.

    Raises:
        TrainingError: the loss is not finite. Best and history are saved up to then.
        CheckpointError: the training to resume was of another recipe, or its file is damaged.
    """
    target = _pick_device(device)
    model.to(target)
    train, validation = train.to(target), validation.to(target)
    run = _Run(model, recipe, math.ceil(len(train) / recipe.batch_size))
    out = Path(out) if out is not None else None
    if resume and out is not None and (out / "training.pt").exists():
        run.restore(out / "training.pt")
    bar = tqdm(
        total=recipe.epochs, initial=len(run.history.epochs), desc=recipe.name, unit="epoch", disable=not progress
    )
    try:
        while len(run.history.epochs) < recipe.epochs and not run.stopping.should_stop:
            epoch = run.one_epoch(train, validation)
            run.save(out, dataset)
            bar.update()
            bar.write(_describe(epoch)) if progress else None
            if on_epoch is not None:
                on_epoch(epoch)
        run.history.stopped = "early" if run.stopping.should_stop else "finished"
    except KeyboardInterrupt:
        if not run.history.epochs:
            raise
        bar.write(f"Interrupted after epoch {len(run.history.epochs)}; the best so far is kept.")
    finally:
        bar.close()
        model.load_state_dict(run.best_state)
        model.eval().to("cpu")
        if out is not None and run.history.epochs:
            write_history(out / "history.json", run.history, recipe, dataset)
    return run.history


class _Run:
    """What a training carries from epoch to epoch."""

    def __init__(self, model: SimpleCNN, recipe: Recipe, steps_per_epoch: int) -> None:
        self.model, self.recipe = model, recipe
        self.optimizer = torch.optim.SGD(
            model.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.momentum > 0,
            weight_decay=recipe.weight_decay,
        )
        self.scheduler: torch.optim.lr_scheduler.LRScheduler
        if recipe.schedule == "one_cycle":
            self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
                self.optimizer, recipe.learning_rate, total_steps=recipe.epochs * steps_per_epoch
            )
        else:
            self.scheduler = torch.optim.lr_scheduler.ConstantLR(self.optimizer, factor=1.0)
        self.stopping = EarlyStopping(recipe.patience)
        self.history = History()
        self.best_state = copy_state(model)
        self.shuffling = torch.Generator().manual_seed(recipe.seed)

    def one_epoch(self, train: Digits, validation: Digits) -> Epoch:
        started, number = time.perf_counter(), len(self.history.epochs) + 1
        learning_rate = self.optimizer.param_groups[0]["lr"]
        train_loss, train_accuracy = self._train_epoch(train)
        validation_loss, validation_accuracy = evaluate(self.model, validation)
        if not math.isfinite(train_loss + validation_loss):
            raise TrainingError(
                f"epoch {number}: the loss is not finite at learning rate {learning_rate:g}; lower the learning rate. "
                f"The best of the {number - 1} epochs before is kept."
            )
        seconds = time.perf_counter() - started
        epoch = Epoch(
            number, train_loss, train_accuracy, validation_loss, validation_accuracy, learning_rate, round(seconds, 3)
        )
        self.history.epochs.append(epoch)
        if self.stopping.improved(validation_loss):
            self.best_state = copy_state(self.model)
        return epoch

    def _train_epoch(self, train: Digits) -> tuple[float, float]:
        """One pass in random order; sample-weighted mean loss and accuracy. One synchronisation, at the end."""
        self.model.train()
        totals = torch.zeros(2, device=train.labels.device)
        order = torch.randperm(len(train), generator=self.shuffling).to(train.labels.device)
        for index in order.split(self.recipe.batch_size):
            images, labels = train.images[index], train.labels[index]
            log_probs = self.model(images)
            loss = F.nll_loss(log_probs, labels)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            totals += torch.stack((loss.detach() * len(index), (log_probs.detach().argmax(1) == labels).sum()))
        mean_loss, accuracy = (totals / len(train)).tolist()
        return mean_loss, accuracy

    def save(self, out: Path | None, dataset: str) -> None:
        """best.pt if this epoch was the best, and training.pt, from which the training goes on as if never stopped."""
        if out is None:
            return
        latest = self.history.epochs[-1]
        if latest is self.history.best:
            save_checkpoint(out / "best.pt", self.model, self.recipe.to_dict(), asdict(latest), dataset)
        state = {
            "recipe": self.recipe.to_dict(),
            "epochs": [asdict(epoch) for epoch in self.history.epochs],
            "model": self.model.state_dict(),
            "best": self.best_state,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "random": torch.get_rng_state(),
            "shuffling": self.shuffling.get_state(),
            "waited": self.stopping.waited,
        }
        with atomic_write(out / "training.pt") as temporary:
            torch.save(state, temporary)

    def restore(self, path: Path) -> None:
        state = load_plain(path)
        free = {"patience"} if self.recipe.schedule == "one_cycle" else {"epochs", "patience"}  # a cycle has a length
        before = state["recipe"]
        changed = {k for k, v in self.recipe.to_dict().items() if k not in free and before.get(k) != v}
        if changed:
            raise CheckpointError(
                f"{path}: was started with another {', '.join(sorted(changed))}; resume with the same recipe, or train "
                f"into another folder"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.best_state = state["best"]
        self.history = History([Epoch(**epoch) for epoch in state["epochs"]])
        self.stopping.best, self.stopping.waited = self.history.best.validation_loss, state["waited"]
        torch.set_rng_state(state["random"])
        self.shuffling.set_state(state["shuffling"])


def predict_log_probs(model: nn.Module, images: Tensor) -> Tensor:
    """(N, 1, 28, 28) → (N, 10), in eval mode and in fixed batches; the model's mode is put back."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            return torch.cat([model(batch) for batch in images.split(EVALUATION_BATCH)])
    finally:
        model.train(was_training)


def evaluate(model: nn.Module, digits: Digits) -> tuple[float, float]:
    """Mean loss (nats) and accuracy in eval mode, every sample counting the same."""
    log_probs = predict_log_probs(model, digits.images)
    loss = (
        F.nll_loss(log_probs.double(), digits.labels)
        if log_probs.device.type != "mps"
        else F.nll_loss(log_probs, digits.labels)
    )
    return loss.item(), (log_probs.argmax(1) == digits.labels).double().mean().item()


def write_history(path: Path, history: History, recipe: Recipe, dataset: str) -> None:
    content: dict[str, Any] = {
        "recipe": recipe.to_dict(),
        "dataset": dataset,
        "stopped": history.stopped,
        "best_epoch": history.best.epoch,
        "best_validation_loss": history.best.validation_loss,
        "epochs": [asdict(epoch) for epoch in history.epochs],
    }
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def _pick_device(device: str) -> torch.device:
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _describe(epoch: Epoch) -> str:
    return (
        f"epoch {epoch.epoch:3d}  train loss {epoch.train_loss:.4f}  validation loss {epoch.validation_loss:.4f}  "
        f"validation accuracy {epoch.validation_accuracy:.2%}  {epoch.seconds:.1f} s"
    )
