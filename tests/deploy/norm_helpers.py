"""A small network with a batch norm and its input; a check that a network is folded exactly."""

import copy

import torch
from torch import Tensor, nn

from bnmodel.deploy import fold
from bnmodel.deploy.preflight import named_norms

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


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in eval mode, with random statistics, γ (of either sign) and β, so that a wrong fold is noticed."""
    generator = torch.Generator().manual_seed(seed)
    for norm in named_norms(model).values():
        norm.running_mean.normal_(generator=generator)
        norm.running_var.uniform_(0.1, 3, generator=generator)
        for parameter in norm.parameters(recurse=False):
            parameter.data.normal_(generator=generator)
    return model.eval()


def assert_folded(model: nn.Module, x: Tensor, kept: int = 0, folded: int | None = None) -> None:
    result = fold(model, x)
    assert len(result.kept) == kept, result.kept
    assert folded is None or len(result.folded) == folded
    left = [node for node in result.module.graph.graph.nodes if "batch_norm" in str(node.target)]
    assert len(left) <= kept
    with torch.no_grad():
        expected = copy.deepcopy(model).eval().double()(x.double())
        received = result.module(x).double()
    size = expected.abs().max().clamp(min=1e-30)
    torch.testing.assert_close(received / size, expected / size, rtol=0, atol=3e-6)
