"""A worked example of batch norm as HTML: maps of the channel, the computation, and which values share a mean."""

import math
from collections.abc import Callable

import numpy as np

from bnmodel.experiments import worked_example
from bnmodel.experiments.worked_example import Grouping, Step, WorkedExample
from demo.components import signed
from demo.images import diverging, png_url

SHOWN = 32  # maps of the batch at most
ROWS, COLUMNS = 4, 8  # digits and channels of the diagrams


def short(value: float) -> str:
    """At least three decimals and three significant digits, since pupils compute with these numbers."""
    decimals = max(3, 2 - math.floor(math.log10(abs(value)))) if value else 3
    return signed(f"{value:.{decimals}f}" if decimals <= 6 else f"{value:.2e}")


# ---- maps


def batch_maps(result: WorkedExample) -> str:
    """The channel's input for each digit of the batch, of which μ and σ² are the mean and variance."""
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
    """A table of the computation with its numbers."""
    digits, height, width = result.x.shape
    gamma, beta, eps = short(result.gamma), short(result.beta), plain(result.eps)

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
    running = lines(result.running, "stored in training")
    body = "".join(
        f'<tr><th scope="row">{name}</th>{left}{right}</tr>'
        for name, left, right in zip(names, batch, running, strict=True)
    )
    head = (
        '<th scope="col">Step</th><th scope="col"><b class="train">Train mode, this batch</b></th>'
        '<th scope="col"><b class="eval">Eval mode, running</b></th>'
    )
    return f'<div class="table steps-of-one"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def plain(eps: float) -> str:
    """Three digits without an exponent, as a calculator takes them: 0.00001."""
    return np.format_float_positional(eps, precision=3, fractional=False, trim="-")


def cell(value: str, how: str = "") -> str:
    return f'<td data-value="{value.replace("−", "-")}"><b>{value}</b>{f" <small>{how}</small>" if how else ""}</td>'


def bracketed(number: str) -> str:
    return f"({number})" if number.startswith("−") else number


# ---- which values share a mean


def sharing(result: WorkedExample) -> str:
    """The same pixel under four normalisations: diagrams of which values share its mean, and the results."""
    members: dict[str, Callable[[int, int], bool]] = {
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


def diagram(name: str, member: Callable[[int, int], bool]) -> str:
    """ROWS digits × COLUMNS channels, filled where `member(row, column)` holds."""
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
