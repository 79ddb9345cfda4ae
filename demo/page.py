"""What a tab gets to work with: the digit on the pad, the chosen model, and a place on the page.

A tab is a file in `demo/tabs` with one function, and one line in the list in `demo/app.py`:

    def build(page: Page) -> None:
        with page.tab("Title", "The question that this tab asks?") as tab:
            strength = gr.Slider(0, 1, 0.5, label="Strength")
            picture = gr.HTML(min_height=320)
            tab.live(show, inputs=[strength], outputs=[picture])

    def show(drawn: Drawn, strength: float) -> str: ...

`live` calls `show` when the tab is first seen, when its inputs change, and when the digit or the model has changed,
but only while the tab is visible, one call at a time, and at last with the newest values. Nothing in a `Drawn` may
be changed: the network is shared by everybody.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch
from gradio.components import Component
from torch import Tensor

from bnmodel import SimpleCNN, load_checkpoint
from bnmodel.data import load_sample
from demo.images import as_ink, decode_canvas, enlarge
from demo.pad import build_pad
from export.runtime import Recognizer, available, load

EXAMPLE = 716  # of the shipped test sample, a 1 that is no longer one in other company: the first look already teaches
TAB_JS = (Path(__file__).parent / "tab.js").read_text(encoding="utf-8")


@dataclass(frozen=True, eq=False)
class Model:
    """One checkpoint folder, loaded once: the exported files, and the network they were made from (eval mode)."""

    folder: Path
    recognizer: Recognizer
    network: SimpleCNN

    @property
    def name(self) -> str:
        return self.folder.name


@dataclass(frozen=True)
class Drawn:
    """The digit a tab is asked about. `is_example`: nothing is drawn yet, this one stands in."""

    canvas: np.ndarray  # uint8 (H, W, 4) RGBA
    digit: Tensor  # float32 (28, 28) in [0, 1], what the network saw
    probabilities: np.ndarray  # float32 (10,), the exported model's answer
    is_example: bool
    model: Model

    @property
    def label(self) -> int:
        return int(self.probabilities.argmax())


class Tab:
    """A tab under construction; `ear` fires when the visible tab has to be drawn anew."""

    def __init__(self, page: "Page", ear: gr.HTML) -> None:
        self.page, self.ear = page, ear

    def live(
        self, show: Callable[..., Any], inputs: Sequence[Component] = (), outputs: Sequence[Component] = ()
    ) -> None:
        """Keep `outputs` equal to `show(drawn, *inputs)`."""

        def refresh(url: str, model: str, *values: Any) -> Any:
            return show(self.page.drawn(url, model), *values)

        gr.on(
            [self.ear.input, *(component.change for component in inputs)],  # type: ignore[attr-defined]
            refresh,
            [self.page.pad, self.page.model, *inputs],
            list(outputs),
            show_progress="minimal",  # style.css makes of it a fade, and only where the answer is slow
            trigger_mode="always_last",
            concurrency_limit=4,
            api_visibility="private",
        )


class Page:
    """The frame around the tabs. Built inside `gr.Blocks`; holds no value of any user."""

    def __init__(self, checkpoints: Path) -> None:
        """Load every exported model below `checkpoints`.

        Raises:
            ExportError, CheckpointError: a file is missing or damaged.
            FileNotFoundError: there is no exported model.
        """
        folders = available(checkpoints)
        if not folders:
            raise FileNotFoundError(
                f"{checkpoints}: no exported model in any folder; export one: python -m export {checkpoints}/lecture"
            )
        self.models = {folder.name: Model(folder, load(folder), load_checkpoint(folder).model) for folder in folders}
        self.example = enlarge(as_ink(load_sample(train=False).images[EXAMPLE, 0].numpy()))
        self.model: gr.Dropdown
        self.pad: gr.HTML

    def build_column(self) -> None:
        """The pad and the choice of the model, which stay in reach of every tab."""
        names = list(self.models)
        first = "lecture" if "lecture" in names else names[0]
        self.pad = build_pad(lambda name: self.find(name).recognizer, first)
        self.model = gr.Dropdown(names, value=first, label="Model", visible=len(names) > 1, elem_id="model")
        tell = "name => { document.dispatchEvent(new CustomEvent('model', { detail: name })); }"
        self.model.change(None, [self.model], js=tell, api_visibility="private")

    @contextmanager
    def tab(self, title: str, question: str) -> Iterator[Tab]:
        """A tab with its question as a heading; what is made inside the `with` follows below."""
        with gr.Tab(title):
            ear = gr.HTML(
                f"<h2>{escape(question)}</h2>", js_on_load=TAB_JS, apply_default_css=False, elem_classes="question"
            )
            yield Tab(self, ear)

    def find(self, name: str) -> Model:
        if name not in self.models:
            raise gr.Error(f"model: expected one of {', '.join(self.models)}, received {name!r}; reload the page")
        return self.models[name]

    def drawn(self, url: str | None, name: str) -> Drawn:
        """The pad's value → the digit, or an example while there is none."""
        model = self.find(name)
        canvas = decode_canvas(url) if url else self.example
        answer = model.recognizer.read(canvas)
        is_example = not url or answer.blank
        if is_example:
            canvas, answer = self.example, model.recognizer.read(self.example)
        return Drawn(canvas, torch.from_numpy(answer.digit), answer.probabilities, is_example, model)
