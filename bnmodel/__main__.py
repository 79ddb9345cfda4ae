"""Train, evaluate and examine the digit recogniser: `python -m bnmodel COMMAND`."""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial

import tyro

from bnmodel import commands
from bnmodel.data import DataError
from bnmodel.io import replace_unprintable
from bnmodel.training import RECIPES, CheckpointError, TrainingError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns 0, 1 after an error, or 130 after Ctrl-C. Wrong usage raises SystemExit(2)."""
    replace_unprintable()
    name, *rest = list(sys.argv[1:] if arguments is None else arguments) or [""]
    if name in ("-h", "--help"):
        print(_usage())
        return 0
    if name not in COMMANDS:
        print(f"{_usage()}\n\nerror: expected a command, received {name!r}", file=sys.stderr)
        raise SystemExit(2)
    try:
        return COMMANDS[name](rest)
    except (DataError, CheckpointError, TrainingError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parse_train(arguments: list[str]) -> int:
    """Parse the recipe's name first, then `commands.train` with the recipe's fields as defaults."""
    parser = argparse.ArgumentParser(prog="bnmodel train", add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe", choices=RECIPES, default="lecture")
    name = parser.parse_known_args(arguments)[0].recipe
    return _parse("train", partial(commands.train, recipe=name, settings=RECIPES[name]), arguments)


def _parse(name: str, command: Callable[..., int], arguments: list[str]) -> int:
    """Call `command` with the options derived from its signature."""
    try:
        return tyro.cli(command, prog=f"bnmodel {name}", args=arguments)
    except SystemExit as exit_:
        if exit_.code == 2:
            print(f"usage: bnmodel {name} [OPTIONS]; list them: bnmodel {name} --help", file=sys.stderr)
        raise


def _usage() -> str:
    lines = [f"  {name:12s}{(FUNCTIONS[name].__doc__ or '').splitlines()[0]}" for name in FUNCTIONS]
    listed = "\n".join(lines)
    return (
        f"usage: bnmodel COMMAND [OPTIONS]\n\n{listed}\n\nOptions of a command: bnmodel COMMAND --help\n"
        "To export a network: bnmodel.deploy.certify in Python; in the clone also python -m export"
    )


FUNCTIONS: dict[str, Callable[..., int]] = {
    "train": commands.train,
    "refit": commands.refit,
    "evaluate": commands.evaluate_checkpoint,
    "experiment": commands.experiment,
    "diagnose": commands.diagnose,
    "inspect": commands.inspect,
    "verify": commands.verify,
    "sweep": commands.sweep,
    "sample": commands.sample,
}
COMMANDS: dict[str, Callable[[list[str]], int]] = {
    **{name: partial(_parse, name, function) for name, function in FUNCTIONS.items()},
    "train": _parse_train,
    "diagnose": commands.diagnose,
    "inspect": commands.inspect,
    "verify": commands.verify,
}


if __name__ == "__main__":
    sys.exit(main())
