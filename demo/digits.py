"""Several digits on one sheet: find them, choose one, and put each on a sheet of its own.

The network reads one digit at a time; pad and tabs get the same sheet of the chosen digit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from export.recogniser import Answer, Recognizer

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
MARGIN = 0.15  # paper kept around a digit, as a share of its longer side
SOFT = 0.02  # width of the soft edge around a digit's box, likewise
OTHER_INK = 0.25  # contrast above which a pixel around a digit is other ink, as a share of the largest contrast
WIDE = 0.95  # width / height of a piece of ink above which it may be two touching digits
VERY_WIDE = 1.2  # the same for ink that is read as one digit with a probability of at least CERTAIN
CERTAIN = 0.999
SPECK = 0.02  # smallest piece of ink that counts, as a share of the largest one's area


@dataclass(frozen=True)
class Found:
    """One of several digits."""

    box: Box
    answer: Answer  # to the sheet with this digit `alone`


def find(recognizer: Recognizer, canvas: np.ndarray, answer: Answer) -> tuple[list[Found], bool]:
    """The digits of a sheet in reading order, empty unless there are several; and whether there are too many.

    `answer`: that of `recognizer` to the whole sheet as one digit.
    """
    if answer.blank or not may_be_several(canvas, float(answer.probabilities.max())):
        return [], False
    number = recognizer.read_numbers(canvas)
    boxes = [digit.box for digit in number.digits]
    if len(boxes) < 2:
        return [], number.too_many
    return [Found(box, recognizer.read(alone(canvas, boxes, k))) for k, box in enumerate(boxes)], False


def may_be_several(canvas: np.ndarray, probability: float = 0.0) -> bool:
    """Whether to search for several digits: always on a picture; on a drawing, unless it is one narrow piece of ink.

    `probability`: of the answer to the whole sheet as one digit.
    """
    from scipy import ndimage  # slow to import

    alpha = canvas[..., 3]
    if alpha.min() > 0:
        return True
    pieces, count = ndimage.label(alpha > 127, np.ones((3, 3)))
    if not count:
        return False
    areas = np.bincount(pieces.ravel())[1:]
    places = ndimage.find_objects(pieces)
    large = [place for place, area in zip(places, areas, strict=True) if area >= SPECK * areas.max()]
    rows, columns = large[0]
    widest = VERY_WIDE if probability >= CERTAIN else WIDE
    return len(large) > 1 or columns.stop - columns.start > widest * (rows.stop - rows.start)


def alone(canvas: np.ndarray, boxes: Sequence[Box], chosen: int) -> np.ndarray:
    """The sheet with the chosen digit only: other ink, such as of digits and forms around it, becomes paper."""
    height, width = canvas.shape[:2]
    left, top, right, bottom = _pixels(boxes[chosen], height, width)
    margin = round(MARGIN * max(right - left, bottom - top))
    own = np.zeros((height, width), bool)
    own[top:bottom, left:right] = True
    others = np.zeros((height, width), bool)
    for k, box in enumerate(boxes):
        if k != chosen:
            x0, y0, x1, y1 = _pixels(box, height, width)
            others[y0:y1, x0:x1] = True
    near = (
        slice(max(0, top - margin), min(height, bottom + margin)),
        slice(max(0, left - margin), min(width, right + margin)),
    )
    part, around = canvas[near].copy(), ~(own | others)[near]
    if around.any():
        paper = np.median(part[around], axis=0)
        contrast = abs(part - paper).max(axis=2)
        erased = (others & ~own)[near]
        soft = round(SOFT * max(right - left, bottom - top)) + 2
        own[max(0, top - soft) : bottom + soft, max(0, left - soft) : right + soft] = True
        part[erased | (~own[near] & (contrast > OTHER_INK * contrast.max()))] = paper
    rows, columns = ((side.start, whole - side.stop) for side, whole in zip(near, (height, width), strict=True))
    return np.pad(part, (rows, columns, (0, 0)), mode="edge")


def nearest(boxes: Sequence[Box], point: tuple[float, float]) -> int:
    """Index of the box that contains `point`, or else is closest to it."""
    x, y = point

    def distance(box: Box) -> tuple[float, float]:
        left, top, right, bottom = box
        outside = max(left - x, 0, x - right) + max(top - y, 0, y - bottom)
        return outside, abs(x - (left + right) / 2) + abs(y - (top + bottom) / 2)

    return min(range(len(boxes)), key=lambda k: distance(boxes[k]))


def _pixels(box: Box, height: int, width: int) -> tuple[int, int, int, int]:
    """`box` in whole pixels, clipped to the sheet, at least one pixel wide and high."""
    left, top = min(max(0, int(box[0])), width - 1), min(max(0, int(box[1])), height - 1)
    return left, top, min(width, max(left + 1, int(np.ceil(box[2])))), min(height, max(top + 1, int(np.ceil(box[3]))))
