"""The exported files: downloads, code, their answers to this drawing, and their certificate."""

import atexit
import shutil
from collections.abc import Iterator
from functools import lru_cache
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import gradio as gr
import numpy as np

from bnmodel.deploy import certificate
from bnmodel.deploy.loading import FORMATS, Run, load_file
from demo import components as ui
from demo.models import Model
from demo.page import Drawn, Page
from export.bench import WITHOUT_NORM, read_rows

QUESTION = "Do the files that other apps load give the same answer?"
TASK = "Download the file that your app needs, and run the code below it."
HINT = """
Choose a file by its input and runtime, download it, and copy its code. The table below shows the answer of each format
to your drawing.
"""
LOOK = """
The files contain the preprocessing, and the batch norms are folded into neighbouring layers. For C++, Node and the
browser, see the folder `examples` of the repository.

### The same answer from every file
The last decimals differ because each runtime rounds differently; the differences are far too small to change an answer.
"""
FORMULA = r"""
$$|y_\text{file} - y| \le \max\left(4\,e_c,\; 4\,\bar e_c,\; 16\,u\,m_c\right)$$

for every output value of channel $c$; $y$ is the output of the network in float64. $e_c$ is the network's own rounding
error, the largest in float32; $\bar e_c$ is the 95% quantile of $e$ over channels of about the same size; $m_c$ is the
largest $|y|$; $u = 2^{-24}$. `python -m export verify checkpoints/lecture` repeats the checks, and
`python -m export bench checkpoints/lecture` measures the speed.

Source: `bnmodel/deploy/allowance.py`, `bnmodel/deploy/checks.py`, `export/bench.py`.
"""
FIRST = "sketch.onnx"
RUNTIMES = {"onnx": "ONNX Runtime", "torchscript": "PyTorch (TorchScript)", "pt2": "PyTorch (torch.export)"}
TIMED = {
    "eager": "PyTorch, before export",
    **RUNTIMES,
    WITHOUT_NORM: "ONNX Runtime, trained without batch norm",
}
TAKES = {
    "sketch": "a drawing of any size",
    "numbers": "a drawing of up to eight digits",
    "digits": "28×28 images",
}
CANVAS = """from PIL import Image
# drawing.png: the pad's button “Save as PNG”, or any picture
canvas = np.array(Image.open("drawing.png").convert("RGBA"))  # uint8 (H, W, 4)
"""
INPUTS = {
    "sketch": CANVAS,
    "numbers": CANVAS,
    "digits": """images = np.zeros((1, 1, 28, 28), np.float32)  # (N, 1, 28, 28) in [0, 1], ink bright
images[0, 0, 4:24, 13:15] = 1
""",
}
LOADS = {
    "onnx": 'session = onnxruntime.InferenceSession("{file}")',
    "torchscript": 'model = torch.jit.load("{file}")',
    "pt2": 'model = torch.export.load("{file}").module()',
}
ONNX_CALLS = {
    "sketch": """probabilities, digit, ink = session.run(None, {"canvas": canvas})
print(probabilities.argmax(), probabilities.max())
""",
    "numbers": """count, boxes, probabilities = session.run(None, {"canvas": canvas})  # -1: more than eight
print(probabilities[: max(count, 0)].argmax(1), boxes[: max(count, 0)])
""",
    "digits": """(log_probs,) = session.run(None, {"images": images})
print(log_probs.argmax(1), np.exp(log_probs).max(1))
""",
}
TORCH_CALLS = {
    "sketch": """probabilities, digit, ink = model(torch.from_numpy(canvas))
print(int(probabilities.argmax()), float(probabilities.max()))
""",
    "numbers": """count, boxes, probabilities = model(torch.from_numpy(canvas))  # -1: more than eight
print(probabilities[: max(int(count), 0)].argmax(1), boxes[: max(int(count), 0)])
""",
    "digits": """log_probs = model(torch.from_numpy(images))
print(log_probs.argmax(1), log_probs.exp().max(1).values)
""",
}
CHECKS = {
    "metadata": "the files contain the description in the certificate",
    "names": "inputs and outputs have the names in the certificate",
    "shapes": "any batch size and any canvas are accepted",
    "batch norm folded": "no batch norm is left to run in the wrong mode",
    "golden vectors": "known inputs give the recorded answers",
    "determinism": "the same input gives the same answer",
    "batch invariance": "an answer does not depend on the rest of its batch",
    "source": "the files were made from this checkpoint",
    "the shipped sample": "same outputs as the network before export, on 1,000 digits",
    "MNIST's test set": "same outputs as the network before export, on 10,000 digits",
    "canvas": "same outputs as the network before export, on drawings of any size",
}
WITHOUT_NUMBERS = ("metadata", "batch norm folded")
DOWNLOADED = """() => {
    const done = Object.assign(document.createElement('span'), { hidden: true });
    done.dataset.done = '';
    document.getElementById('tab-export').append(done);
}"""


def build(page: Page) -> None:
    folder = TemporaryDirectory(prefix="bnmodel-")  # Gradio gives out copies, under the names they have here
    atexit.register(folder.cleanup)
    named = {name: exported(model, Path(folder.name)) for name, model in page.models.items()}
    with page.tab("Export", QUESTION, task=TASK) as tab:
        ui.hint(HINT)
        with gr.Row(elem_classes="controls"):
            file = gr.Dropdown(
                [(f"{TAKES[stem]}, {RUNTIMES[form]}", f"{stem}.{form}") for stem in TAKES for form in RUNTIMES],
                value=FIRST,
                label="Input, runtime",
                elem_id="export-file",
                min_width=320,
            )
            first = named[page.model.value]
            chosen = download(first[FIRST], "download-file", "primary")
        lines = gr.Markdown(ui.fenced(code_of(page.model.value, FIRST)), elem_id="export-snippet")
        ui.look(LOOK)
        shown = ui.picture(330, "parity")

        def offer(model: str, file: str) -> list[gr.DownloadButton]:
            paths = named[page.find(model).name]
            return [download(paths.get(name)) for name in (file, certificate.FILE)]

        chosen.click(None, None, None, js=DOWNLOADED, api_visibility="private")
        gr.Markdown("### The certificate: checks and measurements")
        with gr.Row(elem_classes="controls"):
            proof = download(first[certificate.FILE], "download-certificate")
        for control in (page.model, file):
            control.change(offer, [page.model, file], [chosen, proof], api_visibility="private")
        checks = ui.picture(400, "certificate")
        gr.Markdown("### Speed, compared with the network before export")
        speed = ui.picture(200, "speed")
        folder_at_first = page.find(page.model.value).folder
        checks.value, speed.value = certified(folder_at_first), timed(folder_at_first)
        ui.take_home("export")
        ui.check_own("batch norms that were not folded")
        ui.fold(FORMULA)
        tab.live(ui.coded(snippet), inputs=[file], outputs=[lines])
        tab.live(recorded, outputs=[checks, speed])
        tab.live(show, outputs=[shown])


def exported(model: Model, folder: Path) -> dict[str, Path]:
    """Copy the model's files to `folder` under its name: {"sketch.onnx": …/robust-sketch.onnx, …}."""
    names = [*(f"{stem}.{form}" for stem in TAKES for form in FORMATS), certificate.FILE]
    copies = {}
    for name in names:
        if (model.folder / name).is_file():
            copies[name] = folder / f"{model.name}-{name}"
            shutil.copyfile(model.folder / name, copies[name])
    return copies


def download(path: Path | None, elem_id: str | None = None, variant: Literal["primary", "secondary"] = "secondary"):  # type: ignore[no-untyped-def]
    """A download button with the file's name and size; without `elem_id`, an update of one."""
    size = path.stat().st_size if path else 0
    shown = f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
    label = f"Download {path.name} ({shown})" if path else "Not exported"
    look: dict[str, Any] = {"elem_id": elem_id, "variant": variant, "min_width": 200, "scale": 0} if elem_id else {}
    return gr.DownloadButton(label, value=str(path) if path else None, interactive=path is not None, **look)


def snippet(drawn: Drawn, file: str) -> str:
    return code_of(drawn.model.name, file)


def code_of(model: str, file: str) -> str:
    """The code that reads with a file of the network `model`."""
    stem, form = file.split(".")
    runtime, calls = ("onnxruntime", ONNX_CALLS) if form == "onnx" else ("torch", TORCH_CALLS)
    load = LOADS[form].format(file=f"{model}-{file}")
    needed = ("numpy", *(() if stem == "digits" else ("pillow",)), runtime)
    return f"# pip install {' '.join(needed)}\nimport numpy as np, {runtime}\n{INPUTS[stem]}{load}\n{calls[stem]}"


def show(drawn: Drawn) -> Iterator[str]:
    """The answer of every format; first the app's own, while the other files are loaded."""
    whose = "the example" if drawn.is_example else "your drawing"
    if drawn.model.folder not in _LOADED:
        words = f"The ONNX file reads <b>{drawn.label}</b> on {whose}; loading the other two files …"
        yield ui.sentence(words, drawn) + side_by_side({"onnx": drawn.probabilities})
    answers = {name: run(drawn.canvas)[0] for name, run in sketches(drawn.model.folder).items()}
    answers["onnx"] = drawn.probabilities  # the app reads with this file
    difference = largest_difference(list(answers.values()))
    differ = f"differ by at most <b>{difference:.1e}</b>" if difference else "are <b>equal</b> bit for bit"
    words = (
        f"On {whose} the three files of <b>{escape(drawn.model.name)}</b> all read <b>{drawn.label}</b>; their "
        f"probabilities {differ}."
        if len({int(p.argmax()) for p in answers.values()}) == 1
        else f"The files disagree on {whose}. This is a bug: please report it with the drawing."
    )
    yield ui.sentence(words, drawn) + side_by_side(answers)


def recorded(drawn: Drawn) -> tuple[str, str]:
    """What was measured when the files were made."""
    return certified(drawn.model.folder), timed(drawn.model.folder)


def side_by_side(answers: dict[str, np.ndarray]) -> str:
    """(10,) probabilities by format, “…” for a format that is missing."""
    rows = [
        [str(digit), *(f"{answers[name][digit]:.7f}" if name in answers else "…" for name in FORMATS)]
        for digit in range(10)
    ]
    return ui.table(["Digit", *(f".{name}" for name in FORMATS)], rows)


def largest_difference(answers: list[np.ndarray]) -> float:
    """Over all digits and all pairs of (10,) probabilities."""
    return float(np.ptp(np.stack(answers), axis=0).max())


_LOADED: dict[Path, dict[str, Run]] = {}


def sketches(folder: Path) -> dict[str, Run]:
    """The sketch files by format, except ONNX, which the app has loaded. torch.export's takes seconds to load."""
    if folder not in _LOADED:
        _LOADED[folder] = {name: load_file(folder / f"sketch.{name}").run for name in FORMATS if name != "onnx"}
    return _LOADED[folder]


@lru_cache(maxsize=8)
def certified(folder: Path) -> str:
    """certificate.json as a table, one row per check."""
    measured = certificate.read(folder / certificate.FILE)["measured"]
    by_name: dict[str, list[dict[str, Any]]] = {}
    for check in measured:
        name = "canvas" if check["name"].startswith("canvas ") else check["name"]
        by_name.setdefault(name, []).append(check)
    rows = []
    for name, checks in by_name.items():
        passed = sum(check["passed"] for check in checks)
        rows.append(
            (
                CHECKS.get(name, name),
                f"{'✓' if passed == len(checks) else '✗'}\u00a0{passed}\u00a0of\u00a0{len(checks)}",
                "" if name in WITHOUT_NUMBERS and passed == len(checks) else worst(checks),
            )
        )
    return ui.table(("Check", "Passed", "Measured"), rows)


def timed(folder: Path) -> str:
    """bench.json as a table, one row per runtime: one thread, three batch sizes."""
    rows = [row for row in read_rows(folder) if row["threads"] == 1]
    if not rows:
        return f"<p>Not timed yet: <code>python -m export bench checkpoints/{folder.name}</code></p>"
    batches = list(dict.fromkeys(row["batch"] for row in rows))
    lines: dict[str, list[str]] = {}
    for row in rows:
        cell = f"{row['images_per_s']:,.0f} ({row['times_eager']:.1f}\u00a0×)"
        lines.setdefault(TIMED.get(row["runtime"], row["runtime"]), []).append(cell)
    head = ["Digits per second, one thread", *(f"batch {batch}" for batch in batches)]
    return ui.table(head, [[runtime, *cells] for runtime, cells in lines.items()])


def worst(checks: list[dict[str, Any]]) -> str:
    """The largest difference among `checks` and the largest share of a tolerance, or what the first of them says."""
    compared = [(check["difference"], check["share"]) for check in checks if check.get("difference") is not None]
    if not compared:
        return str(checks[0]["detail"])
    difference, share = map(max, zip(*compared, strict=True))
    if not difference:
        return "no difference"
    most = f"at most {share * 100:.0f}" if share >= 0.01 else "less than 1"
    return f"largest difference {difference:.1e}, {most}% of what is allowed"
