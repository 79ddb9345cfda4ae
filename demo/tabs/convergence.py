"""Training with and without batch norm: recorded runs over rates and initialisers, and live runs."""

from collections.abc import Sequence
from functools import lru_cache
from html import escape
from statistics import fmean

import gradio as gr

from bnmodel.data import DataError
from bnmodel.experiments import convergence, convergence_sweep
from bnmodel.experiments.claims import Measure, claims
from bnmodel.experiments.convergence import MOST_EPOCHS, RATES, Convergence
from bnmodel.experiments.convergence_sweep import LEARNED, Cell, Sweep, by_setting, diverged, mean_accuracy, strength
from bnmodel.experiments.gradients import POSITIONS, STYLES
from bnmodel.experiments.initialization import title
from bnmodel.nn.init import INITIALIZERS
from bnmodel.plotting import percent
from demo import components as ui
from demo.page import Drawn, Page
from demo.server.live_training import State, buttons, wire
from demo.shared_controls import reshuffle_button

QUESTION = "Does a network learn faster and more reliably with batch norm?"
TASK = "Find a setting in which both networks with batch norm reach 90% and the one without does not."
HINT = """
Look at which of the three curves rises first and ends highest. They start from the same weights and see the same digits
in the same order; only the batch norm differs. This tab needs no drawing.
"""
LIVE = """
### Train it now, live
The networks are trained now, on 1,000 digits instead of 48,000; expect lower accuracy. Learning rate and initialiser
are those above; **epochs** and **reshuffle** (other initial weights, another order of the digits) affect live runs
only. Finished runs stay, pale and numbered, for comparison.
"""
MAPS = """
### Every setting at once
One row per initialiser, one column per learning rate: the **validation accuracy** in percent after the last step, mean
over the seeds that did not diverge, bold if ≥ 90. **2 of 5 ×** means that the loss became infinite for 2 of 5 seeds, ×
alone that it did for most seeds. The frame marks the chosen setting; always answering “1” scores 11%. The last panel
shows the same as lines: the median over all seeds and all initialisers but zeros, and the range from the worst to the
best; diverged runs count as 0.
"""
FORMULA = r"""
Plain SGD, $w \leftarrow w - \eta\,(\nabla L + \lambda w)$, $\lambda = 10^{-4}$, batches of 64, no dropout, five seeds.
The maps show 400 steps on MNIST's 48,000 training digits, and the accuracy on 12,000 others; the recorded curves use
2,000 of these, every 40 steps. Random normal has standard deviation 1, far too large for these layers.

With **zeros** no network learns, with or without batch norm: after weights of zero every activation is zero, so every
weight's gradient is zero too. Only the last bias learns, namely how frequent each digit is.

Ioffe & Szegedy 2015, [arXiv 1502.03167](https://arxiv.org/abs/1502.03167). Source:
`bnmodel/experiments/convergence.py` and `convergence_sweep.py`; `python -m bnmodel sweep` repeats all runs.
"""
CLAIMS = """
Means over {seeds} seeds with 95% confidence intervals. <b>Bold</b>: better than without batch norm, because the
interval of the difference between runs with the same seed excludes zero. A number without an interval is the same
for all seeds. A claim holds if every entry is bold. Steps and learning rates are geometric means; the largest rate
with at least one initialiser is that of each seed's best initialiser.
"""
PAINT = {"none": "currentColor", "before": "var(--olive)", "after": "var(--rose)"}
CELL = "padding: 5px 0; text-align: center; font-size: clamp(10px, 3.1cqi, 12px); border: 0"
WORDS = {
    "none": "without batch norm",
    "before": "with it before the activation",
    "after": "with it after the activation",
}


def build(page: Page) -> None:
    choices = [(title(name), name) for name in INITIALIZERS]
    with page.tab("Convergence", QUESTION, task=TASK) as tab:
        ui.hint(HINT)
        with gr.Row(elem_classes="controls"):
            rate = gr.Dropdown(
                [(f"{one:g}", one) for one in RATES],
                value=0.3,
                label="Learning rate",
                elem_id="conv-rate",
                min_width=110,
                scale=0,
            )
            initializer = gr.Dropdown(
                choices, value="he_normal", label="Initialiser", elem_id="conv-init", min_width=150
            )
        curves = ui.picture(400, "convergence")
        ui.look(LIVE)
        with gr.Row(elem_classes="controls"):
            epochs = gr.Slider(5, MOST_EPOCHS, 10, step=1, label="Epochs", elem_id="conv-epochs", min_width=120)
            seed = reshuffle_button("conv-reshuffle")
        with gr.Row(elem_classes="controls"):
            pressed = buttons("conv")
        live = ui.live_picture("conv-live")
        ui.look(MAPS)
        maps = ui.picture(1170, "maps-of-rates")
        ui.take_home("convergence")
        lines = ui.code()
        ui.fold(FORMULA)
        tab.live(show, inputs=[rate, initializer], outputs=[curves, maps])
        inputs = [rate, initializer, epochs, seed]
        tab.live(ui.coded(snippet), inputs=inputs, outputs=[lines])
        wire(pressed, inputs, live, convergence.stream, draw, len(POSITIONS))


def show(drawn: Drawn, rate: float, initializer: str) -> tuple[str, str]:
    """The recorded curves and maps, with this setting marked."""
    try:
        return recorded(initializer, rate), recorded_maps(initializer, rate)
    except DataError as error:  # live runs work without the recorded ones
        reason = str(error).replace(f"{convergence_sweep.SWEEP_FILE.parent}/", "")
        return f'<p class="sentence" role="alert">{escape(reason)}</p>', ""


def snippet(drawn: Drawn, rate: float, initializer: str, epochs: int, seed: int) -> str:
    return f"""
from bnmodel import plotting
from bnmodel.experiments import convergence, convergence_sweep
result = convergence.run(rate={rate:g}, initializer="{initializer}", epochs={epochs}, seed={seed})
plotting.save(convergence.figure(result), "curves.png")
plotting.save(convergence_sweep.figure(convergence_sweep.read()), "maps.png")
"""


@lru_cache
def sweep() -> Sweep:
    return convergence_sweep.read()


@lru_cache(maxsize=64)
def recorded(initializer: str, rate: float) -> str:
    words = in_words(sweep(), initializer, rate)
    figure = ui.panels(convergence_sweep.curves_figure(sweep(), initializer, rate), words)
    return ui.sentence(words) + figure + ui.done(only_with_norm(sweep(), initializer, rate))


@lru_cache(maxsize=64)
def recorded_maps(initializer: str, rate: float) -> str:
    maps = "".join(in_map(sweep(), position, initializer, rate) for position in POSITIONS)
    from demo.svg import to_legend_and_panels  # imports matplotlib

    legend, lines = to_legend_and_panels(
        convergence_sweep.rates_figure(sweep()), "the accuracies of the maps, as lines"
    )
    return f'<div class="figure">{maps}<div>{legend}{lines}</div></div>{in_claims(sweep())}'


def in_map(sweep: Sweep, position: str, initializer: str, rate: float) -> str:
    """The final accuracies for one position of the norm, in percent, as a coloured table; one setting framed."""
    settings = by_setting(sweep)
    head = "".join(f'<th scope="col" style="{CELL}">{column:g}</th>' for column in RATES)
    rows = ""
    for row in INITIALIZERS:
        shown = "".join(
            in_cell(settings[position, row, column], (row, column) == (initializer, rate)) for column in RATES
        )
        rows += f'<tr><th scope="row" style="{CELL}; text-align: left; min-width: 0">{title(row)}</th>{shown}</tr>'
    caption = f'<caption style="text-align: left; padding-bottom: 4px">{convergence_sweep.TITLES[position]}</caption>'
    corner = f'<th scope="col" style="{CELL}; text-align: left; width: 26%">rate</th>'
    inside = f"{caption}<thead><tr>{corner}{head}</tr></thead><tbody>{rows}</tbody>"
    table = f'<table style="table-layout: fixed">{inside}</table>'
    return f'<div class="table" style="container-type: inline-size">{table}</div>'  # sets the font size of CELL


def in_cell(cells: Sequence[Cell], framed: bool) -> str:
    """The mean of a setting; its tooltip has the range over the seeds."""
    position, accuracy = cells[0].position, mean_accuracy(cells)
    style = f"{CELL}; background: color-mix(in srgb, {PAINT[position]} {100 * strength(accuracy):.0f}%, transparent)"
    style += "; outline: 2px solid; outline-offset: -2px" if framed else ""
    text = "×" if accuracy is None else f"{100 * accuracy:.1f}"
    share = f"<small>{diverged(cells)}</small>" if diverged(cells) else ""
    tip = f"{title(cells[0].initializer)}, rate {cells[0].rate:g}, {STYLES[position][2]}: {ui.plain(outcome(cells))}"
    return (
        f'<td style="{style}" data-tip="{tip}">{f"<b>{text}</b>" if (accuracy or 0) >= LEARNED else text}{share}</td>'
    )


def outcome(cells: Sequence[Cell]) -> str:
    """The mean final accuracy of a setting with its range over the seeds, and how many of them diverged (HTML)."""
    accuracies = [100 * cell.accuracy for cell in cells if cell.accuracy is not None]
    diverged = len(cells) - len(accuracies)
    some = f"diverged with {diverged} of {len(cells)} seeds" if accuracies else "diverged with every seed"
    if not accuracies:
        return some
    said = f"<b>{fmean(accuracies):.1f}%</b> ({min(accuracies):.1f} – {max(accuracies):.1f})"
    return f"{said}, {some}" if diverged else said


def in_words(sweep: Sweep, initializer: str, rate: float) -> str:
    settings = by_setting(sweep)
    said = "; ".join(f"{words} {outcome(settings[position, initializer, rate])}" for position, words in WORDS.items())
    return (
        f"Recorded on MNIST, {title(initializer)} at rate {rate:g}, after {sweep.steps} steps, mean and range over "
        f"{sweep.seeds} seeds: {said}."
    )


def only_with_norm(sweep: Sweep, initializer: str, rate: float) -> bool:
    """Whether both networks with batch norm learn with a setting, and the one without does not."""
    settings = by_setting(sweep)
    learned = {
        position: (mean_accuracy(settings[position, initializer, rate]) or 0) >= LEARNED for position in POSITIONS
    }
    return all(learned[position] == (position != "none") for position in POSITIONS)


def in_claims(sweep: Sweep) -> str:
    """The lecture's three claims with their numbers, and whether they hold (HTML)."""
    titles = (f"After {sweep.steps} steps", *(STYLES[p][2] for p in POSITIONS))
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    body = ""
    for claim in claims(sweep):
        rows = f'<tr><th scope="rowgroup" colspan="{len(titles)}"><b>{claim.name}: {claim.verdict}</b></th></tr>'
        for measure in claim.measures:
            values = "".join(f"<td>{in_interval(measure, position)}</td>" for position in POSITIONS)
            rows += f'<tr><th scope="row">{measure.name}</th>{values}</tr>'
        body += f"<tbody>{rows}</tbody>"
    table = f'<div class="table claims"><table><thead><tr>{head}</tr></thead>{body}</table></div>'
    note = f"<p>{CLAIMS.format(seeds=sweep.seeds)}</p>"
    return f"<h3>The three claims, tested</h3>{note}{table}"


def in_interval(measure: Measure, position: str) -> str:
    """A mean, bold where batch norm is better than none, and its interval on a line below (HTML)."""
    mean, opening, interval = str(measure.interval(position)).partition(" (")
    mean = f"<b>{mean}</b>" if position != "none" and measure.better(position) else mean
    return f"{mean} <small>({interval}</small>" if opening else mean


def draw(result: Convergence, state: State, earlier: Sequence[Convergence] = ()) -> str:
    """The live curves so far, and the earlier runs (HTML)."""
    words = progress(result, state)
    figure = ui.panels(convergence.figure(result, earlier), words)
    return ui.sentence(words, spoken=state != "training") + figure + (runs(result, earlier) if earlier else "")


def runs(result: Convergence, earlier: Sequence[Convergence]) -> str:
    """A table with the setting and the final accuracies of every run."""
    rows = []
    for number, run in enumerate((*earlier, result), 1):
        ends = [
            "diverged" if c.diverged else percent(c.epochs[-1].validation_accuracy) if c.epochs else ""
            for c in run.curves
        ]
        name = f"{number}: {title(run.initializer)}, rate {run.rate:g}, seed {run.seed}"
        rows.append((f"{name}{' (now)' if run is result else ''}", str(max(len(c.epochs) for c in run.curves)), *ends))
    return ui.table(("Run", "Epochs", *(STYLES[position][2] for position in POSITIONS)), rows)


def progress(result: Convergence, state: State) -> str:
    done = max(len(curve.epochs) for curve in result.curves)
    setting = f"{title(result.initializer)} at rate {result.rate:g}, 1,000 digits"
    if state in ("training", "paused"):
        doing = "Training live" if state == "training" else "Paused"
        return f"{doing}: epoch {done} of {result.epochs} ({setting})."
    ends = []
    for curve in result.curves:
        accuracy = f"<b>{100 * curve.epochs[-1].validation_accuracy:.1f}%</b>" if curve.epochs else "nothing yet"
        ended = f"it diverged in epoch {curve.diverged}" if curve.diverged else accuracy
        ends.append(f"{WORDS[curve.name]} {ended}")
    lead = "Trained live" if state == "finished" else "Stopped"
    return f"{lead}, {setting}, after {done} of {result.epochs} epochs: {', '.join(ends)}."
