"""Six initialisers compared: on one layer, and on a stack of up to thirty, without and with batch norm."""

from functools import lru_cache

import gradio as gr

from bnmodel.experiments import initialization
from bnmodel.experiments.initialization import Layer, Stack, title
from bnmodel.experiments.signal_propagation import ACTIVATIONS
from bnmodel.plotting import percent
from demo import components as ui
from demo.page import Drawn, Page
from demo.shared_controls import reshuffle_button

QUESTION = "Where should the weights start?"
TASK = "With ReLU, find the standard deviation with which random normal keeps the spread of the inputs, within 20%."
HINT = """
Look at the width of the filled histograms: the outputs of one dense layer of 256 units for standard-normal inputs
(dashed). A good initialiser keeps their spread near that of the inputs, 1; with **sigmoid** none can, since its outputs
lie between 0 and 1. This tab needs no drawing.
"""
LOOK = """
Before the activation, random normal with standard deviation 1 multiplies the spread by the square root of the number of
inputs, 28 for 784; ReLU, which sets the negative half to 0, leaves 16. With zeros all outputs are equal: 0, or 0.5 with
sigmoid. Choose **sigmoid** with random normal: most outputs are near 0 or 1, where the gradient vanishes.
"""
HINT_STACK = """
### Many such layers in a row
Check whether the curves stay level from the first layer to the last: solid without batch norm, dashed with it, dotted
in theory. The titles give the variance of the weights; *fan-in* is the number of inputs of a unit.
"""
LOOK_STACK = """
With ReLU, only weights of variance **2 / fan-in** (He) keep activations and gradients level; 1 / fan-in (Glorot) halves
their variance at every layer, and is right for **identity**. **With batch norm the activations stay level with every
initialiser** but zeros. The gradients do not: with ReLU and batch norm they grow by a factor of about 1.2 per layer
towards the input.
"""
FORMULA = r"""
With $n$ inputs of mean square $s$ and weights of mean 0, a unit's value has the variance

$$q = n \operatorname{Var}(w)\, s, \qquad s' = \mathbb E\big[f(\sqrt q\,z)^2\big], \qquad
\frac{\operatorname{Var}(g_{l})}{\operatorname{Var}(g_{l+1})} =
n \operatorname{Var}(w)\, \mathbb E\big[f'(\sqrt q\,z)^2\big], \quad z \sim \mathcal N(0, 1).$$

For ReLU both expectations contribute a factor of ½, so $\operatorname{Var}(w) = 2/n$ preserves activations and
gradients; for the identity, $1/n$ does. Gradients are those at the outputs of the dense layers, for a standard-normal
gradient at the top. An activation is *saturated* if the slope is below 1% of the steepest (for ReLU, its left
side); a unit is *dead* if it is saturated for every sample. Batch norm is between dense layer and activation.

Source: `initialization.py` and `signal_propagation.py` in `bnmodel/experiments`, `bnmodel/nn/init.py`. Glorot & Bengio
2010; He et al. 2015, [arXiv 1502.01852](https://arxiv.org/abs/1502.01852). Gradients that grow with
batch norm: Yang et al. 2019, [arXiv 1902.08129](https://arxiv.org/abs/1902.08129).
"""


def build(page: Page) -> None:
    with page.tab("Initialise", QUESTION, task=TASK) as tab:
        ui.hint(HINT)
        with gr.Row(elem_classes="controls"):
            activation = gr.Radio(list(ACTIVATIONS), value="relu", label="Activation", elem_id="init-activation")
            seed = reshuffle_button("init-reshuffle")
        with gr.Row(elem_classes="controls"):
            mean = gr.Slider(-0.5, 0.5, 0, step=0.01, label="Mean (normal)", elem_id="init-mean", min_width=150)
            std = gr.Slider(0.01, 1.5, 1, step=0.01, label="Std. deviation (normal)", elem_id="init-std", min_width=150)
            gain = gr.Slider(0.1, 3, 1, step=0.1, label="Gain (Glorot, He)", elem_id="init-gain", min_width=150)
        with gr.Row(elem_classes="controls"):
            width = gr.Slider(
                1, 1568, 784, step=1, label="Inputs of the single layer", elem_id="init-width", min_width=160
            )
            samples = gr.Dropdown(
                [1, 10, 100, 1000], value=100, label="Samples", min_width=90, scale=0, elem_id="initialise-samples"
            )
        layer = ui.picture(450, "one-layer")
        ui.look(LOOK)
        ui.hint(HINT_STACK)
        with gr.Row(elem_classes="controls"):
            depth = gr.Slider(
                1, 30, 30, step=1, label="Depth (layers of 100 units)", elem_id="init-depth", min_width=160
            )
        stack = ui.picture(820, "stack")
        ui.take_home("initialise")
        ui.look(LOOK_STACK)
        lines = ui.code()
        ui.fold(FORMULA)
        shared = [activation, mean, std, gain, seed]
        tab.live(ui.with_code(show, snippet), inputs=[*shared, width, samples, depth], outputs=[layer, stack, lines])


def show(
    drawn: Drawn, activation: str, mean: float, std: float, gain: float, seed: int, width: int, samples: int, depth: int
) -> tuple[str, str]:
    """The single layer, and the stack."""
    return (
        layer_picture(activation, width, samples, mean, std, gain, seed),
        stack_picture(activation, depth, mean, std, gain, seed),
    )


def snippet(
    drawn: Drawn, activation: str, mean: float, std: float, gain: float, seed: int, width: int, samples: int, depth: int
) -> str:
    return f"""
from bnmodel import plotting
from bnmodel.experiments import initialization
own = {{"activation": "{activation}", "mean": {mean:g}, "std": {std:g}, "gain": {gain:g}, "seed": {seed}}}
layer = initialization.run(width={width}, samples={samples}, **own)
stack = initialization.stack(depth={depth}, samples=50, **own)
plotting.save(initialization.figure(layer), "layer.png")
plotting.save(initialization.stack_figure(stack), "stack.png")
"""


@lru_cache(maxsize=32)  # it does not depend on the digit
def layer_picture(activation: str, width: int, samples: int, mean: float, std: float, gain: float, seed: int) -> str:
    result = initialization.run(activation, width, samples, mean, std, gain, seed)
    words = layer_in_words(result)
    spread = float(result.output_std[result.initializers.index("random_normal")])
    found = ui.done(activation == "relu" and abs(spread - result.input_std) < result.input_std / 5)
    return ui.sentence(words) + ui.panels(initialization.figure(result), words, narrow=True) + found


@lru_cache(maxsize=32)
def stack_picture(activation: str, depth: int, mean: float, std: float, gain: float, seed: int) -> str:
    result = initialization.stack(activation, depth, samples=50, mean=mean, std=std, gain=gain, seed=seed)
    words = stack_in_words(result)
    picture = ui.panels(initialization.stack_figure(result), words, narrow=True)
    return ui.sentence(words) + picture + shares(result)


def layer_in_words(result: Layer) -> str:
    spread = ", ".join(
        f"{std:.3g} from {title(name)}"
        for name, std in zip(result.initializers, result.output_std, strict=True)
        if not name.endswith("uniform")
    )
    worst = int(result.saturated.argmax())
    return (
        f"Inputs of standard deviation {result.input_std:.2f} become outputs of {spread}. The share of "
        f"saturated outputs is largest with {title(result.initializers[worst])}: {percent(result.saturated[worst])}."
    )


def stack_in_words(result: Stack) -> str:
    """The factor from the first layer to the last."""
    first, last = result.activation_std[:, :, 0], result.activation_std[:, :, -1]
    alive = (first > 0).all(1)
    plain, normed = (last[alive] / first[alive]).T
    depth = result.activation_std.shape[-1]
    return (
        f"From layer 1 to layer {depth} the spread of the activations changes by factors from {short(plain.min())} to "
        f"{short(plain.max())} without batch norm, and from {normed.min():.2f} to {normed.max():.2f} with it."
    )


def shares(result: Stack) -> str:
    """A table of the shares of saturated activations and dead units in the last layer."""
    rows = [
        (title(name), *(percent(share[k, norm, -1]) for norm in (0, 1) for share in (result.saturated, result.dead)))
        for k, name in enumerate(result.initializers)
    ]
    head = ("In the last layer", "saturated", "dead units", "saturated, batch norm", "dead units, batch norm")
    return ui.table(head, rows)


def short(factor: float) -> str:
    """0.12, and 1.2 · 10⁻⁵ beyond a thousandth or a thousand."""
    if not factor or 1e-3 <= factor < 1e3:
        return f"{factor:.2g}"
    mantissa, power = f"{factor:.1e}".split("e")
    return f"{mantissa}\u00a0·\u00a010<sup>{ui.signed(str(int(power)))}</sup>"
