"""python -m bnmodel train | refit | evaluate | experiment | sample | sweep"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from bnmodel import data, plotting, training
from bnmodel.training import distributed
from bnmodel.training.allocator import keep_freed_memory
from bnmodel.training.checkpoint import CheckpointError, load_checkpoint
from bnmodel.training.evaluation import evaluate, predict_log_probs
from bnmodel.training.figures import loss_curves
from bnmodel.training.recipes import RECIPES
from bnmodel.training.trainer import TrainingError


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (data.DataError, CheckpointError, TrainingError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing of the epoch under way was saved, everything before it stands", file=sys.stderr)
        return 130


def train(options: argparse.Namespace) -> int:
    """Write best.pt, history.json and loss_curves.png to --out."""
    changed = {name: getattr(options, name) for name in ("epochs", "patience", "seed")}
    recipe = replace(RECIPES[options.recipe], **{name: value for name, value in changed.items() if value is not None})
    out = options.out or Path("checkpoints") / recipe.name
    keep_freed_memory()
    learned, validation = data.split(data.load(options.dataset, train=True, root=options.data_root))
    with distributed.process_group(options.device):
        first = distributed.rank() == 0
        if first:
            print(f"{recipe.name}: {len(learned):,} digits to train, {len(validation):,} to validate, to {out}")
        _, history = training.train_from_scratch(
            recipe, learned, validation, options.dataset, out, options.resume, options.device
        )
    if first:
        plotting.save(loss_curves(history, f"{recipe.name} on {options.dataset}"), out / "loss_curves.png")
        best = history.best
        stop = f"epoch {best.epoch} of {len(history.epochs)} ({history.stopped})"
        print(f"best validation loss {best.validation_loss:.6f}, {stop}")
    return 0


def refit(options: argparse.Namespace) -> int:
    """Train as in a finished training's folder anew, its validation digits included; write best.pt to --out."""
    keep_freed_memory()
    digits = data.load(load_checkpoint(options.chosen).dataset, train=True, root=options.data_root)
    print(f"{len(digits):,} digits to train, to {options.out}; validation digits are among them")
    training.refit(options.chosen, digits, options.out, options.seed, options.resume, options.device)
    shutil.copyfile(options.chosen / "loss_curves.png", options.out / "loss_curves.png")
    return 0


def evaluate_checkpoint(options: argparse.Namespace) -> int:
    """Print validation and test loss and accuracy, and the confusion matrix of the test set."""
    checkpoint = load_checkpoint(options.checkpoint)
    dataset = options.dataset or checkpoint.dataset
    _, validation = data.split(data.load(dataset, train=True, root=options.data_root))
    test = data.load(dataset, train=False, root=options.data_root)
    if "refitted_on" in checkpoint.results:
        print("refitted: the validation digits are among those it has learned from")
    for name, digits in (("validation", validation), ("test", test)):
        loss, accuracy = evaluate(checkpoint.model, digits)
        print(f"{name:10s}  loss {loss:.6f}  accuracy {accuracy:.2%}  ({len(digits):,} digits of {dataset})")
    predicted = predict_log_probs(checkpoint.model, test.images).argmax(1)
    confusion = torch.bincount(test.labels * 10 + predicted, minlength=100).view(10, 10)
    print("\nconfusion matrix of the test set: a row is a true digit, a column what was read")
    print("     " + "".join(f"{digit:6d}" for digit in range(10)))
    for digit, row in enumerate(confusion.tolist()):
        print(f"{digit:5d}" + "".join(f"{count or '·':>6}" for count in row))
    return 0


def experiment(options: argparse.Namespace) -> int:
    """Write an experiment's figure (PNG and SVG) and its numbers (JSON) for a drawn digit."""
    from bnmodel.experiments import catalogue

    digit = catalogue.read_digit(options.image) if options.image else data.load_sample(train=False).images[5, 0]
    if options.every == (options.name is not None):
        raise ValueError("experiment: expected a name, or --all for every one")
    for name in catalogue.EXPERIMENTS if options.every or options.name == "all" else [options.name]:
        for path in catalogue.write(name, options.checkpoint, digit, options.out):
            print(path)
    return 0


def sample(options: argparse.Namespace) -> int:
    """Make bnmodel/data/mnist_sample.npz again."""
    data.write_sample(options.data_root, options.out)
    print(f"{options.out}: 1,000 training and 1,000 test digits")
    return 0


def sweep(options: argparse.Namespace) -> int:
    """Train many networks shortly, for bnmodel/experiments/convergence_sweep.json; some minutes."""
    from bnmodel.experiments import convergence_sweep

    learned, validation = data.split(data.load(options.dataset, train=True, root=options.data_root))
    shape = f"--dataset {options.dataset} --steps {options.steps} --every {options.every} --seed {options.seed}"
    result = convergence_sweep.run(
        learned, validation, f"python -m bnmodel sweep {shape}", options.steps, options.every, options.seed, print
    )
    convergence_sweep.write(result, options.out)
    print(options.out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bnmodel", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("train", help=train.__doc__)
    command.add_argument("--recipe", choices=RECIPES, default="lecture")
    command.add_argument("--dataset", choices=data.DATASETS, default="mnist")
    _add_data_root(command)
    command.add_argument("--out", type=Path, help="folder (default: checkpoints/RECIPE)")
    command.add_argument("--epochs", type=int, help="at most (default: the recipe's)")
    command.add_argument("--patience", type=int, help="epochs without improvement (default: the recipe's)")
    _add_training(command)
    command.set_defaults(run=train)

    command = commands.add_parser("refit", help=refit.__doc__)
    command.add_argument("chosen", type=Path, metavar="DIR", help="the finished training, of a recipe as robust")
    _add_data_root(command)
    command.add_argument("--out", type=Path, required=True, help="another folder")
    _add_training(command)
    command.set_defaults(run=refit)

    command = commands.add_parser("evaluate", help=evaluate_checkpoint.__doc__)
    command.add_argument("checkpoint", type=Path, metavar="DIR")
    command.add_argument("--dataset", choices=data.DATASETS, help="default: the one it was trained on")
    _add_data_root(command)
    command.set_defaults(run=evaluate_checkpoint)

    command = commands.add_parser("experiment", help=experiment.__doc__)
    command.add_argument("name", nargs="?", help="its name, or all; a wrong name lists them")
    command.add_argument("--all", action="store_true", dest="every", help="the same as the name all")
    command.add_argument("--image", type=Path, help="a drawn digit, any size and polarity (default: one of MNIST's)")
    command.add_argument("--checkpoint", type=Path, default=Path("checkpoints/lecture"), metavar="DIR")
    command.add_argument("--out", type=Path, default=Path("figures"), help="folder (default: figures)")
    command.set_defaults(run=experiment)

    command = commands.add_parser("sample", help=sample.__doc__)
    _add_data_root(command)
    command.add_argument("--out", type=Path, default=data.SAMPLE_FILE)
    command.set_defaults(run=sample)

    command = commands.add_parser("sweep", help=sweep.__doc__)
    command.add_argument("--dataset", choices=data.DATASETS, default="mnist")
    _add_data_root(command)
    command.add_argument("--steps", type=int, default=400, help="of each training (default: 400)")
    command.add_argument("--every", type=int, default=40, help="steps between looks at the accuracy (default: 40)")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--out", type=Path, default=Path("convergence_sweep.json"))
    command.set_defaults(run=sweep)
    return parser


def _add_training(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seed", type=int, help="of weights, order and dropout (default: the recipe's)")
    command.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")
    command.add_argument("--resume", action="store_true", help="go on where the training in --out stopped")


def _add_data_root(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data-root",
        type=Path,
        default=data.default_data_root(),
        help="holds MNIST/raw (default: BNMODEL_DATA or data)",
    )


if __name__ == "__main__":
    sys.exit(main())
