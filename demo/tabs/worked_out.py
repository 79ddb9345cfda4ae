"""Batch norm computed with the numbers of this digit: one layer, one channel, one pixel, step by step."""

import math
from html import escape

import gradio as gr
import numpy as np
from torch import Tensor, nn

from bnmodel.experiments import worked_example
from bnmodel.experiments.batch_statistics import custom_batchnorms
from bnmodel.experiments.worked_example import Grouping, Step, WorkedExample
from demo.components import (
    MOST_SHIFTED,
    asked,
    batch_controls,
    code,
    company,
    company_in_code,
    digit_in_code,
    done,
    fold,
    hint,
    layer_controls,
    named,
    panels,
    picture,
    sentence,
    signed,
    take_home,
    which,
    with_code,
)
from demo.images import diverging, png_url
from demo.page import Drawn, Page

QUESTION = "What does batch norm compute, number by number?"
TASK = "Make every output of the channel equal, whatever the input."
HINT = """
Follow one number from left to right: mean and variance turn x into x̂, γ and β turn x̂ into y. Above with the
statistics of **this batch**, below with the **running** ones. Point at a map to read it; click a pixel to follow it.
"""
LOOK = """
For one channel, batch norm is a straight line: y = γ·(x − μ)/√(σ² + ε) + β. Both modes have the same γ and β; only μ
and σ² differ. Set γ to 0 and every input becomes β. Make ε large and differences between inputs shrink.
"""
FORMULA = r"""
$$\mu = \frac{1}{m}\sum_{n,h,w} x_{nchw}, \qquad \sigma^2 = \frac{1}{m}\sum_{n,h,w} (x_{nchw} - \mu)^2, \qquad
m = N \cdot H \cdot W$$

$$\hat x = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}, \qquad y = \gamma\,\hat x + \beta$$

for each channel $c$. The variance of a batch is the biased one; the running variance, which PyTorch keeps too, averages
the unbiased one, $m / (m - 1)$ times as large. Layer, instance and group normalisation average over one digit only.

Source: `bnmodel/experiments/worked_example.py`. Ioffe & Szegedy 2015, [arXiv 1502.03167](https://arxiv.org/abs/1502.03167);
Wu & He 2018, *Group Normalization*, [arXiv 1803.08494](https://arxiv.org/abs/1803.08494), figure 2.
"""
NETWORKS_EPS = -5  # log10
SHOWN = 32  # maps of the batch at most
ROWS, COLUMNS = 4, 8  # digits and channels of the diagrams


def build(page: Page) -> None:
    with page.tab("Worked out", QUESTION, task=TASK) as tab:
        hint(HINT)
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
        shown = picture(1600, "worked")
        shown.select(None, None, [pixel], js="() => window.touched.pixel", api_visibility="private")
        take_home("worked-out")
        gr.Markdown(LOOK, elem_classes="look")
        lines = code(reads_digit=True)
        fold("The formula and the source", FORMULA)
        tab.live(
            with_code(show, snippet),
            inputs=[gamma, beta, eps, pixel],
            outputs=[shown, lines],
            shared=[*batch, layer, channel],
        )


def show(
    drawn: Drawn,
    count: int,
    kind: str,
    label: int,
    seed: int,
    layer: int,
    channel: int,
    gamma: float,
    beta: float,
    eps: float,
    pixel: int,
) -> str:
    network = drawn.model.network
    if not custom_batchnorms(network):
        return sentence("This network has no batch norm. Choose another network.", drawn)
    others = company(drawn, count, kind, label, seed)
    result, clamped = work_out(network, drawn, others, layer, channel, gamma, beta, eps, pixel)
    where = named(asked(drawn, count, kind, label, seed)[0])
    return (
        sentence(in_words(result, where) + clamped, drawn)
        + batch_maps(result)
        + flow(result)
        + steps(result)
        + panels(worked_example.figure(result), in_words(result, where))
        + sharing(result)
        + done(result.gamma == 0)
    )


def work_out(
    network: nn.Module,
    drawn: Drawn,
    others: Tensor,
    layer: int,
    channel: int,
    gamma: float,
    beta: float,
    eps: float,
    pixel: int,
) -> tuple[WorkedExample, str]:
    """The example with the sliders' γ, β and ε; and where a channel or pixel is not there, what is shown instead."""
    norms = custom_batchnorms(network)
    norm = list(norms)[which(layer, len(norms))]
    last, told = norms[norm].num_features - 1, ""
    if channel > last:
        channel, told = last, f" {norm} has channels 0 to {last}; {last} is shown."
    asked = None if channel == MOST_SHIFTED else channel
    first = worked_example.run(network, drawn.digit, others, norm, asked)
    positions = first.x[0].size
    changed = worked_example.run(
        network,
        drawn.digit,
        others,
        norm,
        first.channel,
        pixel if 0 <= pixel < positions else None,
        gamma * first.gamma,
        beta + first.beta,
        None if eps == NETWORKS_EPS else 10.0**eps,
    )
    return changed, told


def snippet(
    drawn: Drawn,
    count: int,
    kind: str,
    label: int,
    seed: int,
    layer: int,
    channel: int,
    gamma: float,
    beta: float,
    eps: float,
    pixel: int,
) -> str:
    norms = list(custom_batchnorms(drawn.model.network))
    if not norms:
        return "# this network has no batch norm"
    others = company(drawn, count, kind, label, seed)
    result, _ = work_out(drawn.model.network, drawn, others, layer, channel, gamma, beta, eps, pixel)
    width = result.x.shape[2]
    return f"""
{digit_in_code(drawn)}from bnmodel.experiments import worked_example
{company_in_code(drawn, count, kind, label, seed)}result = worked_example.run(
    model, digit, company, norm="{result.norm}", channel={result.channel}, pixel={result.row * width + result.column},
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


def short(value: float) -> str:
    """Three decimals, and at least three digits that are not leading zeros: pupils compute with these numbers."""
    decimals = max(3, 2 - math.floor(math.log10(abs(value)))) if value else 3
    return signed(f"{value:.{decimals}f}" if decimals <= 6 else f"{value:.2e}")


# ---- maps


def batch_maps(result: WorkedExample) -> str:
    """The channel's input for each digit of the batch: the values that μ and σ² are of."""
    digits, height, width = result.x.shape
    limit = float(np.abs(result.x).max())
    tiles = "".join(
        f'<img src="{png_url(diverging(values, limit))}" alt="" class="{"self" if k == 0 else ""}" '
        f'data-tip="{"your digit" if k == 0 else f"digit {k + 1} of the batch"}: mean {short(float(values.mean()))}">'
        for k, values in enumerate(result.x[:SHOWN])
    )
    more = f"<span>+ {digits - SHOWN}</span>" if digits > SHOWN else ""
    count = (
        f"{digits} × {height} × {width} = <b>{result.x.size:,} values x</b>"
        if height * width > 1
        else (f"<b>{digits} values x</b>")
    )
    return (
        f'<figure class="channel-maps"><figcaption>What the channel receives, for every digit of the batch: {count}. '
        f'Their mean and variance are <b class="train">μ = {short(result.batch.mean)}</b> and '
        f'<b class="train">σ² = {short(result.batch.var)}</b>.</figcaption><div>{tiles}{more}</div></figure>'
    )


def flow(result: WorkedExample) -> str:
    """x → x̂ → y of the digit, with either pair of statistics."""
    x_limit = float(np.abs(result.x).max())
    rows = ""
    for mode, name, step in (("train", "this batch", result.batch), ("eval", "running statistics", result.running)):
        hat_limit, y_limit = (
            max(float(np.abs(of).max()) for of in pair)
            for pair in (
                (result.batch.normalized_map, result.running.normalized_map),
                (result.batch.output_map, result.running.output_map),
            )
        )
        rows += (
            f'<div class="flow-row {mode}"><b class="{mode}">{name}</b>'
            f"{grid(result, result.x[0], x_limit, 'x', result.value)}"
            f"<span>− {bracketed(short(step.mean))}<br>÷ {short((step.var + result.eps) ** 0.5)}</span>"
            f"{grid(result, step.normalized_map, hat_limit, 'x̂', step.normalized)}"
            f"<span>· {bracketed(short(result.gamma))}<br>+ {bracketed(short(result.beta))}</span>"
            f"{grid(result, step.output_map, y_limit, 'y', step.output)}</div>"
        )
    return (
        '<p class="caption flow-caption">This channel of your digit, green above zero, purple below: the input x, the '
        f'normalised x̂, the output y.</p><div class="flow">{rows}</div>'
    )


def grid(result: WorkedExample, values: np.ndarray, limit: float, name: str, value: float) -> str:
    """(H, W) as a map whose pixels can be read and chosen."""
    height, width = values.shape
    numbers = " ".join(f"{v:.4g}" for v in values.ravel())
    spot = (
        f"left: {100 * result.column / width:.2f}%; top: {100 * result.row / height:.2f}%; "
        f"width: {100 / width:.2f}%; height: {100 / height:.2f}%"
    )
    at = result.row * width + result.column
    return (
        f'<figure><div class="choosable" tabindex="0" role="application" data-grid="{height}x{width}" '
        f'data-name="{name}" data-pixel="{at}" data-numbers="{numbers}" '
        f'aria-label="Map of {name}; arrow keys choose a pixel. Row {result.row}, column {result.column}: '
        f'{short(value)}"><img src="{png_url(diverging(values, limit))}" alt=""><i class="spot" style="{spot}"></i>'
        "</div>"
        f"<figcaption>{name} = <b>{short(value)}</b></figcaption></figure>"
    )


# ---- numbers


def steps(result: WorkedExample) -> str:
    """The computation in lines, with the numbers put in."""
    digits, height, width = result.x.shape
    gamma, beta, eps = short(result.gamma), short(result.beta), signed(f"{result.eps:g}")

    def lines(step: Step, origin: str) -> list[str]:
        mean, var, hat = short(step.mean), short(step.var), short(step.normalized)
        return [
            cell(short(result.value)),
            cell(mean, origin),
            cell(var, origin),
            cell(short(step.centred), f"{short(result.value)} − {bracketed(mean)}"),
            cell(hat, f"{short(step.centred)} / √({var} + {eps})"),
            cell(short(step.output), f"{gamma} · {bracketed(hat)} + {bracketed(beta)}"),
        ]

    names = ("x, the input", "μ, the mean", "σ², the variance", "x − μ", "x̂ = (x − μ) / √(σ² + ε)", "y = γ · x̂ + β")
    batch = lines(result.batch, f"of {digits * height * width:,} values")
    running = lines(result.running, "kept from training")
    body = "".join(
        f'<tr><th scope="row">{name}</th>{left}{right}</tr>'
        for name, left, right in zip(names, batch, running, strict=True)
    )
    head = (
        '<th scope="col">Step</th><th scope="col"><b class="train">Train mode, this batch</b></th>'
        '<th scope="col"><b class="eval">Eval mode, running</b></th>'
    )
    return f'<div class="table steps-of-one"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def cell(value: str, how: str = "") -> str:
    return f'<td data-value="{value.replace("−", "-")}"><b>{value}</b>{f" <small>{how}</small>" if how else ""}</td>'


def bracketed(number: str) -> str:
    return f"({number})" if number.startswith("−") else number


# ---- which values share a mean


def sharing(result: WorkedExample) -> str:
    """The same pixel under four normalisations: a diagram of what shares its mean, and the numbers."""
    members = {
        "BatchNorm": lambda n, c: c == 0,
        "LayerNorm": lambda n, c: n == 0,
        "InstanceNorm": lambda n, c: n == 0 and c == 0,
        "GroupNorm": lambda n, c: n == 0 and c < COLUMNS // worked_example.GROUPS,
    }
    over = {
        "BatchNorm": "one channel of all digits",
        "LayerNorm": "all channels of one digit",
        "InstanceNorm": "one channel of one digit",
        "GroupNorm": "some channels of one digit",
    }
    figures = "".join(
        f"<figure>{diagram(one.name, members[one.name])}<figcaption><b>{one.name}</b>: {over[one.name]}<br>"
        f"{one.values:,} values<br>μ&nbsp;=&nbsp;{short(one.mean)}, x̂&nbsp;=&nbsp;<b>{short(one.normalized)}</b>"
        f"<br>{alone(one)}"
        "</figcaption></figure>"
        for one in result.groupings
    )
    return (
        '<h3>Which values share a mean</h3><p class="caption">A row is a digit of the batch, a column a channel, a '
        "square all its positions. The ringed square holds the pixel; what is filled shares its mean and variance. "
        f'Only batch norm looks at other digits.</p><div class="sharing">{figures}</div>'
    )


def alone(one: Grouping) -> str:
    if abs(one.alone - one.normalized) < 5e-4:
        return "alone in its batch: the same"
    return f'<b class="train">alone in its batch: x̂&nbsp;=&nbsp;{short(one.alone)}</b>'


def diagram(name: str, member: "object") -> str:
    """ROWS digits × COLUMNS channels; those for which `member(row, column)` holds are filled."""
    assert callable(member)
    side = 16
    squares = "".join(
        f'<rect x="{side * c + 1}" y="{side * n + 1}" width="{side - 2}" height="{side - 2}" rx="2" '
        f'class="{"in" if member(n, c) else "out"}"/>'
        for n in range(ROWS)
        for c in range(COLUMNS)
    )
    ring = f'<rect x="0.5" y="0.5" width="{side - 1}" height="{side - 1}" rx="3" class="ring"/>'
    return (
        f'<svg viewBox="-1 -1 {side * COLUMNS + 2} {side * ROWS + 2}" role="img" '
        f'aria-label="{name}: which squares share a mean">{squares}{ring}</svg>'
    )
