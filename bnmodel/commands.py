"""The commands of `bnmodel`: the signatures below, and the fields of `Recipe`, are their options."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import tyro
from tyro.conf import AvoidSubcommands, FlagCreatePairsOff, OmitArgPrefixes, Positional, arg

from bnmodel import data, training
from bnmodel.data import DATASETS
from bnmodel.training import RECIPES, Recipe, distributed, load_checkpoint
from bnmodel.training.allocator import keep_freed_memory
from bnmodel.training.evaluation import evaluate, predict_log_probs

if TYPE_CHECKING:
    Dataset = str
    RecipeName = str
else:
    Dataset = tyro.extras.literal_type_from_choices(DATASETS)
    RecipeName = tyro.extras.literal_type_from_choices(list(RECIPES))
Folder = Annotated[Path, arg(metavar="DIR")]
DataRoot = Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: BNMODEL_DATA or data)")]
Switch = Annotated[bool, FlagCreatePairsOff]


def train(
    recipe: RecipeName,
    settings: OmitArgPrefixes[AvoidSubcommands[Recipe]],
    dataset: Dataset = "mnist",
    data_root: DataRoot = None,
    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: checkpoints/NAME)")] = None,
    device: str = "auto",
    resume: Switch = False,
) -> int:
    """Train a recipe; write best.pt, history.json and loss_curves.png.

    Args:
        recipe: the preset whose fields are the defaults below.
        dataset: MNIST, scikit-learn's digits, or the shipped sample of MNIST.
        data_root: folder that contains MNIST/raw.
        out: output folder.
        device: cpu, cuda, mps or auto.
        resume: continue the run in the output folder.
    """
    from bnmodel import plotting
    from bnmodel.training.figures import loss_curves

    out = out or _without_export(Path("checkpoints") / settings.name)
    keep_freed_memory()
    with distributed.process_group(device):
        with distributed.first_process_first():  # it alone downloads
            learned, validation = data.split(data.load(dataset, train=True, root=data_root))
        first = distributed.rank() == 0
        if first:
            print(
                f"{settings.name}: {len(learned):,} digits for training, {len(validation):,} for validation, to {out}"
            )
        _, history = training.train_from_scratch(
            settings, learned, validation, dataset, out, resume=resume, device=device
        )
    if first:
        plotting.save(loss_curves(history, f"{settings.name} on {dataset}"), out / "loss_curves.png")
        best = history.best
        stop = f"epoch {best.epoch} of {len(history.epochs)} ({history.stopped})"
        print(f"best validation loss {best.validation_loss:.6f}, {stop}")
    return 0


def _without_export(folder: Path) -> Path:
    """The default output folder; ValueError if it holds an exported network, whose checkpoint would be replaced."""
    if (folder / "certificate.json").exists():
        raise ValueError(
            f"{folder}: holds an exported network; choose another folder, as in --out {Path('build') / folder.name}, "
            f"or replace its checkpoint with --out {folder}"
        )
    return folder


def refit(
    chosen: Positional[Folder],
    out: Folder,
    data_root: DataRoot = None,
    seed: Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: that of the first run)")] = None,
    device: str = "auto",
    resume: Switch = False,
) -> int:
    """Repeat a finished run from scratch on all digits, including the validation digits; write best.pt.

    Args:
        chosen: folder of the finished run, whose recipe keeps its last epoch.
        out: output folder, different from the first.
        data_root: folder that contains MNIST/raw.
        seed: of the weights, the order of the digits, dropout and augmentation.
        device: cpu, cuda, mps or auto.
        resume: continue the run in the output folder.
    """
    from bnmodel import plotting
    from bnmodel.training.figures import loss_curves
    from bnmodel.training.history import HISTORY, History

    keep_freed_memory()
    digits = data.load(load_checkpoint(chosen).dataset, train=True, root=data_root)
    print(f"{len(digits):,} digits for training, including the validation digits, to {out}")
    training.refit(chosen, digits, out, seed=seed, resume=resume, device=device)
    plotting.save(loss_curves(History.read(out / HISTORY), out.name), out / "loss_curves.png")
    return 0


def evaluate_checkpoint(
    checkpoint: Positional[Folder],
    dataset: Annotated[Dataset | None, arg(help_behavior_hint="(default: that of the run)")] = None,
    data_root: DataRoot = None,
) -> int:
    """Print validation and test loss and accuracy, and the confusion matrix of the test set.

    Args:
        checkpoint: folder of a finished run.
        dataset: data set to evaluate on.
        data_root: folder that contains MNIST/raw.
    """
    loaded = load_checkpoint(checkpoint)
    dataset = dataset or loaded.dataset
    _, validation = data.split(data.load(dataset, train=True, root=data_root))
    test = data.load(dataset, train=False, root=data_root)
    if "refitted_on" in loaded.results:
        print("refitted: the validation digits were among the training digits")
    for name, digits in (("validation", validation), ("test", test)):
        loss, accuracy = evaluate(loaded.model, digits)
        print(f"{name:10s}  loss {loss:.6f}  accuracy {accuracy:.2%}  ({len(digits):,} digits of {dataset})")
    predicted = predict_log_probs(loaded.model, test.images).argmax(1)
    confusion = torch.bincount(test.labels * 10 + predicted, minlength=100).view(10, 10)
    print("\nconfusion matrix of the test set: rows are true digits, columns are predictions")
    print("     " + "".join(f"{digit:6d}" for digit in range(10)))
    for digit, row in enumerate(confusion.tolist()):
        print(f"{digit:5d}" + "".join(f"{count or '·':>6}" for count in row))
    return 0


def experiment(
    name: Annotated[str | None, arg(metavar="[NAME]", help_behavior_hint="")] = None,
    /,
    every: Annotated[Switch, arg(name="all")] = False,
    image: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: a digit of MNIST)")] = None,
    checkpoint: Folder = Path("checkpoints/lecture"),
    out: Folder = Path("figures"),
) -> int:
    """Write the figure (PNG and SVG) and the numbers (JSON) of an experiment on a drawn digit.

    Args:
        name: modes, worked_example, batch_spread, running_statistics, forgotten_eval, faults, corruption,
            initialization, initialization_depth, input_normalization, gradients, convergence, convergence_sweep or
            early_stopping.
        every: run all experiments.
        image: picture of a digit, of any size and polarity.
        checkpoint: folder of a finished run.
        out: output folder.
    """
    from bnmodel.experiments import catalogue

    digit = catalogue.read_digit(image) if image else data.load_sample(train=False).images[5, 0]
    if every == (name is not None):
        raise ValueError(f"experiment: expected a name, or --all for every one of {', '.join(catalogue.EXPERIMENTS)}")
    for each in [name] if name is not None else catalogue.EXPERIMENTS:
        for path in catalogue.write(each, checkpoint, digit, out):
            print(path)
    return 0


def sample(data_root: DataRoot = None, out: Annotated[Path, arg(metavar="FILE")] = data.SAMPLE_FILE) -> int:
    """Recreate the shipped sample of MNIST: 1,000 training and 1,000 test digits.

    Args:
        data_root: folder that contains MNIST/raw.
        out: output file.
    """
    data.write_sample(data_root, out)
    print(f"{out}: 1,000 training and 1,000 test digits")
    return 0


def sweep(
    dataset: Dataset = "mnist",
    data_root: DataRoot = None,
    steps: int = 400,
    every: int = 40,
    seeds: int = 5,
    out: Annotated[Path, arg(metavar="FILE")] = Path("convergence_sweep.json"),
) -> int:
    """Compare learning rates, initialisers and positions of batch norm in 144 short runs per seed.

    Takes about an hour. An interrupted sweep continues when the command is repeated.

    Args:
        dataset: MNIST, scikit-learn's digits, or the shipped sample of MNIST.
        data_root: folder that contains MNIST/raw.
        steps: per training.
        every: steps between measurements of the accuracy.
        seeds: number of runs per setting.
        out: output file, written after each run.
    """
    from bnmodel.experiments import convergence_sweep

    command = f"python -m bnmodel sweep --dataset {dataset} --steps {steps} --every {every} --seeds {seeds}"
    known = convergence_sweep.resumed(out, command)
    learned, validation = data.split(data.load(dataset, train=True, root=data_root))
    total = seeds * convergence_sweep.SETTINGS

    def report(so_far: convergence_sweep.Sweep) -> None:
        convergence_sweep.write(so_far, out)
        print(f"{len(so_far.cells)} of {total}: {so_far.cells[-1]}", flush=True)

    convergence_sweep.run(learned, validation, command, steps, every, seeds, known, report)
    print(out)
    return 0


def diagnose(arguments: list[str]) -> int:
    """Report what is wrong with the batch norms of a network."""
    from bnmodel.diagnosis.command import main as command

    return command(arguments)


def inspect(arguments: list[str]) -> int:
    """Report what is wrong with the batch norms of an ONNX file."""
    from bnmodel.deploy.command import inspect_file

    return inspect_file(arguments)


def verify(arguments: list[str]) -> int:
    """Repeat the checks of a certified folder."""
    from bnmodel.deploy.command import verify_folder

    return verify_folder(arguments)
