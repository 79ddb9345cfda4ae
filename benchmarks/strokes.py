"""Vectorise digits: from pixels to pen strokes that may have drawn them.

A stroke is float64 (points, 2): (x, y) in digit pixels, where pixel j covers [j, j + 1]. A dot has one point.
"""

from itertools import combinations

import numpy as np
from PIL import Image
from skimage.morphology import thin

FINE = 4  # enlargement factor for the skeleton
INK = 0.55  # brightness above which a pixel is ink; lower values fill loops, higher ones tear faint strokes
ZONE = 0.5  # radius around a junction in which the skeleton is unreliable, in half widths of the stroke
SPUR = 1.25  # length in digit pixels below which loose ends are roughness of the outline
STRAIGHT = 0.5  # cosine of the sharpest turn assumed within a junction
SMOOTH = 0.7  # standard deviation of the Gaussian along a stroke, in digit pixels
STEP = 0.5  # distance between the points of a stroke, in digit pixels

Strokes = list[np.ndarray]
Pixel = tuple[int, int]
Port = tuple[int, int]  # number of a chain, and its first (0) or last (-1) pixel
AROUND = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))  # clockwise from the north


def vectorise(image: np.ndarray) -> Strokes:
    """float (H, W) in [0, 1], ink bright → strokes in arbitrary order; none for a blank image."""
    peak = float(image.max())
    if peak <= 0:
        return []
    height, width = image.shape
    source = Image.fromarray(np.pad(image / peak, 1).astype(np.float32))
    fine = source.resize(((width + 2) * FINE, (height + 2) * FINE), Image.Resampling.BICUBIC)
    mask = np.asarray(fine) > INK
    paths = _trace(thin(mask), mask)
    return [_smooth((path[:, ::-1] + 0.5) / FINE - 1) for path in paths]


# --- tracing ---------------------------------------------------------------------------------------------------------


def _trace(skeleton: np.ndarray, mask: np.ndarray) -> Strokes:
    """Skeleton and ink, bool (H, W) → paths, each (points, 2) as (row, column).

    Thinning bends lines near a junction, splits crossings in two and leaves spurs. So the skeleton in a zone around
    each junction is discarded, and the chains that reach the zone are joined again, as straight as possible.
    """
    graph = _graph(skeleton)
    zones = _zones(graph, mask)
    zone_of = {pixel: number for number, zone in enumerate(zones) for pixel in zone}
    chains, ports = _chains(graph, zone_of)
    centres = [np.mean([p for p in zone if len(graph[p]) > 2], axis=0) for zone in zones]
    partner: dict[Port, Port] = {}
    tail: dict[Port, np.ndarray] = {}  # continuation of a chain's end into its zone, (points, 2)
    for number, centre in enumerate(centres):
        _join([port for port, zone in ports.items() if zone == number], chains, centre, partner, tail)
    touched = set(ports.values())
    dots = [centre[None] for number, centre in enumerate(centres) if number not in touched]
    return _strokes(chains, partner, tail) + dots


def _graph(skeleton: np.ndarray) -> dict[Pixel, list[Pixel]]:
    """Skeleton pixel → its neighbours; diagonal ones only if no other pixel is adjacent to both."""
    pixels = {(int(row), int(column)) for row, column in np.argwhere(skeleton)}
    graph = {}
    for row, column in pixels:
        graph[row, column] = [
            (row + down, column + right)
            for down, right in AROUND
            if (row + down, column + right) in pixels
            and not (down and right and ((row + down, column) in pixels or (row, column + right) in pixels))
        ]
    return graph


def _zones(graph: dict[Pixel, list[Pixel]], mask: np.ndarray) -> list[set[Pixel]]:
    """Connected groups of the skeleton pixels that are within ZONE half widths of a junction."""
    junctions = [pixel for pixel, near in graph.items() if len(near) > 2]
    if not junctions:
        return []
    pixels, paper = np.array(list(graph)), np.argwhere(~mask)
    inside = np.zeros(len(pixels), bool)
    for junction in junctions:
        half_width = np.sqrt(((paper - junction) ** 2).sum(1).min())
        inside |= ((pixels - junction) ** 2).sum(1) <= (ZONE * half_width) ** 2
    left = {(int(row), int(column)) for row, column in pixels[inside]}
    zones = []
    while left:
        zone, grow = set(), [left.pop()]
        while grow:
            pixel = grow.pop()
            zone.add(pixel)
            near = left.intersection(graph[pixel])
            left -= near
            grow += near
        if any(len(graph[pixel]) > 2 for pixel in zone):
            zones.append(zone)
    return zones


def _chains(graph: dict[Pixel, list[Pixel]], zone_of: dict[Pixel, int]) -> tuple[Strokes, dict[Port, int]]:
    """The lines between zones, each (points, 2), and the zones that their ends touch."""
    left = {pixel for pixel in graph if pixel not in zone_of}
    inner = {pixel: [near for near in graph[pixel] if near not in zone_of] for pixel in left}
    chains: Strokes = []
    ports: dict[Port, int] = {}
    for start in sorted(left, key=lambda pixel: (len(inner[pixel]), pixel)):  # ends first, then closed rings
        if start not in left:
            continue
        line = [start]
        left.remove(start)
        while onward := [near for near in inner[line[-1]] if near in left]:
            line.append(onward[0])
            left.remove(onward[0])
        touching = [[zone_of[near] for near in graph[pixel] if near in zone_of] for pixel in (line[0], line[-1])]
        if len(line) == 1:
            touching = [touching[0][:1], touching[0][1:]]
        loose = not touching[0] or not touching[1]
        if any(touching) and loose and len(line) < SPUR * FINE:
            continue
        if len(line) > 2 and not any(touching) and line[0] in graph[line[-1]]:
            line.append(line[0])
        ports |= {(len(chains), end): zones[0] for end, zones in zip((0, -1), touching, strict=True) if zones}
        chains.append(np.array(line, float))
    return chains, ports


def _join(
    open_ports: list[Port], chains: Strokes, centre: np.ndarray, partner: dict[Port, Port], tail: dict[Port, np.ndarray]
) -> None:
    """Pair the ends of chains around one zone, straightest pairs first; fills `partner` and `tail`."""
    ends = {port: chains[port[0]][port[1]] for port in open_ports}
    inward = {port: _direction(chains[port[0]], port[1]) for port in open_ports}
    pairs = sorted(combinations(open_ports, 2), key=lambda pair: float(inward[pair[0]] @ inward[pair[1]]))
    path = [centre[None]]
    for one, other in pairs:
        straight = -float(inward[one] @ inward[other])
        if one in partner or other in partner or (len(open_ports) > 2 and straight < STRAIGHT):
            continue
        partner[one], partner[other] = other, one
        if straight < STRAIGHT:
            tail[one] = centre[None]
        else:
            path.append(np.linspace(ends[one], ends[other], 9))
    meeting = np.concatenate(path[1:] or path)
    for port in open_ports:
        if port not in partner:  # ends on the line through the zone
            nearest = ((meeting - ends[port]) ** 2).sum(1).argmin()
            tail[port] = meeting[nearest][None]


def _direction(chain: np.ndarray, end: int) -> np.ndarray:
    """Unit vector (2,) in which the chain arrives at its first (0) or last (-1) point."""
    along = chain if end == 0 else chain[::-1]
    way = along[0] - along[min(len(along) - 1, 2 * FINE)]
    return way / max(float(np.hypot(*way)), 1e-9)


def _strokes(chains: Strokes, partner: dict[Port, Port], tail: dict[Port, np.ndarray]) -> Strokes:
    """Chains joined to strokes: first from loose ends, then closed rings."""
    left = set(range(len(chains)))
    starts = sorted(((chain, end) for chain in left for end in (0, -1)), key=lambda port: port in partner)
    strokes = []
    for first in starts:
        if first[0] not in left:
            continue
        pieces, port = [tail.get(first, np.empty((0, 2)))], first
        while port[0] in left:
            chain, end = port
            left.remove(chain)
            leaving = (chain, -1 - end)
            pieces += [chains[chain] if end == 0 else chains[chain][::-1], tail.get(leaving, np.empty((0, 2)))]
            if leaving not in partner:
                break
            port = partner[leaving]
            pieces.append(tail.get(port, np.empty((0, 2))))
        if port == first and first in partner:
            pieces.append(pieces[1][:1])
        strokes.append(np.concatenate(pieces))
    return strokes


def resample(stroke: np.ndarray, step: float) -> np.ndarray:
    """The same line with points about `step` apart, including both ends; shorter than half a step, a dot."""
    position = np.concatenate([[0], np.hypot(*np.diff(stroke, axis=0).T).cumsum()])
    count = round(position[-1] / step)
    if count == 0:
        return stroke.mean(axis=0, keepdims=True)
    places = np.linspace(0, position[-1], count + 1)
    return np.stack([np.interp(places, position, axis) for axis in stroke.T], axis=1)


def _smooth(stroke: np.ndarray) -> np.ndarray:
    """Gaussian filter along the line. Open lines are mirrored at their ends, which stay; closed ones wrap around."""
    closed = len(stroke) > 2 and bool((stroke[0] == stroke[-1]).all())
    points = resample(stroke, STEP / 2)
    if len(points) < 3:
        return points
    reach = min(round(3 * SMOOTH / (STEP / 2)), len(points) - 1)
    if closed:
        before, after = points[-1 - reach : -1], points[1 : 1 + reach]
    else:
        before, after = 2 * points[0] - points[reach:0:-1], 2 * points[-1] - points[-2 : -2 - reach : -1]
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) * (STEP / 2) / SMOOTH) ** 2)
    padded = np.concatenate([before, points, after])
    smooth = [np.convolve(axis, weights / weights.sum(), "valid") for axis in padded.T]
    return resample(np.stack(smooth, axis=1), STEP)
