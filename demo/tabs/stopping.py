"""Overfitting: early stopping in the recorded training, dropout and weight decay in a live one."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import gradio as gr

from bnmodel.experiments import early_stopping
from bnmodel.experiments.convergence import MOST_EPOCHS
from bnmodel.experiments.early_stopping import MOST_PATIENCE, Regularised, Stopped
from bnmodel.training.recipes import ROBUST
from demo import components as ui
from demo.page import Drawn, Page
from demo.server.live_training import State, buttons, wire
from demo.shared_controls import reshuffle_button

QUESTION = "When does a network begin to overfit?"
TASK = "Find the shortest patience that still keeps the best epoch of all."
HINT = """
Look at the shaded epochs: early stopping waits this long for a better validation loss before it stops and keeps the
best weights so far. This tab needs no drawing.
"""
LOOK = f"""
The curves are those of this network's recorded training; the epochs after the stop are pale. A validation loss is
noisy: a short patience mistakes noise for the end; a long one costs epochs.
The training loss is measured during training, with dropout and, for `robust`, with distorted images; therefore it lies
above the validation loss. The steps at the end of `robust` come from its recipe: its last {ROBUST.averaging} epochs
average the weights, which makes the validation loss smooth, and its last {ROBUST.plain} have no distorted images, which
lowers the training loss below the validation loss.
"""
LIVE = """
### Overfit on purpose, live
**The gap** between the two losses is overfitting: the network reads its training digits better than others. With
only 1,000 digits the plain network soon fits them all: its training loss approaches 0, its validation loss does not.
*Look at both lines, not only at the gap:* in this small network, dropout and weight decay raise the training loss but
do not reliably lower the validation loss. The gap also closes if nothing is learned.
"""
FORMULA = r"""
Stop once $\min_{i \le t} L_i$ has not fallen for $t - \arg\min = \text{patience}$ epochs. Dropout zeroes a share $p$ of
the activations in training and divides the others by $1 - p$; weight decay shrinks the weights in every step,
$w \leftarrow w - \eta\,(\nabla L + \lambda w)$, here with $\eta = 0.1$, and γ and β of the batch norms as well.

Both losses of the live runs are computed in eval mode, without dropout, at the end of each epoch, so they differ
only in the digits. In the recorded training the training loss is an epoch's mean *with* dropout, and
for `robust` with distorted images.

Sources: `bnmodel/experiments/early_stopping.py`; Prechelt 1998, *Early Stopping — But When?*; Srivastava et al. 2014,
*Dropout*; Krogh & Hertz 1991, *A Simple Weight Decay Can Improve Generalization*.
"""
DECAYS = (0.0, 0.0001, 0.001, 0.003, 0.01, 0.03, 0.1)


def build(page: Page) -> None:
    with page.tab("Stopping", QUESTION, task=TASK) as tab:
        ui.hint(HINT)
        with gr.Row(elem_classes="controls"):
            patience = gr.Slider(
                1, MOST_PATIENCE, 5, step=1, label="Patience (epochs)", elem_id="stop-patience", min_width=150
            )
        shown = ui.picture(480, "stopping")
        ui.look(LOOK)
        ui.look(LIVE)
        with gr.Row(elem_classes="controls"):
            dropout = gr.Slider(0, 0.8, 0.5, step=0.05, label="Dropout", elem_id="stop-dropout", min_width=110)
            decay = gr.Dropdown(
                [(f"{one:g}", one) for one in DECAYS],
                value=0.001,
                label="Weight decay",
                elem_id="stop-decay",
                min_width=110,
                scale=0,
            )
            epochs = gr.Slider(5, MOST_EPOCHS, 20, step=1, label="Epochs", elem_id="stop-epochs", min_width=110)
            seed = reshuffle_button("stop-reshuffle")
        caption = gr.HTML(elem_id="stop-caption", apply_default_css=False)
        with gr.Row(elem_classes="controls"):
            pressed = buttons("stop")
        live = ui.live_picture("stop-live")
        ui.take_home("stopping")
        lines = ui.code()
        ui.fold(FORMULA)
        tab.live(show, inputs=[patience], outputs=[shown])
        inputs = [dropout, decay, epochs, seed]
        tab.live(describe, inputs=inputs, outputs=[caption])
        tab.live(ui.coded(snippet), inputs=[patience, *inputs], outputs=[lines])
        wire(pressed, inputs, live, early_stopping.stream, draw, 2)


def show(drawn: Drawn, patience: int) -> str:
    return recorded(drawn.model.folder, patience)


def snippet(drawn: Drawn, patience: int, dropout: float, decay: float, epochs: int, seed: int) -> str:
    return f"""
from bnmodel import plotting
from bnmodel.experiments import early_stopping
stopped = early_stopping.of_checkpoint("checkpoints/{drawn.model.name}", patience={patience})
plotting.save(early_stopping.figure(stopped), "stopping.png")
live = early_stopping.regularise(dropout={dropout:g}, weight_decay={decay:g}, epochs={epochs}, seed={seed})
plotting.save(early_stopping.gap_figure(live), "gap.png")
"""


@lru_cache(maxsize=128)
def recorded(folder: Path, patience: int) -> str:
    result = early_stopping.of_checkpoint(folder, patience)
    words = in_words(result)
    return ui.sentence(words) + ui.panels(early_stopping.figure(result), words) + ui.done(shortest(folder, result))


def shortest(folder: Path, result: Stopped) -> bool:
    """Whether the best epoch is kept, and would not be with less patience."""
    if result.kept != result.lowest:
        return False
    return result.patience == 1 or early_stopping.of_checkpoint(folder, result.patience - 1).kept != result.lowest


def in_words(result: Stopped) -> str:
    if result.lowest < len(result.losses):
        return stopped(result)
    return (
        f"{stopped(result)} The last epoch is the best: this network does not begin to overfit within its training. "
        "Start the live run to see a network that does."
    )


def stopped(result: Stopped) -> str:
    kept, total = result.losses[result.kept - 1], len(result.losses)
    if not result.early:
        return (
            f"With patience {result.patience} the training runs through all {total} epochs: the validation loss always "
            f"improves in time. The best is {kept:.4f} nats, in epoch {result.kept}."
        )
    saved = total - result.stop
    lead = (
        f"With patience {result.patience} the training stops after epoch {result.stop} of {total} and keeps epoch "
        f"{result.kept}, validation loss {kept:.4f} nats. That saves {saved} epoch{'' if saved == 1 else 's'} and "
        "costs "
    )
    if result.kept == result.lowest:
        return f"{lead}nothing: no later epoch is better."
    lowest = result.losses[result.lowest - 1]
    cost = round(kept, 4) - round(lowest, 4)  # of the numbers shown
    return f"{lead}<b>{cost:.4f}</b>: the lowest loss is epoch {result.lowest}’s, {lowest:.4f}."


def describe(drawn: Drawn, dropout: float, decay: float, epochs: int, seed: int) -> str:
    return (
        f'<p class="caption">Trains two networks on 1,000 digits for {epochs} epochs each, from the same initial '
        f"weights (seed {seed}): one plain, one with dropout {dropout:g} and weight decay {decay:g}. These controls do "
        f"not change the recorded curves above.</p>"
    )


def draw(result: Regularised, state: State, earlier: Sequence[Regularised] = ()) -> str:
    """The live curves so far, and the earlier runs (HTML)."""
    words = progress(result, state)
    figure = ui.panels(early_stopping.gap_figure(result, earlier), words)
    return ui.sentence(words, spoken=state != "training") + figure + (runs(result, earlier) if earlier else "")


def runs(result: Regularised, earlier: Sequence[Regularised]) -> str:
    """A table with the setting of every run and the losses of its network with dropout and weight decay."""
    rows = []
    for number, run in enumerate((*earlier, result), 1):
        name = f"{number}: dropout {run.dropout:g}, weight decay {run.weight_decay:g}, seed {run.seed}"
        curve, train = run.curves[1], run.train_losses[1]
        losses = (f"{train[-1]:.3f}", f"{curve.epochs[-1].validation_loss:.3f}") if train else ("", "")
        rows.append((f"{name}{' (now)' if run is result else ''}", str(len(train)), *losses))
    return ui.table(
        ("Run, with dropout and weight decay", "Epochs", "Training loss (nats)", "Validation loss (nats)"), rows
    )


def progress(result: Regularised, state: State) -> str:
    done = max(len(curve.epochs) for curve in result.curves)
    if state in ("training", "paused"):
        return f"{'Training live' if state == 'training' else 'Paused'}: epoch {done} of {result.epochs}."
    lead = "Trained live" if state == "finished" else "Stopped"
    ends = []
    for name, curve, train, gaps in zip(
        ("with neither", f"with dropout {result.dropout:g} and weight decay {result.weight_decay:g}"),
        result.curves,
        result.train_losses,
        result.gaps,
        strict=True,
    ):
        if curve.diverged or not gaps:
            ends.append(f"{name} {f'it diverged in epoch {curve.diverged}' if curve.diverged else 'nothing yet'}")
            continue
        accuracy = 100 * curve.epochs[-1].validation_accuracy
        ends.append(
            f"{name} validation loss {curve.epochs[-1].validation_loss:.3f} ({accuracy:.1f}% right), training loss "
            f"{train[-1]:.3f}, gap <b>{gaps[-1]:.3f}</b>"
        )
    return f"{lead} after {done} of {result.epochs} epochs: {'; '.join(ends)}."
