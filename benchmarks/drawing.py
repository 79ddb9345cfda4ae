"""Accuracy of exported models on drawings: MNIST's test digits as pen strokes, redrawn in many ways.

python -m benchmarks.drawing [--model FOLDER]… [--digits N] [--data-root DIR]

Each condition changes one property of a plain drawing. Styles are handwritings that are rare in MNIST, made from its
strokes; each applies to digits of one class, and only those that it changes are counted.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from benchmarks import write
from benchmarks.rasteriser import Drawing, draw
from benchmarks.stroke_styles import STYLES
from benchmarks.strokes import Strokes, vectorise
from bnmodel import data
from bnmodel.deploy.errors import ExportError
from export.recogniser import Recognizer, available, load

STYLE_DIGITS = 500  # per style, at most
SEED = 0
PLAIN = Drawing()
RED, YELLOW, BLUE = (200, 20, 30, 255), (255, 230, 80, 255), (30, 60, 200, 255)
LIGHT, MIDDLE, CLEAR = (215, 215, 215, 255), (165, 165, 165, 255), (0, 0, 0, 0)

CONDITIONS: dict[str, Drawing] = {
    "plain": PLAIN,
    **{f"canvas {side} × {side}": replace(PLAIN, width=side, height=side) for side in (56, 112, 640)},
    "canvas 1600 × 1200": replace(PLAIN, width=1600, height=1200),
    "small, top left": replace(PLAIN, size=0.4, centre=(0.21, 0.21)),
    "small, bottom right": replace(PLAIN, size=0.4, centre=(0.79, 0.79)),
    # the brush shrinks with the digit, since the plain one would fill its loops
    **{f"size {size}%": replace(PLAIN, size=size / 100, brush=size / 1000) for size in (20, 35)},
    **{f"size {size}%": replace(PLAIN, size=size / 100) for size in (50, 80, 95)},
    **{f"brush {brush}%": replace(PLAIN, size=0.7, brush=brush / 100) for brush in (1, 2, 4, 8, 12)},
    **{f"turned {angle:+d}°": replace(PLAIN, rotation=angle) for angle in (-15, -10, -5, 5, 10, 15)},
    **{f"slanted {angle:+d}°": replace(PLAIN, slant=angle) for angle in (-15, 15)},
    "white on black": replace(PLAIN, pen=(255, 255, 255, 255), paper=(0, 0, 0, 255)),
    "black on transparent": replace(PLAIN, paper=CLEAR),
    "white on transparent": replace(PLAIN, pen=(255, 255, 255, 255), paper=CLEAR),
    "red on yellow": replace(PLAIN, pen=RED, paper=YELLOW),
    "blue on grey": replace(PLAIN, pen=BLUE, paper=MIDDLE),
    "grey on light grey": replace(PLAIN, pen=MIDDLE, paper=LIGHT),
    "JPEG, quality 30": replace(PLAIN, jpeg=30),
    "shaky hand": replace(PLAIN, shake=0.02),
    "very shaky hand": replace(PLAIN, shake=0.04),
}


# --- measuring -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """Number of `n` drawings read correctly; `low` and `high`: 95% confidence interval of the accuracy."""

    n: int
    correct: int
    accuracy: float
    low: float
    high: float


def score(right: np.ndarray) -> Score:
    """bool (N,), N ≥ 1 → its score."""
    n, correct = len(right), int(right.sum())
    interval = binomtest(correct, n).proportion_ci(method="wilson")
    return Score(n, correct, correct / n, interval.low, interval.high)


def choose(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """About `count` indices without replacement, equally many of each class where there are enough."""
    of_each = [rng.permutation(np.flatnonzero(labels == label)) for label in range(10)]
    return np.concatenate([index[: -(-(count - label) // 10)] for label, index in enumerate(of_each)])


Batch = tuple[str, Drawing, list[Strokes], np.ndarray]  # name of the condition, how to draw, strokes, labels (N,)


def batches(digits: data.Digits, count: int) -> Iterator[Batch]:
    """All conditions with the same `count` digits, then all styles with up to STYLE_DIGITS of their class."""
    images, labels = digits.images[:, 0].numpy(), digits.labels.numpy()
    chosen = choose(labels, count, np.random.default_rng(SEED))
    plain = [vectorise(images[index]) for index in chosen]
    for name, drawing in CONDITIONS.items():
        yield name, drawing, plain, labels[chosen]
    for name, (label, style) in STYLES.items():
        index = np.flatnonzero(labels == label)[: min(STYLE_DIGITS, count)]
        styled = [changed for changed in map(style, map(vectorise, images[index])) if changed is not None]
        if styled:
            yield name, PLAIN, styled, np.full(len(styled), label)


def read(models: dict[str, Recognizer], batch: Batch) -> dict[str, Score]:
    """Draw each canvas once, and read it with every model."""
    _, drawing, drawn, labels = batch
    read_as: dict[str, list[int | None]] = {name: [] for name in models}
    for number, strokes in enumerate(drawn):
        canvas = draw(strokes, drawing, np.random.default_rng((SEED, number)))
        for name, model in models.items():
            read_as[name].append(model.read(canvas).label)
    return {name: score(np.array(answers) == labels) for name, answers in read_as.items()}


def summary(pixels: Score, conditions: dict[str, Score]) -> dict[str, Any]:
    """The results of a model. `pixels`: its result on the original digits, about the upper limit for drawings."""
    worst = min(conditions, key=lambda name: conditions[name].accuracy)
    return {
        "mean": float(np.mean([result.accuracy for result in conditions.values()])),
        "worst": {"condition": worst, "accuracy": conditions[worst].accuracy},
        "mnist_pixels": asdict(pixels),
        "conditions": {name: asdict(result) for name, result in conditions.items()},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drawing", description="Read drawn digits.")
    parser.add_argument("--model", type=Path, action="append", help="exported folder, repeatable; default: all")
    parser.add_argument("--digits", type=int, default=1000, help="per condition (default: %(default)s)")
    parser.add_argument("--data-root", type=Path, default=data.default_data_root())
    options = parser.parse_args(arguments)
    if options.digits < 10:
        parser.error(f"--digits: expected 10 or more, received {options.digits}")
    try:
        models = {folder.name: load(folder) for folder in options.model or available()}
        digits = data.load_mnist(False, options.data_root)
    except (ExportError, data.DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not models:
        print("error: no exported folder in checkpoints; export one: python -m export FOLDER", file=sys.stderr)
        return 1
    write("drawing", run(models, digits, options.digits))
    return 0


def run(models: dict[str, Recognizer], digits: data.Digits, count: int) -> dict[str, Any]:
    """Measure all conditions, print a row for each, and return the results."""
    chosen = choose(digits.labels.numpy(), count, np.random.default_rng(SEED))
    images, labels = digits.images[chosen].numpy(), digits.labels[chosen].numpy()
    pixels = {name: score(model.classify(images).argmax(1) == labels) for name, model in models.items()}
    print(f"{'':26s}{'n':>5s}" + "".join(f"  {name:>22s}" for name in models))
    _print_row("MNIST's own pixels", pixels)
    scores: dict[str, dict[str, Score]] = {name: {} for name in models}
    for batch in batches(digits, count):
        row = read(models, batch)
        _print_row(batch[0], row)
        for name, result in row.items():
            scores[name][batch[0]] = result
    results = {name: summary(pixels[name], scores[name]) for name in models}
    for name, content in results.items():
        print(f"{name}: mean {content['mean']:.2%}, worst {content['worst']}")
    return {"digits": count, "seed": SEED, "models": results}


def _print_row(name: str, row: dict[str, Score]) -> None:
    cells = [f"  {r.accuracy:8.2%} ({r.low:5.1%}…{r.high:5.1%})" for r in row.values()]
    print(f"{name:26s}{next(iter(row.values())).n:5d}" + "".join(cells), flush=True)


if __name__ == "__main__":
    sys.exit(main())
