"""One batch, a running average, a cumulative one, or the precise statistics of a population."""

import gradio as gr

from bnmodel.experiments import running_statistics
from bnmodel.experiments.modes import named_norms
from bnmodel.experiments.running_statistics import RunningStatistics
from demo.page import Drawn, Page
from demo.parts import fold, panels, picture, sentence, table

LOOK = """
The network sees 60 batches, and each way of averaging makes its own statistics of them, from mean 0 and deviation 1 on.
**Running** forgets: with a momentum near 1 it jitters like the batches, near 0 it is still on its way when the batches
are over. **Cumulative** counts every batch alike. **Precise** takes 1,000 digits at once, layer after layer, and does
not depend on how they are cut into batches. Try momentum 0.01, and read what it costs in the table.
"""
FORMULA = r"""
$$\text{running} \leftarrow (1 - m)\cdot\text{running} + m\cdot\text{batch}$$

remembers about $(2-m)/m$ batches: 19 at $m = 0.1$. After $t$ batches $(1-m)^t$ of the start is still in it.

Source: `bnmodel/experiments/running_statistics.py`. Wu & Johnson 2021,
[arXiv 2105.07576](https://arxiv.org/abs/2105.07576), §3.
"""
BATCH_SIZES = (2, 4, 8, 16, 32, 64)


def build(page: Page) -> None:
    norms = sorted({name for model in page.models.values() for name in named_norms(model.network)})
    with page.tab("Statistics", "Which mean and variance should a network keep for later?") as tab:
        with gr.Row(elem_classes="controls"):
            momentum = gr.Slider(0.01, 1, 0.1, step=0.01, label="Momentum", elem_id="momentum", min_width=160)
            batch_size = gr.Dropdown(list(BATCH_SIZES), value=4, label="Batch size", min_width=90, scale=0)
            norm = gr.Dropdown(norms, value=norms[0] if norms else None, label="Batch norm", min_width=170, scale=0)
            channel = gr.Number(0, label="Channel", precision=0, minimum=0, min_width=90, scale=0, elem_id="channel")
        shown = picture(560, "statistics")
        gr.Markdown(LOOK, elem_classes="look")
        fold("The formula and the source", FORMULA)
        tab.live(show, inputs=[momentum, batch_size, norm, channel], outputs=[shown])


def show(drawn: Drawn, momentum: float, batch_size: int, norm: str, channel: int | None) -> str:
    norms = named_norms(drawn.model.network)
    if norm not in norms:
        there = (
            f"This network has {', '.join(norms)}; choose one of them" if norms else "This network has no batch norm"
        )
        return sentence(f"{there}.", drawn)
    channel = min(max(channel or 0, 0), norms[norm].num_features - 1)
    result = running_statistics.run(drawn.model.network, drawn.digit, momentum, batch_size, norm=norm, channel=channel)
    words = in_words(result)
    return sentence(words, drawn) + panels(running_statistics.figure(result, accuracy=False), words) + kinds(result)


def in_words(result: RunningStatistics) -> str:
    last = float(result.running_mean[-1])
    error, jitter = abs(last - result.precise_mean), result.batch_mean.std()
    return (
        f"After {len(result.batch_mean)} batches the running mean of channel {result.channel} is {last:.4f}, the "
        f"precise one {result.precise_mean:.4f}: {error:.4f} apart. Single batches wander by ±{jitter:.4f}."
    )


def kinds(result: RunningStatistics) -> str:
    """What each kind of statistics is worth: accuracy, and the answer to this digit."""
    rows = [
        (kind, f"{100 * result.accuracy[kind]:.1f} %", f"{p.argmax()}, at {100 * p.max():.1f} %")
        for kind, p in result.probabilities.items()
    ]
    return table(("Statistics in eval mode", "Accuracy, 1,000 test digits", "Answer to this digit"), rows)
