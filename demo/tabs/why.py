"""Why the modes differ: the statistics that each batch norm uses, and its output."""

from dataclasses import replace
from html import escape
from typing import Any

import numpy as np

from bnmodel.experiments import modes
from bnmodel.experiments.batch_statistics import custom_batchnorms
from bnmodel.experiments.modes import NormView, most_shifted, shifts
from demo import components as ui
from demo.ahead import compute_ahead
from demo.images import diverging, png_url
from demo.page import Drawn, Page
from demo.shared_controls import batch_controls, draw_others, layer_controls, named, others_in_code, which
from demo.tabs.statistics import every_batch_size

MAPS = 32
FULL = 0.995  # quantile of the absolute values that gets the full colour
QUESTION = "What does train mode do to your digit on its way through the network?"
TASK = "Choose a batch in which some mean is more than 0.8 standard deviations from the running mean."
HINT = """
Look at the first panel: a **square** away from its **disc** is a mean of this batch that differs from the running
mean; a longer whisker is a larger spread. The batch is the one of *Your digit*.
"""
LOOK = """
The first batch norm gets the *same* input in both modes, but its output differs; so do all values after it.
The pictures show the output, channel by channel: green above zero, purple below zero. Point at a channel to find it in
the other pictures; click it to follow it in *Worked out*.
"""
FORMULA = r"""
$$y_\text{train} - y_\text{eval} = \gamma\left(\frac{x - \mu_B}{\sqrt{\sigma_B^2+\epsilon}} -
\frac{x - \mu_\text{run}}{\sqrt{\sigma_\text{run}^2+\epsilon}}\right)$$

A shift of the mean moves a whole channel up or down; a ratio of the standard deviations stretches it.

Source: `bnmodel/experiments/modes.py`.
"""


def build(page: Page) -> None:
    with page.tab("Why", QUESTION, task=TASK) as tab:
        ui.hint(HINT)
        batch = batch_controls(page, "why-")
        layer, channel = layer_controls(page, "why-")
        shown = ui.picture(600, "why")
        maps = ui.picture(200, "maps")
        maps.apply(None, None, [channel], js="() => window.touched.channel", api_visibility="private")
        ui.take_home("why")
        ui.check_own("batch statistics at prediction time")
        ui.look(LOOK)
        lines = ui.code(reads_digit=True)
        ui.fold(FORMULA)
        tab.live(ui.with_code(show, snippet), outputs=[shown, maps, lines], shared=[*batch, layer, channel])


def show(drawn: Drawn, *values: Any) -> tuple[str, str]:
    *batch, layer, channel = values
    chosen, others, flips = draw_others(drawn, *batch)
    result = modes.compare(drawn.model.network, drawn.digit, others)
    if not result.norms:
        return ui.sentence(
            "This network has no batch norm: both modes are the same. Choose another network.", drawn
        ), ""
    where = f"{named(chosen)[0].upper()}{named(chosen)[1:]}: "
    view = result.norms[which(layer, len(result.norms))]
    shown = replace(result, norms=(view,))
    words = where + in_words(result.norms, view)
    compute_ahead(every_batch_size, drawn.model)  # for Statistics; Chance, before it, needs the processor itself
    return (
        ui.sentence(words, drawn)
        + ui.panels(modes.figure(shown), f"Statistics and activations of {view.name}", narrow=True)
        + layers(result.norms, view)
        + ui.done(flips is None and max(float(np.abs(shifts(one)).max()) for one in result.norms) > 0.8),
        feature_maps(view, channel),
    )


def snippet(drawn: Drawn, *values: Any) -> str:
    *batch, layer, _ = values
    norms = custom_batchnorms(drawn.model.network)
    if not norms:
        return "# this network has no batch norm"
    return f"""
{ui.digit_in_code(drawn)}from bnmodel.experiments import modes
{others_in_code(drawn, *batch)}result = modes.compare(model, digit, others)
plotting.save(modes.figure(result), "why.png")
plotting.save(modes.feature_maps(result, norm={which(layer, len(norms))}), "maps.png")
"""


def in_words(norms: tuple[NormView, ...], shown: NormView) -> str:
    """The largest shift of a batch mean from the running mean, in running standard deviations."""
    channel, shift = furthest(shown)
    above, more = ("above", "more") if shift > 0 else ("below", "less")
    words = (
        f"in <b>{escape(shown.name)}</b> the mean of channel {channel} is shifted most, to {abs(shift):.2f} standard "
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
    """A table of all norms."""
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
    return ui.table(head, rows)


def feature_maps(view: NormView, chosen: int) -> str:
    """The output of one norm for the digit: the MAPS most shifted channels, eval above train mode, on one scale."""
    values = np.abs(np.concatenate((view.eval_output.ravel(), view.train_output.ravel())))
    limit = max(float(np.quantile(values, FULL)), 1e-9)  # the maximum would make most maps pale
    order = most_shifted(view, MAPS).tolist()
    if 0 <= chosen < len(view.running_mean) and chosen not in order:
        order = [chosen, *order[:-1]]
    moved = [ui.signed(f"{shift:+.2f}") for shift in shifts(view)]
    columns = "".join(
        f'<button type="button" class="map{" chosen" if channel == chosen else ""}" data-channel="{channel}" '
        f'data-tip="channel {channel}: mean {moved[channel]} σ from the running one" '
        f'aria-label="channel {channel}: its mean is {moved[channel]} σ from the running one; choose it">'
        f'<img src="{png_url(diverging(view.eval_output[channel], limit))}" alt="">'
        f'<img src="{png_url(diverging(view.train_output[channel], limit))}" alt="">'
        f"<span>{channel}</span></button>"
        for channel in order
    )
    constant = [c for c in sorted(order) if np.ptp(view.eval_output[c]) == 0 == np.ptp(view.train_output[c])]
    hidden = len(view.eval_output) - len(order)
    more = f", the {len(order)} most shifted of {len(view.eval_output)} channels" if hidden > 0 else ""
    more += constants(constant)
    return (
        f'<p class="caption"><b>Output of {escape(view.name)}</b>: <span class="eval">eval mode above</span>, '
        f'<span class="train">train mode below</span>{more} {scale(limit)}</p><div class="maps">{columns}</div>'
    )


def constants(channels: list[int]) -> str:
    """Why some pictures are blank."""
    if not channels:
        return ""
    names = ", ".join(map(str, channels))
    return f"; channel {names} is constant" if len(channels) == 1 else f"; channels {names} are constant"


def scale(limit: float) -> str:
    """The colour scale of the maps."""
    return f'<span class="scale"><span>≤ −{limit:.2g}</span><i></i><span>≥ {limit:.2g}</span></span>'
