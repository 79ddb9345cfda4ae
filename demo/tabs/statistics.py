"""One batch, a running average, a cumulative one, or the precise statistics of a population."""

import gradio as gr

from bnmodel.experiments import modes, running_statistics
from bnmodel.experiments.batch_statistics import custom_batchnorms
from bnmodel.experiments.company import companions
from bnmodel.experiments.running_statistics import RunningStatistics
from demo.components import (
    MOST_SHIFTED,
    asked,
    check_own,
    code,
    digit_in_code,
    done,
    fold,
    hint,
    layer_controls,
    named,
    panels,
    percent,
    picture,
    sentence,
    signed,
    table,
    take_home,
    which,
    with_code,
)
from demo.page import Drawn, Page

QUESTION = "Which mean and variance should a network keep for later?"
TASK = "Choose a momentum with which the noise is less than a tenth of σ."
HINT = """
Look at how fast, and how noisily, the solid **running** average approaches the dotted **precise** value while the
network sees 60 batches. Try momentum 0.01, then larger batches.
"""
LOOK = """
**Running** forgets old batches: with a momentum near 1 it is as noisy as single batches, near 0 it has not arrived
after 60 batches. **Cumulative** weights every batch alike. **Precise** takes 1,000 digits at once, layer after layer,
and does not depend on how they are split into batches. The second table shows the accuracy with each.
"""
FORMULA = r"""
$$\text{running} \leftarrow (1 - m)\cdot\text{running} + m\cdot\text{batch}$$

covers about the last $(2-m)/m$ batches: 19 at $m = 0.1$. After $t$ batches $(1-m)^t$ of the start is left, so that it
comes within $\sigma$ of a value $d$ away after $\ln(\sigma/d) / \ln(1-m)$ of them. Then it wanders with the variance
$\frac{m}{2-m}\,\sigma^2$, where $\sigma$ is the spread of single batches, which falls as they grow. The noise is
measured while the average runs on over 20,000 more batches, drawn with repetition from the 60.

Source: `bnmodel/experiments/running_statistics.py`. Wu & Johnson 2021,
[arXiv 2105.07576](https://arxiv.org/abs/2105.07576), §3.
"""
BATCH_SIZES = (2, 4, 8, 16, 32, 64)


def build(page: Page) -> None:
    with page.tab("Statistics", QUESTION, task=TASK) as tab:
        hint(HINT)
        layer, channel = layer_controls(page, "stat-")
        with gr.Row(elem_classes="controls"):
            momentum = gr.Slider(0.01, 1, 0.1, step=0.01, label="Momentum", elem_id="momentum", min_width=160)
            batch_size = gr.Dropdown(
                list(BATCH_SIZES),
                value=4,
                label="Batch size (digits)",
                min_width=110,
                scale=0,
                elem_id="statistics-batch-size",
            )
        shown = picture(810, "statistics")
        take_home("statistics")
        check_own("statistics that were never updated")
        gr.Markdown(LOOK, elem_classes="look")
        lines = code(reads_digit=True)
        fold("The formula and the source", FORMULA)
        tab.live(
            with_code(show, snippet),
            inputs=[momentum, batch_size],
            outputs=[shown, lines],
            at_once=1,  # 0.6 GB, for robust
            shared=[*page.shared["batch"], layer, channel],
        )


def show(
    drawn: Drawn,
    count: int,
    kind: str,
    label: int,
    seed: int,
    layer: int | None,
    channel: int,
    momentum: float,
    batch_size: int,
) -> str:
    """`count` to `seed` are the batch that tabs share; `layer` counts the network's norms from 0 on."""
    if not custom_batchnorms(drawn.model.network):
        return sentence("This network has no batch norm.", drawn)
    norm, number, told = place(drawn, count, kind, label, seed, layer, channel)
    result = running_statistics.run(drawn.model.network, drawn.digit, momentum, batch_size, norm=norm, channel=number)
    words = in_words(result) + told
    picture = panels(running_statistics.figure(result, accuracy=False), words)
    return (
        sentence(words, drawn)
        + picture
        + approaches(result)
        + kinds(result)
        + done(result.mean.noise < 0.1 * result.mean.batch_spread)
    )


def place(
    drawn: Drawn, count: int, kind: str, label: int, seed: int, layer: int | None, channel: int
) -> tuple[str, int, str]:
    """The norm's name and the channel; and where it is not the one asked for, why."""
    norms = custom_batchnorms(drawn.model.network)
    norm = list(norms)[which(layer, len(norms))]
    last = norms[norm].num_features - 1
    if channel > last:
        return norm, last, f" {norm} has channels 0 to {last}; {last} is shown."
    if channel == MOST_SHIFTED:
        chosen, _ = asked(drawn, count, kind, label, seed)
        others = companions(chosen.kind, chosen.count, chosen.seed, drawn.digit, chosen.label)
        view = modes.compare(drawn.model.network, drawn.digit, others).norms[list(norms).index(norm)]
        return norm, int(modes.most_shifted(view, 1)[0]), f" It is the channel shifted most {named(chosen)}."
    return norm, channel, ""


def snippet(
    drawn: Drawn,
    count: int,
    kind: str,
    label: int,
    seed: int,
    layer: int | None,
    channel: int,
    momentum: float,
    batch_size: int,
) -> str:
    if not custom_batchnorms(drawn.model.network):
        return "# this network has no batch norm"
    norm, number, _ = place(drawn, count, kind, label, seed, layer, channel)
    return f"""
{digit_in_code(drawn)}from bnmodel.experiments import running_statistics
result = running_statistics.run(
    model, digit, momentum={momentum:g}, batch_size={batch_size}, norm="{norm}", channel={number}
)
print(result.effective_batches, result.accuracy)
plotting.save(running_statistics.figure(result), "statistics.png")
"""


def in_words(result: RunningStatistics) -> str:
    error = abs(float(result.running_mean[-1]) - result.precise_mean)
    batches = result.effective_batches
    covered = "batch" if batches < 1.005 else f"{batches:.3g} batches"
    return (
        f"With momentum {result.momentum:g}, the average covers about the last <b>{covered}</b>. After "
        f"{len(result.batch_mean)} batches the running mean of channel {result.channel} of {result.norm} is "
        f"{signed(f'{result.running_mean[-1]:.4f}')}, {error:.4f} from the precise mean; single batches vary by "
        f"±{result.mean.batch_spread:.4f}."
    )


def approaches(result: RunningStatistics) -> str:
    """How fast and how noisily the running mean and variance come to the precise ones."""
    rows = [
        (
            name,
            signed(f"{one.precise:.4g}"),
            f"{one.batch_spread:.2g}",
            f"{counted(one.batches, len(result.batch_mean))} ({counted(one.batches_expected)})",
            f"{one.noise:.2g} ({one.noise_expected:.2g})",
        )
        for name, one in (("running mean", result.mean), ("running variance", result.variance))
    ]
    head = ("Measured (theory)", "Precise value", "σ of single batches", "Batches until within σ", "Noise")
    return table(head, rows)


def counted(batches: int | None, seen: int = 0) -> str:
    return str(batches) if batches is not None else f"more than {seen}" if seen else "never"


def kinds(result: RunningStatistics) -> str:
    """What each kind of statistics is worth: accuracy, and the answer to this digit."""
    rows = [
        (kind, f"{100 * result.accuracy[kind]:.1f} %", f"{p.argmax()} ({percent(p.max())})")
        for kind, p in result.probabilities.items()
    ]
    return table(("Statistics in eval mode", f"Accuracy, {result.digits:,} test digits", "Answer to this digit"), rows)
