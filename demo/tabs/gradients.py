"""Gradients without batch norm, with it before and with it after the activation: same weights, same batch."""

from functools import lru_cache

import gradio as gr

from bnmodel.experiments import gradients
from bnmodel.experiments.gradients import ALONG, MOST_STEPS, Gradients
from bnmodel.experiments.initialization import title
from bnmodel.nn.init import INITIALIZERS
from bnmodel.plotting import percent
from demo import components as ui
from demo.page import Drawn, Page
from demo.shared_controls import reshuffle_button

QUESTION = "What does batch norm do to the gradients?"
TASK = "Find a setting in which a step changes the gradient relatively more with batch norm (after) than without."
HINT = """
Four panels, one per layer: look at the dots above the histograms, the median size of that layer's gradients, and how
far apart they are with and without batch norm. This tab needs no drawing.
"""
LOOK = """
Three networks with the same weights get the same 32 digits; only the batch norm differs. The line through a dot reaches
from the 5% to the 95% quantile. **At step 0 only batch norm makes the difference**; the smaller
the gradients without it, as with Glorot compared with He, the larger the difference. The last two panels show how much
the gradient has changed, and the loss, after steps of growing length against the gradient.

*Does the gradient stay valid over longer steps with batch norm?* The table gives its change relative to its length. In
this small network the answer depends on the initialiser: reshuffle, set 10 steps, and compare He with Glorot.
"""
FORMULA = r"""
$$\text{predictiveness}(\eta) = \big\lVert \nabla L(\theta) - \nabla L\big(\theta - \eta \nabla L(\theta)\big)
\big\rVert_2$$

The lecture explains batch norm by “internal covariate shift”: the inputs of a layer change while it learns. Santurkar
et al. measured that shift and found it no smaller with batch norm. Instead, this change of the gradient became smaller
(in a deep VGG network, in the course of training). The norm is over all parameters. Dropout is off; the steps are plain
SGD, each on the next 32 digits of the sample.

Source: `bnmodel/experiments/gradients.py`. Santurkar et al. 2018, [arXiv 1805.11604](https://arxiv.org/abs/1805.11604).
"""
BATCH = 32  # digits
WORDS = {"none": "no batch norm", "before": "before the activation", "after": "after the activation"}


def build(page: Page) -> None:
    choices = [(title(name), name) for name in INITIALIZERS]
    with page.tab("Gradients", QUESTION, task=TASK) as tab:
        ui.hint(HINT)
        with gr.Row(elem_classes="controls"):
            initializer = gr.Dropdown(
                choices, value="he_normal", label="Initialiser", elem_id="grad-init", min_width=140
            )
            std = gr.Slider(0.01, 1, 0.1, step=0.01, label="Std. dev. (normal)", elem_id="grad-std", min_width=200)
            steps = gr.Slider(0, MOST_STEPS, 0, step=1, label="Training steps", elem_id="grad-steps", min_width=150)
            rate = gr.Dropdown(
                [(f"{one:g}", one) for one in (0.001, 0.01, 0.1, 0.3, 1.0)],
                value=0.1,
                label="Learning rate η",
                min_width=125,
                scale=0,
                elem_id="gradients-learning-rate",
            )
            seed = reshuffle_button("grad-reshuffle")
        shown = ui.picture(740, "gradients")
        ui.take_home("gradients")
        ui.look(LOOK)
        lines = ui.code()
        ui.fold(FORMULA)
        tab.live(ui.with_code(show, snippet), inputs=[initializer, std, steps, rate, seed], outputs=[shown, lines])


def snippet(drawn: Drawn, initializer: str, std: float, steps: int, rate: float, seed: int) -> str:
    return f"""
from bnmodel import plotting
from bnmodel.experiments import gradients
result = gradients.run(
    initializer="{initializer}", steps={steps}, rate={rate:g}, batch_size={BATCH}, std={std:g}, seed={seed}
)
print(dict(zip(result.positions, result.norm.tolist())))
plotting.save(gradients.figure(result), "gradients.png")
"""


def show(drawn: Drawn, *settings: str | float) -> str:
    return comparison(*settings)


@lru_cache(maxsize=64)  # it does not depend on the digit
def comparison(initializer: str, std: float, steps: int, rate: float, seed: int) -> str:
    result = gradients.run(initializer, steps, rate, BATCH, std=std, seed=seed)
    words = in_words(result)
    picture = ui.panels(gradients.figure(result), words, narrow=True)
    return ui.sentence(words) + picture + numbers(result) + ui.done(rougher(result))


def rougher(result: Gradients) -> bool:
    """Whether a step changes the gradient more with batch norm after the activation than without, relatively."""
    at = 1 + ALONG.index(1.0)
    none, after = (result.positions.index(position) for position in ("none", "after"))
    if not result.norm[none] or not result.norm[after]:
        return False
    return bool(result.change[after, at] / result.norm[after] > result.change[none, at] / result.norm[none])


def in_words(result: Gradients) -> str:
    when = f"After {result.steps} step{'' if result.steps == 1 else 's'}" if result.steps else "With the same weights"
    none, after = (
        result.quantiles[result.positions.index(position), :, 1] for position in ("none", "after")
    )  # (4,), (4,)
    if not none.all() or not after.all():
        return f"{when}, half of a layer's gradients or more are exactly zero: it does not learn."
    ratios = ", ".join(ui.significant(ratio, 2) for ratio in after / none)
    return (
        f"{when}, the median gradient with batch norm after the activation is, layer by layer, {ratios} times as large "
        f"as without batch norm."
    )


def numbers(result: Gradients) -> str:
    """A table of the gradient's length and of its change, and of the loss, after a step of the chosen rate."""
    at = 1 + ALONG.index(1.0)
    rows = [
        (
            WORDS[position],
            ui.significant(result.norm[row]),
            ui.significant(result.change[row, at]),
            percent(result.change[row, at] / result.norm[row]) if result.norm[row] else "",
            " → ".join(ui.significant(loss) for loss in result.loss_along[row, [0, at]]),
        )
        for row, position in enumerate(result.positions)
    ]
    head = (
        "Batch norm",
        "Length of the gradient",
        f"Its change after a step, η = {result.rates[at]:g}",
        "Relative change",
        "Loss (nats)",
    )
    return ui.table(head, rows)
