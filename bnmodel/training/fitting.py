"""Training with early stopping: the best epoch is kept, saved and restored."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from torch import Generator
from tqdm import tqdm

from bnmodel.data import Digits, split
from bnmodel.io import alone_in, atomic_write
from bnmodel.nn.models import Network
from bnmodel.training import distributed
from bnmodel.training.calibration import calibration_error, fit_temperature, fold_temperature
from bnmodel.training.checkpoint import load_checkpoint, save_checkpoint
from bnmodel.training.evaluation import evaluate, predict_log_probs
from bnmodel.training.history import HISTORY, Epoch, History
from bnmodel.training.recipes import Recipe
from bnmodel.training.trainer import Training, new_network


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
        out: folder for best.pt (at every improvement), training.pt and history.json (at every epoch); None: no files.
        resume: go on from `out`/training.pt where there is one.
        device: "auto" takes CUDA, then MPS, then the CPU.
        on_epoch: called after every epoch.
        generator: what dropout and augmentation draw from; None: one seeded by the recipe.

    Ctrl-C ends the training cleanly after at least one epoch; the best so far is kept. In a process group (see
    `distributed.py`) the first process alone writes files and shows the progress.

    Raises:
        TrainingError: the training diverges. Best and history are saved up to then.
        CheckpointError: the training to resume was of another recipe, or its file is damaged.
        OSError: another training holds `out`, or nothing can be written there. What was written before stands.
    """
    training = Training(model, train, validation, recipe, device, generator)
    out = Path(out) if out is not None else None
    first = distributed.rank() == 0
    with alone_in(out) if out is not None and first else nullcontext():
        if resume and out is not None and (out / "training.pt").exists():
            training.restore(out / "training.pt")
        if not first:
            out, progress = None, False
        history = training.history
        _train(training, out, dataset, progress, on_epoch)
        results: dict[str, float] = {}
        if recipe.calibrated and history.stopped != "interrupted":
            results = calibrate(model, validation)
        if out is not None:
            if results:
                save_checkpoint(out / "best.pt", model, recipe.to_dict(), asdict(history.best) | results, dataset)
            history.write(out / "history.json", recipe, dataset)
    return history


def refit(
    chosen: Path | str,
    digits: Digits,
    out: Path | str,
    seed: int | None = None,
    resume: bool = False,
    device: str = "auto",
    progress: bool = True,
) -> Network:
    """The training in the folder `chosen` anew, from scratch, with its validation digits among those to learn from.

    Nothing is decided on the way: recipe, epochs and temperature are those of `chosen`. So `out` gets a best.pt of its
    own, but the history and the validation results of `chosen`; what is shown meanwhile is of digits it has learned.

    Args:
        chosen: or what was refitted from it, which holds all that is taken over.
        digits: all of them, the validation digits as `split` takes them among them.
        out: another folder.
        seed: None for that of `chosen`.
        resume: go on from `out`/training.pt where there is one.

    Raises:
        ValueError: `chosen` is not finished, or picked its epoch by the validation loss; or `out` is `chosen`.
        CheckpointError, TrainingError, OSError: as `fit`.
    """
    chosen, out = Path(chosen), Path(out)
    checkpoint, history = load_checkpoint(chosen), (chosen / HISTORY).read_bytes()
    recipe = Recipe(**checkpoint.recipe | {"model": checkpoint.model.config})
    recipe = recipe if seed is None else replace(recipe, seed=seed)
    if not recipe.keeps_last:
        raise ValueError(
            f"refit: expected a recipe that keeps its last epoch, received {recipe.name}, which keeps the epoch of the "
            f"lowest validation loss: there is none without validation digits"
        )
    if recipe.calibrated and "temperature" not in checkpoint.results:
        raise ValueError(
            f"refit: expected a finished training in {chosen}, received one without a temperature; "
            f"finish it: python -m bnmodel train --recipe {recipe.name} --resume --out {chosen}"
        )
    if out.resolve() == chosen.resolve():
        raise ValueError(f"refit: expected another folder than that of the chosen training, received {out} for both")
    model, generator = new_network(recipe)
    known = split(digits)[1][:1000]  # enough to show that it learns
    uncalibrated = replace(recipe, calibrated=False)
    done = fit(
        model, digits, known, uncalibrated, checkpoint.dataset, out, resume, device, progress, generator=generator
    )
    if done.stopped == "finished":
        if recipe.calibrated:
            fold_temperature(model, checkpoint.results["temperature"])
        results = checkpoint.results | {"refitted_on": len(digits)}
        save_checkpoint(out / "best.pt", model, recipe.to_dict(), results, checkpoint.dataset)
        with atomic_write(out / HISTORY) as temporary:
            temporary.write_bytes(history)
    return model


def _train(
    training: Training, out: Path | None, dataset: str, progress: bool, on_epoch: Callable[[Epoch], None] | None
) -> None:
    """All epochs, saved one by one; at the end, whatever it is, the network is that of the best."""
    done, recipe = training.history.epochs, training.recipe
    bar = tqdm(total=recipe.epochs, initial=len(done), desc=recipe.name, unit="epoch", disable=not progress)
    try:
        for epoch in training.epochs():
            if out is not None:
                training.save(out, dataset)
            bar.update()
            bar.write(_describe(epoch)) if progress else None
            if on_epoch is not None:
                on_epoch(epoch)
    except KeyboardInterrupt:
        if not done:
            raise
        bar.write(f"Interrupted after epoch {len(done)}; the best so far is kept.")
    finally:
        bar.close()
        training.finish()


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


def _describe(epoch: Epoch) -> str:
    return (
        f"epoch {epoch.epoch:3d}  train loss {epoch.train_loss:.4f}  validation loss {epoch.validation_loss:.4f}  "
        f"validation accuracy {epoch.validation_accuracy:.2%}  {epoch.seconds:.1f} s"
    )
