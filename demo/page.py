"""The frame around the tabs: the digit on the pad, the chosen network, and how a tab is built.

One network answers on the whole page: `Page.model` is the choice at the top, `Drawn.model` what a tab receives.

A tab is a file in `demo/tabs` with a function `build`, and an entry in a group of `PATH` in `demo/app.py`:

    def build(page: Page) -> None:
        with page.tab("Title", "The question that this tab asks?", task="Make the answer flip.") as tab:
            strength = gr.Slider(0, 1, 0.5, label="Strength")
            picture = gr.HTML(min_height=320)
            tab.live(show, inputs=[strength], outputs=[picture])

    def show(drawn: Drawn, strength: float) -> str: ...

`live` calls `show` when the tab is first shown and whenever its inputs, the digit or the network change, but only while
the tab is visible: one call at a time, the last one with the newest values. Closing the page ends the call. A `Drawn`
must not be modified: all visitors share the network. Every input can be reset, and is part of the address
(`demo.url_state`).

A task is done as soon as the tab contains an element with the attribute `data-done`, as `demo.components.done` returns.
The page then ticks the task, and remembers it in the browser.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from inspect import isgeneratorfunction
from pathlib import Path as File
from threading import Event
from typing import Any

import gradio as gr
import numpy as np
import torch
from gradio.components import Component
from torch import Tensor

from bnmodel.data import load_sample
from demo import url_state
from demo.images import as_ink, enlarge
from demo.models import Model, load_models
from demo.pad import MOST_READ, build_pad, drawing, keep
from demo.path import Path, Step
from demo.scripts import on_mount
from demo.server.cancellation import PageClosed, WhilePageOpen
from demo.server.gradio_private import current_blocks
from demo.server.validation import refusal, shown
from export.recogniser import Answer

MOST_SHEETS = 64  # drawings kept, at 0.3 MB each
LONGEST_TO_ANSWER = 10  # seconds that `warm_up` waits for a tab's first answer
DEFAULT = "robust"  # the network chosen at first, if it is there
EXAMPLE = 716  # index in the test sample: a 1 that both networks misread in train mode in a batch of ones
RESET = '<button type="button" data-do="reset" title="Reset this tab’s controls">Reset</button>'
LINK = (
    '<button type="button" data-do="link" title="A link to this tab with its controls and your drawing">'
    "Copy link</button>"
)
SPOKEN = '<span class="hidden-text" role="status"></span>'


@dataclass(frozen=True)
class Drawn:
    """The digit that a tab shows. `is_example`: nothing is drawn yet, and this is the example."""

    canvas: np.ndarray  # uint8 (H, W, 4) RGBA
    digit: Tensor  # float32 (28, 28) in [0, 1], what the network saw
    probabilities: np.ndarray  # float32 (10,), the exported model's answer
    is_example: bool
    model: Model

    @property
    def label(self) -> int:
        return int(self.probabilities.argmax())


class Tab:
    """A tab under construction; the `input` event of `heading` fires when the visible tab has to be updated."""

    def __init__(self, page: "Page", name: str, heading: gr.HTML) -> None:
        self.page, self.name, self.heading = page, name, heading
        self.controls: list[Component] = []
        self.shared: list[Component] = []

    def live(
        self,
        show: Callable[..., Any],
        inputs: Sequence[Component] = (),
        outputs: Sequence[Component] = (),
        at_once: int = 4,
        shared: Sequence[Component] = (),
    ) -> None:
        """Keep `outputs` equal to `show(drawn, *shared, *inputs)`; if it is a generator, each result replaces the last.

        Args:
            at_once: maximum number of simultaneous calls; lower for calls that need much memory.
            shared: controls of several tabs (`demo.shared_controls`); a change triggers an update like a new drawing.
        """
        for control in inputs:
            control.elem_id = control.elem_id or f"{self.name}-{url_state.slug(str(control.label))}"
        new = [control for control in inputs if control not in self.controls]
        self.controls += new
        self.shared += [control for control in shared if control not in self.shared]
        url_state.note(self.name, new)
        gr.on(
            [self.heading.input, *(component.change for component in inputs)],  # type: ignore[attr-defined]
            self._refresh(show),
            [self.page.pad, self.page.model, *shared, *inputs],
            list(outputs),
            show_progress="minimal",  # style.css turns it into a fade, for slow answers only
            trigger_mode="always_last",
            concurrency_limit=at_once,
            api_visibility="private",
        )

    def _refresh(self, show: Callable[..., Any]) -> Callable[..., Any]:
        """`show`, given the pad's value and the network's name instead of a `Drawn`; ends once its page is closed."""

        def refresh(url: str, model: str, *values: Any) -> Any:
            try:
                with WhilePageOpen():
                    return show(self.page.drawn(url, model), *values)
            except PageClosed:
                return gr.skip()
            finally:
                self.page.answered.set()

        def refresh_in_steps(url: str, model: str, *values: Any) -> Iterator[Any]:
            steps = show(self.page.drawn(url, model), *values)
            while True:
                try:
                    with WhilePageOpen():
                        step = next(steps)
                except (StopIteration, PageClosed):
                    return
                yield step

        return refresh_in_steps if isgeneratorfunction(show) else refresh


class Page:
    """The frame around the tabs. Built inside `gr.Blocks`; stores no data of visitors."""

    def __init__(self, checkpoints: File) -> None:
        """Load every sound model below `checkpoints`; FileNotFoundError if there is none."""
        self.models, self.unsound = load_models(checkpoints)
        self.example = enlarge(as_ink(load_sample(train=False).images[EXAMPLE, 0].numpy()))
        self.path = Path()
        self._sheet = keep(MOST_SHEETS)(drawing)
        self._answer = keep(MOST_READ)(self._read)
        self.model: gr.Dropdown
        self.pad: gr.HTML
        self.answered = Event()  # a tab has its first answer
        self.shared: dict[str, list[Component]] = {}  # controls that several tabs read
        self.restored: dict[str, list[Component]] = {"": []}  # controls in the address, by the name of their tab

    def warm_up(self) -> None:
        """Load and run what the first answer needs; after it, or after LONGEST_TO_ANSWER, load the rest."""
        names = sorted(self.models, key=lambda name: name != DEFAULT)
        self.read("", names[0])
        self.answered.wait(LONGEST_TO_ANSWER)
        for name in names:
            self.read("", name)
            self.models[name].recognizer.read_numbers(self.example)
        import demo.svg  # noqa: F401 (for the pictures of all tabs but the first)

    def build_choice(self) -> None:
        """The control that chooses the network for the whole page."""
        names = list(self.models)
        self.model = gr.Dropdown(
            names, value=DEFAULT if DEFAULT in names else names[0], label="Network", elem_id="model", scale=0
        )
        url_state.start(current_blocks())
        self.note_shared([self.model])

    def build_pad(self) -> None:
        """The pad, beside every tab."""
        self.pad = build_pad(lambda name: self.find(name).recognizer, self.read, self.model.value)
        tell = "name => { document.dispatchEvent(new CustomEvent('model', { detail: name })); }"
        self.model.change(None, [self.model], js=tell, api_visibility="private")  # the pad answers, then tells the tabs

    def note_shared(self, controls: list[Component]) -> None:
        """Record the controls that several tabs share in the address, whichever tab is open."""
        url_state.note("", controls)
        self.restored[""] += controls

    @contextmanager
    def tab(self, title: str, question: str, task: str = "") -> Iterator[Tab]:
        """A tab with its question as a heading and its task; components made inside the `with` follow below."""
        name = url_state.slug(title)
        self.path.add(Step(name, title, question, bool(task)))
        with gr.Tab(title, id=name, elem_id=f"tab-{name}"):
            heading = gr.HTML(js_on_load=on_mount("tab"), apply_default_css=False, elem_classes="question")
            tab = Tab(self, name, heading)
            yield tab
        tools = f"{RESET if tab.controls or tab.shared else ''}{LINK}{SPOKEN}"
        heading.value = f'<h2 tabindex="-1">{escape(question)}</h2><div class="tools">{tools}</div>' + (
            f'<p class="task" data-tab="{name}"><b>Try it</b> {escape(task)}</p>' if task else ""
        )
        self.restored[name] = tab.controls
        if tab.controls:  # the button is in the heading, see tab.js
            defaults = f"() => urlState.defaults({name!r})"
            heading.clear(None, None, tab.controls, js=defaults, api_visibility="private")
        if tab.shared:
            values = json.dumps([control.value for control in tab.shared])
            heading.clear(None, None, tab.shared, js=f"() => {values}", api_visibility="private")

    def find(self, name: str) -> Model:
        if name not in self.models:
            raise refusal(f"model: expected one of {', '.join(self.models)}, received {shown(name)}; reload the page")
        return self.models[name]

    def read(self, url: Any, name: str) -> tuple[np.ndarray, Answer]:
        """The pad's value as a sheet (the example for "") and a network's answer to it, cached for pad and tabs.

        Raises:
            gr.Error: an invalid drawing, or an unknown network.
        """
        if not isinstance(url, str):
            raise refusal(f"drawing: expected a PNG data URL, received {shown(url)}; draw it again")
        return (self._sheet(url) if url else self.example), self._answer(url, name)

    def _read(self, url: str, name: str) -> Answer:
        return self.find(name).recognizer.read(self._sheet(url) if url else self.example)

    def drawn(self, url: str | None, name: str) -> Drawn:
        """The digit on the pad, or the example while it is blank."""
        model = self.find(name)
        canvas, answer = self.read(url or "", name)
        is_example = not url or answer.blank
        if is_example:
            canvas, answer = self.read("", name)
        return Drawn(canvas, torch.from_numpy(answer.digit), answer.probabilities, is_example, model)
