"""Numbers: finds, orders and reads all digits of a picture, in tensor operations that can be exported."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnmodel.data.components import components
from bnmodel.data.content import find_content
from bnmodel.data.ink import InkFinder, enlarged
from bnmodel.data.preprocessing import digit_of, ink_box, reduced
from bnmodel.data.ruled_lines import around
from bnmodel.data.touching import best_way, edges, section_boxes, section_digits

MOST = 8  # digits returned
PARTS = 12  # pieces of ink examined
WIDE = 2  # the largest pieces, each of which may consist of up to three touching digits


class NumberReader(nn.Module):
    """canvas: uint8 (H, W, 4) RGBA, sides 8 … 4096 → count: int32 (); boxes: float32 (8, 4); probabilities: (8, 10).

    Digits are in reading order, left to right, line by line; `boxes` are left, top, right, bottom in canvas pixels.
    Both outputs are padded with zeros. `count` is 0 for a blank canvas; for more than 8 digits it is -1, and the other
    outputs are 0. Pieces of ink that belong together, such as the bar of a 5, are one digit. Each of the two largest
    pieces is read as two or three digits if the network is more confident of these; the probabilities of other pieces
    wider than a digit stay below 50%.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.find_ink = InkFinder()
        self.network = network

    def forward(self, canvas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = self.find_ink(canvas)
        area, faint, contrast = find_content(found, 160)
        ink = contrast / contrast.max().clamp(min=1e-6)  # (SIDE, SIDE)
        boxes, labels, more = find_parts(ink)
        boxes, labels = merged(boxes, labels)
        number = torch.arange(1, 13, device=ink.device, dtype=ink.dtype)[:, None, None]
        parts = ink * (enlarged(labels) == number)  # (PARTS, SIDE, SIDE)
        pixel, averaged = (1 / found.step).clamp(min=1), (found.step > 1).to(ink.dtype)
        together = digit_of(canvas, found, area, faint, ink)  # as `Sketch` reads it
        place, probabilities, single = self.read(parts, boxes, pixel, averaged, together)
        counted = probabilities.amax(dim=1) > 0  # (PARTS + 2 · WIDE,)
        top, bottom, left, right = ink_box(ink)
        # the network is more confident of a whole digit than of its pieces
        least = torch.where(counted, probabilities.amax(dim=1), 1.0).min()
        aspect = (right - left) / (bottom - top).clamp(min=1)
        narrow = (aspect <= 1.1) | ((aspect <= 1.4) & (single.max() >= 0.9))
        alone = (counted.to(torch.int64).sum() == 1) & (boxes[0, 2] - boxes[0, 0] <= 1.3 * (boxes[0, 3] - boxes[0, 1]))
        one = counted.any() & (alone | (narrow & (single.max() >= 0.5) & (single.max() > least)))
        counted = torch.cat((counted & torch.logical_not(one), one[None]))
        place = torch.cat((place, torch.stack((left, top, right, bottom))[None]))
        total = counted.to(ink.dtype).sum()
        too_many = (more & torch.logical_not(one)) | (total > 8)
        order = reading_order(place, counted) * torch.logical_not(too_many)  # (MOST, PARTS + 2 · WIDE + 1)
        count = torch.where(too_many, -1.0, total).to(torch.int32)
        return count, order @ place * found.step, order @ torch.cat((probabilities, single))

    def read(
        self, parts: Tensor, boxes: Tensor, pixel: Tensor, averaged: Tensor, together: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (PARTS + 2 · WIDE, 4) and probabilities (PARTS + 2 · WIDE, 10) of all digits, 0 where there is none,
        and the probabilities of the whole ink as one digit (1, 10).
        """
        columns = edges(parts[:WIDE], boxes[:WIDE])
        sections, rows = section_digits(parts[:WIDE], columns, pixel, averaged)
        others = reduced(parts[WIDE:], pixel, averaged)
        scores = self.network(torch.cat((sections.flatten(0, 1), others, together[None]))[:, None]).exp()
        rest = PARTS - WIDE + 1  # the other pieces and the whole ink
        of_sections, of_others, single = scores[:-rest].view(WIDE, -1, 10), scores[-rest:-1], scores[-1:]
        height, width = boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]
        tall = (rows >= 0.6 * height[:WIDE, None]).to(boxes.dtype)  # a slice of a curve is not
        places = section_boxes(boxes[:WIDE], columns)
        way = best_way(of_sections.amax(dim=2) * tall, places)  # (WIDE, 3, SECTIONS)
        read, place = way @ of_sections, way @ places  # (WIDE, 3, 10), (WIDE, 3, 4)
        split = torch.cat((way[:, 1].amax(dim=1) > 0, torch.zeros_like(height[WIDE:]) > 0))  # (PARTS,)
        first = torch.cat((read[:, 0], of_others))
        doubted = (width > 1.3 * height) & torch.logical_not(split)
        first = torch.where(doubted[:, None], 0.45 * first + 0.055, first)
        tallest = height.max()
        present = (torch.maximum(height, 0.8 * width) >= 0.4 * tallest) & (tallest > 0)  # (PARTS,)
        present = torch.cat((present, present[:WIDE], present[:WIDE]))
        probabilities = torch.cat((first, read[:, 1], read[:, 2]))
        return (
            torch.cat((place[:, 0], boxes[WIDE:], place[:, 1], place[:, 2])),
            probabilities * present[:, None],
            single,
        )


def find_parts(ink: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split ink (SIDE, SIDE) into pieces: connected components, each with everything inside its bounding box.

    Returns:
        Bounding boxes (PARTS, 4), largest first; the labels 1 … PARTS, or 0, of cells of 2 × 2 pixels,
        (SIDE / 2, SIDE / 2); whether there are more pieces.
    """
    cells = ink.view(160, 2, 320).amax(dim=1).view(160, 160, 2).amax(dim=2)
    mask = (cells > 0.35).to(ink.dtype)
    mask = torch.where(_pieces(mask) > 8, around(mask[None])[0], mask)  # parts of digits, such as segments of a display
    top, bottom, left, right = components(mask)
    size = (torch.maximum(bottom - top, right - left) + 0.001 * (bottom - top + right - left)) * mask
    extents = torch.stack((left, top, right, bottom), dim=2).view(-1, 4)
    remaining, labels = size, torch.zeros_like(mask)
    boxes = []
    for number in range(1, 13):
        largest = remaining.flatten().argmax()  # ties: the topmost, then the leftmost
        box = F.embedding(largest, extents)  # several runtimes cannot slice at a computed index
        within = (left >= box[0]) & (top >= box[1]) & (right <= box[2]) & (bottom <= box[3]) & (remaining > 0)
        boxes.append(box * within.any())
        labels = torch.where(within, float(number), labels)
        remaining = torch.where(within, 0.0, remaining)
    more = remaining.max() > 0.4 * size.max()
    labels = torch.where(mask > 0, labels, around(labels[None])[0])  # soft edges
    return torch.stack(boxes) * 2, labels, more


def _pieces(mask: Tensor) -> Tensor:
    """Number of connected components less the number of holes, (): the Euler characteristic of the cells."""
    across = torch.maximum(F.pad(mask, (1, 0)), F.pad(mask, (0, 1)))  # each side between two columns
    sides = torch.stack((across.sum(), torch.maximum(F.pad(mask, (0, 0, 1, 0)), F.pad(mask, (0, 0, 0, 1))).sum()))
    corners = torch.maximum(F.pad(across, (0, 0, 1, 0)), F.pad(across, (0, 0, 0, 1)))
    return corners.sum() - sides.sum() + mask.sum()


def merged(boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Merge pieces that belong to one digit; returns boxes and labels as `find_parts` does.

    The merged piece has the lowest number; the boxes of the others become 0. A piece of less than 0.55 of another's
    height belongs to it if it lies above, below or close beside it; a flat one, such as the bar of a 5, belongs to the
    nearest large piece. Pieces stacked on top of each other belong together.
    """
    left, top, right, bottom = boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 3]
    height, width = bottom - top, right - left
    tall = torch.maximum(height[:, None], height)  # (PARTS, PARTS)
    small = torch.minimum(height[:, None], height) < 0.55 * tall
    across = torch.minimum(right[:, None], right) - torch.maximum(left[:, None], left)  # overlap, negative: gap
    down = torch.minimum(bottom[:, None], bottom) - torch.maximum(top[:, None], top)
    narrow = torch.minimum(width[:, None], width).clamp(min=1)
    present = (height > 0).to(boxes.dtype)
    over = (across > 0.4 * narrow) & (down > -0.3 * tall)
    beside = (across > -0.1 * tall) & (down > 0.7 * torch.minimum(height[:, None], height))
    stacked = (across > 0.6 * narrow) & (down > -0.1 * tall)
    half = height < 0.6 * height.max()  # such as of a 0 or a 1 on a seven-segment display
    stacked = stacked | (half & half[:, None] & (across > 0.2 * narrow) & (down > -0.15 * height.max()))
    gap = (-across).clamp(min=0) + (-down).clamp(min=0)  # 0 where boxes overlap
    flat = (height < 0.4 * height.max()) & (width > height)
    large = height >= 0.55 * height.max()
    near = torch.where(flat[:, None] & large & (gap < 0.3 * tall), gap - 0.01 * across, 1000.0)
    nearest = (near <= near.amin(dim=1, keepdim=True)) & (near < 1000)
    near = (nearest | nearest.transpose(0, 1)).to(boxes.dtype)
    joined = torch.maximum(((small & (over | beside)) | stacked).to(boxes.dtype), near) * present[:, None] * present
    index = torch.arange(12, device=boxes.device, dtype=boxes.dtype)
    joined = torch.maximum(joined, (index[:, None] == index).to(boxes.dtype))
    for _ in range(2):
        joined = (joined @ joined > 0).to(boxes.dtype)
    leader = torch.where(joined > 0, index, 12.0).amin(dim=1)  # (PARTS,)
    group = (leader[None] == index[:, None]).to(boxes.dtype) * present  # (PARTS of groups, PARTS)
    member = group > 0
    extent = torch.stack(
        (
            torch.where(member, left, 1000.0).amin(dim=1),
            torch.where(member, top, 1000.0).amin(dim=1),
            torch.where(member, right, 0.0).amax(dim=1),
            torch.where(member, bottom, 0.0).amax(dim=1),
        ),
        dim=1,
    )
    used = group.amax(dim=1)
    numbers = torch.cat((torch.zeros_like(leader[:1]), leader + 1))[:, None]
    return extent * used[:, None], F.embedding(labels.long(), numbers)[:, :, 0]


def reading_order(boxes: Tensor, present: Tensor) -> Tensor:
    """Boxes (n, 4) and a mask of the digits among them (n,) → permutation matrix of the first MOST, (MOST, n).

    Neighbours whose middles differ in height by at most half of their larger height are in one line, so that a line
    may rise or fall. A line is earlier than another if it is higher by more than half of the digits' larger height.
    """
    left, middle, height = boxes[:, 0], (boxes[:, 1] + boxes[:, 3]) / 2, boxes[:, 3] - boxes[:, 1]
    half = torch.maximum(height[:, None], height) / 2
    index = torch.arange(boxes.size(0), device=boxes.device)
    gap = left[:, None] - boxes[:, 2]  # negative or 0 where they overlap
    near = ((middle[:, None] - middle).abs() <= half) & (torch.maximum(gap, gap.t()) <= 3 * half)
    line = torch.maximum((near & present & present[:, None]).to(boxes.dtype), (index[:, None] == index).to(boxes.dtype))
    for _ in range(3):  # neighbours of neighbours, MOST digits in all
        line = (line @ line > 0).to(boxes.dtype)
    middle = (line @ middle[:, None])[:, 0] / line.sum(dim=1)  # OpenCV cannot multiply by a vector
    below = middle[:, None] - middle  # (n, n): how much lower the first one's line is
    right = left[:, None] > left
    before = ((below > half) & (line <= 0)) | (((below.abs() <= half) | (line > 0)) & right)
    rank = (before & present).sum(dim=1)  # (n,); ties are in the order of `boxes`
    equal = (rank[:, None] == rank) & (index[:, None] > index)
    rank = (((rank[:, None] > rank) | equal) & present).sum(dim=1)
    return ((rank == torch.arange(8, device=boxes.device)[:, None]) & present).to(boxes.dtype)
