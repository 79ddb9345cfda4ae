"""What goes wrong in practice: eval() forgotten, and three other classic faults."""

from functools import lru_cache

import gradio as gr

from bnmodel.experiments import faults, forgotten_eval
from bnmodel.experiments.faults import Fault
from bnmodel.experiments.forgotten_eval import MAX_CALLS, ForgottenEval
from bnmodel.experiments.modes import custom_batchnorms
from bnmodel.training.history import HISTORY, History
from demo.components import code, fold, panels, percent, picture, sentence
from demo.models import Model
from demo.page import Drawn, Page

LOOK = """
An app that forgets `eval()` still answers, which is why nobody notices. But **every call moves the running
statistics** towards the digits that happen to come by: here always the same one. Drift and lost accuracy stay in the
network, for every later user, even if someone calls `eval()` afterwards.
"""
OTHERS = """
### Three more, each seen in real code
"""
LOOK_OTHERS = """
**Best weights kept by reference:** `best = model.state_dict()` is not a copy; what is “restored” is the last epoch.
**Statistics not saved:** plain attributes are missing from the checkpoint, and the loaded network starts at mean 0 and
deviation 1. **Momentum the wrong way round:** PyTorch's 0.1 is the weight of the *new* batch, elsewhere it is that of
the old average; mixed up, the average jumps after every batch.
"""
FORMULA = """
The forgotten `eval()` predicts your digit alone, again and again; dropout stays off, to show batch norm's part alone.
Accuracy is that of the drifted network *in eval mode* on 1,000 test digits.

```python
model.eval()                                   # before every prediction
best = copy.deepcopy(model.state_dict())       # a copy, not references
self.register_buffer("running_mean", zeros)    # buffers are saved, attributes are not
running = (1 - momentum) * running + momentum * batch
```

Source: `bnmodel/experiments/forgotten_eval.py`, `bnmodel/experiments/faults.py`.
"""

CODE = """
from bnmodel import load_checkpoint, plotting
from bnmodel.data import load_sample
from bnmodel.experiments import faults, forgotten_eval
model, digit = load_checkpoint("checkpoints/lecture").model, load_sample(train=False).images[716, 0]
result = forgotten_eval.run(model, digit, calls=50)
plotting.save(forgotten_eval.figure(result), "forgotten.png")
found = [faults.statistics_not_saved(model), faults.momentum_inverted(model)]
plotting.save(faults.figure(found), "faults.png")
"""


def build(page: Page) -> None:
    with page.tab("Faults", "What if somebody forgets eval()?") as tab:
        with gr.Row(elem_classes="controls"):
            calls = gr.Slider(1, MAX_CALLS, 50, step=1, label="Predictions in train mode", elem_id="calls")
        shown = picture(330, "forgotten")
        gr.Markdown(LOOK, elem_classes="look")
        gr.Markdown(OTHERS)
        others = picture(250, "faults")
        gr.Markdown(LOOK_OTHERS, elem_classes="look")
        code(CODE)
        fold("The formula and the source", FORMULA)
        tab.live(show, inputs=[calls], outputs=[shown, others], at_once=1)  # of 0.4 GB, for robust


def show(drawn: Drawn, calls: int) -> tuple[str, str]:
    result = forgotten_eval.run(drawn.model.network, drawn.digit, calls)
    words = in_words(result)
    picture = panels(forgotten_eval.figure(result), words, narrow=True)
    return sentence(words, drawn) + picture, other_faults(drawn.model)


def in_words(result: ForgottenEval) -> str:
    lost = 100 * (result.right_accuracy - float(result.accuracy[-1]))
    plural = "" if result.calls[-1] == 1 else "s"
    lose = f"lose {lost:.1f} points of accuracy" if lost > 0.05 else "cost no accuracy yet"
    answer = int(result.answers[-1])
    told = f"and turn this digit's answer from {result.label} into {answer}" if answer != result.label else ""
    kept = f"and leave this digit a {answer}, at {percent(result.probability[-1])}"
    return f"{result.calls[-1]} prediction{plural} in train mode {lose} {told or kept}."


@lru_cache(maxsize=8)  # they do not depend on the digit
def other_faults(model: Model) -> str:
    found: list[Fault] = []
    if (model.folder / HISTORY).is_file():
        found.append(faults.best_by_reference(History.read(model.folder / HISTORY)))
    if custom_batchnorms(model.network):
        found += [faults.statistics_not_saved(model.network), faults.momentum_inverted(model.network)]
    if not found:
        return "<p>This network has no batch norm and no history of its training: nothing of this can go wrong.</p>"
    return panels(faults.figure(found), "; ".join(f"{fault.name}: wrong beside right" for fault in found), narrow=True)
