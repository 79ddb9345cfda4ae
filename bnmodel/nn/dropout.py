"""Dropout whose chance can be its own: several trainings in one process do not disturb each other."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn


class Dropout(nn.Dropout):
    """As torch's, to the last bit; but where it has a `generator`, it draws from that and not from the global state."""

    generator: Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():  # it knows no generators
            return F.dropout(x, self.p, self.training)
        else:  # what came after a return would be compiled
            return self._drop(x)

    @torch.jit.unused
    def _drop(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        kept = torch.empty_like(x).bernoulli_(1 - self.p, generator=self.generator)
        return x * kept.div_(1 - self.p)


def draw_from(model: nn.Module, generator: Generator | None) -> None:
    """Let every Dropout in `model` draw from `generator`; None: from the global state again."""
    for module in model.modules():
        if isinstance(module, Dropout):
            module.generator = generator
