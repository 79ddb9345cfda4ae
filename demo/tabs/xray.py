"""Preprocessing of a drawing: its ink, the box around it, and the 28×28 numbers that the network gets."""

import numpy as np
import torch

from bnmodel.data.preprocessing import BOX, SIZE, ink_box, ink_map
from bnmodel.plotting import percent
from demo import components as ui
from demo.images import grey, png_url
from demo.page import Drawn, Page

QUESTION = "What does the network see of your drawing?"
TASK = "Draw a small digit with the thinnest brush, so that less than 1% of the sheet is ink: is it still read?"
HINT = """
Compare the sheet with the 28×28 numbers that the network gets, 0 for paper and 255 for full ink: it sees nothing else.
Draw small, in a corner, or with a thin brush: the numbers hardly change.
"""
LOOK = """
Whatever stands out from the **paper** is ink, so black on white and white on black are alike. The paper's
colour is estimated locally, so uneven light does not matter. Frames and ruled lines are left out. The **box**
around the ink is scaled to 20×20, keeping its shape, and its **centre of mass** (the cross) moves to the middle of
28×28. A slanted digit stays slanted, and a 1 keeps its foot: the network has to read them as they are.
"""
FORMULA = r"""
$$\text{digit} = R \cdot \text{ink} \cdot C^\top, \quad R \in \mathbb R^{28 \times H},\; C \in \mathbb R^{28 \times W}$$

Each row of $R$ and $C$ averages the canvas over the footprint of one digit pixel, which scales, moves and antialiases
at once. MNIST was made this way (LeCun et al. 1998, §III-A). The exported model contains this step.

Source: `bnmodel/data/preprocessing.py`.
"""


def build(page: Page) -> None:
    with page.tab("X-ray", QUESTION, task=TASK) as tab:
        ui.hint(HINT)
        shown = ui.picture(660, "xray")
        ui.take_home("x-ray")
        ui.look(LOOK)
        lines = ui.code(reads_digit=True)
        ui.fold(FORMULA)
        tab.live(ui.with_code(show, snippet), outputs=[shown, lines])


def snippet(drawn: Drawn) -> str:
    return """
import numpy as np, torch
from PIL import Image
from bnmodel import Sketch
canvas = np.array(Image.open("digit.png").convert("RGBA"))  # (H, W, 4): the digit on the pad
digit, ink = Sketch()(torch.from_numpy(canvas))  # (28, 28) in [0, 1], and the share of the sheet that is ink
Image.fromarray((255 * digit).round().byte().numpy()).resize((280, 280), 0).save("xray.png")
"""


def _share(covered: float) -> str:
    """In percent, with a decimal where the task needs it."""
    return f"{100 * covered:.1f}%" if 0.01 <= covered < 0.1 else percent(covered)


def show(drawn: Drawn) -> str:
    ink = ink_map(torch.from_numpy(drawn.canvas))  # (H, W)
    top, bottom, left, right = (float(edge) for edge in ink_box(ink))
    covered, scale = float(ink.mean()), max(bottom - top, right - left) / BOX
    width, height = right - left, bottom - top
    words = (
        f"{_share(covered)} of this sheet is ink. Its box of {width:.0f}×{height:.0f} pixels becomes "
        f"{width / scale:.0f}×{height / scale:.0f}, and the network sees <b>784 numbers</b>."
    )
    sheet = f'<img src="{png_url(drawn.canvas)}" alt="The drawing">'
    boxed = _ink(ink.numpy(), (top, bottom, left, right))
    return (
        f'{ui.sentence(words, drawn)}<div class="xray"><div class="steps">'
        f"{_step('Sheet', sheet)}{_step('Ink and its box', boxed)}"
        f"</div>{_step('What the network sees, 0 to 255', numbers(drawn.digit.numpy()))}</div>"
        f"{ui.done(not drawn.is_example and covered < 0.01)}"
    )


def _step(caption: str, content: str) -> str:
    return f"<figure><figcaption>{caption}</figcaption>{content}</figure>"


def _ink(ink: np.ndarray, box: tuple[float, float, float, float]) -> str:
    """(H, W) in [0, 1] as brightness, with its `box` (top, bottom, left, right) and its centre of mass."""
    top, bottom, left, right = box
    height, width = ink.shape
    rows, columns = ink.sum(1), ink.sum(0)
    y = float(rows @ (np.arange(height) + 0.5) / max(rows.sum(), 1e-6))
    x = float(columns @ (np.arange(width) + 0.5) / max(columns.sum(), 1e-6))
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Ink is bright; a box around it, a cross at its '
        f'centre of mass"><image href="{png_url(grey(ink))}" width="{width}" height="{height}"/>'
        f'<rect class="box" x="{left}" y="{top}" width="{right - left}" height="{bottom - top}"/>'
        f"{_cross(x, y, 9)}</svg>"
    )


def numbers(digit: np.ndarray) -> str:
    """(28, 28) in [0, 1] as 784 squares, with their value as a byte where there is ink."""
    values, cell = grey(digit), 10
    squares = "".join(
        f'<text x="{cell * column + 5}" y="{cell * row + 5}" fill="{"#000" if value > 140 else "#fff"}">{value}</text>'
        for row, line in enumerate(values.tolist())
        for column, value in enumerate(line)
        if value
    )
    side = cell * SIZE
    told = " ".join(str(value) for value in values.ravel().tolist())
    return (
        f'<div data-grid="{SIZE}x{SIZE}" data-name="ink, 0 to 255" data-numbers="{told}">'
        f'<svg class="numbers" viewBox="0 0 {side} {side}" role="img" aria-label="28 by 28 pixels with their values">'
        f'<image href="{png_url(values)}" width="{side}" height="{side}"/>{squares}'
        f"{_cross(side / 2, side / 2, 6)}</svg></div>"
    )


def _cross(x: float, y: float, arm: float) -> str:
    return f'<path class="cross" d="M{x - arm:.1f} {y:.1f}h{2 * arm}M{x:.1f} {y - arm:.1f}v{2 * arm}"/>'
