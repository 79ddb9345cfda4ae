"""A small network with a batch norm, and its input."""

import torch
from torch import Tensor, nn

X = torch.rand(4, 3, 9, 9, generator=torch.Generator().manual_seed(0))


class Body(nn.Module):
    """A convolution and its batch norm, used by the subclasses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.after = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def body(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))
