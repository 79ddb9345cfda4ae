"""Faults in practice: a forgotten eval(), and three others."""

from functools import lru_cache

import gradio as gr

from bnmodel.experiments import faults, forgotten_eval
from bnmodel.experiments.batch_statistics import custom_batchnorms
from bnmodel.experiments.faults import Fault
from bnmodel.experiments.forgotten_eval import MAX_CALLS, ForgottenEval
from bnmodel.plotting import certainty
from bnmodel.training.history import HISTORY, History
from demo import components as ui
from demo.models import Model
from demo.page import Drawn, Page

QUESTION = "What if somebody forgets eval()?"
TASK = "Find another number of predictions that costs less than half a percentage point of accuracy."
CALLS = 50  # at first
HINT = """
Look at the first panel: each prediction without `eval()` moves the running statistics, which usually lowers the
accuracy for every later user.
"""
LOOK = """
An app that forgets `eval()` still answers, so nobody notices. But **every call moves the running statistics** towards
whatever digits arrive: here always the same one. The drift and the lost accuracy remain even if someone calls `eval()`
afterwards.
"""
OTHERS = """
### Three more faults
"""
LOOK_OTHERS = """
**Best weights kept by reference:** `best = model.state_dict()` is not a copy; it “restores” the last epoch.

**Statistics not saved:** plain attributes are missing from the checkpoint, and the loaded network starts at mean 0 and
variance 1. After 30 batches in train mode 4% of that 1 still remains (0.9³⁰), more than the variances in the last
three layers of `robust`, which recovers only after about 45 batches; `lecture` does so sooner.

**Momentum inverted:** PyTorch's 0.1 is the weight of the *new* batch; in some other libraries momentum is the weight of
the old average. If the two are confused, the average jumps with every batch.
"""
FORMULA = """
Without `eval()`, the network predicts your digit alone, again and again; dropout stays off, to isolate the effect of
batch norm. Accuracy is that of the drifted network *in eval mode* on 1,000 test digits (250 for a large network).

```python
model.eval()                                   # before every prediction
best = copy.deepcopy(model.state_dict())       # a copy, not references
self.register_buffer("running_mean", zeros)    # buffers are saved, attributes are not
running = (1 - momentum) * running + momentum * batch
```

Source: `bnmodel/experiments/forgotten_eval.py`, `bnmodel/experiments/faults.py`.
"""


def build(page: Page) -> None:
    with page.tab("Faults", QUESTION, task=TASK) as tab:
        ui.hint(HINT)
        with gr.Row(elem_classes="controls"):
            calls = gr.Slider(1, MAX_CALLS, CALLS, step=1, label="Predictions in train mode", elem_id="calls")
        shown = ui.picture(370, "forgotten")
        ui.look(LOOK)
        gr.Markdown(OTHERS)
        ui.look(LOOK_OTHERS)
        others = ui.picture(250, "faults")
        ui.take_home("faults")
        ui.check_own("these faults")
        lines = ui.code(reads_digit=True)
        ui.fold(FORMULA)
        # at_once: each needs 0.4 GB for robust
        tab.live(ui.with_code(show, snippet), inputs=[calls], outputs=[shown, lines], at_once=1)
        tab.live(show_others, outputs=[others], at_once=1)


def show(drawn: Drawn, calls: int) -> str:
    result = forgotten_eval.run(drawn.model.network, drawn.digit, calls)
    words = in_words(result)
    return (
        ui.sentence(words, drawn)
        + ui.panels(forgotten_eval.figure(result), words, narrow=True)
        + ui.done(calls != CALLS and lost(result) < 0.005)
    )


def show_others(drawn: Drawn) -> str:
    return other_faults(drawn.model)


def snippet(drawn: Drawn, calls: int) -> str:
    return f"""
{ui.digit_in_code(drawn)}from bnmodel.experiments import faults, forgotten_eval
result = forgotten_eval.run(model, digit, calls={calls})
plotting.save(forgotten_eval.figure(result), "forgotten.png")
found = [faults.statistics_not_saved(model), faults.momentum_inverted(model)]
plotting.save(faults.figure(found), "faults.png")
"""


def lost(result: ForgottenEval) -> float:
    """Loss of accuracy at the end, as a share."""
    return result.right_accuracy - float(result.accuracy[-1])


def in_words(result: ForgottenEval) -> str:
    points = 100 * lost(result)
    calls, answer = int(result.calls[-1]), int(result.answers[-1])
    when = f"After {calls} prediction{'' if calls == 1 else 's'} in train mode"
    by = f"<b>{points:.1f} percentage points lower</b>"
    lower = f"accuracy is {by}" if points > 0.05 else "accuracy has not fallen yet"
    if answer == result.label:
        return f"{when}, {lower}; this digit is still read as {answer} ({certainty(result.probability[-1])})."
    return f"{when}, {lower}, and this digit is read as {answer} instead of {result.label}."


@lru_cache(maxsize=8)  # they do not depend on the digit
def other_faults(model: Model) -> str:
    found: list[Fault] = []
    if (model.folder / HISTORY).is_file():
        found.append(faults.best_by_reference(History.read(model.folder / HISTORY)))
    if custom_batchnorms(model.network):
        found += [faults.statistics_not_saved(model.network), faults.momentum_inverted(model.network)]
    if not found:
        return "<p>This network has no batch norm and no history of its training: none of these faults can occur.</p>"
    return ui.panels(
        faults.figure(found), "; ".join(f"{fault.name}: wrong beside right" for fault in found), narrow=True
    )
