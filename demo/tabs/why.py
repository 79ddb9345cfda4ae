"""Why the modes differ: what each batch norm subtracts and divides by, and what it passes on."""

from dataclasses import replace
from html import escape

import gradio as gr
import numpy as np

from bnmodel.experiments import modes
from bnmodel.experiments.modes import NormView
from demo.components import code, company, company_controls, fold, panels, picture, sentence
from demo.images import diverging, png_url
from demo.page import Drawn, Page

MAPS = 32
LOOK = """
A row is a layer. Left, what it normalises with: where the square lies beside its disc, this batch's mean is another
than the running one, and a longer whisker is a larger spread. Middle and right, your digit's activations before and
after. The first layer gets the *same* input in both modes and hands on different output; from there on everything
differs. Below, the same as pictures, channel by channel: green above zero, purple below.
"""
FORMULA = r"""
$$y_\text{train} - y_\text{eval} = \gamma\left(\frac{x - \mu_B}{\sqrt{\sigma_B^2+\epsilon}} -
\frac{x - \mu_\text{run}}{\sqrt{\sigma_\text{run}^2+\epsilon}}\right)$$

A shift of the mean moves a whole channel up or down; a ratio of the standard deviations stretches it.

Source: `bnmodel/experiments/modes.py`.
"""

CODE = """
from bnmodel import load_checkpoint, plotting
from bnmodel.data import load_sample
from bnmodel.experiments import modes
model, digit = load_checkpoint("checkpoints/lecture").model, load_sample(train=False).images[716, 0]
result = modes.compare(model, digit, modes.companions("one class", 31, 0, digit, label=1))
plotting.save(modes.figure(result), "why.png")
plotting.save(modes.feature_maps(result, norm=-1), "maps.png")
"""


def build(page: Page) -> None:
    with page.tab("Why", "What does train mode do to your digit on its way through the network?") as tab:
        chosen = company_controls("why-")
        shown = picture(540, "why")
        with gr.Row(elem_classes="controls"):
            layer = gr.Radio(
                [("first norm", 0), ("last norm", -1)], value=-1, label="Feature maps behind the", elem_id="layer"
            )
        maps = picture(200, "maps")
        gr.Markdown(LOOK, elem_classes="look")
        code(CODE)
        fold("The formula and the source", FORMULA)
        tab.live(show, inputs=[*chosen, layer], outputs=[shown, maps])


def show(drawn: Drawn, count: int, kind: str, label: int, seed: int, layer: int) -> tuple[str, str]:
    result = modes.compare(drawn.model.network, drawn.digit, company(drawn, count, kind, label, seed))
    if not result.norms:
        return sentence("This network has no batch norm: both modes are one. Choose another model.", drawn), ""
    words = in_words(result.norms)
    ends = dict.fromkeys((0, len(result.norms) - 1))  # of a deeper network, where it begins and where it ends
    result = replace(result, norms=tuple(result.norms[k] for k in ends))
    return (
        sentence(words, drawn)
        + panels(modes.figure(result), "Statistics and activations, layer by layer", narrow=True),
        feature_maps(result.norms[layer]),
    )


def in_words(norms: tuple[NormView, ...]) -> str:
    """Where the batch's mean is furthest from the running one, in running standard deviations."""
    shifts = [(v.batch_mean - v.running_mean) / np.maximum(v.running_std, 1e-3) for v in norms]
    where = max(range(len(norms)), key=lambda k: float(np.abs(shifts[k]).max()))
    channel = int(np.abs(shifts[where]).argmax())
    shift = float(shifts[where][channel])
    return (
        f"Furthest apart: channel {channel} of <b>{escape(norms[where].name)}</b>, whose mean in this batch lies "
        f"{abs(shift):.2f} standard deviations {'above' if shift > 0 else 'below'} the running one."
    )


def feature_maps(view: NormView) -> str:
    """The channels of the digit behind one norm, MAPS at most, eval mode above train mode, on one scale."""
    limit = float(np.abs(np.concatenate((view.eval_output.ravel(), view.train_output.ravel()))).max())
    columns = "".join(
        f'<figure><img src="{png_url(diverging(left, limit))}" alt="channel {channel}, eval mode">'
        f'<img src="{png_url(diverging(right, limit))}" alt="channel {channel}, train mode">'
        f"<figcaption>{channel}</figcaption></figure>"
        for channel, (left, right) in enumerate(zip(view.eval_output[:MAPS], view.train_output[:MAPS], strict=True))
    )
    hidden = len(view.eval_output) - MAPS
    more = f", the first {MAPS} of {len(view.eval_output)} channels" if hidden > 0 else ""
    return (
        f'<p class="caption"><b>{escape(view.name)}</b>: <span class="eval">eval above</span>, '
        f'<span class="train">train below</span>{more}</p><div class="maps">{columns}</div>'
    )
