"""Graphs of functions, for the tests of export."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]


class Of(nn.Module):
    """A function as a module."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def graph_of(function: Function, x: Tensor) -> torch.fx.GraphModule:
    return torch.export.export(Of(function), (x,)).module()
