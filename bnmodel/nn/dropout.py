"""Dropout with its own random generator, which makes runs in one process independent."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn


class Dropout(nn.Dropout):
    """`torch.nn.Dropout`, bit for bit, drawing from `generator`, or from the global state if that is None."""

    generator: Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():  # TorchScript has no generators
            return F.dropout(x, self.p, self.training, self.inplace)
        else:  # not after the `return`: TorchScript would compile it
            return self._drop(x)

    @torch.jit.unused
    def _drop(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if self.generator is None:
            return F.dropout(x, self.p, inplace=self.inplace)
        kept = torch.empty_like(x).bernoulli_(1 - self.p, generator=self.generator)
        if self.p < 1:
            kept.div_(1 - self.p)
        return x.mul_(kept) if self.inplace else x * kept


def draw_from(model: nn.Module, generator: Generator | None) -> None:
    """Let every Dropout in `model` draw from `generator`; None: from the global state."""
    for module in model.modules():
        if isinstance(module, Dropout):
            module.generator = generator
