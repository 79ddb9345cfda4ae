"""The folded network is called as the original, which stays as it was."""

import copy
import dataclasses
from collections import OrderedDict
from typing import Any

import pytest
import torch
from norm_helpers import randomised
from torch import Tensor, nn

from bnmodel import SimpleCNN
from bnmodel.deploy import ExportError, fold


def test_the_original_network_its_mode_and_its_statistics_are_not_changed():
    model = randomised(SimpleCNN()).train()
    before = copy.deepcopy(model.state_dict())
    with pytest.warns(UserWarning, match="its eval copy is exported"):
        fold(model, torch.rand(2, 1, 28, 28))
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


class Overwriting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.add_(1))


def test_an_example_that_the_network_overwrites_is_not_changed():
    example = torch.zeros(3, 4)
    fold(Overwriting().eval(), example)
    assert not example.any()


class Dictionary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))

    def forward(self, batch: dict[str, Tensor], scale: float = 1.0) -> dict[str, Tensor]:
        return {"scores": self.net(batch["x"]) * scale, "same": batch["x"]}


def test_the_folded_network_is_called_as_the_network_is():
    model, batch = randomised(Dictionary()), {"x": torch.randn(3, 4)}
    folded = fold(model, (batch,)).module
    with torch.no_grad():
        expected, received = model(batch), folded(batch)
    assert list(received) == ["scores", "same"]
    torch.testing.assert_close(received["scores"], expected["scores"])
    with pytest.raises(ValueError, match=r"expected tensors for batch_x, and scale = 1.0, as in the example"):
        folded(batch, scale=2.0)


@dataclasses.dataclass
class Scores:
    scores: Tensor
    hidden: Any = None


class Named(OrderedDict[str, Any]):
    """A dictionary of its own class, like the output of a transformers model."""


class OwnContainers(Dictionary):
    def forward(self, x: Tensor, shift: Tensor) -> Any:
        return Named(first=Scores(self.net(x), [x, None, 3]), second=self.net(x + shift))


def test_containers_of_an_own_class_are_returned_and_arguments_are_told_by_name():
    model, x, shift = randomised(OwnContainers()), torch.randn(3, 4), torch.randn(3, 4)
    folded = fold(model, {"x": x, "shift": shift}).module
    with torch.no_grad():
        expected, received = model(x, shift), folded(shift=shift, x=x)
    assert (type(received), type(received["first"]), received["first"].hidden[1:]) == (Named, Scores, [None, 3])
    torch.testing.assert_close(received["first"].scores, expected["first"].scores)
    torch.testing.assert_close(received["second"], expected["second"])


class Counting(nn.Module):
    """Returns a number beside the tensor."""

    def __init__(self, number: Any) -> None:
        super().__init__()
        self.body, self.number = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), number

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        y = self.body(x)
        return y, self.number(y)


@pytest.mark.parametrize("number", [lambda y: y.shape[0], lambda y: y.sum().item()])
def test_a_number_that_depends_on_the_input_is_refused(number):
    with pytest.raises(ExportError, match="received a number that depends on the input"):
        fold(Counting(number).eval(), torch.rand(3, 4))


def test_a_constant_number_beside_the_outputs_is_returned():
    assert fold(Counting(lambda y: 0.5).eval(), torch.rand(3, 4)).module(torch.rand(5, 4))[1] == 0.5
