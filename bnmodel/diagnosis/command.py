"""The command `bnmodel diagnose MODULE:FACTORY --weights FILE --data PATH`."""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import nn

from bnmodel.diagnosis.checkup import diagnose
from bnmodel.diagnosis.command_files import FACTORY, UseError, load_model, named, read_data, safetensors
from bnmodel.diagnosis.recalibration import recalibrate
from bnmodel.io import atomic_write

SOUND, ERRORS, WRONG_USE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0 without errors, 1 with findings that are errors, 2 for usage errors.
    """
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        model = load_model(options.model, options.weights, options.train_mode)
        floating = (each.dtype for each in model.parameters() if each.is_floating_point())
        options.dtype = next(floating, torch.float32)
        batches = read_data(options.data, options)
        reference = None if options.reference is None else read_data(options.reference, options)
        try:
            report = diagnose(model, batches, reference=reference)
        except (Exception, SystemExit) as error:  # the model's forward may raise anything
            remedy = "; convert them to float32 and scale them as in training" if _are_bytes(batches) else ""
            others = "" if reference is None else f", those of the reference {_described(reference)}"
            raise UseError(f"{named(error)}; the inputs were {_described(batches)}{others}{remedy}") from error
        _say(report.to_json() if options.json == Path("-") else str(report), sys.stdout)
        if options.json not in (None, Path("-")):
            with atomic_write(options.json) as temporary:
                temporary.write_text(report.to_json() + "\n", encoding="utf-8")
        if options.recalibrated is not None:
            _write_recalibrated(model, batches if reference is None else reference, options.recalibrated)
        if options.html is not None:
            with atomic_write(options.html) as temporary:
                temporary.write_text(report.to_html(f"Batch norms of {options.model}"), encoding="utf-8")
    except (ValueError, TypeError, RuntimeError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_USE
    return ERRORS if report.has_errors else SOUND


def _write_recalibrated(model: nn.Module, batches: list[Any], path: Path) -> None:
    state = recalibrate(model, batches, track=True).state_dict()
    with atomic_write(path) as temporary:
        if path.suffix == ".safetensors":
            safetensors().save_file({name: tensor.clone() for name, tensor in state.items()}, temporary)
        else:
            with temporary.open("wb") as file:  # torch's own writer refuses names without a suffix
                torch.save(state, file)
    _say(f"{path}: the weights with new running statistics", sys.stderr)


def _say(text: str, stream: TextIO) -> None:
    """Print; the reader, such as head, may have ended."""
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _described(batches: Sequence[Any]) -> str:
    """Type and shape of the first batch: float32 [32, 3, 224, 224]."""
    if not batches:
        return "none"
    x = batches[0][0] if isinstance(batches[0], tuple) else batches[0]
    return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}"


def _are_bytes(batches: Sequence[Any]) -> bool:
    return _described(batches).startswith("uint8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bnmodel diagnose",
        description="Check the batch norms of a network.",
        epilog="Exit status: 0 without errors, 1 with errors, 2 for usage errors.",
    )

    def add(*names: str, help: str, **options: Any) -> None:
        parser.add_argument(*names, help=help, **options)

    add("model", metavar="MODULE:FACTORY", help=f"{FACTORY}, in a module of this folder; or torchvision:NAME")
    add("--weights", type=Path, metavar="FILE", help="state_dict as .pt/.pth, or .safetensors")
    add("--data", type=Path, required=True, metavar="PATH", help=".npz with x (and y), or a folder per class")
    add("--reference", type=Path, metavar="PATH", help="training data in the same form, to recognise different data")
    add("--size", type=_positive, nargs="+", metavar="N", help="of a folder's images: side, or height and width")
    add("--mean", type=_finite, nargs="+", metavar="X", help="of a folder's images in [0, 1], per channel")
    add("--std", type=_finite, nargs="+", metavar="X", help="as --mean")
    add("--batch-size", type=_positive, default=32, metavar="N", help="default: 32")
    add("--samples", type=_positive, default=512, metavar="N", help="number read at most; default: 512")
    add("--train-mode", action="store_true", help="check the model in train mode")
    add(
        "--recalibrated",
        type=_file,
        metavar="FILE",
        help="write the weights with running statistics of --reference (of --data without it), .pt or .safetensors",
    )
    add("--html", type=_file, metavar="FILE", help="write a page with figures")
    add("--json", type=_file, metavar="FILE", help="write the report as JSON; - for standard output")
    return parser


def _file(text: str) -> Path:
    if not text or Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"expected the name of a file to write, received {text or 'none'}")
    return Path(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, received {text}")
    return int(text)


def _finite(text: str) -> float:
    with suppress(ValueError):
        if math.isfinite(value := float(text)):
            return value
    raise argparse.ArgumentTypeError(f"expected a finite number, received {text}")
