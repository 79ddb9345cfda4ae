"""Why the modes differ: what each batch norm subtracts and divides by, and what it passes on."""

from dataclasses import replace
from html import escape

import gradio as gr
import numpy as np

from bnmodel.experiments import modes
from bnmodel.experiments.company import companions
from bnmodel.experiments.modes import NormView, most_shifted, shifts
from demo.components import (
    AUTO,
    asked,
    batch_controls,
    check_own,
    code,
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
    table,
    take_home,
    which,
    with_code,
)
from demo.images import diverging, png_url
from demo.page import Drawn, Page

MAPS = 32
FULL = 0.995  # share of the values that the colours of the maps tell apart
QUESTION = "What does train mode do to your digit on its way through the network?"
TASK = "Choose a batch in which some mean is more than 1 standard deviation from the running mean."
HINT = """
Look at the first panel: a **square** away from its **disc** is a mean of this batch that differs from the running
mean; a longer whisker is a larger spread. The batch is the one of *Your digit*.
"""
LOOK = """
The first batch norm gets the *same* input in both modes and passes on different output; from there on everything
differs. Below the panels, the output as pictures, channel by channel: green above zero, purple below. Point at a
channel to find it in the other pictures, click it to follow it in *Worked out*.
"""
FORMULA = r"""
$$y_\text{train} - y_\text{eval} = \gamma\left(\frac{x - \mu_B}{\sqrt{\sigma_B^2+\epsilon}} -
\frac{x - \mu_\text{run}}{\sqrt{\sigma_\text{run}^2+\epsilon}}\right)$$

A shift of the mean moves a whole channel up or down; a ratio of the standard deviations stretches it.

Source: `bnmodel/experiments/modes.py`.
"""


def build(page: Page) -> None:
    with page.tab("Why", QUESTION, task=TASK) as tab:
        hint(HINT)
        batch = batch_controls(page, "why-")
        layer, channel = layer_controls(page, "why-")
        shown = picture(600, "why")
        maps = picture(200, "maps")
        maps.apply(None, None, [channel], js="() => window.touched.channel", api_visibility="private")
        take_home("why")
        check_own("batch statistics at prediction time")
        gr.Markdown(LOOK, elem_classes="look")
        lines = code(reads_digit=True)
        fold("The formula and the source", FORMULA)
        tab.live(with_code(show, snippet), outputs=[shown, maps, lines], shared=[*batch, layer, channel])


def show(drawn: Drawn, count: int, kind: str, label: int, seed: int, layer: int, channel: int) -> tuple[str, str]:
    company, _ = asked(drawn, count, kind, label, seed)
    others = companions(company.kind, company.count, company.seed, drawn.digit, company.label)
    result = modes.compare(drawn.model.network, drawn.digit, others)
    if not result.norms:
        return sentence("This network has no batch norm: both modes are one. Choose another network.", drawn), ""
    where = f"{named(company)[0].upper()}{named(company)[1:]}: "
    view = result.norms[which(layer, len(result.norms))]
    shown = replace(result, norms=(view,))
    words = where + in_words(result.norms, view)
    return (
        sentence(words, drawn)
        + panels(modes.figure(shown), f"Statistics and activations of {view.name}", narrow=True)
        + layers(result.norms, view)
        + done(kind != AUTO and max(float(np.abs(shifts(one)).max()) for one in result.norms) > 1),
        feature_maps(view, channel),
    )


def snippet(drawn: Drawn, count: int, kind: str, label: int, seed: int, layer: int, channel: int) -> str:
    return f"""
{digit_in_code(drawn)}from bnmodel.experiments import modes
{company_in_code(drawn, count, kind, label, seed)}result = modes.compare(model, digit, company)
plotting.save(modes.figure(result), "why.png")
plotting.save(modes.feature_maps(result, norm={layer}), "maps.png")
"""


def in_words(norms: tuple[NormView, ...], shown: NormView) -> str:
    """Where the batch's mean is furthest from the running one, in running standard deviations."""
    channel, shift = furthest(shown)
    above, more = ("above", "more") if shift > 0 else ("below", "less")
    words = (
        f"in <b>{escape(shown.name)}</b> the mean of channel {channel} moves most, to {abs(shift):.2f} standard "
        f"deviations {above} the running mean; there train mode subtracts {more} than eval mode."
    )
    most = max(norms, key=lambda view: abs(furthest(view)[1]))
    if most is not shown:
        words += f" {escape(most.name)} has the largest shift of all norms, {abs(furthest(most)[1]):.2f}."
    return words


def furthest(view: NormView) -> tuple[int, float]:
    """The most shifted channel, and its shift in running standard deviations."""
    channel = int(most_shifted(view, 1)[0])
    return channel, float(shifts(view)[channel])


def layers(norms: tuple[NormView, ...], shown: NormView) -> str:
    """Every norm in a line."""
    rows = []
    for view in norms:
        distance = np.abs(shifts(view))
        first = int(distance.argmax())
        ratio = np.median(view.batch_std / np.maximum(view.running_std, 1e-3))
        rows.append(
            (
                f"{view.name}{' (shown)' if view is shown else ''}",
                str(len(distance)),
                f"{np.median(distance):.2f} σ",
                f"{distance[first]:.2f} σ, channel {first}",
                f"{ratio:.2f} × running",
            )
        )
    head = (
        "Batch norm",
        "Channels",
        "Median shift of the mean",
        "Largest shift",
        "Median σ of the batch",
    )
    return table(head, rows)


def feature_maps(view: NormView, chosen: int) -> str:
    """The MAPS most shifted channels of the digit behind one norm, eval mode above train mode, on one scale."""
    values = np.abs(np.concatenate((view.eval_output.ravel(), view.train_output.ravel())))
    limit = max(float(np.quantile(values, FULL)), 1e-9)  # the largest alone would leave most maps pale
    order = most_shifted(view, MAPS).tolist()
    if 0 <= chosen < len(view.running_mean) and chosen not in order:
        order = [chosen, *order[:-1]]
    distance = shifts(view)
    columns = "".join(
        f'<button type="button" class="map{" chosen" if channel == chosen else ""}" data-channel="{channel}" '
        f'data-tip="channel {channel}: mean {distance[channel]:+.2f} σ from the running one" '
        f'aria-label="channel {channel}: its mean is {distance[channel]:+.2f} σ from the running one; choose it">'
        f'<img src="{png_url(diverging(view.eval_output[channel], limit))}" alt="">'
        f'<img src="{png_url(diverging(view.train_output[channel], limit))}" alt="">'
        f"<span>{channel}</span></button>"
        for channel in order
    )
    hidden = len(view.eval_output) - len(order)
    more = f", the {len(order)} most shifted of {len(view.eval_output)} channels" if hidden > 0 else ""
    return (
        f'<p class="caption"><b>Output of {escape(view.name)}</b>: <span class="eval">eval mode above</span>, '
        f'<span class="train">train mode below</span>{more} {scale(limit)}</p><div class="maps">{columns}</div>'
    )


def scale(limit: float) -> str:
    """The colours of the maps and what they mean."""
    return f'<span class="scale"><span>≤ −{limit:.2g}</span><i></i><span>≥ {limit:.2g}</span></span>'
