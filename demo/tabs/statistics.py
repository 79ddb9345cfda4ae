"""Statistics for inference: of one batch, a running average, a cumulative average, or precise statistics."""

from typing import Any

import gradio as gr
import torch

from bnmodel.experiments import modes, running_statistics
from bnmodel.experiments.batch_statistics import custom_batchnorms
from bnmodel.experiments.running_statistics import Approach, RunningStatistics
from bnmodel.plotting import certainty
from demo import components as ui
from demo.ahead import compute_ahead
from demo.models import Model
from demo.page import Drawn, Page
from demo.shared_controls import MOST_SHIFTED, draw_others, layer_controls, named, norm_and_channel
from demo.tabs.faults import other_faults

QUESTION = "Which mean and variance should a network keep for later?"
TASK = "Choose a momentum with which the noise of the running mean is less than a tenth of the σ of single batches."
HINT = """
Look at how fast, and how noisily, the solid **running** average approaches the dotted **precise** value while the
network sees 60 batches. Try momentum 0.01, then larger batches.
"""
LOOK = """
**Running** forgets old batches: with a momentum near 1 it is as noisy as single batches, near 0 it has not
converged in 60 batches. **Cumulative** weights batches equally. **Precise** takes 1,000 digits at once, layer after
layer, and does not depend on how they are split into batches. The second table shows the accuracy with each, and with
the **last batch** of the 60, which is not the batch of the other tabs.
"""
FORMULA = r"""
$$\text{running} \leftarrow (1 - m)\cdot\text{running} + m\cdot\text{batch}$$

covers about the last $(2-m)/m$ batches: 19 at $m = 0.1$. After $t$ batches $(1-m)^t$ of the initial value remains; it
comes within $\sigma$ of a value $d$ away after $\ln(\sigma/d) / \ln(1-m)$ batches, then fluctuates with the variance
$\frac{m}{2-m}\,\sigma^2$, where $\sigma$ is the spread of single batches, which falls as they grow. The noise is
measured while the average runs on over 20,000 more batches, drawn with repetition from the 60.

Source: `bnmodel/experiments/running_statistics.py`. Wu & Johnson 2021,
[arXiv 2105.07576](https://arxiv.org/abs/2105.07576), §3.
"""
BATCH_SIZES = (2, 4, 8, 16, 32, 64)
BATCH_SIZE, MOMENTUM = 4, 0.1  # at first


def build(page: Page) -> None:
    with page.tab("Statistics", QUESTION, task=TASK) as tab:
        ui.hint(HINT)
        layer, channel = layer_controls(page, "stat-")
        with gr.Row(elem_classes="controls"):
            momentum = gr.Slider(0.01, 1, MOMENTUM, step=0.01, label="Momentum", elem_id="momentum", min_width=160)
            batch_size = gr.Dropdown(
                list(BATCH_SIZES),
                value=BATCH_SIZE,
                label="Batch size (digits)",
                min_width=110,
                scale=0,
                elem_id="statistics-batch-size",
            )
        shown = ui.picture(810, "statistics")
        ui.take_home("statistics")
        ui.check_own("statistics that were never updated")
        ui.look(LOOK)
        lines = ui.code(reads_digit=True)
        ui.fold(FORMULA)
        tab.live(
            ui.with_code(show, snippet),
            inputs=[momentum, batch_size],
            outputs=[shown, lines],
            at_once=1,  # 0.6 GB, for robust
            shared=[*page.shared["batch"], layer, channel],
        )


def show(drawn: Drawn, *values: Any) -> str:
    *place, momentum, batch_size = values
    if not custom_batchnorms(drawn.model.network):
        return ui.sentence("This network has no batch norm.", drawn)
    norm, channel, note = find(drawn, *place)
    result = running_statistics.run(drawn.model.network, drawn.digit, momentum, batch_size, norm=norm, channel=channel)
    words = in_words(result) + note
    picture = ui.panels(running_statistics.figure(result, accuracy=False), words)
    compute_ahead(every_batch_size, drawn.model)
    compute_ahead(other_faults, drawn.model)  # for the next tab
    return (
        ui.sentence(words, drawn)
        + picture
        + approaches(result)
        + kinds(result)
        + ui.done(result.mean.noise < 0.1 * result.mean.batch_spread)
    )


def every_batch_size(model: Model) -> None:
    """Compute what is independent of the digit: the statistics of all batches, and the accuracy with them."""
    for batch_size in sorted(BATCH_SIZES, key=lambda size: size != BATCH_SIZE):
        running_statistics.run(model.network, torch.zeros(28, 28), MOMENTUM, batch_size)


def find(drawn: Drawn, count: int, kind: str, label: int, seed: int, layer: int, channel: int) -> tuple[str, int, str]:
    """The norm's name, the channel, and a note if it is not the one asked for."""
    network = drawn.model.network
    norm, channel, note = norm_and_channel(network, layer, channel)
    if channel == MOST_SHIFTED:
        chosen, others, _ = draw_others(drawn, count, kind, label, seed)
        view = next(view for view in modes.compare(network, drawn.digit, others).norms if view.name == norm)
        channel, note = int(modes.most_shifted(view, 1)[0]), f" It is the most shifted channel {named(chosen)}."
    return norm, channel, note


def snippet(drawn: Drawn, *values: Any) -> str:
    *place, momentum, batch_size = values
    if not custom_batchnorms(drawn.model.network):
        return "# this network has no batch norm"
    norm, channel, _ = find(drawn, *place)
    return f"""
{ui.digit_in_code(drawn)}from bnmodel.experiments import running_statistics
result = running_statistics.run(
    model, digit, momentum={momentum:g}, batch_size={batch_size}, norm="{norm}", channel={channel}
)
print(result.effective_batches, result.accuracy)
plotting.save(running_statistics.figure(result), "statistics.png")
"""


def in_words(result: RunningStatistics) -> str:
    error = abs(float(result.running_mean[-1]) - result.precise_mean)
    batches, seen = result.effective_batches, len(result.batch_mean)
    covered = (
        f"the average needs about <b>{batches:.3g} batches</b>"
        if batches > seen
        else f"the average covers about the last <b>{'batch' if batches < 1.005 else f'{batches:.3g} batches'}</b>"
    )
    return (
        f"With momentum {result.momentum:g}, {covered}. After {'only ' if batches > seen else ''}"
        f"{seen} batches the running mean of channel {result.channel} of {result.norm} is "
        f"{ui.signed(f'{result.running_mean[-1]:.4f}')}, {error:.4f} from the precise mean; single batches vary by "
        f"±{result.mean.batch_spread:.4f}."
    )


def approaches(result: RunningStatistics) -> str:
    """A table of how fast and how noisily the running mean and variance approach the precise ones."""
    rows = [
        (
            name,
            ui.signed(f"{one.precise:.4g}"),
            ui.significant(one.batch_spread, 2),
            f"{counted(one.batches, len(result.batch_mean))} ({counted(one.batches_expected)})",
            f"{ui.significant(one.noise, 2)} ({ui.significant(one.noise_expected, 2)}){ratio(one)}",
        )
        for name, one in (("running mean", result.mean), ("running variance", result.variance))
    ]
    head = ("Measured (theory)", "Precise value", "σ of single batches", "Batches until within σ", "Noise")
    return ui.table(head, rows)


def ratio(one: Approach) -> str:
    """The noise in σ of single batches."""
    return f", {ui.significant(one.noise / one.batch_spread, 2)} σ" if one.batch_spread else ""


def counted(batches: int | None, seen: int = 0) -> str:
    return str(batches) if batches is not None else f"more than {seen}" if seen else "never"


def kinds(result: RunningStatistics) -> str:
    """A table of the accuracy, and the answer to this digit, with each kind of statistics."""
    rows = [
        (kind, f"{100 * result.accuracy[kind]:.1f}%", f"{p.argmax()} ({certainty(p.max())})")
        for kind, p in result.probabilities.items()
    ]
    return ui.table(
        ("Statistics in eval mode", f"Accuracy, {result.digits:,} test digits", "Answer to this digit"), rows
    )
