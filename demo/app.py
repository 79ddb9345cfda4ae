"""The app: builds the page, with the pad on the left and the tabs on the right, and launches it."""

import gc
import os
import signal
import threading
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import gradio as gr
import torch
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from demo import scripts, url_state
from demo.api import build_api
from demo.head import TITLE, build_head
from demo.page import Page
from demo.path import Group, build_next, build_path
from demo.server import live_training
from demo.server.gradio_private import without_servers
from demo.server.memory import keep_returning_freed_memory
from demo.server.middleware import RequestGuard
from demo.server.request_body import LARGEST_FILE
from demo.tabs import (
    chance,
    convergence,
    corruption,
    faults,
    files,
    gradients,
    initialise,
    inputs,
    statistics,
    stopping,
    why,
    worked_out,
    xray,
    your_digit,
    your_model,
)
from demo.theme import Paper

HERE = Path(__file__).parent
CHECKPOINTS = HERE.parent / "checkpoints"
PATH = (
    Group("See it", "One network, one digit, two answers.", (your_digit, xray)),
    Group("Explain it", "Where the two answers come from, down to the numbers.", (worked_out, why, chance, statistics)),
    Group(
        "Break it", "What goes wrong with batch norm in practice, and how to tell.", (faults, corruption, your_model)
    ),
    Group(
        "Train it",
        "What batch norm is for: starting weights, inputs, gradients and speed.",
        (initialise, inputs, gradients, convergence, stopping),
    ),
    Group("Ship it", "The network as files for other apps, with a certificate.", (files,)),
)
SPACE_PORT = 7860  # which Hugging Face expects
MOST_WAITING = 256  # calls in the queue; further ones are refused
MOST_SESSIONS = 100  # visitors whose controls Gradio stores, at 0.4 MB each; it drops the least recent


def build_app(checkpoints: Path = CHECKPOINTS) -> gr.Blocks:
    """The whole app, not yet launched."""
    return _build(Page(checkpoints))


def _build(page: Page) -> gr.Blocks:
    hour = 3600  # seconds; every hour, uploaded files older than an hour are deleted
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(hour, hour)) as app:
        with gr.Row(elem_id="head"):
            build_head(page.models)
            page.build_choice()
        if page.unsound:
            gr.HTML(damaged(page.unsound), elem_id="damaged", apply_default_css=False)
        with gr.Row(elem_id="page"):
            with gr.Column(elem_id="left", scale=0, min_width=200):
                page.build_pad()
            with gr.Column(elem_id="right", scale=1, min_width=200):
                path = build_path()
                with gr.Tabs(overflow_behavior="wrap") as tabs:  # no overflow menu, since path.js clicks the tabs
                    for group in PATH:
                        page.path.begin(group)
                        for tab in group.tabs:
                            tab.build(page)
                path.value = page.path.to_html()
                build_next()
        url_state.restore(app, page.restored, tabs)
        app.unload(live_training.stop_runs_of)
        build_api(page.find(page.model.value))
    app.queue(max_size=MOST_WAITING, api_open=False)
    return cast(gr.Blocks, app)


def damaged(unsound: dict[str, str]) -> str:
    """An alert (HTML) that names the damaged models and the reasons."""
    reasons = "".join(f"<li><b>{escape(name)}</b>: {escape(reason)}</li>" for name, reason in unsound.items())
    return f'<div role="alert">These networks are left out because their files are damaged:<ul>{reasons}</ul></div>'


def launch_options(app: gr.Blocks) -> dict[str, Any]:
    """Arguments of `launch`: listen on this machine only, unless GRADIO_SERVER_NAME is set or it is a Space.

    Without `allowed_paths` only uploads and files offered by a tab can be read. `/health` answers while the app runs.
    """
    on_space = "SPACE_ID" in os.environ
    options: dict[str, Any] = {
        "server_name": os.environ.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if on_space else "127.0.0.1"),
        "theme": Paper(),
        "css_paths": [HERE / "style.css", HERE / "tabs.css"],
        "head": f"<style>{scripts.source('screen.css')}</style>{scripts.to_head()}",
        "footer_links": ["api"],
        "max_file_size": LARGEST_FILE,
        "state_session_capacity": MOST_SESSIONS,
        "run_history": False,  # Hugging Face would store it
        "app_kwargs": {
            "middleware": [Middleware(RequestGuard, blocks=app)],
            "exception_handlers": {gr.Error: error_response},
            "routes": [Route("/health", lambda request: JSONResponse({"status": "ok"}))],
        },
        "share": False,
        "show_error": True,
        "ssr_mode": False,
        "mcp_server": find_spec("mcp") is not None,  # with the extra gradio[mcp]
    }
    return options | ({"server_port": int(os.environ.get("GRADIO_SERVER_PORT") or SPACE_PORT)} if on_space else {})


def error_response(request: Request, error: Exception) -> JSONResponse:
    """The message of a gr.Error that was raised outside an event, by the pad's server function."""
    return JSONResponse({"detail": str(getattr(error, "message", ""))}, 400)


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # closes the server and removes temporary files
    torch.set_num_threads(1)  # with many visitors, further threads per answer would only wait for each other
    page = Page(CHECKPOINTS)
    with without_servers():
        app = _build(page)
    gc.freeze()  # these objects stay; scanning them again would delay an answer by half a second
    gc.enable()  # see __main__.py
    threading.Thread(target=page.warm_up, daemon=True).start()  # while the browser loads the page
    keep_returning_freed_memory()
    app.launch(**launch_options(app))
