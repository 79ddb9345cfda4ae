"""Accuracy of exported models on pictures as people take them: MNIST's test digits on paper, scanned or photographed.

python -m benchmarks.pictures [--model FOLDER]… [--pictures N] [--data-root DIR]

Each condition draws paper, light, pen, print and camera at random. It counts, for single digits, the correct answers
and the wrong ones with 90% or more; for numbers, the correct, doubted and wrong ones; for blank sheets, those
recognised as blank. Only digits that are read correctly when drawn plainly are used.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import write
from benchmarks.drawing import choose, score
from benchmarks.number_scenes import NUMBERS, led
from benchmarks.rasteriser import Drawing, draw
from benchmarks.scenes import BLANK, SINGLE
from benchmarks.strokes import Strokes, vectorise
from bnmodel import data
from bnmodel.deploy.errors import ExportError
from export.recogniser import Recognizer, available, load

SEED = 0
SURE = 0.9  # probability above which a wrong answer is counted separately


def readable(digits: data.Digits, model: Recognizer, count: int) -> list[tuple[Strokes, int]]:
    """`count` test digits as strokes with their labels, except those misread when drawn plainly."""
    found: list[tuple[Strokes, int]] = []
    rng = np.random.default_rng(SEED)
    for index in rng.permutation(choose(digits.labels.numpy(), min(2 * count, len(digits.labels)), rng)):
        strokes, label = vectorise(digits.images[index, 0].numpy()), int(digits.labels[index])
        if strokes and model.read(draw(strokes, Drawing(), rng)).label == label:
            found.append((strokes, label))
        if len(found) == count:
            break
    return found


def read_single(model: Recognizer, name: str, chosen: Sequence[tuple[Strokes, int]]) -> dict[str, Any]:
    right, sure = [], []
    for place, (strokes, label) in enumerate(chosen):
        rng = np.random.default_rng((SEED, place))
        picture = led(label, rng) if name == "display" else SINGLE[name](strokes, rng)
        answer, found = model.read(picture), model.read_numbers(picture)
        several = found.too_many or len(found.digits) > 1  # then `/predict` has no label
        wrong = answer.label != label
        right.append(not wrong and not several)
        sure.append(wrong and not several and not answer.blank and float(answer.probabilities.max()) >= SURE)
    return {**asdict(score(np.array(right))), "sure_and_wrong": float(np.mean(sure))}


def read_blank(model: Recognizer, name: str, count: int) -> dict[str, Any]:
    blank = [model.read(BLANK[name](None, np.random.default_rng((SEED, place)))).blank for place in range(count)]
    return asdict(score(np.array(blank)))


def read_numbers(model: Recognizer, name: str, chosen: Sequence[tuple[Strokes, int]]) -> dict[str, Any]:
    least, most, draw_number = NUMBERS[name]
    right, doubted, alone = [], [], []
    for place in range(len(chosen)):
        rng = np.random.default_rng((SEED, place))
        picked = [chosen[i] for i in rng.integers(0, len(chosen), rng.integers(least, most + 1))]
        read = model.read_numbers(draw_number([strokes for strokes, _ in picked], rng))
        right.append(read.text == "".join(str(label) for _, label in picked))
        doubted.append(read.text is None)
        alone.append(len(read.digits) == 1 and read.digits[0].probability >= SURE)
    return {
        **asdict(score(np.array(right))),
        "doubted": float(np.mean(doubted)),
        "read_as_one_sure_digit": float(np.mean(alone)),
    }


def run(model: Recognizer, digits: data.Digits, count: int) -> dict[str, Any]:
    """Measure all conditions and print a row per condition."""
    chosen = readable(digits, model, count)
    rows: dict[str, dict[str, Any]] = {}
    for name in (*SINGLE, "display", *BLANK, *NUMBERS):
        if name in BLANK:
            rows[name] = read_blank(model, name, count)
        elif name in NUMBERS:
            rows[name] = read_numbers(model, name, chosen)
        else:
            rows[name] = read_single(model, name, chosen)
        row = rows[name]
        others = "".join(f"  {key} {value:.1%}" for key, value in list(row.items())[5:])
        print(
            f"{name:26s}{row['n']:5d}  {row['accuracy']:7.2%} ({row['low']:.1%}…{row['high']:.1%}){others}", flush=True
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pictures", description="Read pictures of digits.")
    parser.add_argument("--model", type=Path, action="append", help="exported folder, repeatable; default: all")
    parser.add_argument("--pictures", type=int, default=200, help="per condition (default: %(default)s)")
    parser.add_argument("--data-root", type=Path, default=data.default_data_root())
    options = parser.parse_args(arguments)
    if options.pictures < 10:
        parser.error(f"--pictures: expected 10 or more, received {options.pictures}")
    try:
        models = [load(folder) for folder in options.model or available()]
        digits = data.load_mnist(False, options.data_root)
    except (ExportError, data.DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    results = {}
    for model in models:
        print(f"== {model.name}")
        results[model.name] = run(model, digits, options.pictures)
    write("pictures", {"pictures": options.pictures, "seed": SEED, "models": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
