"""The same digit in many random batches: how much of a train-mode answer is luck."""

import gradio as gr

from bnmodel.experiments import batch_spread
from bnmodel.experiments.batch_spread import SIZES, BatchSpread
from demo.components import code, fold, panels, percent, picture, reshuffle_button, sentence
from demo.page import Drawn, Page

LOOK = """
Left: one batch size in full, each batch with other companions, drawn at random. Right: every batch size; the band holds
eight answers out of ten. **A small batch is a small sample**: its mean and variance are guesses, and your digit's
answer inherits their error. As batches grow the band closes in on eval mode's dashed line. A clear digit hardly moves;
draw one that is hard to read, and look again at 2 and at 256.
"""
FORMULA = r"""
$$\operatorname{Var}[\hat\mu_B] \approx \frac{\sigma^2}{n_\text{eff}}, \qquad n_\text{eff} \le B \cdot H \cdot W$$

The error of a batch's mean falls with the square root of what it averages; pixels of one image are alike, so that the
number of *images* is what counts most. The whole batch is drawn without repetition out of 1,000 training digits.

Source: `bnmodel/experiments/batch_spread.py`.
"""
CODE = """
from bnmodel import load_checkpoint, plotting
from bnmodel.data import load_sample
from bnmodel.experiments import batch_spread
model, digit = load_checkpoint("checkpoints/lecture").model, load_sample(train=False).images[716, 0]
result = batch_spread.run(model, digit, batch_size=2, batches=200, seed=0)
print(result.flipped)
plotting.save(batch_spread.figure(result), "chance.png")
"""
MOST_DIGITS = 3200  # in all batches of the chosen size together: somebody is waiting


def build(page: Page) -> None:
    with page.tab("Chance", "How much of a train-mode answer is luck?") as tab:
        with gr.Row(elem_classes="controls"):
            size = gr.Radio(list(SIZES), value=2, label="Batch size", elem_id="batch-size", min_width=320)
            seed = reshuffle_button("chance-reshuffle")
        shown = picture(400, "chance")
        gr.Markdown(LOOK, elem_classes="look")
        code(CODE)
        fold("The formula and the source", FORMULA)
        tab.live(show, inputs=[size, seed], outputs=[shown])


def show(drawn: Drawn, size: int, seed: int) -> str:
    batches = max(20, min(200, MOST_DIGITS // size))
    result = batch_spread.run(drawn.model.network, drawn.digit, size, batches, seed)
    words = in_words(result)
    return sentence(words, drawn) + panels(batch_spread.figure(result), words.replace("<b>", "").replace("</b>", ""))


def in_words(result: BatchSpread) -> str:
    low, _, high = result.quantiles[SIZES.index(result.batch_size)]
    share = percent(result.flipped)
    batches = len(result.probabilities)
    if result.batch_size == 1:
        alone = "and gets another answer" if result.flipped else "and keeps its answer"
        return f"In a batch of 1 there is no chance: the digit is alone with its own statistics, {alone}."
    flips = f"another digit wins in <b>{share}</b> of" if result.flipped else "it stays the answer in <b>all</b>"
    return (
        f"In random batches of <b>{result.batch_size}</b> the probability of {result.label} lies between "
        f"{percent(low)} and {percent(high)}, and {flips} {batches} batches."
    )
