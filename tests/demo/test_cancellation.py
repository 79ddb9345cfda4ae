"""Closed pages: waiting calls are dropped, and running ones end. Open pages are answered."""

import contextvars
import gc
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import gradio as gr
import httpx
import numpy as np
import pytest
import torch
from gradio.context import LocalContext
from playwright.sync_api import Browser, Route
from torch.overrides import TorchFunctionMode

from benchmarks.running_app import free_port, watch_errors
from bnmodel.deploy.loading import load_file
from demo.app import CHECKPOINTS, build_app, launch_options
from demo.models import load_model
from demo.page import Drawn
from demo.server.cancellation import PageClosed, WhilePageOpen
from demo.tabs import chance, corruption, faults, statistics, why, your_digit

MODES = 4  # steps that only put a mode back


@dataclass
class Work:
    """An endless computation in place of a tab's; one runs at a time."""

    begun: list[str] = field(default_factory=list)  # for which sessions
    ended: list[str] = field(default_factory=list)
    tensors: list[weakref.ref[torch.Tensor]] = field(default_factory=list)  # what it computes with
    over: bool = False  # at the end of the tests

    def show(self, drawn: object, calls: int) -> str:
        session = LocalContext.request.get().session_hash
        self.begun.append(session)
        try:
            large = torch.ones(1000)
            self.tensors.append(weakref.ref(large))
            while not self.over:
                large + 1
                time.sleep(0.001)
            return "all of it"
        finally:
            self.ended.append(session)


@dataclass
class Crowd:
    """The app in this process, with `work` on its tab Faults."""

    app: gr.Blocks
    url: str
    work: Work

    def running(self) -> list[Any]:
        return [job for job in self.app._queue.active_jobs if job]


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Crowd]:
    work = Work()
    monkeypatch.setattr(faults, "show", work.show)
    port = free_port()
    app = build_app()
    app.launch(**launch_options(app), server_port=port, prevent_thread_lock=True, quiet=True)
    yield Crowd(app, f"http://127.0.0.1:{port}", work)
    work.over = True
    app.close()


class Visitor:
    """A page as the server sees it: asks for the tab Faults, and listens until it is closed."""

    def __init__(self, crowd: Crowd, session: str) -> None:
        place = crowd.app.config["components"]
        forgotten = next(part["id"] for part in place if part["props"].get("elem_id") == "forgotten")
        self.event = next(one["id"] for one in crowd.app.config["dependencies"] if forgotten in one["outputs"])
        self.client, self.session = httpx.Client(base_url=crowd.url), session
        self.ask()
        self.listen()

    def ask(self) -> None:
        asked = {"data": [None, "lecture", 50], "fn_index": self.event, "session_hash": self.session}
        self.client.post("/gradio_api/queue/join", json=asked).raise_for_status()

    def listen(self) -> None:
        stream = self.client.build_request("GET", "/gradio_api/queue/data", params={"session_hash": self.session})
        self.stream = self.client.send(stream, stream=True)
        self.stream.raise_for_status()

    def leave(self) -> None:
        self.stream.close()
        self.client.close()


def wait_until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within 30 s"
        time.sleep(0.01)


def test_the_calls_of_a_closed_page_end_and_the_next_page_gets_its_turn(
    crowd: Crowd, capfd: pytest.CaptureFixture[str]
) -> None:
    first = Visitor(crowd, "first")
    wait_until(lambda: crowd.work.begun == ["first"], "the first is computed for")
    second, third = Visitor(crowd, "second"), Visitor(crowd, "third")
    wait_until(lambda: len(crowd.app._queue) == 2, "two wait")
    second.leave()
    wait_until(lambda: len(crowd.app._queue) == 1, "the second waits no longer")
    assert crowd.work.ended == []
    first.leave()
    wait_until(lambda: crowd.work.ended == ["first"], "the first's computation has ended")
    wait_until(lambda: crowd.work.begun == ["first", "third"], "the third is computed for")
    third.leave()
    wait_until(lambda: crowd.work.ended == ["first", "third"], "the third's computation has ended")
    assert "second" not in crowd.work.begun
    assert "Traceback" not in capfd.readouterr().err


def test_the_tensors_of_a_cancelled_call_are_freed_at_once(crowd: Crowd) -> None:
    gc.collect()
    gc.disable()  # what only a collection would find may lie there for long
    try:
        first = Visitor(crowd, "first")
        wait_until(lambda: crowd.work.tensors, "the first is computed for")
        first.leave()
        wait_until(lambda: crowd.work.tensors[0]() is None, "the tensors are freed")
        wait_until(lambda: not crowd.running(), "nothing runs")
    finally:
        gc.enable()


def test_an_open_page_gets_its_whole_answer(crowd: Crowd) -> None:
    first = Visitor(crowd, "first")
    wait_until(lambda: crowd.work.begun == ["first"], "the first is computed for")
    Visitor(crowd, "second").leave()
    wait_until(lambda: len(crowd.app._queue) == 0, "the second waits no longer")
    crowd.work.over = True
    assert "all of it" in first.stream.read().decode()
    again = Visitor(crowd, "first")
    assert "all of it" in again.stream.read().decode()


def test_a_page_may_listen_again_after_an_answer(crowd: Crowd) -> None:
    crowd.work.over = True
    first = Visitor(crowd, "first")
    assert "all of it" in first.stream.read().decode()
    first.listen()
    first.ask()
    assert "all of it" in first.stream.read().decode()


def test_an_answer_before_the_page_knows_the_events_number_is_no_error_in_chromium(
    crowd: Crowd, browser: Browser
) -> None:
    page = browser.new_page()
    errors = watch_errors(page)
    page.goto(f"{crowd.url}/?tab=faults")
    wait_until(lambda: crowd.work.begun, "the page is computed for")

    def late(route: Route) -> None:
        number = route.fetch()
        wait_until(lambda: len(crowd.app._queue) == 0, "the question is taken up")
        crowd.work.over = True
        wait_until(lambda: not crowd.running(), "both questions are answered")
        time.sleep(1)  # and the stream of the answers has ended
        route.fulfill(response=number)

    page.route("**/queue/join*", late, times=1)
    with page.expect_response(lambda response: "queue/data" in response.url) as listening:
        page.get_by_role("tab", name="Chance", exact=True).click()
        page.wait_for_selector("#chance .figure svg >> nth=1")
    assert listening.value.status == 200
    assert errors == []
    page.close()


def test_the_calls_of_a_closed_page_end_in_chromium(crowd: Crowd, browser: Browser) -> None:
    context = browser.new_context()
    pages = [context.new_page() for _ in range(2)]
    errors = [watch_errors(page) for page in pages]
    pages[0].goto(f"{crowd.url}/?tab=faults")
    wait_until(lambda: len(crowd.work.begun) == 1, "the first page is computed for")
    with pages[1].expect_response(lambda response: "queue/data" in response.url):  # it listens
        pages[1].goto(f"{crowd.url}/?tab=faults")
    wait_until(lambda: len(crowd.app._queue) == 1, "the second page waits")
    pages[1].close()
    wait_until(lambda: len(crowd.app._queue) == 0, "the second page waits no longer")
    pages[0].close()
    wait_until(lambda: not crowd.running(), "nothing runs")
    assert len(crowd.work.begun) == len(crowd.work.ended) == 1
    assert errors == [[], []]
    context.close()


# ---- every tab that computes with the chosen network


class Steps(TorchFunctionMode):
    """Counts torch functions, and closes the page of `event` after `last`."""

    def __init__(self, event: SimpleNamespace, last: int) -> None:
        super().__init__()
        self.event, self.last, self.taken = event, last, 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.taken += 1
        self.event.alive = self.taken < self.last
        return function(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    """A new digit, so that nothing about it is cached."""
    digit = torch.rand(28, 28, generator=torch.Generator().manual_seed(20))
    return Drawn(np.zeros((28, 28, 4), np.uint8), digit, np.full(10, 0.1), False, load_model(CHECKPOINTS / "lecture"))


@pytest.mark.parametrize(
    ("show", "controls"),
    [
        (your_digit.show, (31, "blurred", 1, 0)),
        (chance.show, (2, 0)),
        (why.show, (31, "random", 1, 0, 0, -1)),
        (statistics.show, (31, "random", 0, 0, 0, 0, 0.1, 8)),
        (faults.show, (50,)),
        (corruption.show, ("noise", 50)),
    ],
)
def test_a_tab_stops_at_the_next_torch_function_once_its_page_is_closed(
    show: Callable[..., Any], controls: tuple[Any, ...], drawn: Drawn
) -> None:
    event = SimpleNamespace(alive=True)
    blocks = SimpleNamespace(_queue=SimpleNamespace(event_ids_to_events={"an event": event}))

    def steps(last: int) -> int:
        LocalContext.blocks.set(blocks)  # type: ignore[arg-type]
        LocalContext.event_id.set("an event")
        event.alive = True
        with Steps(event, last) as steps, pytest.raises(PageClosed), WhilePageOpen():
            show(drawn, *controls)
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        return steps.taken

    for last in (1, 17, 60):  # wherever it is
        assert last <= contextvars.copy_context().run(steps, last) <= last + MODES


def test_a_file_that_is_being_loaded_is_not_called_damaged() -> None:
    event = SimpleNamespace(alive=False)
    blocks = SimpleNamespace(_queue=SimpleNamespace(event_ids_to_events={"an event": event}))

    def load() -> None:
        LocalContext.blocks.set(blocks)  # type: ignore[arg-type]
        LocalContext.event_id.set("an event")
        with pytest.raises(PageClosed), WhilePageOpen():
            load_file(CHECKPOINTS / "lecture" / "sketch.pt2")

    contextvars.copy_context().run(load)


def test_outside_of_an_event_everything_is_computed() -> None:
    with WhilePageOpen():
        assert torch.ones(2).sum() == 2
