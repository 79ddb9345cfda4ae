"""Hooks that belong to a module, not to its copies."""

import sys
from collections.abc import Callable
from typing import Any

import torch


class Hook:
    """A hook that a copy of the model does not keep: copied or pickled, it does nothing. torch.compile skips it."""

    def __init__(self, call: Callable[..., None]) -> None:
        self.call = torch.compiler.disable(call) if "torch._dynamo" in sys.modules else call

    def __call__(self, *arguments: Any) -> None:
        self.call(*arguments)

    def __deepcopy__(self, memo: Any) -> Callable[..., None]:
        return _nothing

    def __reduce__(self) -> tuple[Any, ...]:
        return _no_hook, ()


def _nothing(*_: Any) -> None:
    pass


def _no_hook() -> Callable[..., None]:
    return _nothing
