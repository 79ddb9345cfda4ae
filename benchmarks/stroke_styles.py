"""Handwriting styles that are rare in MNIST: strokes → strokes, or None if the style does not apply."""

from collections.abc import Callable

import numpy as np
from scipy.interpolate import make_interp_spline

from benchmarks.rasteriser import box
from benchmarks.strokes import Strokes, resample


def crossed(strokes: Strokes) -> Strokes | None:
    """A seven with a bar through the middle of its stem; None if it has one."""
    (_, top), (_, bottom) = box(strokes)
    height, y = bottom - top, top + 0.55 * (bottom - top)
    middle = [stroke[abs(stroke[:, 1] - y) < 0.1 * height] for stroke in map(_fine, strokes)]
    points = np.concatenate(middle)
    if not len(points) or np.ptp(points[:, 0]) > 0.35 * height:
        return None
    x, half = points[:, 0].mean(), 0.22 * height
    return [*strokes, np.array([[x - half, y], [x + half, y - 0.03 * height]])]


def footed(strokes: Strokes, flag: bool = False) -> Strokes | None:
    """A one on a base line, optionally with a flag at the top left; None if it is more than a plain line."""
    (left, top), (right, bottom) = box(strokes)
    height = bottom - top
    points = np.concatenate(strokes)
    foot, head = points[points[:, 1].argmax()], points[points[:, 1].argmin()]
    if len(strokes) > 1 or right - left > abs(foot[0] - head[0]) + 0.15 * height:
        return None
    added = [np.array([[foot[0] - 0.25 * height, bottom], [foot[0] + 0.25 * height, bottom]])]
    if flag:
        x, y = 0.35 * (foot - head)
        added.append(np.array([head, head + 0.7 * np.array([x - y, x + y])]))  # direction of the stem, turned by 45°
    return strokes + added


def long_flagged(strokes: Strokes) -> Strokes | None:
    """A one whose flag rises at 45° from half its height; None if it is more than a plain line."""
    if footed(strokes) is None:
        return None
    (_, top), (_, bottom) = box(strokes)
    points = np.concatenate(strokes)
    head = points[points[:, 1].argmin()]
    return [*strokes, np.array([head, head + 0.5 * (bottom - top) * np.array([-1, 1])])]


def one_stroke(strokes: Strokes) -> Strokes | None:
    """A seven whose line loops back from its foot and crosses the stem; None if it has a bar."""
    barred = crossed(strokes)
    if barred is None:
        return None
    (left, y), (right, _) = barred[-1]
    points = np.concatenate(strokes)
    foot, width = points[points[:, 1].argmax()], right - left
    loop = _curve(np.array([foot, foot - (0.5 * width, 0.15 * width), (left, y + 0.3 * width), (right, y)]))
    return [*strokes, loop]


def slashed(strokes: Strokes) -> Strokes:
    """A zero with a diagonal line."""
    (left, top), (right, bottom) = box(strokes)
    return [*strokes, np.array([[left, bottom], [right, top]])]


def curled(strokes: Strokes) -> Strokes | None:
    """A six whose upper end curls over to the right; None if the end is not its highest part."""
    ends = [end for stroke in strokes for end in (stroke[0], stroke[-1])]
    (_, top), (_, bottom) = box(strokes)
    head, height = min(ends, key=lambda end: float(end[1])), bottom - top
    if head[1] > top + 0.1 * height:
        return None
    return [*strokes, _curve(head + height * np.array([[0, 0], [0.12, -0.04], [0.22, 0.05], [0.2, 0.18]]))]


def without_notch(strokes: Strokes) -> Strokes:
    """A three with almost no notch on its left."""
    (left, top), (right, bottom) = box(strokes)
    changed = []
    for x, y in (_fine(stroke).T for stroke in strokes):
        depth = np.clip(1 - np.abs((y - top) / (bottom - top) - 0.48) / 0.25, 0, 1)
        back = right - 0.15 * (right - left)
        changed.append(np.stack([x + 0.75 * depth * np.clip(back - x, 0, None), y], axis=1))
    return changed


def bolt(strokes: Strokes) -> Strokes | None:
    """A four like a lightning bolt, whose stem begins where the bar ends; None unless it is open with a clear bar."""
    four = _open_four(strokes)
    if four is None:
        return None
    arm, _, stem_top = four
    points = np.concatenate(strokes)
    foot = points[points[:, 1].argmax()]
    meeting = _bar_end(arm[_corner(arm) :], stem_top, foot)
    arm, height = arm[: _corner(arm) + 1], np.ptp(points[:, 1])
    if meeting[0] - arm[-1, 0] < 0.25 * height or foot[1] - meeting[1] < 0.25 * height:
        return None
    return [np.concatenate([arm, [meeting, foot]])]


def small_headed(strokes: Strokes, factor: float = 0.65) -> Strokes | None:
    """A nine whose upper half is `factor` as wide and high, aligned at its right side, with a longer stem."""
    (_, top), (_, bottom) = box(strokes)
    points = np.concatenate([_fine(stroke) for stroke in strokes])
    levels = np.linspace(top, bottom, 25)
    edge = np.array(
        [points[abs(points[:, 1] - level) < (bottom - top) / 12, 0].max(initial=-np.inf) for level in levels]
    )
    if not np.isfinite(edge).all():
        return None  # torn
    edge = np.convolve(np.pad(edge, 4, "edge"), np.hanning(11)[1:-1] / np.hanning(11).sum(), "valid")
    changed = []
    for x, y in (_fine(stroke).T for stroke in strokes):
        share = (y - top) / (bottom - top)
        right = np.interp(y, levels, edge)
        narrow = np.interp(share, (0.55, 1.0), (factor, 1.0))
        lowered = np.interp(share, (0.0, 0.55, 1.0), (0.0, 0.55 * factor, 1.0))
        changed.append(np.stack([right - (right - x) * narrow, top + lowered * (bottom - top)], axis=1))
    return changed


def closed(strokes: Strokes) -> Strokes | None:
    """A four whose left arm leans over to the top of its stem and whose bar crosses the stem; None if not open."""
    four = _open_four(strokes)
    if four is None:
        return None
    arm, others, stem_top = four
    points = np.concatenate(strokes)
    height, stem_foot = np.ptp(points[:, 1]), points[points[:, 1].argmax()]
    meeting = _bar_end(arm[_corner(arm) :], stem_top, stem_foot)
    beyond = points[abs(points[:, 1] - meeting[1]) < 0.1 * height, 0].max() - meeting[0]
    bar = [] if beyond > 0.15 * height else [meeting + np.array([[0, 0], [0.22 * height, 0]])]  # or it is a nine
    return [*others, _leaning(arm, stem_top), *bar]


def wide_open(strokes: Strokes) -> Strokes | None:
    """An open four whose left arm leans outwards; None if it is not open."""
    four = _open_four(strokes)
    if four is None:
        return None
    arm, others, _ = four
    return [*others, _leaning(arm, arm[0] - (0.25 * np.ptp(np.concatenate(strokes)[:, 1]), 0))]


def _open_four(strokes: Strokes) -> tuple[np.ndarray, Strokes, np.ndarray] | None:
    """The stroke that starts at the upper left end, the others, and the upper right end; None if the ends meet."""
    (_, top), (_, bottom) = box(strokes)
    height = bottom - top
    ends = [(number, way) for number in range(len(strokes)) for way in (1, -1) if len(strokes[number]) > 3]
    upper = [(n, way) for n, way in ends if strokes[n][::way][0, 1] < top + 0.45 * height]
    if len(upper) != 2:
        return None
    (number, way), (other, back) = sorted(upper, key=lambda end: float(strokes[end[0]][:: end[1]][0, 0]))
    arm, stem_top = strokes[number][::way], strokes[other][::back][0]
    if np.hypot(*(arm[0] - stem_top)) < 0.2 * height:
        return None
    return arm, strokes[:number] + strokes[number + 1 :], stem_top


def _bar_end(bar: np.ndarray, stem_top: np.ndarray, stem_foot: np.ndarray) -> np.ndarray:
    """The point (2,) where a four's bar meets its stem, or where the pen turns."""
    way, middle = bar[4:] - bar[:-4], bar[2:-2]
    stem = np.interp(middle[:, 1], [stem_top[1], stem_foot[1]], [stem_top[0], stem_foot[0]])
    turned = (abs(way[:, 1]) > abs(way[:, 0])) & (middle[:, 0] > bar[0, 0] + 3)
    there = np.flatnonzero(turned | (middle[:, 0] >= stem))
    return middle[there[0]] if len(there) else bar[-1]


def _leaning(arm: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The stroke with its first point moved to `target`, and the others decreasingly up to its corner."""
    share = np.clip(1 - np.arange(len(arm)) / _corner(arm), 0, 1)
    return arm + share[:, None] * (target - arm[0])


def _corner(arm: np.ndarray) -> int:
    """Index of the lowest point of a four's left part, where its arm turns into its bar."""
    left = arm[:, 0] <= arm[0, 0] + 0.15 * np.ptp(arm[:, 0])
    until = len(arm) if left.all() else int(left.argmin())
    return max(1, int(arm[:until, 1].argmax()))


def _curve(points: np.ndarray) -> np.ndarray:
    """A smooth curve through `points` (N, 2)."""
    spline = make_interp_spline(np.arange(len(points)), points)
    return np.asarray(spline(np.linspace(0, len(points) - 1, 40)))


def _fine(stroke: np.ndarray) -> np.ndarray:
    """Points about a quarter of a digit pixel apart."""
    return resample(stroke, 0.25)


STYLES: dict[str, tuple[int, Callable[[Strokes], Strokes | None]]] = {
    "crossed sevens": (7, crossed),
    "ones with a foot": (1, footed),
    "ones with foot and flag": (1, lambda strokes: footed(strokes, flag=True)),
    "ones with a long flag": (1, long_flagged),
    "sevens in one stroke": (7, one_stroke),
    "slashed zeros": (0, slashed),
    "curled sixes": (6, curled),
    "threes without a notch": (3, without_notch),
    "fours like a bolt": (4, bolt),
    "small-headed nines": (9, small_headed),
    "closed fours": (4, closed),
    "wide-open fours": (4, wide_open),
}
