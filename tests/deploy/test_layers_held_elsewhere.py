"""Layers that a network calls without holding them as modules: refused before they run, since eval() misses them."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from norm_helpers import Body, X
from torch import Tensor, nn

from bnmodel.deploy import ExportError, certify, fold
from bnmodel.deploy.preflight import only_its_layers


def head() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))


class Holder:
    """An object that is no module."""

    def __init__(self, layers: nn.Module) -> None:
        self.layers = layers


class InClosure(Body):
    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.tail = lambda x: layers(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.body(x))


class InObject(Body):
    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.holder = Holder(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.holder.layers(self.body(x))


@pytest.mark.parametrize("make", [InClosure, InObject])
@pytest.mark.parametrize("training", [True, False])
def test_a_layer_that_eval_does_not_reach_is_refused_and_does_not_run(make, training, tmp_path):
    layers = head().train(training)
    with pytest.raises(ExportError, match="Sequential: the network calls this layer, but does not hold it"):
        certify(make(layers).eval(), X, tmp_path / "new")
    assert layers[1].num_batches_tracked == 0
    assert not (tmp_path / "new").exists()


class Spare(Body):
    """Holds a layer in a list and does not call it; makes a layer without weights in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = [head()]

    def forward(self, x: Tensor) -> Tensor:
        return nn.ReLU()(self.body(x))


class CompiledPart(Body):
    def __init__(self) -> None:
        super().__init__()
        self.tail = torch.compile(head(), backend="eager")

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.body(x))


class Plain(Body):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def patched() -> nn.Module:
    """A network whose forward was replaced by a function that calls the former one."""
    network = Plain()
    before = network.forward
    network.forward = lambda x: 2 * before(x)
    return network


@pytest.mark.parametrize(("make", "count"), [(CompiledPart, 2), (patched, 1)])
def test_compiled_parts_and_replaced_forwards_are_accepted(make, count):
    network = make().eval()
    folded = fold(network, X)
    assert len(folded.folded) == count
    torch.testing.assert_close(folded.module(X), network(X).detach(), rtol=1e-4, atol=1e-5)


def test_layers_that_are_not_called_or_have_no_weights_are_accepted():
    assert fold(Spare().eval(), X).folded == ["norm"]


def test_other_threads_may_call_their_networks_meanwhile():
    with only_its_layers(head()), ThreadPoolExecutor(1) as server:
        server.submit(Holder(head()).layers, torch.rand(2, 4, 3, 3)).result()
