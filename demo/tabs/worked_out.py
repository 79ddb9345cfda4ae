"""Batch norm computed step by step for one pixel of one channel."""

from html import escape
from typing import Any

import gradio as gr
from torch import Tensor

from bnmodel.experiments import worked_example
from bnmodel.experiments.batch_statistics import custom_batchnorms
from bnmodel.experiments.worked_example import WorkedExample
from demo import components as ui
from demo.page import Drawn, Page
from demo.shared_controls import (
    MOST_SHIFTED,
    batch_controls,
    draw_others,
    layer_controls,
    named,
    norm_and_channel,
    others_in_code,
)
from demo.worked_html import batch_maps, flow, sharing, short, steps

QUESTION = "What does batch norm compute, number by number?"
TASK = "Make every output of the channel equal, whatever the input."
HINT = """
Follow one number: mean and variance of **this batch**, or the **running** ones, turn x into x̂; γ and β turn x̂ into y.
"""
LOOK = """
Point at a map to read it; click a pixel to follow it. For one channel, batch norm is a straight line:
y = γ·(x − μ)/√(σ² + ε) + β. Both modes have the same γ and β; only μ and σ² differ. Set γ to 0 and every input becomes
β. Make ε large and differences between inputs shrink.
"""
FORMULA = r"""
$$\mu = \frac{1}{m}\sum_{n,h,w} x_{nchw}, \qquad \sigma^2 = \frac{1}{m}\sum_{n,h,w} (x_{nchw} - \mu)^2, \qquad
m = N \cdot H \cdot W$$

$$\hat x = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}, \qquad y = \gamma\,\hat x + \beta$$

for each channel $c$. A batch is normalised with its biased variance. As in PyTorch, the running variance averages the
unbiased one, which is $m / (m - 1)$ times as large. Layer, instance and group normalisation average over one digit.

Source: `bnmodel/experiments/worked_example.py`. Ioffe & Szegedy 2015, [arXiv 1502.03167](https://arxiv.org/abs/1502.03167);
Wu & He 2018, *Group Normalization*, [arXiv 1803.08494](https://arxiv.org/abs/1803.08494), figure 2.
"""
NETWORKS_EPS = -5  # log10


def build(page: Page) -> None:
    with page.tab("Worked out", QUESTION, task=TASK) as tab:
        ui.hint(HINT)
        batch = batch_controls(page, "worked-")
        layer, channel = layer_controls(page, "worked-")
        with gr.Row(elem_classes="controls"):
            gamma = gr.Slider(-2, 3, 1, step=0.1, label="γ (× the network's)", elem_id="worked-gamma", min_width=130)
            beta = gr.Slider(-3, 3, 0, step=0.1, label="β (+ the network's)", elem_id="worked-beta", min_width=130)
            eps = gr.Slider(
                -8, 1, NETWORKS_EPS, step=0.5, label="ε, as a power of 10", elem_id="worked-eps", min_width=130
            )
            pixel = gr.Number(
                -1, precision=0, minimum=-1, maximum=575, label="Pixel", elem_id="worked-pixel", visible="hidden"
            )
        shown = ui.picture(1600, "worked")
        shown.select(None, None, [pixel], js="() => window.touched.pixel", api_visibility="private")
        ui.take_home("worked-out")
        ui.look(LOOK)
        lines = ui.code(reads_digit=True)
        ui.fold(FORMULA)
        tab.live(
            ui.with_code(show, snippet),
            inputs=[gamma, beta, eps, pixel],
            outputs=[shown, lines],
            shared=[*batch, layer, channel],
        )


def show(drawn: Drawn, *values: Any) -> str:
    *batch, layer, channel, gamma, beta, eps, pixel = values
    if not custom_batchnorms(drawn.model.network):
        return ui.sentence("This network has no batch norm. Choose another network.", drawn)
    chosen, others, _ = draw_others(drawn, *batch)
    result, note = work_out(drawn, others, layer, channel, gamma, beta, eps, pixel)
    words = in_words(result, named(chosen))
    return (
        ui.sentence(words + note, drawn)
        + batch_maps(result)
        + flow(result)
        + steps(result)
        + ui.panels(worked_example.figure(result), words)
        + sharing(result)
        + ui.done(result.gamma == 0)
    )


def work_out(
    drawn: Drawn, others: Tensor, layer: int, channel: int, gamma: float, beta: float, eps: float, pixel: int
) -> tuple[WorkedExample, str]:
    """The example with the sliders' γ, β and ε, and a note if the norm does not have the channel."""
    network, digit = drawn.model.network, drawn.digit
    norm, channel, note = norm_and_channel(network, layer, channel)
    first = worked_example.run(network, digit, others, norm, None if channel == MOST_SHIFTED else channel)
    changed = worked_example.run(
        network,
        digit,
        others,
        norm,
        first.channel,
        pixel if 0 <= pixel < first.x[0].size else None,
        gamma * first.gamma,
        beta + first.beta,
        None if eps == NETWORKS_EPS else 10.0**eps,
    )
    return changed, note


def snippet(drawn: Drawn, *values: Any) -> str:
    *batch, layer, channel, gamma, beta, eps, pixel = values
    if not custom_batchnorms(drawn.model.network):
        return "# this network has no batch norm"
    _, others, _ = draw_others(drawn, *batch)
    result, _ = work_out(drawn, others, layer, channel, gamma, beta, eps, pixel)
    width = result.x.shape[2]
    return f"""
{ui.digit_in_code(drawn)}from bnmodel.experiments import worked_example
{others_in_code(drawn, *batch)}result = worked_example.run(
    model, digit, others, norm="{result.norm}", channel={result.channel}, pixel={result.row * width + result.column},
    gamma={result.gamma:.6g}, beta={result.beta:.6g}, eps={result.eps:g},
)
print(result.value, result.batch, result.running)
plotting.save(worked_example.figure(result), "worked.png")
"""


def in_words(result: WorkedExample, where: str) -> str:
    return (
        f"Channel {result.channel} of <b>{escape(result.norm)}</b>, row {result.row}, column {result.column}: "
        f'x = {short(result.value)} becomes <b class="train">y = {short(result.batch.output)}</b> {where}, and '
        f'<b class="eval">y = {short(result.running.output)}</b> with the running statistics.'
    )
