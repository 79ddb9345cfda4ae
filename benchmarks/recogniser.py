"""Accuracy and calibration of the networks on MNIST, and their answers to images that are not digits.

python -m benchmarks.recogniser [--model FOLDER]… [--data-root DIR]

The test set is not used for any choice. Other seeds of `robust`: `benchmarks.seeds`. scikit-learn's digits and
non-digits are read by the exported sketch.onnx, like drawings.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits
from torch import Tensor

from benchmarks import write
from bnmodel import data, load_checkpoint, plotting
from bnmodel.training.calibration import calibration_error
from bnmodel.training.checkpoint import Checkpoint
from bnmodel.training.evaluation import evaluate, predict_log_probs
from export.recogniser import Recognizer, available, load

SURE = 0.9  # probability from which an answer counts as sure
DOUBTFUL = 0.5  # probability below which the app shows a question mark
SIDE = 280  # pixels per side of a canvas
FONTS = ("DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono")
# without B I O S Z b g i l o q s z, which look like 8 1 0 5 2 6 9 1 1 0 9 5 2 in some handwriting
LETTERS = "ACDEFGHJKLMNPQRTUVWXYacdefhjkmnprtuvwxy"
GREEK = "ΓΔΘΞΠΣΦΨΩαεθκλμπστφχψω"
MISREAD = Path("docs/misread.png")


def letters(alphabet: str = LETTERS) -> list[np.ndarray]:
    """Each letter of the alphabet in each of FONTS, black on white."""
    drawn = []
    for family in FONTS:
        font = ImageFont.truetype(findfont(family), 180)
        for letter in alphabet:
            image = Image.new("RGBA", (SIDE, SIDE), "white")
            ImageDraw.Draw(image).text((SIDE / 2, SIDE / 2), letter, "black", font, anchor="mm")
            drawn.append(np.array(image))
    return drawn


def sheets(count: int, pen: Callable[[ImageDraw.ImageDraw, np.random.Generator, int], None]) -> list[np.ndarray]:
    """White sheets, each drawn on by `pen`, which gets the sheet, a random generator and the sheet's number."""
    rng = np.random.default_rng(0)
    drawn = []
    for number in range(count):
        image = Image.new("RGBA", (SIDE, SIDE), "white")
        pen(ImageDraw.Draw(image), rng, number)
        drawn.append(np.array(image))
    return drawn


def line(sheet: ImageDraw.ImageDraw, rng: np.random.Generator, _: int) -> None:
    """A straight line at least 40° off the vertical, too slanted for a 1."""
    angle = np.radians(rng.uniform(40, 140))
    half = rng.uniform(60, 120) * np.array([np.sin(angle), np.cos(angle)])
    ends = [tuple(SIDE / 2 - half), tuple(SIDE / 2 + half)]
    sheet.line(ends, "black", int(rng.integers(8, 28)))


def scribble(sheet: ImageDraw.ImageDraw, rng: np.random.Generator, number: int) -> None:
    """A random line through 10 to 20 points; every second one is smoothed by a moving average."""
    points = rng.uniform(30, SIDE - 30, (int(rng.integers(10, 21)), 2))
    if number % 2:
        way = np.repeat(points, 8, axis=0)
        points = np.stack([np.convolve(axis, np.hanning(17) / np.hanning(17).sum(), "valid") for axis in way.T], 1)
    sheet.line([tuple(p) for p in points], "black", int(rng.integers(8, 20)), joint="curve")


def dot(sheet: ImageDraw.ImageDraw, rng: np.random.Generator, _: int) -> None:
    """A filled ellipse of 4 to 120 pixels, anywhere on the canvas."""
    half = rng.uniform(2, 60) * rng.uniform(0.8, 1.25, 2)
    centre = rng.uniform(half, SIDE - half)
    sheet.ellipse([*(centre - half), *(centre + half)], "black")


def smiley(sheet: ImageDraw.ImageDraw, rng: np.random.Generator, _: int) -> None:
    """A face: a circle, two eyes and a mouth, happy or sad."""
    radius, width = rng.uniform(60, 120), int(rng.integers(5, 16))
    x, y = SIDE / 2 + rng.uniform(-15, 15, 2)
    sheet.ellipse([x - radius, y - radius, x + radius, y + radius], None, "black", width)
    for side in (-1, 1):
        eye = np.array([x + side * rng.uniform(0.3, 0.4) * radius, y - rng.uniform(0.2, 0.4) * radius])
        sheet.ellipse([*(eye - width), *(eye + width)], "black")
    half, low = rng.uniform(0.35, 0.55) * radius, y + rng.uniform(0.1, 0.3) * radius
    start = 20 if rng.random() < 0.5 else 200  # degrees, clockwise from the right
    sheet.arc([x - half, low - half / 2, x + half, low + half], start, start + 140, "black", width)


def noise(count: int = 100) -> list[np.ndarray]:
    """Random black squares of 5 to 40 pixels, covering 5 to 50% of the canvas."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(count):
        cell = int(rng.choice((5, 10, 20, 40)))
        black = rng.random((SIDE // cell, SIDE // cell)) < rng.uniform(0.05, 0.5)
        canvas = np.full((SIDE, SIDE, 4), 255, np.uint8)
        canvas[np.kron(black, np.ones((cell, cell), bool)), :3] = 0
        drawn.append(canvas)
    return drawn


NON_DIGITS: dict[str, Callable[[], list[np.ndarray]]] = {
    "noise": noise,
    "lines": lambda: sheets(100, line),
    "scribbles": lambda: sheets(100, scribble),
    "letters": letters,
    "Greek letters": lambda: letters(GREEK),
    "dots": lambda: sheets(60, dot),
    "smileys": lambda: sheets(60, smiley),
}


def non_digits(recogniser: Recognizer) -> dict[str, dict[str, float]]:
    """Per kind: the number of images, and the shares answered with at least DOUBTFUL and at least SURE."""
    result = {}
    for name, make in NON_DIGITS.items():
        tops = np.array([recogniser.read(canvas).probabilities.max() for canvas in make()])
        result[name] = {
            "n": len(tops),
            "not_doubtful": float((tops >= DOUBTFUL).mean()),
            "sure": float((tops >= SURE).mean()),
        }
    return result


def other_digits(recogniser: Recognizer) -> dict[str, float]:
    """scikit-learn's digits: 8×8 pixels, cropped to their ink (Alpaydin & Kaynak 1998, UCI), drawn black on white.

    Returns:
        The number of digits, the share that is read, and the share misread with at least SURE.
    """
    digits = load_digits()
    grey = (255 * (1 - digits.images / 16)).round().astype(np.uint8)
    canvases = np.stack([grey, grey, grey, np.full_like(grey, 255)], axis=3)
    probabilities = np.stack([recogniser.read(canvas).probabilities for canvas in canvases])
    right = probabilities.argmax(axis=1) == digits.target
    sure = probabilities.max(axis=1) >= SURE
    return {"n": len(right), "accuracy": float(right.mean()), "sure_and_wrong": float((sure & ~right).mean())}


def on_validation(checkpoint: Checkpoint, validation: data.Digits) -> dict[str, float]:
    """Loss, accuracy and calibration error; for a refitted network, those of the original training."""
    if "refitted_on" in checkpoint.results:
        loss, accuracy, error = (
            checkpoint.results[name] for name in ("validation_loss", "validation_accuracy", "calibration_error")
        )
    else:
        log_probs = predict_log_probs(checkpoint.model, validation.images)
        loss, accuracy = evaluate(checkpoint.model, validation)
        error = calibration_error(log_probs, validation.labels)
    return {"validation_loss": loss, "validation_accuracy": accuracy, "validation_calibration_error": error}


def judge(folder: Path, validation: data.Digits, test: data.Digits) -> tuple[dict[str, Any], Tensor]:
    """Measurements of a checkpoint, and its log-probabilities (N, 10) on the test digits."""
    checkpoint = load_checkpoint(folder)
    of_test = predict_log_probs(checkpoint.model, test.images)
    read = of_test.argmax(1)
    return {
        "recipe": checkpoint.recipe["name"],
        "seed": checkpoint.recipe["seed"],
        "parameters": sum(p.numel() for p in checkpoint.model.parameters()),
        **on_validation(checkpoint, validation),
        "test_accuracy": float((read == test.labels).double().mean()),
        "test_wrong": int((read != test.labels).sum()),
        "test_calibration_error": calibration_error(of_test, test.labels),
        "confusion": torch.bincount(test.labels * 10 + read, minlength=100).view(10, 10).tolist(),
    }, of_test


@plotting.plot_style()
def misread(test: data.Digits, log_probs: Tensor) -> Figure:
    """All misclassified digits with label, answer and probability."""
    wrong = torch.nonzero(log_probs.argmax(1) != test.labels)[:, 0].tolist()
    columns = 10
    rows = -(-len(wrong) // columns)
    drawn, panels = plotting.new_figure(columns=columns, rows=rows, width=9, height=1.15 * rows)
    for axes in panels:
        axes.set_axis_off()
    for axes, index in zip(panels, wrong, strict=False):
        probability, answer = log_probs[index].exp().max(0)
        axes.imshow(test.images[index, 0], cmap="gray_r", vmin=0, vmax=1)
        title = f"{int(test.labels[index])} → {int(answer)}, {100 * float(probability):.0f}%"
        axes.set_title(title, fontsize=9, loc="center", pad=2)
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, action="append", help="exported folder, repeatable; default: all")
    parser.add_argument("--data-root", type=Path, default=data.default_data_root())
    options = parser.parse_args()
    _, validation = data.split(data.load_mnist(True, options.data_root))
    test = data.load_mnist(False, options.data_root)
    models: dict[str, Any] = {}
    for folder in options.model or available():
        models[folder.name], log_probs = judge(folder, validation, test)
        recogniser = load(folder, "onnx")
        models[folder.name] |= {
            "onnx_bytes": (folder / "digits.onnx").stat().st_size,
            "scikit_learn_digits": other_digits(recogniser),
            "non_digits": non_digits(recogniser),
        }
        if models[folder.name]["recipe"] == "robust":
            plotting.save(misread(test, log_probs), MISREAD)
    write("recogniser", {"models": models})
    for name, content in models.items():
        print(name, {key: value for key, value in content.items() if key != "confusion"})


if __name__ == "__main__":
    main()
