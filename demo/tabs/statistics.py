"""One batch, a running average, a cumulative one, or the precise statistics of a population."""

import gradio as gr

from bnmodel.experiments import running_statistics
from bnmodel.experiments.modes import custom_batchnorms
from bnmodel.experiments.running_statistics import RunningStatistics
from demo.components import code, fold, panels, picture, sentence, table
from demo.page import Drawn, Page

LOOK = """
The network sees 60 batches, and each way of averaging makes its own statistics of them, from mean 0 and deviation 1 on.
**Running** forgets: with a momentum near 1 it jitters like the batches, near 0 it is still on its way when the batches
are over. **Cumulative** counts every batch alike. **Precise** takes 1,000 digits at once, layer after layer, and does
not depend on how they are cut into batches. Try momentum 0.01: the noise falls, and the start stays. Then make the
batches larger: the noise falls, and the start fades as before. The second table says what it costs.
"""
FORMULA = r"""
$$\text{running} \leftarrow (1 - m)\cdot\text{running} + m\cdot\text{batch}$$

remembers about $(2-m)/m$ batches: 19 at $m = 0.1$. After $t$ batches $(1-m)^t$ of the start is still in it, so that it
comes within $\sigma$ of a value $d$ away after $\ln(\sigma/d) / \ln(1-m)$ of them. Then it wanders with the variance
$\frac{m}{2-m}\,\sigma^2$, where $\sigma$ is the spread of single batches, which falls as they grow. The noise is
measured while the average runs on over 20,000 more batches, drawn with repetition from the 60.

Source: `bnmodel/experiments/running_statistics.py`. Wu & Johnson 2021,
[arXiv 2105.07576](https://arxiv.org/abs/2105.07576), §3.
"""
CODE = """
from bnmodel import load_checkpoint, plotting
from bnmodel.data import load_sample
from bnmodel.experiments import running_statistics
model, digit = load_checkpoint("checkpoints/lecture").model, load_sample(train=False).images[716, 0]
result = running_statistics.run(model, digit, momentum=0.1, batch_size=4)
print(result.effective_batches, result.accuracy)
plotting.save(running_statistics.figure(result), "statistics.png")
"""
BATCH_SIZES = (2, 4, 8, 16, 32, 64)


def build(page: Page) -> None:
    most = max((len(custom_batchnorms(model.network)) for model in page.models.values()), default=0)
    with page.tab("Statistics", "Which mean and variance should a network keep for later?") as tab:
        with gr.Row(elem_classes="controls"):
            momentum = gr.Slider(0.01, 1, 0.1, step=0.01, label="Momentum", elem_id="momentum", min_width=160)
            batch_size = gr.Dropdown(list(BATCH_SIZES), value=4, label="Batch size", min_width=90, scale=0)
            norm = gr.Dropdown(
                list(range(1, most + 1)), value=1 if most else None, label="Batch norm", min_width=110, scale=0
            )
            channel = gr.Number(0, label="Channel", precision=0, minimum=0, min_width=90, scale=0, elem_id="channel")
        shown = picture(670, "statistics")
        gr.Markdown(LOOK, elem_classes="look")
        code(CODE)
        fold("The formula and the source", FORMULA)
        tab.live(show, inputs=[momentum, batch_size, norm, channel], outputs=[shown], at_once=1)  # 0.6 GB, for robust


def show(drawn: Drawn, momentum: float, batch_size: int, place: int | None, channel: int | None) -> str:
    """`place` counts the network's norms from 1 on; beyond the last, it is the last."""
    norms = custom_batchnorms(drawn.model.network)
    if not norms:
        return sentence("This network has no batch norm.", drawn)
    norm = list(norms)[min(place or 1, len(norms)) - 1]
    channel = min(max(channel or 0, 0), norms[norm].num_features - 1)
    result = running_statistics.run(drawn.model.network, drawn.digit, momentum, batch_size, norm=norm, channel=channel)
    words = in_words(result)
    picture = panels(running_statistics.figure(result, accuracy=False), words)
    return sentence(words, drawn) + picture + approaches(result) + kinds(result)


def in_words(result: RunningStatistics) -> str:
    error = abs(float(result.running_mean[-1]) - result.precise_mean)
    remembered = f"{result.effective_batches:.3g} batch{'' if result.effective_batches < 1.005 else 'es'}"
    return (
        f"Momentum {result.momentum:g} remembers about <b>{remembered}</b>. After {len(result.batch_mean)} batches "
        f"the running mean of channel {result.channel} of {result.norm} is {result.running_mean[-1]:.4f}, {error:.4f} "
        f"from the precise one; single batches wander by ±{result.mean.batch_spread:.4f}."
    )


def approaches(result: RunningStatistics) -> str:
    """How fast and how noisily the running mean and variance come to the precise ones."""
    rows = [
        (
            name,
            f"{one.precise:.4g}",
            f"{one.batch_spread:.2g}",
            f"{counted(one.batches, len(result.batch_mean))} ({counted(one.batches_expected)})",
            f"{one.noise:.2g} ({one.noise_expected:.2g})",
        )
        for name, one in (("running mean", result.mean), ("running variance", result.variance))
    ]
    head = ("Measured (theory)", "Precise value", "σ, of single batches", "Batches until within σ", "Noise")
    return table(head, rows)


def counted(batches: int | None, seen: int = 0) -> str:
    return str(batches) if batches is not None else f"more than {seen}" if seen else "never"


def kinds(result: RunningStatistics) -> str:
    """What each kind of statistics is worth: accuracy, and the answer to this digit."""
    rows = [
        (kind, f"{100 * result.accuracy[kind]:.1f} %", f"{p.argmax()}, at {100 * p.max():.1f} %")
        for kind, p in result.probabilities.items()
    ]
    return table(("Statistics in eval mode", "Accuracy, 1,000 test digits", "Answer to this digit"), rows)
