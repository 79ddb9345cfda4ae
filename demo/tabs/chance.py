"""The same digit in many random batches: how much of a train-mode answer is luck."""

import gradio as gr
from torch import nn

from bnmodel.experiments import batch_spread
from bnmodel.experiments.batch_spread import SIZES, BatchSpread
from bnmodel.experiments.cost import is_large
from bnmodel.plotting import certainty, percent
from demo import components as ui
from demo.page import Drawn, Page
from demo.shared_controls import reshuffle_button

QUESTION = "How much of a train-mode answer is luck?"
TASK = "Find a batch size above 2 at which no other digit wins in any batch."
HINT = """
Look at the width of the histogram: each batch holds your digit and others drawn at random. The band usually narrows
towards eval mode's line as the batches grow, for some digits only beyond 16.
"""
LOOK = """
**A small batch is a small sample**: its mean and variance are estimates, and your digit's answer inherits their error.
The band holds eight of ten answers. The answer to a clear digit hardly changes; draw one that is hard to read, and
compare batches of 2 and of 256. Large sizes have fewer batches, so “never” means less there.
"""
FORMULA = r"""
$$\operatorname{Var}[\hat\mu_B] \approx \frac{\sigma^2}{n_\text{eff}}, \qquad n_\text{eff} \le B \cdot H \cdot W$$

The error of a batch's mean falls with the square root of the number of values it averages; pixels of one image are
correlated, so the number of *images* counts most. The other digits are drawn without repetition from 1,000 training
digits.

Source: `bnmodel/experiments/batch_spread.py`.
"""
MOST_DIGITS, MOST_OF_LARGE = 3200, 512  # in all batches of the chosen size together, to limit the time


def build(page: Page) -> None:
    with page.tab("Chance", QUESTION, task=TASK) as tab:
        ui.hint(HINT)
        with gr.Row(elem_classes="controls"):
            size = gr.Radio(list(SIZES), value=2, label="Batch size", elem_id="batch-size", min_width=320)
            seed = reshuffle_button("chance-reshuffle")
        shown = ui.picture(510, "chance")
        ui.take_home("chance")
        ui.look(LOOK)
        lines = ui.code(reads_digit=True)
        ui.fold(FORMULA)
        tab.live(ui.with_code(show, snippet), inputs=[size, seed], outputs=[shown, lines])


def show(drawn: Drawn, size: int, seed: int) -> str:
    network = drawn.model.network
    result = batch_spread.run(network, drawn.digit, size, batches(network, size), seed, largest(network))
    words = in_words(result)
    return (
        ui.sentence(words, drawn)
        + ui.panels(batch_spread.figure(result), words)
        + ui.done(size > 2 and not result.flipped)
    )


def batches(network: nn.Module, size: int) -> int:
    """How many batches of one size: fewer, the larger they and the network are."""
    least, digits = (8, MOST_OF_LARGE) if is_large(network) else (20, MOST_DIGITS)
    return max(least, min(200, digits // size))


def largest(network: nn.Module) -> int:
    """The largest batch size of the curve."""
    return 128 if is_large(network) else 256


def snippet(drawn: Drawn, size: int, seed: int) -> str:
    network = drawn.model.network
    return f"""
{ui.digit_in_code(drawn)}from bnmodel.experiments import batch_spread
result = batch_spread.run(
    model, digit, batch_size={size}, batches={batches(network, size)}, seed={seed}, largest={largest(network)}
)
print(result.flipped)
plotting.save(batch_spread.figure(result), "chance.png")
"""


def in_words(result: BatchSpread) -> str:
    low, _, high = result.quantiles[list(result.sizes).index(result.batch_size)]
    share = percent(result.flipped)
    batches = len(result.probabilities)
    if result.batch_size == 1:
        alone = "and gets another answer" if result.flipped else "and keeps its answer"
        return f"In a batch of 1 nothing is left to chance: the digit is normalised by its own statistics {alone}."
    flips = f"another digit wins in <b>{share}</b> of" if result.flipped else "it stays the answer in <b>all</b>"
    least, most = certainty(low), certainty(high)
    between = f"is {most} in 8 of 10" if least == most else f"lies between {least} and {most} in 8 of 10"
    if most.startswith("above"):
        between = f"is {most if least == most else f'at least {least}'} in 9 of 10"
    elif least.startswith("below"):
        between = f"is {least if least == most else f'at most {most}'} in 9 of 10"
    return (
        f"In random batches of <b>{result.batch_size}</b> the probability of {result.label} {between}, "
        f"and {flips} {batches} batches."
    )
