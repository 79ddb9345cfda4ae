"""The training loop: optimiser steps, early stopping, saving and resuming."""

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from bnmodel.data import Digits
from bnmodel.data.augmentation import augment
from bnmodel.data.outliers import outliers
from bnmodel.nn.dropout import draw_from
from bnmodel.nn.models import Network, build
from bnmodel.training import distributed
from bnmodel.training.checkpoint import CheckpointError, copy_state, load_plain, save_checkpoint, save_plain
from bnmodel.training.evaluation import evaluate
from bnmodel.training.history import HISTORY, EarlyStopping, Epoch, History
from bnmodel.training.recipes import Recipe

DIVERGED = 1000.0  # nats, training and validation loss together; guessing costs 2.3 each
OUTLIER_WEIGHT = 0.5  # of the outliers' loss, relative to that of the digits
AVERAGING_RATE = 0.1  # × the peak learning rate, while weights are averaged
PREPARED = 32  # mini-batches augmented at once on a GPU, where kernel launches dominate
_global_random_state = threading.Lock()


class TrainingError(Exception):
    """The training diverged; the message names the epoch and the remedy."""


def new_network(recipe: Recipe) -> tuple[Network, Generator]:
    """An untrained network and the random generator of its training, both determined by the recipe's seed."""
    # PyTorch's layers draw from the global state, which is restored and locked against other threads
    with _global_random_state, torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = build(recipe.model)
        generator = Generator()
        generator.set_state(torch.get_rng_state())
    return model, generator


class Training:
    """A run in steps: `for epoch in training.epochs(): …`, then `training.finish()`.

    `fit` runs it and writes files; the app shows its epochs live.
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
        for name, digits in (("training", train), ("validation", validation)):
            if not len(digits):
                raise ValueError(f"{name}: expected at least one digit, received none")
        target = _pick_device(device)
        self.model, self.recipe = model.to(target), recipe
        if recipe.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.train, self.validation = train.to(target), validation.to(target)
        # for dropout and augmentation, on the device; `shuffling` is on the CPU, for the same order on every device
        self.random = generator or Generator().manual_seed(recipe.seed)
        if target.type != "cpu":
            self.random = Generator(target).manual_seed(self.random.initial_seed())
        if distributed.rank() > 0:
            self.random.manual_seed(recipe.seed + distributed.rank())
        draw_from(model, self.random)
        self.network = distributed.parallel(self.model)  # the model itself in a single process
        self.optimizer = torch.optim.SGD(
            model.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.momentum > 0,
            weight_decay=recipe.weight_decay,
        )
        self.scheduler = _scheduler(self.optimizer, recipe, len(train))
        self.stopping = EarlyStopping(recipe.patience)
        self.history = History(keeps_last=recipe.keeps_last)
        self.best_state = copy_state(model)
        self.average: dict[str, Tensor] | None = None  # weights and running statistics, in the last epochs
        self.averaged = 0  # number of states in `average`
        self.shuffling = Generator().manual_seed(recipe.seed)

    def epochs(self) -> Iterator[Epoch]:
        """Train one epoch per iteration, until the patience or the epochs run out.

        Raises:
            TrainingError: the loss is not finite, or training and validation loss together reach DIVERGED.
        """
        while len(self.history.epochs) < self.recipe.epochs and not self.stopping.should_stop:
            yield self._one_epoch()
        self.history.stopped = "early" if self.stopping.should_stop else "finished"

    def finish(self) -> None:
        """Leave the model in eval mode, on the CPU, with the state of its best epoch."""
        self.model.load_state_dict(self.best_state)
        self.model.eval().to("cpu")
        draw_from(self.model, None)

    def _one_epoch(self) -> Epoch:
        started, number = time.perf_counter(), len(self.history.epochs) + 1
        if self.average is None and number > self.recipe.epochs - self.recipe.averaging:
            self._begin_averaging()
        learning_rate = self.optimizer.param_groups[0]["lr"]
        train_loss, train_accuracy = self._train_epoch()
        with self._averaged():
            validation_loss, validation_accuracy = evaluate(self.model, self.validation)
            state = copy_state(self.model)
        if not train_loss + validation_loss < DIVERGED:  # true for NaN too
            raise TrainingError(
                f"epoch {number}: the training diverges at learning rate {learning_rate:g} (training loss "
                f"{train_loss:.3g}, validation loss {validation_loss:.3g}); lower the learning rate. "
                f"The best of the {number - 1} earlier epochs is kept."
            )
        seconds = time.perf_counter() - started
        epoch = Epoch(
            number, train_loss, train_accuracy, validation_loss, validation_accuracy, learning_rate, round(seconds, 3)
        )
        self.history.epochs.append(epoch)
        if self.stopping.improved(validation_loss) or self.recipe.keeps_last:
            self.best_state = state
        return epoch

    def _begin_averaging(self) -> None:
        self.average, self.averaged = copy_state(self.model), 1
        for group in self.optimizer.param_groups:  # one_cycle has changed both
            group.update(lr=AVERAGING_RATE * self.recipe.learning_rate, momentum=self.recipe.momentum)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Context in which the model has the averaged state, if there is one."""
        if self.average is None:
            yield
            return
        latest = copy_state(self.model)
        self.model.load_state_dict(self.average)
        try:
            yield
        finally:
            self.model.load_state_dict(latest)

    def _train_epoch(self) -> tuple[float, float]:
        """One pass in random order → mean loss and accuracy over samples. A GPU is synchronised only at the end."""
        self.model.train()
        device = self.train.labels.device
        totals = torch.zeros(2, device=device)
        order = torch.randperm(len(self.train), generator=self.shuffling).to(device)
        prepared = 1 if device.type == "cpu" else PREPARED
        for several in order.split(prepared * self.recipe.batch_size):
            indices = several.split(self.recipe.batch_size)
            for index, (images, labels) in zip(indices, self._batches(indices), strict=True):
                loss, correct = self._step(images, labels, len(index))
                totals += torch.stack((loss * len(labels), correct))
        mean_loss, accuracy = (distributed.total(totals) / len(self.train)).tolist()
        return mean_loss, accuracy

    def _batches(self, indices: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """This process's part of the mini-batches: images, first digits and then outliers, and labels of the digits."""
        digits = [self.train[distributed.own_part(index)] for index in indices]
        plain = len(self.history.epochs) >= self.recipe.epochs - self.recipe.plain
        redrawn = [0 if plain else round(self.recipe.augmented * len(batch)) for batch in digits]
        counts = [round(self.recipe.outliers * len(batch)) for batch in digits]
        images, labels = [batch.images for batch in digits], [batch.labels for batch in digits]
        if any(redrawn):  # the first ones of each batch, since digits are in random order
            first = torch.cat([x[:count] for x, count in zip(images, redrawn, strict=True)])
            known = torch.cat([y[:count] for y, count in zip(labels, redrawn, strict=True)])
            changed = augment(first, known, self.random).split(redrawn)
            images = [torch.cat((new, x[len(new) :])) for x, new in zip(images, changed, strict=True)]
        if any(counts):
            sources = torch.cat([x[:count] for x, count in zip(images, counts, strict=True)])
            others = outliers(sources, self.random).split(counts)
            images = [torch.cat((x, more)) for x, more in zip(images, others, strict=True)]
        return list(zip(images, labels, strict=True))

    def _step(self, images: Tensor, labels: Tensor, of: int) -> tuple[Tensor, Tensor]:
        """One optimiser step. Returns the mean loss of the digits and the number classified correctly.

        `images`: the digits of `labels`, followed by outliers. `of`: the number of digits over all processes.
        """
        log_probs = self.network(images)
        of_digits = log_probs[: len(labels)]
        loss = F.nll_loss(of_digits, labels) if len(labels) else log_probs.sum()  # 0 for an empty part
        objective = loss
        if len(images) > len(labels):  # cross-entropy to the uniform distribution (Hendrycks et al. 2019)
            objective = loss - OUTLIER_WEIGHT * log_probs[len(labels) :].mean()
        self.optimizer.zero_grad(set_to_none=True)
        (objective * distributed.loss_weight(len(labels), of)).backward()
        self.optimizer.step()
        if self.average is None:
            self.scheduler.step()
        else:
            averages, latest = (
                list(filter(torch.is_floating_point, s.values())) for s in (self.average, self.model.state_dict())
            )
            self.averaged += 1
            torch._foreach_lerp_(averages, latest, 1 / self.averaged)  # the mean of all states
        return loss.detach(), (of_digits.detach().argmax(1) == labels).sum()

    def save(self, out: Path, dataset: str) -> None:
        """Write best.pt if this epoch is the best, history.json, and training.pt, from which a run resumes.

        training.pt is written last: a run killed before repeats this epoch with the same result.
        """
        latest = self.history.epochs[-1]
        if latest is self.history.best:
            with self._averaged():
                save_checkpoint(out / "best.pt", self.model, self.recipe.to_dict(), asdict(latest), dataset)
        self.history.write(out / HISTORY, self.recipe, dataset)
        state = {
            "recipe": self.recipe.to_dict(),
            "epochs": [asdict(epoch) for epoch in self.history.epochs],
            "model": self.model.state_dict(),
            "best": self.best_state,
            "average": self.average,
            "averaged": self.averaged,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "random": self.random.get_state(),
            "shuffling": self.shuffling.get_state(),
            "waited": self.stopping.waited,
        }
        save_plain(out / "training.pt", state)

    def restore(self, path: Path) -> None:
        """Restore the state written by `save`.

        Raises:
            CheckpointError: the file is damaged or of another version, or the run had another recipe.
        """
        state = load_plain(path)
        try:
            self._take_over(state, path)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{path}: expected a run that this version can resume, received another ({error!r}); train "
                f"without --resume, or use another --out"
            ) from error

    def _take_over(self, state: dict[str, Any], path: Path) -> None:
        free = {"patience"}
        if self.recipe.schedule != "one_cycle":  # a cycle has a fixed length
            free.add("epochs")
        before = Recipe("", 1, 1).to_dict() | state["recipe"]  # older files lack fields, which had their defaults
        changed = {k for k, v in self.recipe.to_dict().items() if k not in free and before[k] != v}
        if changed:
            raise CheckpointError(
                f"{path}: the run was started with other values of {', '.join(sorted(changed))}; resume with the same "
                f"recipe, or use another --out"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.best_state = state["best"]
        self.average, self.averaged = state["average"], state["averaged"]
        self.history.epochs = [Epoch(**epoch) for epoch in state["epochs"]]
        self.stopping.best = min(epoch.validation_loss for epoch in self.history.epochs)
        self.stopping.waited = state["waited"]
        if distributed.rank() == 0:  # the file contains the generator of rank 0 only
            self.random.set_state(state["random"])
        self.shuffling.set_state(state["shuffling"])


def _scheduler(optimizer: torch.optim.Optimizer, recipe: Recipe, digits: int) -> torch.optim.lr_scheduler.LRScheduler:
    if recipe.schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    steps = (recipe.epochs - recipe.averaging) * math.ceil(digits / recipe.batch_size)
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps)


def _pick_device(device: str) -> torch.device:
    if device != "auto":
        try:
            return torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:  # no such device, or PyTorch is built without it
            raise ValueError(
                f"device: expected auto, or cpu, cuda or mps if PyTorch supports it here, received {device!r} "
                f"({str(error).splitlines()[0]})"
            ) from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
