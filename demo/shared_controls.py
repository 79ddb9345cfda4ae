"""Controls that several tabs share: the batch, the layer and the channel."""

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.components import Component
from torch import Tensor, nn

from bnmodel.experiments.batch_statistics import custom_batchnorms
from bnmodel.experiments.other_samples import KINDS, Others, most_revealing, other_samples
from demo import url_state
from demo.page import Drawn, Page
from demo.server.gradio_private import current_blocks

MAX_SEED = 2**31 - 1
AUTO = "auto"  # search for the other samples that change the answer most
MOST_SHIFTED = -1  # the channel whose mean is furthest from the running mean
TITLES = {
    "random": "random digits",
    "one class": "all of one class",
    "copies": "copies of your digit",
    "blurred": "blurred digits",
    "inverted": "inverted digits",
    "blank": "blank sheets",
    "noise": "noise",
}
PLURALS = ("zeros", "ones", "twos", "threes", "fours", "fives", "sixes", "sevens", "eights", "nines")
PRESETS: dict[str, tuple[int, str, int, int]] = {  # count, kind, class, seed
    "Make the answer flip": (31, AUTO, 1, 0),
    "A batch of 2": (1, "random", 1, 0),
    "Alone": (0, "random", 1, 0),
    "31 ones": (31, "one class", 1, 0),
    "Blurred digits": (31, "blurred", 1, 0),
    "Copies of it": (31, "copies", 1, 0),
}


def batch_controls(page: Page, prefix: str = "") -> list[Component]:
    """Controls for the other digits of the batch, kept equal in all tabs that have them.

    Returns the controls that were built first, which are those in the address, for `Tab.live`'s `shared`: count, kind,
    class and seed, the arguments of `draw_others`.
    """
    with gr.Row(elem_classes="controls"):
        choices = [("the most revealing batch", AUTO), *((TITLES[kind], kind) for kind in KINDS)]
        kind = gr.Dropdown(
            choices, value=AUTO, label="Other digits in the batch", elem_id=f"{prefix}kind", min_width=220
        )
        count = gr.Slider(
            0, 255, 31, step=1, label="How many", elem_id=f"{prefix}count", min_width=160, interactive=False
        )
        label = gr.Dropdown(
            list(range(10)),
            value=1,
            label="Which class",
            elem_id=f"{prefix}class",
            min_width=90,
            scale=0,
            interactive=False,
        )
        first = page.shared.get("batch")
        seed = reshuffle_button(f"{prefix}reshuffle", first[-1] if first else None)
    own = [count, kind, label, *([] if first else [seed])]
    able = f"""kind => [kind !== '{AUTO}', kind === 'one class'].map(
        interactive => ({{ interactive, __type__: 'update' }}))"""
    kind.change(None, [kind], [count, label], js=able, api_visibility="private")
    return share(page, "batch", own)


def share(page: Page, name: str, own: list[Component]) -> list[Component]:
    """Keep the controls `own` of several tabs equal, and return those that were built first, which a tab should read.

    A change updates the visible tab, as a new drawing does; hidden tabs catch up when they are shown.
    """
    first = page.shared.setdefault(name, own)
    if first is own:
        page.note_shared(own)
        again = "() => { document.dispatchEvent(new CustomEvent('digit')); }"
        gr.on([one.change for one in own], None, None, js=again, api_visibility="private")  # type: ignore[attr-defined]
        return first
    same = first[: len(own)]
    options: dict[str, Any] = {"js": "(...values) => values", "api_visibility": "private"}
    gr.on([one.change for one in same], None, same, own, **options)  # type: ignore[attr-defined]
    gr.on([one.input for one in own], None, own, same, **options)  # type: ignore[attr-defined]
    return first


def presets(shared: Sequence[Component]) -> None:
    """Buttons that choose a batch; the one whose batch is shown is pressed."""
    chosen: dict[str, tuple[int, str, int, int]] = {}
    with gr.Row(elem_classes=["controls", "presets"]):
        for title, values in PRESETS.items():
            name = url_state.slug(f"try {title}")
            button = gr.Button(title, size="sm", min_width=60, scale=0, elem_id=name)
            button.click(None, None, list(shared), js=f"() => {json.dumps(values)}", api_visibility="private")
            chosen[name] = values
    press = f"""(count, kind, label, seed) => {{
        for (const [name, [n, of, which, first]] of Object.entries({json.dumps(chosen)})) {{
            const same = kind === of && (kind === '{AUTO}' || count === n) && (kind !== 'one class' || label === which);
            document.getElementById(name)?.setAttribute('aria-pressed', same && seed === first);
        }}
    }}"""
    changes = [control.change for control in shared]  # type: ignore[attr-defined]
    gr.on([current_blocks().load, *changes], None, list(shared), js=press, api_visibility="private")


def draw_others(drawn: Drawn, count: int, kind: str, label: int, seed: int) -> tuple[Others, Tensor, bool | None]:
    """The other samples that the controls ask for, and their images.

    Returns:
        Their description, float32 (count, 1, 28, 28), and whether they change the answer, None unless searched for.
    """
    flips: bool | None = None
    if kind == AUTO:
        chosen, flips = most_revealing(drawn.model.network, drawn.digit, seed)
    else:
        chosen = Others(kind, count, label if kind == "one class" else None, seed)
    return chosen, other_samples(chosen.kind, chosen.count, chosen.seed, drawn.digit, chosen.label), flips


def named(chosen: Others) -> str:
    """“with 7 fives in the batch”."""
    if not chosen.count:
        return "alone in its batch"
    many = chosen.count > 1
    kinds = {
        "random": "random digits" if many else "random digit",
        "one class": PLURALS[chosen.label or 0] if many else str(chosen.label),
        "copies": "copies of itself" if many else "copy of itself",
        "blurred": "blurred digits" if many else "blurred digit",
        "inverted": "inverted digits" if many else "inverted digit",
        "blank": "blank sheets" if many else "blank sheet",
        "noise": "sheets of noise" if many else "sheet of noise",
    }
    if not many and chosen.kind == "one class":
        return f"with one other digit in the batch (a{'n' if chosen.label == 8 else ''} {chosen.label})"
    return f"with {chosen.count} {kinds[chosen.kind]} in the batch"


def layer_controls(page: Page, prefix: str = "") -> list[Component]:
    """Controls for a batch norm of the network and one of its channels, kept equal in all tabs that have them.

    Returns the shared layer, counted from 0, and the channel, or MOST_SHIFTED.
    """
    norms = {
        name: [(norm, layer.num_features) for norm, layer in custom_batchnorms(model.network).items()]
        for name, model in page.models.items()
    }
    names = norms[page.model.value] or [("none", 1)]
    widest = max((width for one in norms.values() for _, width in one), default=1)
    with gr.Row(elem_classes="controls"):
        layer = gr.Dropdown(
            [(name, k) for k, (name, _) in enumerate(names)], value=0, label="Batch norm", elem_id=f"{prefix}layer"
        )
        channel = gr.Dropdown(
            [("the most shifted", MOST_SHIFTED), *((str(k), k) for k in range(widest))],  # what an address may ask for
            value=MOST_SHIFTED,
            label="Channel",
            elem_id=f"{prefix}channel",
            min_width=130,
        )
    offered = f"""(name, layer, channel) => {{
        const norms = {json.dumps(norms)}[name];
        const names = norms.length ? norms : [['none', 1]];
        const at = Math.min(layer, names.length - 1);
        const channels = [...Array(names[at][1]).keys()].map((k) => [String(k), k]);
        const asked = channel < names[at][1] ? channel : {MOST_SHIFTED};
        return [
            {{ choices: names.map(([name], k) => [name, k]), value: at, __type__: 'update' }},
            {{ choices: [['the most shifted', {MOST_SHIFTED}], ...channels], value: asked, __type__: 'update' }},
        ];
    }}"""
    asks = [page.model, layer, channel]
    gr.on([page.model.change, layer.change], None, asks, [layer, channel], js=offered, api_visibility="private")
    offer_at_first(channel, names[0][1] + 1)
    return share(page, "place", [layer, channel])


def offer_at_first(dropdown: gr.Dropdown, count: int) -> None:
    """Offer only the first `count` choices when the page opens; the server accepts all of them."""
    config = dropdown.get_config

    def shown_first(*arguments: Any) -> dict[str, Any]:
        return {**config(*arguments), "choices": dropdown.choices[:count]}

    dropdown.get_config = shown_first  # type: ignore[method-assign, assignment]


def which(place: int | None, count: int) -> int:
    """Clamp a chosen index to 0 … count − 1, since the previous network may have had more layers."""
    return min(max(place or 0, 0), count - 1)


def norm_and_channel(network: nn.Module, layer: int, channel: int) -> tuple[str, int, str]:
    """The name of the chosen norm, its channel or MOST_SHIFTED, and a note if the norm does not have that channel."""
    norms = custom_batchnorms(network)
    norm = list(norms)[which(layer, len(norms))]
    last = norms[norm].num_features - 1
    return (
        (norm, channel, "") if channel <= last else (norm, last, f" {norm} has channels 0 to {last}; {last} is shown.")
    )


def reshuffle_button(name: str, seed: Component | None = None) -> Component:
    """A button that raises a seed by one, and returns it: `seed`, or a new one."""
    button = gr.Button("Reshuffle", elem_id=name, min_width=110, scale=0)
    seed = seed or gr.Number(
        0,
        precision=0,
        minimum=0,
        maximum=MAX_SEED,
        elem_id=f"{name}-seed",
        visible="hidden",  # mounted, or it would send no change event
    )
    button.click(None, [seed], [seed], js="seed => seed + 1", api_visibility="private")
    return seed


def others_in_code(drawn: Drawn, count: int, kind: str, label: int, seed: int) -> str:
    """The lines that make the rest of the batch."""
    chosen, *_ = draw_others(drawn, count, kind, label, seed)
    of_class = f", label={chosen.label}" if chosen.label is not None else ""
    arguments = f'"{chosen.kind}", {chosen.count}, {chosen.seed}, digit{of_class}'
    return f"""from bnmodel.experiments.other_samples import other_samples

others = other_samples({arguments})  # {named(chosen)}
"""
