"""Training with early stopping, from scratch, resumed or repeated on all digits; saves and restores the best epoch."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Generator
from tqdm import tqdm

from bnmodel.data import Digits, split
from bnmodel.io import atomic_write, folder_lock
from bnmodel.nn.models import Network
from bnmodel.training import distributed
from bnmodel.training.calibration import calibration_error, fit_temperature, fold_temperature
from bnmodel.training.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
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
    *,
    resume: bool = False,
    device: str = "auto",
    progress: bool = True,
) -> tuple[Network, History]:
    """Train a new network, determined by the recipe's seed: the same call gives the same weights."""
    model, generator = new_network(recipe)
    history = fit(
        model,
        train,
        validation,
        recipe,
        dataset,
        out,
        resume=resume,
        device=device,
        progress=progress,
        generator=generator,
    )
    return model, history


def fit(
    model: Network,
    train: Digits,
    validation: Digits,
    recipe: Recipe,
    dataset: str = "",
    out: Path | str | None = None,
    *,
    resume: bool = False,
    device: str = "auto",
    progress: bool = True,
    on_epoch: Callable[[Epoch], None] | None = None,
    generator: Generator | None = None,
) -> History:
    """Train `model` in place and leave it in eval mode with the weights and running statistics of its best epoch.

    Ctrl-C ends the run after at least one epoch and keeps the best so far. In a process group (see
    `distributed.py`) only rank 0 writes files and shows progress.

    Args:
        out: folder for best.pt (at every improvement), training.pt and history.json (every epoch); None: no files.
        resume: continue from `out`/training.pt if it exists.
        device: "auto" chooses CUDA, then MPS, then the CPU.
        on_epoch: called after every epoch.
        generator: random numbers for dropout and augmentation; None: one seeded by the recipe.

    Raises:
        TrainingError: the training diverges. The best epoch and the history so far are saved.
        CheckpointError: the run to resume has another recipe, or its file is damaged.
        OSError: another run uses `out`, or it is not writable. Existing files are unchanged.
    """
    training = Training(model, train, validation, recipe, device, generator)
    out = Path(out) if out is not None else None
    first = distributed.rank() == 0
    with folder_lock(out) if out is not None and first else nullcontext():
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
            history.write(out / HISTORY, recipe, dataset)
    return history


def refit(
    chosen: Path | str,
    digits: Digits,
    out: Path | str,
    *,
    seed: int | None = None,
    resume: bool = False,
    device: str = "auto",
    progress: bool = True,
) -> Network:
    """Repeat a finished run from scratch on all digits, including the validation digits.

    Recipe, epochs and temperature are those of the run in `chosen`; nothing is selected. `out` gets a new best.pt
    with the history and validation results of `chosen`. The validation loss shown in between is on training digits.

    Args:
        chosen: folder of a finished run or of a refit.
        digits: training and validation digits together, not yet `split`.
        out: output folder, different from `chosen`.
        seed: None for that of `chosen`.
        resume: continue from `out`/training.pt if it exists.

    Raises:
        ValueError: `chosen` has not trained all epochs or selected its epoch by validation loss, or `out` is `chosen`.
        CheckpointError, TrainingError, OSError: as for `fit`.
    """
    chosen, out = Path(chosen), Path(out)
    checkpoint, history = load_checkpoint(chosen), History.read(chosen / HISTORY)
    recipe = _recipe_of(checkpoint, chosen)
    recipe = recipe if seed is None else replace(recipe, seed=seed)
    _require_refittable(recipe, history.stopped, checkpoint.results, chosen, out)
    written = (chosen / HISTORY).read_bytes()
    model, generator = new_network(recipe)
    known = split(digits)[1][:1000]  # to show progress
    done = fit(
        model,
        digits,
        known,
        replace(recipe, calibrated=False),
        checkpoint.dataset,
        out,
        resume=resume,
        device=device,
        progress=progress,
        generator=generator,
    )
    if done.stopped == "finished":
        if recipe.calibrated:
            fold_temperature(model, checkpoint.results["temperature"])
        results = checkpoint.results | {"refitted_on": len(digits)}
        with folder_lock(out):
            save_checkpoint(out / "best.pt", model, recipe.to_dict(), results, checkpoint.dataset)
            with atomic_write(out / HISTORY) as temporary:
                temporary.write_bytes(written)
    return model


def _recipe_of(checkpoint: Checkpoint, folder: Path) -> Recipe:
    try:
        return Recipe(**checkpoint.recipe | {"model": checkpoint.model.config})
    except TypeError as error:  # a field that this version lacks
        raise CheckpointError(
            f"{folder}: expected a recipe of this version, received another ({error}); train again"
        ) from error


def _require_refittable(recipe: Recipe, stopped: str, results: dict[str, Any], chosen: Path, out: Path) -> None:
    if not recipe.keeps_last:
        raise ValueError(
            f"refit: expected a recipe that keeps its last epoch, received {recipe.name}, which keeps the epoch with "
            f"the lowest validation loss and thus needs validation digits; use a recipe with keeps_last"
        )
    uncalibrated = recipe.calibrated and "temperature" not in results
    if stopped != "finished" or uncalibrated:
        received = "without a temperature" if uncalibrated else f"that was stopped: {stopped}"
        patience = f" --patience {recipe.epochs}" if stopped == "early" else ""
        raise ValueError(
            f"refit: expected a finished run in {chosen}, received one {received}; "
            f"finish it: python -m bnmodel train --recipe {recipe.name}{patience} --resume --out {chosen}"
        )
    if out.resolve() == chosen.resolve():
        raise ValueError(
            f"refit: expected another folder than that of the finished run, received {out} for both; use another --out"
        )


def _train(
    training: Training, out: Path | None, dataset: str, progress: bool, on_epoch: Callable[[Epoch], None] | None
) -> None:
    """Run and save all epochs. Afterwards, even after an error, `training.model` is that of the best epoch."""
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
        bar.write(f"Interrupted after epoch {len(done)}; the best epoch is kept.")
    finally:
        bar.close()
        training.finish()


def calibrate(model: Network, validation: Digits) -> dict[str, float]:
    """Fit a temperature on `validation` and fold it into `model`; returns the new loss and both calibration errors."""
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
