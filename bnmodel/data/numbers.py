"""Numbers: the digits of a picture, found, put in reading order and read, in tensor operations that can be exported."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnmodel.data.content import around, components, enlarge, find_content
from bnmodel.data.ink import InkFinder
from bnmodel.data.preprocessing import digit_of, ink_box, reduced

MOST = 8  # digits that are returned
PARTS = 12  # pieces of ink that are looked at


class NumberReader(nn.Module):
    """canvas: uint8 (H, W, 4) RGBA, sides 8 … 4096 → count: int64 (); boxes: float32 (8, 4); probabilities: (8, 10).

    In reading order, left to right, then line by line; `boxes` are left, top, right, bottom in canvas pixels. Both are
    padded with zeros. `count` is 0 for a blank canvas and -1 where there are more than 8 digits, which is then all.
    Pieces of ink that belong together are one digit, as the bar of a 5. A piece that is wider than a digit is read as
    two where the network is surer of its halves, and otherwise none of its probabilities reaches 50 %.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.find_ink = InkFinder()
        self.network = network

    def forward(self, canvas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = self.find_ink(canvas)
        area, faint = find_content(found)
        contrast = found.contrast * enlarge(area) * (found.contrast > faint)
        ink = contrast / contrast.max().clamp(min=1e-6)  # (SIDE, SIDE)
        boxes, labels, more = find_parts(ink)
        boxes, labels = merged(boxes, labels)
        labels = labels[:, None, :, None].expand(160, 2, 160, 2).reshape(320, 320)
        number = torch.arange(1, 13, device=ink.device, dtype=ink.dtype)[:, None, None]
        parts = ink * (labels == number)  # (PARTS, SIDE, SIDE)
        tallest = (boxes[:, 3] - boxes[:, 1]).max()
        height, width = boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]
        present = (torch.maximum(height, 0.8 * width) >= 0.4 * tallest) & (tallest > 0)  # (PARTS,)
        cut = best_cut(parts, boxes)  # (PARTS,)
        left = parts * (torch.arange(320, device=ink.device) < cut[:, None, None])
        pieces = torch.cat((parts, left, parts - left))  # (3 · PARTS, SIDE, SIDE)
        pixel = (1 / found.step).clamp(min=1)
        digits = reduced(pieces, pixel, (found.step > 1).to(ink.dtype))
        together = digit_of(canvas, found, area, faint, ink)  # as `Sketch` reads it
        scores = self.network(torch.cat((digits, together[None]))[:, None]).exp()  # (3 · PARTS + 1, 10)
        whole, first, second, single = scores[:12], scores[12:24], scores[24:36], scores[36:]
        sure = torch.minimum(first.amax(dim=1), second.amax(dim=1))
        aspect = width / height.clamp(min=1)
        split = (aspect > 0.95) & (sure > 0.8) & ((sure > whole.amax(dim=1)) | (aspect > 1.3))
        doubted = (aspect > 1.3) & torch.logical_not(split)
        whole = torch.where(doubted[:, None], 0.45 * whole + 0.055, whole)
        first_box = torch.where(split[:, None], torch.stack((boxes[:, 0], boxes[:, 1], cut, boxes[:, 3]), dim=1), boxes)
        second_box = torch.stack((cut, boxes[:, 1], boxes[:, 2], boxes[:, 3]), dim=1)
        top, bottom, left_end, right_end = ink_box(ink)
        around = torch.stack((left_end, top, right_end, bottom))[None]
        place = torch.cat((first_box, second_box, around))  # (2 · PARTS + 1, 4)
        probabilities = torch.cat((torch.where(split[:, None], first, whole), second, single))
        counted = torch.cat((present, present & split))
        # one digit in pieces is read more surely than its pieces
        least = torch.where(counted, probabilities[:24].amax(dim=1), 1.0).min()
        narrow = right_end - left_end <= 1.1 * (bottom - top)
        alone = counted.to(torch.int64).sum() == 1
        one = (tallest > 0) & ((alone & (aspect[0] <= 1.3)) | (narrow & (single.max() >= 0.5) & (single.max() > least)))
        counted = torch.cat((counted & torch.logical_not(one), one[None]))
        total = counted.to(torch.int64).sum()
        too_many = (more & torch.logical_not(one)) | (total > 8)
        order = reading_order(place, counted) * torch.logical_not(too_many)  # (8, 2 · PARTS + 1)
        count = torch.where(too_many, torch.full_like(total, -1), total)
        return count, order @ place * found.step, order @ probabilities


def find_parts(ink: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ink (SIDE, SIDE) → boxes of pieces of ink, (PARTS, 4), largest first; labels 1 … PARTS or 0 of 2 × 2 pixels,
    (SIDE / 2, SIDE / 2); and whether there are more pieces.

    A piece is a connected component with all that lies within its box.
    """
    cells = ink.view(160, 2, 320).amax(dim=1).view(160, 160, 2).amax(dim=2)
    mask = (cells > 0.35).to(ink.dtype)
    top, bottom, left, right = components(mask)
    size = (torch.maximum(bottom - top, right - left) + 0.001 * (bottom - top + right - left)) * mask
    extents = torch.stack((left, top, right, bottom)).view(4, -1)
    remaining, labels = size, torch.zeros_like(mask)
    boxes = []
    for number in range(1, 13):
        largest = remaining.flatten().argmax()  # of several of one size the uppermost, then the leftmost
        box = extents[:, largest]
        within = (left >= box[0]) & (top >= box[1]) & (right <= box[2]) & (bottom <= box[3]) & (remaining > 0)
        boxes.append(box * within.any())
        labels = torch.where(within, float(number), labels)
        remaining = torch.where(within, 0.0, remaining)
    more = remaining.max() > 0.4 * size.max()
    labels = torch.where(mask > 0, labels, around(labels[None])[0])  # soft edges
    return torch.stack(boxes) * 2, labels, more


def merged(boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Small pieces joined with the large piece they belong to, under the number of the first; no ink in their own.

    A piece of less than 0.55 of another's height belongs to it where it lies over, under or close beside it.
    """
    left, top, right, bottom = boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 3]
    height, width = bottom - top, right - left
    tall = torch.maximum(height[:, None], height)  # (PARTS, PARTS)
    small = torch.minimum(height[:, None], height) < 0.55 * tall
    across = torch.minimum(right[:, None], right) - torch.maximum(left[:, None], left)  # overlap, negative: gap
    down = torch.minimum(bottom[:, None], bottom) - torch.maximum(top[:, None], top)
    narrow = torch.minimum(width[:, None], width).clamp(min=1)
    over = (across > 0.4 * narrow) & (down > -0.3 * tall)
    beside = (across > -0.1 * tall) & (down > 0.7 * torch.minimum(height[:, None], height))
    present = (height > 0).to(boxes.dtype)
    stacked = (across > 0.6 * narrow) & (down > -0.1 * tall)  # as the halves of a 1 on a display
    joined = ((small & (over | beside)) | stacked).to(boxes.dtype) * present[:, None] * present
    joined = torch.maximum(joined, torch.eye(12, dtype=boxes.dtype, device=boxes.device))
    for _ in range(2):
        joined = (joined @ joined > 0).to(boxes.dtype)
    index = torch.arange(12, device=boxes.device, dtype=boxes.dtype)
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


def best_cut(inks: Tensor, boxes: Tensor) -> Tensor:
    """Ink of pieces (PARTS, SIDE, SIDE) and their boxes → the column with the least ink near their middle (PARTS,)."""
    profile = inks.sum(dim=1)  # (PARTS, SIDE)
    profile = F.avg_pool1d(profile[:, None], 3, 1, 1)[:, 0]
    index = torch.arange(320, device=inks.device, dtype=inks.dtype)
    left, width = boxes[:, :1], (boxes[:, 2:3] - boxes[:, :1]).clamp(min=1)
    off = ((index + 0.5 - left) / width - 0.5).abs()  # of the middle, 0 … 0.5
    height = (boxes[:, 3:] - boxes[:, 1:2]).clamp(min=1)
    cost = profile / height + 0.6 * off * off + 10 * (off > 0.3)
    least = cost.amin(dim=1, keepdim=True)
    return torch.where(cost <= least, index, 320.0).amin(dim=1)


def reading_order(boxes: Tensor, present: Tensor) -> Tensor:
    """Boxes (n, 4) and which of them count (n,) → a permutation matrix of the first MOST, (MOST, n).

    One digit is in an earlier line than another one where its middle is more than half a height above.
    """
    left, middle, height = boxes[:, 0], (boxes[:, 1] + boxes[:, 3]) / 2, boxes[:, 3] - boxes[:, 1]
    half = torch.maximum(height[:, None], height) / 2
    below = middle[:, None] - middle  # (n, n): how much lower the first one is
    before = (below > half) | ((below.abs() <= half) & (left[:, None] > left))
    rank = (before & present).sum(dim=1)  # (n,)
    index = torch.arange(8, device=boxes.device)
    return ((rank == index[:, None]) & present).to(boxes.dtype)
