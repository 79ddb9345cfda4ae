"""Training with early stopping: the best epoch is kept, saved and restored."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from tqdm import tqdm

from bnmodel import distributed
from bnmodel.augmentation import augment, outliers
from bnmodel.calibration import calibration_error, fit_temperature, fold_temperature
from bnmodel.checkpoint import CheckpointError, copy_state, load_plain, save_checkpoint
from bnmodel.data import Digits
from bnmodel.dropout import draw_from
from bnmodel.files import atomic_write
from bnmodel.history import EarlyStopping, Epoch, History
from bnmodel.models import Network, build
from bnmodel.recipes import Recipe

OUTLIER_WEIGHT = 0.5  # of outliers in the loss, against that of digits
EVALUATION_BATCH = 100  # fixed, so that the loss is the same to the last bit; this small, it stays in the cache
_global_random_state = threading.Lock()


class TrainingError(Exception):
    """The training cannot go on; the message says at which epoch and what to change."""


def train_from_scratch(
    recipe: Recipe,
    train: Digits,
    validation: Digits,
    dataset: str,
    out: Path | str | None = None,
    resume: bool = False,
    device: str = "auto",
    progress: bool = True,
) -> tuple[Network, History]:
    """A new network by `recipe`, from its seed alone: the same call gives the same weights."""
    model, generator = new_network(recipe)
    history = fit(model, train, validation, recipe, dataset, out, resume, device, progress, generator=generator)
    return model, history


def new_network(recipe: Recipe) -> tuple[Network, Generator]:
    """An untrained network, and what its dropout is to draw from; both by the recipe's seed alone."""
    # PyTorch's layers draw their weights from the global state; it is put back, and one thread at a time uses it
    with _global_random_state, torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = build(recipe.model)
        generator = Generator()
        generator.set_state(torch.get_rng_state())
    return model, generator


def fit(
    model: Network,
    train: Digits,
    validation: Digits,
    recipe: Recipe,
    dataset: str = "",
    out: Path | str | None = None,
    resume: bool = False,
    device: str = "auto",
    progress: bool = True,
    on_epoch: Callable[[Epoch], None] | None = None,
    generator: Generator | None = None,
) -> History:
    """Train `model` in place and leave it in eval mode with the weights and running statistics of its best epoch.

    Args:
        out: folder for best.pt (at every improvement), training.pt (at every epoch) and history.json; None: no files.
        resume: go on from `out`/training.pt where there is one.
        device: "auto" takes CUDA, then MPS, then the CPU.
        on_epoch: called after every epoch.
        generator: what dropout and augmentation draw from; None: one seeded by the recipe.

    Ctrl-C ends the training cleanly after at least one epoch; the best so far is kept. In a process group (see
    `distributed.py`) the first process alone writes files and shows the progress.

    Raises:
        TrainingError: the loss is not finite. Best and history are saved up to then.
        CheckpointError: the training to resume was of another recipe, or its file is damaged.
    """
    training = Training(model, train, validation, recipe, device, generator)
    out = Path(out) if out is not None else None
    if resume and out is not None and (out / "training.pt").exists():
        training.restore(out / "training.pt")
    if distributed.rank() > 0:
        out, progress = None, False
    history = training.history
    bar = tqdm(total=recipe.epochs, initial=len(history.epochs), desc=recipe.name, unit="epoch", disable=not progress)
    try:
        for epoch in training.epochs():
            training.save(out, dataset)
            bar.update()
            bar.write(_describe(epoch)) if progress else None
            if on_epoch is not None:
                on_epoch(epoch)
    except KeyboardInterrupt:
        if not history.epochs:
            raise
        bar.write(f"Interrupted after epoch {len(history.epochs)}; the best so far is kept.")
    finally:
        bar.close()
        training.finish()
        if out is not None and history.epochs:
            history.write(out / "history.json", recipe, dataset)
    if recipe.calibrated and history.stopped != "interrupted":
        results = calibrate(model, validation)
        if out is not None:
            save_checkpoint(out / "best.pt", model, recipe.to_dict(), asdict(history.best) | results, dataset)
    return history


def calibrate(model: Network, validation: Digits) -> dict[str, float]:
    """Fit a temperature on `validation` and fold it into `model`; what this did to its loss and calibration error."""
    before = predict_log_probs(model, validation.images)
    temperature = fit_temperature(before, validation.labels)
    fold_temperature(model, temperature)
    after = predict_log_probs(model, validation.images)
    return {
        "validation_loss": evaluate(model, validation)[0],
        "temperature": temperature,
        "calibration_error_before": calibration_error(before, validation.labels),
        "calibration_error": calibration_error(after, validation.labels),
    }


class Training:
    """A training as something to step through: `fit` writes its files, a page shows each epoch as it comes.

    for epoch in Training(model, train, validation, recipe).epochs(): ...   and then `finish()`
    """

    def __init__(
        self,
        model: Network,
        train: Digits,
        validation: Digits,
        recipe: Recipe,
        device: str = "auto",
        generator: Generator | None = None,
    ) -> None:
        target = _pick_device(device)
        self.model, self.recipe = model.to(target), recipe
        if recipe.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.train, self.validation = train.to(target), validation.to(target)
        # of dropout and augmentation, which draw on the device; the order of the samples is the same on every device
        self.random = generator or Generator().manual_seed(recipe.seed)
        if target.type != "cpu":
            self.random = Generator(target).manual_seed(self.random.initial_seed())
        if distributed.rank() > 0:
            self.random.manual_seed(recipe.seed + distributed.rank())
        draw_from(model, self.random)
        self.network = distributed.parallel(self.model)  # what is trained; the same, but where there are processes
        self.optimizer = torch.optim.SGD(
            model.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.momentum > 0,
            weight_decay=recipe.weight_decay,
        )
        self.scheduler: torch.optim.lr_scheduler.LRScheduler
        if recipe.schedule == "one_cycle":
            steps = recipe.epochs * math.ceil(len(train) / recipe.batch_size)
            self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
                self.optimizer, recipe.learning_rate, total_steps=steps
            )
        else:
            self.scheduler = torch.optim.lr_scheduler.ConstantLR(self.optimizer, factor=1.0)
        self.stopping = EarlyStopping(recipe.patience)
        self.history = History(keeps_last=recipe.keeps_last)
        self.best_state = copy_state(model)
        self.shuffling = Generator().manual_seed(recipe.seed)

    def epochs(self) -> Iterator[Epoch]:
        """Train, an epoch at a time, until patience or the epochs run out.

        Raises:
            TrainingError: the loss is not finite.
        """
        while len(self.history.epochs) < self.recipe.epochs and not self.stopping.should_stop:
            yield self._one_epoch()
        self.history.stopped = "early" if self.stopping.should_stop else "finished"

    def finish(self) -> None:
        """Leave the network in eval mode, on the CPU, as it was at the end of its best epoch."""
        self.model.load_state_dict(self.best_state)
        self.model.eval().to("cpu")
        draw_from(self.model, None)

    def _one_epoch(self) -> Epoch:
        started, number = time.perf_counter(), len(self.history.epochs) + 1
        learning_rate = self.optimizer.param_groups[0]["lr"]
        train_loss, train_accuracy = self._train_epoch()
        validation_loss, validation_accuracy = evaluate(self.model, self.validation)
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
        if self.stopping.improved(validation_loss) or self.recipe.keeps_last:
            self.best_state = copy_state(self.model)
        return epoch

    def _train_epoch(self) -> tuple[float, float]:
        """One pass in random order; sample-weighted mean loss and accuracy. One synchronisation, at the end."""
        self.model.train()
        totals = torch.zeros(2, device=self.train.labels.device)
        order = torch.randperm(len(self.train), generator=self.shuffling).to(self.train.labels.device)
        for index in order.split(self.recipe.batch_size):
            own = distributed.share(index)
            loss, correct = self._step(self.train[own], len(index))
            totals += torch.stack((loss * len(own), correct))
        mean_loss, accuracy = (distributed.total(totals) / len(self.train)).tolist()
        return mean_loss, accuracy

    def _step(self, batch: Digits, of: int) -> tuple[Tensor, Tensor]:
        """One step down the gradient: the mean loss of the batch's digits, and how many were read right.

        In a process group `batch` is this process's share `of` so many digits, and the step that of the mean over all.
        """
        images, labels = batch.images, batch.labels
        if self.recipe.augmented:
            images = augment(images, labels, self.random)
        strangers = round(self.recipe.outliers * len(images))
        if strangers:
            images = torch.cat((images, outliers(images[:strangers], self.random)))
        log_probs = self.network(images)
        of_digits = log_probs[: len(labels)]
        loss = F.nll_loss(of_digits, labels) if len(labels) else log_probs.sum()  # of an empty share: 0
        objective = loss
        if strangers:  # as likely one digit as another (Hendrycks et al. 2019, arXiv 1812.04606)
            objective = loss - OUTLIER_WEIGHT * log_probs[len(labels) :].mean()
        self.optimizer.zero_grad(set_to_none=True)
        (objective * distributed.weight(len(labels), of)).backward()
        self.optimizer.step()
        self.scheduler.step()
        return loss.detach(), (of_digits.detach().argmax(1) == labels).sum()

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
            "random": self.random.get_state(),
            "shuffling": self.shuffling.get_state(),
            "waited": self.stopping.waited,
        }
        with atomic_write(out / "training.pt") as temporary:
            torch.save(state, temporary)

    def restore(self, path: Path) -> None:
        state = load_plain(path)
        free = {"patience"} if self.recipe.schedule == "one_cycle" else {"epochs", "patience"}  # a cycle has a length
        before = Recipe("", 1, 1).to_dict() | state["recipe"]  # what an older file lacks had its default then
        changed = {k for k, v in self.recipe.to_dict().items() if k not in free and before[k] != v}
        if changed:
            raise CheckpointError(
                f"{path}: was started with another {', '.join(sorted(changed))}; resume with the same recipe, or train "
                f"into another folder"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.best_state = state["best"]
        self.history.epochs = [Epoch(**epoch) for epoch in state["epochs"]]
        self.stopping.best = min(epoch.validation_loss for epoch in self.history.epochs)
        self.stopping.waited = state["waited"]
        if distributed.rank() == 0:  # the others' chance is not in the file
            self.random.set_state(state["random"])
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
