"""Does batch norm converge faster, stand higher rates, care less about the initialiser? Measured, and trained live."""

from functools import lru_cache
from html import escape

import gradio as gr

from bnmodel.data import DataError
from bnmodel.experiments import convergence, convergence_sweep
from bnmodel.experiments.convergence import MOST_EPOCHS, RATES, Convergence
from bnmodel.experiments.convergence_sweep import EASIER, LEARNED, SLOW, TARGET, Cell, Claims, Sweep
from bnmodel.experiments.gradients import PLACES
from bnmodel.experiments.initialization import title
from bnmodel.nn.init import INITIALIZERS
from demo.components import code, fold, panels, picture, reshuffle_button, sentence
from demo.page import Drawn, Page
from demo.server.live_training import State, buttons, wire
from demo.svg import to_svg

LOOK = """
Three networks with the same first weights and the same digits in the same order; only the batch norm differs. Above,
one setting. Below, all of them: a row an initialiser, a column a learning rate, in each cell the **validation
accuracy** in percent after the last step, bold from 90 on, × where the loss became infinite; the frame is the setting
above. Eleven is what always saying 1 gets. The last panel says it in lines: the median of five initialisers, and the
range from the worst of them to the best; what diverged counts as 0.

**Train live** does it before your eyes, on 1,000 digits instead of 48,000: fewer steps an epoch, so less is reached.
"""
FORMULA = r"""
Plain SGD, $w \leftarrow w - \eta\,(\nabla L + \lambda w)$, $\lambda = 10^{-4}$, batches of 64, no dropout, one seed.
The maps: 400 steps on MNIST's 48,000 training digits, accuracy on 12,000 others; the recorded curves look at 2,000 of
these every 40 steps. Random normal has standard deviation 1, far too large for these layers.

From **zeros** nothing can learn, batch norm or not: behind weights of zero every activation is zero, so every weight's
gradient is zero too, and only the last bias learns how frequent each digit is.

Ioffe & Szegedy 2015, [arXiv 1502.03167](https://arxiv.org/abs/1502.03167). Source:
`bnmodel/experiments/convergence.py` and `convergence_sweep.py`; `python -m bnmodel sweep` measures it all again.
"""
CODE = """
from bnmodel import plotting
from bnmodel.experiments import convergence, convergence_sweep
result = convergence.run(rate=0.3, initializer="he_normal", epochs=2)
plotting.save(convergence.figure(result), "curves.png")
plotting.save(convergence_sweep.figure(convergence_sweep.read()), "maps.png")
"""
PAINT = {"none": "currentColor", "before": "var(--train)", "after": "var(--eval)"}
CELL = "padding: 5px 0; text-align: center; font-size: clamp(10px, 3.1cqi, 12px); border: 0"
WORDS = {"none": "without batch norm", "before": "with it before the activation", "after": "with it after"}


def build(page: Page) -> None:
    choices = [(title(name), name) for name in INITIALIZERS]
    with page.tab("Convergence", "Does a network learn faster and more surely with batch norm?") as tab:
        with gr.Row(elem_classes="controls"):
            rate = gr.Dropdown(
                list(RATES), value=0.3, label="Learning rate", elem_id="conv-rate", min_width=90, scale=0
            )
            initializer = gr.Dropdown(
                choices, value="he_normal", label="Initialiser", elem_id="conv-init", min_width=135
            )
            epochs = gr.Slider(5, MOST_EPOCHS, 10, step=1, label="Epochs", elem_id="conv-epochs", min_width=120)
            seed = reshuffle_button("conv-reshuffle")
            train, stop = buttons("conv")
        live = gr.HTML(elem_id="conv-live", elem_classes="picture", apply_default_css=False)
        shown = picture(1180, "convergence")
        gr.Markdown(LOOK, elem_classes="look")
        code(CODE)
        fold("The formula and the source", FORMULA)
        inputs = [rate, initializer, epochs, seed]
        tab.live(show, inputs=inputs, outputs=[shown])
        wire(train, stop, inputs, live, convergence.stream, draw)


def show(drawn: Drawn, rate: float, initializer: str, epochs: int, seed: int) -> str:
    """What was recorded of this setting; epochs and seed are those of live trainings."""
    try:
        return recorded(initializer, rate)
    except DataError as error:  # trainings go on without
        reason = str(error).replace(f"{convergence_sweep.SWEEP_FILE.parent}/", "")
        return f'<p class="sentence" role="alert">{escape(reason)}</p>'


@lru_cache
def sweep() -> Sweep:
    return convergence_sweep.read()


@lru_cache(maxsize=64)
def recorded(initializer: str, rate: float) -> str:
    words = in_words(sweep(), initializer, rate)
    curves = panels(convergence_sweep.curves_figure(sweep(), initializer, rate), words)
    maps = "".join(in_map(sweep(), place, initializer, rate) for place in PLACES)
    lines = to_svg(convergence_sweep.rates_figure(sweep()), "the accuracies of the maps, as lines")
    return f'{sentence(words)}{curves}{in_claims(sweep())}<div class="figure">{maps}<div>{lines}</div></div>'


def in_map(sweep: Sweep, place: str, initializer: str, rate: float) -> str:
    """The final accuracies with the norm at one place, in percent, as a coloured table; one setting framed."""
    cells = {(cell.initializer, cell.rate): cell for cell in sweep.cells if cell.place == place}
    head = "".join(f'<th scope="col" style="{CELL}">{column:g}</th>' for column in RATES)
    rows = ""
    for row in INITIALIZERS:
        shown = "".join(in_cell(cells[row, column], (row, column) == (initializer, rate)) for column in RATES)
        rows += f'<tr><th scope="row" style="{CELL}; text-align: left; min-width: 0">{title(row)}</th>{shown}</tr>'
    caption = f'<caption style="text-align: left; padding-bottom: 4px">{convergence_sweep.TITLES[place]}</caption>'
    corner = f'<th style="{CELL}; text-align: left; width: 26%">rate</th>'
    inside = f"{caption}<thead><tr>{corner}{head}</tr></thead><tbody>{rows}</tbody>"
    table = f'<table style="table-layout: fixed">{inside}</table>'
    return f'<div class="table" style="container-type: inline-size">{table}</div>'  # its width sets the size of CELL


def in_cell(cell: Cell, framed: bool) -> str:
    color = PAINT[cell.place]
    share = f"{100 * convergence_sweep.strength(cell):.0f}%"
    style = f"{CELL}; background: color-mix(in srgb, {color} {share}, transparent)"
    style += "; outline: 2px solid; outline-offset: -2px" if framed else ""
    text = "×" if cell.accuracy is None else f"{100 * cell.accuracy:.1f}"
    return f'<td style="{style}">{f"<b>{text}</b>" if (cell.accuracy or 0) >= LEARNED else text}</td>'


def in_words(sweep: Sweep, initializer: str, rate: float) -> str:
    results = {
        cell.place: "it diverged" if cell.accuracy is None else f"<b>{100 * cell.accuracy:.1f} %</b>"
        for cell in sweep.cells
        if (cell.initializer, cell.rate) == (initializer, rate)
    }
    said = ", ".join(f"{words} {results[place]}" for place, words in WORDS.items())
    return f"Recorded on MNIST, {title(initializer)} at rate {rate:g}, after {sweep.steps} steps: {said}."


def in_claims(sweep: Sweep) -> str:
    """The lecture's three claims, each with its numbers and whether they bear it out."""
    found = convergence_sweep.claims(sweep)
    said = (faster(found, sweep.steps), higher_rates(found), less_sensitive(found))
    paragraphs = "".join(f'<p style="margin: 12px 0">{words}</p>' for words in said)
    return f'<div class="look">{paragraphs}</div>'


def faster(found: Claims, steps: int) -> str:
    none, *normed = (found.learned[place] for place in PLACES)
    medians = [found.median_steps[place] for place in PLACES]
    sooner = [value < medians[0] for value in medians[1:] if value is not None and medians[0] is not None]
    holds = [more > none for more in normed]
    if sooner:
        holds = [more and sooner for more, sooner in zip(holds, sooner, strict=True)]
    words = "after the activation only" if holds == [False, True] else verdict(all(holds))
    shared = f"In no setting do all three come to {EASIER:.0%}"
    if None not in medians:
        without, before, after = (f"{value:g}" for value in medians)
        shared = (
            f"All three come to {EASIER:.0%} in {found.shared}: there it takes {without} steps without, {before} with "
            f"it before and {after} with it after (median)"
        )
    return (
        f"<b>Faster: {words}.</b> {TARGET:.0%} within {steps} steps is reached in {none} of {found.settings} "
        f"settings without batch norm, in {normed[0]} with it before and in {normed[1]} with it after the activation. "
        f"{shared}."
    )


def higher_rates(found: Claims) -> str:
    none, *normed = (found.largest_rate[place] or 0.0 for place in PLACES)
    each = [found.largest_rate_of_all[place] or 0.0 for place in PLACES]
    some = f"{none:g} without, {normed[0]:g} with it before, {normed[1]:g} with it after"
    words = verdict(none < min(normed))
    if none < min(normed) and each[0] >= min(each[1:]):
        words = "with some initialisers only"
    return (
        f"<b>Higher learning rates: {words}.</b> The largest that still comes to {LEARNED:.0%} with some initialiser "
        f"is {some}; with each of Glorot and He {', '.join(f'{rate:g}' for rate in each)}."
    )


def less_sensitive(found: Claims) -> str:
    def points(of: dict[str, float]) -> str:
        return ", ".join(f"{100 * of[place]:.1f}" for place in PLACES)

    def smaller(of: dict[str, float]) -> bool:
        return max(of["before"], of["after"]) < of["none"]

    if smaller(found.spread_scaled):
        words = verdict(True)
    else:
        words = "at a small learning rate only" if smaller(found.spread_scaled_slow) else verdict(False)
    return (
        f"<b>Less sensitive to the initialiser: {words}.</b> From the worst to the best of Glorot and He it is, "
        f"without, before and after, {points(found.spread_scaled_slow)} points at rate {SLOW:g}, and "
        f"{points(found.spread_scaled)} at each one’s best rate; with random normal {points(found.spread)}, with zeros "
        f"as well {points(found.spread_with_zeros)}. From zeros no network learns, with or without batch norm."
    )


def verdict(holds: bool) -> str:
    return "it holds" if holds else "it does not hold here"


def draw(result: Convergence, state: State) -> str:
    """The live curves so far (HTML)."""
    words = progress(result, state)
    return sentence(words, spoken=state != "training") + panels(convergence.figure(result), words)


def progress(result: Convergence, state: State) -> str:
    done = max(len(curve.epochs) for curve in result.curves)
    setting = f"{title(result.initializer)} at rate {result.rate:g}, 1,000 digits"
    if state == "training":
        return f"Training live: epoch {done} of {result.epochs} ({setting})."
    ends = []
    for curve in result.curves:
        accuracy = f"<b>{100 * curve.epochs[-1].validation_accuracy:.1f} %</b>" if curve.epochs else "nothing yet"
        ended = f"it diverged in epoch {curve.diverged}" if curve.diverged else accuracy
        ends.append(f"{WORDS[curve.name]} {ended}")
    lead = "Trained live" if state == "finished" else "Stopped"
    return f"{lead}, {setting}, after {done} of {result.epochs} epochs: {', '.join(ends)}."
