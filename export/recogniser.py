"""Load an exported folder and predict with one of its three formats. No checkpoint or model code is needed."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bnmodel.deploy import certificate
from bnmodel.deploy.loading import FORMATS, ExportedFile, Run, load_file

SURE = 0.5  # minimum probability of a digit that is shown


@dataclass(frozen=True)
class Answer:
    """The network's output for a drawing."""

    probabilities: np.ndarray  # float32 (10,)
    digit: np.ndarray  # float32 (28, 28) in [0, 1], the network's input
    ink: float  # share of the canvas covered, in [0, 1]

    @property
    def blank(self) -> bool:
        return self.ink == 0

    @property
    def label(self) -> int | None:
        """The most probable digit; None for a blank canvas."""
        return None if self.blank else int(self.probabilities.argmax())


@dataclass(frozen=True)
class Digit:
    """One digit of a number."""

    label: int
    probability: float
    box: tuple[float, float, float, float]  # left, top, right, bottom in canvas pixels


@dataclass(frozen=True)
class Number:
    """The digits of a drawing in reading order; empty for a blank drawing or one with too many digits."""

    digits: tuple[Digit, ...]
    too_many: bool = False

    @property
    def text(self) -> str | None:
        """The digits as text; None if there are none, or the probability of one is below SURE."""
        sure = self.digits and all(digit.probability >= SURE for digit in self.digits)
        return "".join(str(digit.label) for digit in self.digits) if sure else None


@dataclass(frozen=True)
class Recognizer:
    """The exported files of one format; immutable, so safe to share between threads."""

    name: str
    metadata: dict[str, Any]
    run_digits: Run
    run_sketch: Run
    run_numbers: Run

    def read_numbers(self, canvas: np.ndarray) -> Number:
        """All digits of a drawing, uint8 (H, W, 4) RGBA with sides of 8 … 4096.

        Raises:
            ValueError: wrong shape or type.
        """
        _check(canvas)
        count, boxes, probabilities = self.run_numbers(np.ascontiguousarray(canvas))
        found = slice(max(int(count), 0))
        digits = (
            Digit(int(p.argmax()), float(p.max()), tuple(box.tolist()))
            for p, box in zip(probabilities[found], boxes[found], strict=True)
        )
        return Number(tuple(digits), too_many=int(count) < 0)

    def read(self, canvas: np.ndarray) -> Answer:
        """The digit of a drawing, uint8 (H, W, 4) RGBA with sides of 8 … 4096.

        Raises:
            ValueError: wrong shape or type.
        """
        _check(canvas)
        probabilities, digit, ink = self.run_sketch(np.ascontiguousarray(canvas))
        return Answer(probabilities, digit, float(ink))

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Log-probabilities, float32 (N, 10), of digits, float32 (N, 1, 28, 28) in [0, 1] with bright ink.

        Raises:
            ValueError: wrong shape or type.
        """
        if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != (1, 28, 28):
            raise ValueError(f"images: expected float32 (N, 1, 28, 28), received {images.dtype} {images.shape}")
        return self.run_digits(np.ascontiguousarray(images))[0]


def _check(canvas: np.ndarray) -> None:
    if canvas.dtype != np.uint8 or canvas.ndim != 3 or canvas.shape[2] != 4:
        raise ValueError(f"canvas: expected uint8 (H, W, 4) RGBA, received {canvas.dtype} {canvas.shape}")
    if not all(8 <= side <= 4096 for side in canvas.shape[:2]):
        raise ValueError(f"canvas: expected sides of 8 … 4096 pixels, received {canvas.shape[:2]}; rescale it")


def load(folder: Path | str, format: str = "onnx") -> Recognizer:
    """Load the exported files in `folder`, such as checkpoints/lecture, each for one thread.

    The `numbers` file is loaded on first use.

    Raises:
        ExportError: a file is missing, damaged, or not the one in the folder's certificate, if it has one.
    """
    if format not in FORMATS:
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}, received {format!r}")
    folder = Path(folder)
    path = folder / certificate.FILE
    content = certificate.read(path) if path.exists() else None

    def loaded(stem: str, optimised: bool = True) -> ExportedFile:
        path = folder / f"{stem}.{format}"
        file = load_file(path, threads=1, lean=True, optimised=optimised)
        if content is not None:
            certificate.require_unchanged(path, content)
        return file

    digits, sketch = loaded("digits"), loaded("sketch", optimised=False)
    numbers = cache(lambda: loaded("numbers").run)
    return Recognizer(folder.name, digits.metadata, digits.run, sketch.run, lambda *arrays: numbers()(*arrays))


def available(root: Path | str = "checkpoints") -> list[Path]:
    """The folders in `root` with exported files, sorted by name."""
    return sorted(path.parent for path in Path(root).glob("*/sketch.onnx"))
