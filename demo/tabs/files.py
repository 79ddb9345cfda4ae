"""The exported files: what is promised of them, whether they agree on this drawing, and the files themselves."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from bnmodel.deploy import certificate
from bnmodel.deploy.loading import FORMATS
from demo.components import code, fold, picture, sentence, table
from demo.models import Model
from demo.page import Drawn, Page
from export.bench import read_rows
from export.recogniser import Recognizer, load

LOOK = """
Three formats, one network: the batch norms are folded into their neighbours, and the preprocessing is inside. The
`sketch` files take a drawing of any size, the `digits` files 28×28. What differs above is the rounding of three
runtimes, far below anything that could change an answer.
"""
SNIPPET = """
```python
import numpy as np, onnxruntime
from PIL import Image
canvas = np.array(Image.open("drawing.png").convert("RGBA"))  # of any size
session = onnxruntime.InferenceSession("sketch.onnx")
probabilities, digit, ink = session.run(None, {"canvas": canvas})
```
"""
FORMULA = r"""
$$|y_\text{file} - y_\text{network}| \le \max\left(10^{-5},\; 10^{-6} \max_k |y_k|\right)$$

for every log-probability $y$: that is what float32 can keep. To check it again, `python -m export verify
checkpoints/lecture`; how fast, `python -m export bench checkpoints/lecture`.

Source: `bnmodel/deploy/certificate.py`, `export/bench.py`.
"""
CODE = """
import numpy as np
from bnmodel.deploy.loading import FORMATS
from export.recogniser import load
canvas = np.full((200, 150, 4), 255, np.uint8)  # (H, W, 4) RGBA: white paper …
canvas[30:170, 70:82, :3] = 0  # … and a black stroke
answers = [load("checkpoints/lecture", name).read(canvas).probabilities for name in FORMATS]
print(np.ptp(answers, axis=0).max())  # how far the formats are apart
"""
PROMISES = {
    "metadata": "the files describe themselves",
    "names": "inputs and outputs have the promised names",
    "shapes": "any batch size, any canvas",
    "batch norm folded": "no batch norm is left to run in the wrong mode",
    "golden vectors": "known inputs give the recorded answers",
    "determinism": "the same input gives the same answer",
    "batch invariance": "an answer does not depend on its batch",
    "source": "made from this very checkpoint",
    "the shipped sample": "as the network before export, on 1,000 digits",
    "MNIST's test set": "as the network before export, on 10,000 digits",
    "canvas": "as the network before export, on drawings of any size",
}


def build(page: Page) -> None:
    with page.tab("Export", "Do the files that other apps load give the same answer?") as tab:
        shown = picture(330, "parity")
        gr.Markdown(LOOK, elem_classes="look")
        gr.Markdown("### Take it along\n" + SNIPPET)
        downloads = gr.File(
            value=exported(page.find(page.model.value)),
            label="Exported files",
            file_count="multiple",
            interactive=False,
            elem_id="downloads",
        )
        page.model.change(lambda name: exported(page.find(name)), [page.model], [downloads], api_visibility="private")
        gr.Markdown("### What is promised, and was measured")
        promises = picture(400, "certificate")
        gr.Markdown("### How fast they answer, against the network before export")
        speed = picture(200, "speed")
        code(CODE)
        fold("The formula and the source", FORMULA)
        tab.live(show, outputs=[shown, promises, speed])


def exported(model: Model) -> list[str]:
    names = [f"{stem}.{ending}" for stem in ("sketch", "digits") for ending in FORMATS] + [certificate.FILE]
    return [str(model.folder / name) for name in names if (model.folder / name).is_file()]


def show(drawn: Drawn) -> tuple[str, str, str]:
    answers = {name: one.read(drawn.canvas).probabilities for name, one in recognizers(drawn.model.folder).items()}
    difference = largest_difference(list(answers.values()))
    whose = "the example" if drawn.is_example else "your drawing"
    words = (
        f"On {whose} the three formats all read <b>{drawn.label}</b>; their probabilities differ by at most "
        f"<b>{difference:.1e}</b>."
        if len({int(p.argmax()) for p in answers.values()}) == 1
        else f"On {whose} the formats do not agree, which must not be: please report this drawing."
    )
    head = ["Digit", *(f".{name}" for name in answers)]
    rows = [[str(digit), *(f"{p[digit]:.7f}" for p in answers.values())] for digit in range(10)]
    folder = drawn.model.folder
    return sentence(words, drawn) + table(head, rows), certified(folder), timed(folder)


def largest_difference(answers: list[np.ndarray]) -> float:
    """Over all digits and all pairs of (10,) probabilities."""
    return float(np.ptp(np.stack(answers), axis=0).max())


@lru_cache(maxsize=8)
def recognizers(folder: Path) -> dict[str, Recognizer]:
    return {name: load(folder, name) for name in FORMATS}


@lru_cache(maxsize=8)
def certified(folder: Path) -> str:
    """certificate.json, a line a promise."""
    measured = certificate.read(folder / certificate.FILE)["measured"]
    promises: dict[str, list[dict[str, Any]]] = {}
    for check in measured:
        name = "canvas" if check["promise"].startswith("canvas ") else check["promise"]
        promises.setdefault(name, []).append(check)
    rows = []
    for name, checks in promises.items():
        kept = sum(check["passed"] for check in checks)
        rows.append(
            (PROMISES.get(name, name), f"{'✓' if kept == len(checks) else '✗'} {kept} of {len(checks)}", worst(checks))
        )
    return table(("Promise", "Kept", "Measured"), rows)


def timed(folder: Path) -> str:
    """bench.json, a line a runtime: one thread, three batch sizes."""
    rows = [row for row in read_rows(folder) if row["threads"] == 1]
    if not rows:
        return f"<p>Not timed yet: <code>python -m export bench checkpoints/{folder.name}</code></p>"
    batches = list(dict.fromkeys(row["batch"] for row in rows))
    lines: dict[str, list[str]] = {}
    for row in rows:
        cell = f"{row['times_eager']:.1f} × · {row['images_per_s']:,.0f} digits/s"
        lines.setdefault(row["runtime"], []).append(cell)
    head = ["One thread", *(f"batch {batch}" for batch in batches)]
    return table(head, [[runtime, *cells] for runtime, cells in lines.items()])


def worst(checks: list[dict[str, Any]]) -> str:
    """The largest difference among `checks`, or what the first of them says."""
    found = [re.search(r"largest difference.*? (\d\.\de[+-]\d+)", check["detail"]) for check in checks]
    differences = [float(match[1]) for match in found if match]
    return f"largest difference {max(differences):.1e}" if differences else str(checks[0]["detail"])
