"""Stop the computation of an event whose page was closed.

Gradio drops the waiting calls of a closed page, but lets running ones finish.
"""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from demo.server.gradio_private import current_event


class PageClosed(BaseException):
    """The page of the request was closed. Code that converts exceptions, such as file loading, lets this one pass."""


class WhilePageOpen(TorchFunctionMode):
    """Within `with WhilePageOpen():` every torch function raises PageClosed once the page of the event is closed.

    Experiments therefore need no cancellation code. The longest torch function takes half a second.

    Raises:
        PageClosed: catch it outside the function that holds the tensors, since its traceback keeps them alive.
    """

    def __init__(self) -> None:
        super().__init__()
        self.event = current_event()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # `no_grad` calls torch on exit; an exception there would leave gradients disabled in this thread
        if self.event is not None and not self.event.alive and function is not torch._C._set_grad_enabled:
            raise PageClosed
        return function(*args, **(kwargs or {}))
