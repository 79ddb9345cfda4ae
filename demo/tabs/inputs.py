"""Input normalisation: gradient descent on raw and on normalised inputs."""

from functools import lru_cache

import gradio as gr

from bnmodel.experiments import input_normalization
from bnmodel.experiments.input_normalization import MOST_STEPS, InputNormalization
from bnmodel.plotting import percent
from demo import components as ui
from demo.page import Drawn, Page

QUESTION = "Why should inputs have mean 0 and variance 1?"
TASK = "Make the bowl on raw inputs round: a condition number below 1.1."
HINT = """
Look at the two paths from the same start to the cross: on raw inputs the bowl is long and narrow and the path
**zigzags**; on normalised ones it is round and the path direct. This tab needs no drawing.
"""
LOOK = """
A neuron with two weights: the contours are its loss, the cross is the minimum. A learning rate small enough for the
steep direction is too small for the flat one. Raise the **offset** until all inputs are positive: then a sample's two
gradients always have the same sign. **Correlation** remains when each input is normalised by itself. The *condition
number* is the largest curvature divided by the smallest: 1 is round.
"""
FORMULA = r"""
$$L(w) = \frac1N\sum_i (w \cdot x_i - y_i)^2, \qquad H = \frac2N X^\top X, \qquad
\eta_\text{largest} = \frac{2}{\lambda_\text{max}}, \qquad \eta_\text{best} = \frac{2}{\lambda_\text{min} +
\lambda_\text{max}}$$

Each path uses the same fraction of its own $\eta_\text{best}$. A sample's gradient is $2(\hat y - y)\,x$: with
$x_1, x_2 > 0$ both components have the sign of $\hat y - y$. With momentum $\beta$ the largest stable rate is
$2(1+\beta)/\lambda_\text{max}$. The targets of the normalised neuron are centred too, in place of a bias.

Source: `bnmodel/experiments/input_normalization.py`. LeCun et al. 1998, *Efficient BackProp*, §4.3.
"""


def build(page: Page) -> None:
    with page.tab("Inputs", QUESTION, task=TASK) as tab:
        ui.hint(HINT)
        with gr.Row(elem_classes="controls"):
            scale = gr.Slider(0.2, 5, 3, step=0.1, label="Scale of input 2", elem_id="in-scale", min_width=150)
            offset = gr.Slider(0, 4, 1, step=0.1, label="Offset", elem_id="in-offset", min_width=150)
            correlation = gr.Slider(
                -0.9, 0.9, 0, step=0.1, label="Correlation", elem_id="in-correlation", min_width=150
            )
        with gr.Row(elem_classes="controls"):
            share = gr.Slider(0.1, 2, 0.9, step=0.05, label="Learning rate (× best)", elem_id="in-share", min_width=150)
            momentum = gr.Slider(0, 0.95, 0, step=0.05, label="Momentum", elem_id="in-momentum", min_width=130)
            steps = gr.Slider(1, 100, 40, step=1, label="Steps shown", elem_id="in-steps", min_width=130)
            batch_size = gr.Dropdown(
                [("1", 1), ("10", 10), ("all", 200)],
                value=200,
                label="Batch size",
                min_width=80,
                scale=0,
                elem_id="inputs-batch",
            )
        shown = ui.picture(1010, "inputs")
        ui.take_home("inputs")
        ui.look(LOOK)
        lines = ui.code()
        ui.fold(FORMULA)
        tab.live(
            ui.with_code(show, snippet),
            inputs=[scale, offset, correlation, share, momentum, steps, batch_size],
            outputs=[shown, lines],
        )


def snippet(drawn: Drawn, *settings: float) -> str:
    scale, offset, correlation, share, momentum, steps, batch_size = settings
    return f"""
from bnmodel import plotting
from bnmodel.experiments import input_normalization
result = input_normalization.run(
    scale={scale:g}, offset={offset:g}, correlation={correlation:g}, share={share:g}, momentum={momentum:g},
    steps={steps}, batch_size={batch_size},
)
print(result.raw.condition_number, result.normalized.condition_number)
plotting.save(input_normalization.figure(result), "inputs.png")
"""


def show(drawn: Drawn, *settings: float) -> str:
    return bowls(*settings)


@lru_cache(maxsize=64)  # it does not depend on the digit
def bowls(
    scale: float, offset: float, correlation: float, share: float, momentum: float, steps: int, batch_size: int
) -> str:
    result = input_normalization.run(scale, offset, correlation, share, momentum, steps, batch_size)
    words = in_words(result)
    picture = ui.panels(input_normalization.figure(result), words)
    return ui.sentence(words) + picture + numbers(result) + ui.done(result.raw.condition_number < 1.1)


def in_words(result: InputNormalization) -> str:
    same = percent(result.raw.signs[:2].sum())
    return (
        f"The loss above the minimum {convergence(result.raw.converged_after, result.normalized.converged_after)}. "
        f"On raw inputs both weights' gradients have the same sign in {same} of all samples and steps."
    )


def convergence(raw: int | None, normalized: int | None) -> str:
    """Numbers of steps until each descent converges, None: not within MOST_STEPS."""
    level, never = "below 0.1% of its initial value", f"within {MOST_STEPS:,} steps"
    if raw is None and normalized is None:
        return f"does not stay {level} {never}, on raw or on normalised inputs"
    if raw is None:
        return f"stays {level} after {steps(normalized)} on normalised inputs, but not {never} on raw ones"
    if normalized is None:
        return f"stays {level} after {steps(raw)} on raw inputs, but not {never} on normalised ones"
    return f"stays {level} after {steps(raw)} on raw inputs and after {steps(normalized)} on normalised ones"


def steps(count: int | None) -> str:
    return f"{count:,} step{'' if count == 1 else 's'}"


def numbers(result: InputNormalization) -> str:
    rows = [
        (
            name,
            f"{descent.condition_number:.3g}",
            f"{descent.largest_rate:.3g}",
            f"{descent.rate:.3g}",
            f"{descent.converged_after:,}" if descent.converged_after else f"more than {MOST_STEPS:,}",
            percent(descent.signs[:2].sum()),
        )
        for name, descent in (("raw", result.raw), ("normalised", result.normalized))
    ]
    head = ("Inputs", "Condition number", "Largest stable rate", "Rate used", "Steps", "Same sign")
    return ui.table(head, rows)
