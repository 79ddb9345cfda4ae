"""What runs for a visitor who closes the page while it waits for the answer: not for long.

Of its own accord Gradio drops what waits in the queue then, and marks what runs as not alive, but lets it run on.
"""

from typing import Any

import torch
from gradio.context import LocalContext
from torch.overrides import TorchFunctionMode


class Left(Exception):
    """Nobody waits for the answer any more."""


class WhileAwaited(TorchFunctionMode):
    """Within `with WhileAwaited():` torch computes only as long as the page of this event is open.

    The check is at every step of torch, of which the longest takes half a second, so that no experiment need know.

    Raises:
        Left: from within; catch it, or its traceback would keep the tensors.
    """

    def __init__(self) -> None:
        super().__init__()
        blocks, event = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
        self.event = blocks._queue.event_ids_to_events.get(event) if blocks and event else None

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # `no_grad` calls torch to put its mode back: stopped there, this thread would never have gradients again
        if self.event is not None and not self.event.alive and function is not torch._C._set_grad_enabled:
            raise Left
        return function(*args, **(kwargs or {}))
