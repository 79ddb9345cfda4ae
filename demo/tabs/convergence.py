"""Does batch norm converge faster, stand higher rates, care less about the initialiser? Measured, and trained live."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from html import escape
from typing import Any

import gradio as gr

from bnmodel.data import DataError
from bnmodel.experiments import convergence, convergence_sweep
from bnmodel.experiments.convergence import MOST_EPOCHS, RATES, Convergence
from bnmodel.experiments.convergence_sweep import EASIER, LEARNED, SLOW, TARGET, Cell, Claims, Sweep
from bnmodel.experiments.gradients import LOOKS, PLACES
from bnmodel.experiments.initialization import title
from bnmodel.nn.init import INITIALIZERS
from demo.components import (
    code,
    done,
    fenced,
    fold,
    hint,
    live_picture,
    panels,
    percent,
    picture,
    reshuffle_button,
    sentence,
    table,
    take_home,
)
from demo.page import Drawn, Page
from demo.server.live_training import State, buttons, wire
from demo.svg import to_legend_and_panels

QUESTION = "Does a network learn faster and more surely with batch norm?"
TASK = "Find a setting in which both networks with batch norm reach 90 % and the one without does not."
HINT = """
Look at which of the three curves rises first and ends highest. They start from the same weights and see the same digits
in the same order; only the batch norm differs. This tab needs no drawing.
"""
LIVE = """
### Train it now, live
Trains now, on 1,000 digits instead of 48,000; expect lower accuracy. Learning rate and initialiser are those above;
**epochs** and **reshuffle** (other first weights, another order) matter to live trainings only. Finished runs
stay, pale and numbered, to compare the next one with.
"""
MAPS = """
### Every setting at once
One row per initialiser, one column per learning rate: the **validation accuracy** in percent after the last step, bold
from 90 on, × where the loss became infinite. The frame is the setting above; 11 % is what you get by always answering
“1”. The last panel shows the same as lines, the median of five initialisers and the range from the worst to the best;
diverged trainings count as 0.
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
        hint(HINT)
        with gr.Row(elem_classes="controls"):
            rate = gr.Dropdown(
                list(RATES), value=0.3, label="Learning rate", elem_id="conv-rate", min_width=110, scale=0
            )
            initializer = gr.Dropdown(
                choices, value="he_normal", label="Initialiser", elem_id="conv-init", min_width=150
            )
        curves = picture(400, "convergence")
        gr.Markdown(LIVE, elem_classes="look")
        with gr.Row(elem_classes="controls"):
            epochs = gr.Slider(5, MOST_EPOCHS, 10, step=1, label="Epochs", elem_id="conv-epochs", min_width=120)
            seed = reshuffle_button("conv-reshuffle")
        with gr.Row(elem_classes="controls"):
            pressed = buttons("conv")
        live = live_picture("conv-live")
        gr.Markdown(MAPS, elem_classes="look")
        maps = picture(900, "maps-of-rates")
        take_home("convergence")
        lines = code()
        fold("The formula and the source", FORMULA)
        tab.live(show, inputs=[rate, initializer], outputs=[curves, maps])
        inputs = [rate, initializer, epochs, seed]
        tab.live(show_code, inputs=inputs, outputs=[lines])
        wire(pressed, inputs, live, convergence.stream, draw, len(PLACES))


def show(drawn: Drawn, rate: float, initializer: str) -> tuple[str, str]:
    """What was recorded of this setting."""
    try:
        return recorded(initializer, rate), recorded_maps(initializer, rate)
    except DataError as error:  # trainings go on without
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


def show_code(drawn: Drawn, *values: Any) -> str:
    return fenced(snippet(drawn, *values))


@lru_cache
def sweep() -> Sweep:
    return convergence_sweep.read()


@lru_cache(maxsize=64)
def recorded(initializer: str, rate: float) -> str:
    words = in_words(sweep(), initializer, rate)
    figure = panels(convergence_sweep.curves_figure(sweep(), initializer, rate), words)
    return sentence(words) + figure + done(only_with_norm(sweep(), initializer, rate))


@lru_cache(maxsize=64)
def recorded_maps(initializer: str, rate: float) -> str:
    maps = "".join(in_map(sweep(), place, initializer, rate) for place in PLACES)
    legend, lines = to_legend_and_panels(
        convergence_sweep.rates_figure(sweep()), "the accuracies of the maps, as lines"
    )
    return f'<div class="figure">{maps}<div>{legend}{lines}</div></div>{in_claims(sweep())}'


def in_map(sweep: Sweep, place: str, initializer: str, rate: float) -> str:
    """The final accuracies with the norm at one place, in percent, as a coloured table; one setting framed."""
    cells = {(cell.initializer, cell.rate): cell for cell in sweep.cells if cell.place == place}
    head = "".join(f'<th scope="col" style="{CELL}">{column:g}</th>' for column in RATES)
    rows = ""
    for row in INITIALIZERS:
        shown = "".join(in_cell(cells[row, column], (row, column) == (initializer, rate)) for column in RATES)
        rows += f'<tr><th scope="row" style="{CELL}; text-align: left; min-width: 0">{title(row)}</th>{shown}</tr>'
    caption = f'<caption style="text-align: left; padding-bottom: 4px">{convergence_sweep.TITLES[place]}</caption>'
    corner = f'<th scope="col" style="{CELL}; text-align: left; width: 26%">rate</th>'
    inside = f"{caption}<thead><tr>{corner}{head}</tr></thead><tbody>{rows}</tbody>"
    table = f'<table style="table-layout: fixed">{inside}</table>'
    return f'<div class="table" style="container-type: inline-size">{table}</div>'  # its width sets the size of CELL


def in_cell(cell: Cell, framed: bool) -> str:
    color = PAINT[cell.place]
    share = f"{100 * convergence_sweep.strength(cell):.0f}%"
    style = f"{CELL}; background: color-mix(in srgb, {color} {share}, transparent)"
    style += "; outline: 2px solid; outline-offset: -2px" if framed else ""
    text = "×" if cell.accuracy is None else f"{100 * cell.accuracy:.1f}"
    came = "the loss became infinite" if cell.accuracy is None else f"{text} % after the last step"
    tip = f"{title(cell.initializer)}, rate {cell.rate:g}, {LOOKS[cell.place][2]}: {came}"
    return f'<td style="{style}" data-tip="{tip}">{f"<b>{text}</b>" if (cell.accuracy or 0) >= LEARNED else text}</td>'


def in_words(sweep: Sweep, initializer: str, rate: float) -> str:
    results = {
        cell.place: "it diverged" if cell.accuracy is None else f"<b>{100 * cell.accuracy:.1f} %</b>"
        for cell in sweep.cells
        if (cell.initializer, cell.rate) == (initializer, rate)
    }
    said = ", ".join(f"{words} {results[place]}" for place, words in WORDS.items())
    return f"Recorded on MNIST, {title(initializer)} at rate {rate:g}, after {sweep.steps} steps: {said}."


def only_with_norm(sweep: Sweep, initializer: str, rate: float) -> bool:
    """Whether a setting is learned with batch norm only."""
    chosen = [cell for cell in sweep.cells if (cell.initializer, cell.rate) == (initializer, rate)]
    return all(((cell.accuracy or 0) >= LEARNED) == (cell.place != "none") for cell in chosen)


def in_claims(sweep: Sweep) -> str:
    """The lecture's three claims: each with its numbers, and whether they bear it out."""
    found = convergence_sweep.claims(sweep)

    def cells(of: dict[str, Any], shown: Callable[[Any], str]) -> list[str]:
        return [shown(of[place]) for place in PLACES]

    def plain(value: float | None) -> str:
        return "none" if value is None else f"{value:g}"

    def points(value: float) -> str:
        return f"{100 * value:.1f} points"

    lines: dict[str, list[tuple[str, list[str]]]] = {
        f"Faster: {faster(found)}": [
            (f"settings of {found.settings} that reach {percent(TARGET)}", cells(found.learned, str)),
            (f"steps to {percent(EASIER)}, median of {found.shared} settings", cells(found.median_steps, plain)),
        ],
        f"Higher learning rates: {higher_rates(found)}": [
            (f"largest that reaches {percent(LEARNED)} with some initialiser", cells(found.largest_rate, plain)),
            ("… with each of Glorot and He", cells(found.largest_rate_of_all, plain)),
        ],
        f"Less sensitive to the initialiser: {less_sensitive(found)}": [
            (f"worst to best of Glorot and He, rate {SLOW:g}", cells(found.spread_scaled_slow, points)),
            ("… at the best rate of each column", cells(found.spread_scaled, points)),
            ("… with random normal too", cells(found.spread, points)),
            ("… with zeros too, from which no network learns", cells(found.spread_with_zeros, points)),
        ],
    }
    titles = (
        "The lecture’s claim, and whether it holds here",
        f"After {sweep.steps} steps",
        *(LOOKS[p][2] for p in PLACES),
    )
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    body = ""
    for claim, rows in lines.items():
        first = f'<th scope="rowgroup" rowspan="{len(rows)}"><b>{claim}</b></th>'
        for measure, values in rows:
            body += f'<tr>{first}<th scope="row">{measure}</th>{"".join(f"<td>{value}</td>" for value in values)}</tr>'
            first = ""
    table = f'<div class="table claims"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    return f"<h3>The three claims, checked</h3>{table}".replace(" %", "\u00a0%")


def faster(found: Claims) -> str:
    none, *normed = (found.learned[place] for place in PLACES)
    medians = [found.median_steps[place] for place in PLACES]
    sooner = [value < medians[0] for value in medians[1:] if value is not None and medians[0] is not None]
    holds = [more > none for more in normed]
    if sooner:
        holds = [more and sooner for more, sooner in zip(holds, sooner, strict=True)]
    return "after the activation only" if holds == [False, True] else verdict(all(holds))


def higher_rates(found: Claims) -> str:
    none, *normed = (found.largest_rate[place] or 0.0 for place in PLACES)
    each = [found.largest_rate_of_all[place] or 0.0 for place in PLACES]
    if none < min(normed) and each[0] >= min(each[1:]):
        return "with some initialisers only"
    return verdict(none < min(normed))


def less_sensitive(found: Claims) -> str:
    def smaller(of: dict[str, float]) -> bool:
        return max(of["before"], of["after"]) < of["none"]

    if smaller(found.spread_scaled):
        return verdict(True)
    return "at a small learning rate only" if smaller(found.spread_scaled_slow) else verdict(False)


def verdict(holds: bool) -> str:
    return "it holds" if holds else "it does not hold here"


def draw(result: Convergence, state: State, earlier: Sequence[Convergence] = ()) -> str:
    """The live curves so far, and the earlier runs (HTML)."""
    words = progress(result, state)
    figure = panels(convergence.figure(result, earlier), words)
    return sentence(words, spoken=state != "training") + figure + (runs(result, earlier) if earlier else "")


def runs(result: Convergence, earlier: Sequence[Convergence]) -> str:
    """Every run in a line: its setting, and where it got."""
    rows = []
    for number, run in enumerate((*earlier, result), 1):
        ends = [
            "diverged" if c.diverged else percent(c.epochs[-1].validation_accuracy) if c.epochs else ""
            for c in run.curves
        ]
        name = f"{number}: {title(run.initializer)}, rate {run.rate:g}, seed {run.seed}"
        rows.append((f"{name}{' (now)' if run is result else ''}", str(max(len(c.epochs) for c in run.curves)), *ends))
    return table(("Run", "Epochs", *(LOOKS[place][2] for place in PLACES)), rows)


def progress(result: Convergence, state: State) -> str:
    done = max(len(curve.epochs) for curve in result.curves)
    setting = f"{title(result.initializer)} at rate {result.rate:g}, 1,000 digits"
    if state in ("training", "paused"):
        doing = "Training live" if state == "training" else "Paused"
        return f"{doing}: epoch {done} of {result.epochs} ({setting})."
    ends = []
    for curve in result.curves:
        accuracy = f"<b>{100 * curve.epochs[-1].validation_accuracy:.1f} %</b>" if curve.epochs else "nothing yet"
        ended = f"it diverged in epoch {curve.diverged}" if curve.diverged else accuracy
        ends.append(f"{WORDS[curve.name]} {ended}")
    lead = "Trained live" if state == "finished" else "Stopped"
    return f"{lead}, {setting}, after {done} of {result.epochs} epochs: {', '.join(ends)}."
