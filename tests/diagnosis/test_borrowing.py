"""The model, its attributes and the random state are left exactly as they were."""

import copy
import random
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.diagnosis import networks as zoo
from bnmodel.diagnosis import diagnose, recalibrate


def state_of(model: nn.Module) -> dict[str, Any]:
    return {
        "modes": [m.training for m in model.modules()],
        "buffers": {n: (id(b), b.clone()) for n, b in model.named_buffers()},
        "parameters": {n: (id(p), p.clone(), p.requires_grad, p.grad) for n, p in model.named_parameters()},
        "hooks": [(len(m._forward_pre_hooks), len(m._forward_hooks)) for m in model.modules()],
        "options": [(m.momentum, m.track_running_stats) for m in model.modules() if hasattr(m, "momentum")],
        "random": (torch.get_rng_state(), random.getstate(), np.random.get_state()[1]),  # noqa: NPY002
        "gradients": torch.is_grad_enabled(),
    }


def same(before: Any, after: Any) -> bool:
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(same(before[key], after[key]) for key in before)
    if isinstance(before, (list, tuple)):
        return len(before) == len(after) and all(map(same, before, after))
    if isinstance(before, (Tensor, np.ndarray)):
        return bool((before == after).all())
    return bool(before == after)


class Remembering(nn.Module):
    """Keeps its last output and counts its calls in attributes."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls, self.sizes, self.last = inner, 0, [], torch.zeros(0)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.sizes.append(len(x))
        self.last = self.inner(x)
        return self.last


def test_attributes_that_the_model_sets_are_restored(drifted: nn.Module, digits: zoo.Data) -> None:
    model = Remembering(drifted.train())
    last = model(digits.test[0][:8])
    diagnose(model, digits.batches())
    assert (model.calls, model.sizes) == (1, [8])
    assert model.last is last
    cured = recalibrate(model, digits.batches(64, "train"))  # a copy, though `last` has a graph
    assert diagnose(cured.eval(), digits.batches()).sound


class Collecting(Remembering):
    """Keeps what it saw in containers of all kinds, also nested ones."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.recent: deque[int] = deque(maxlen=3)
        self.counted: defaultdict[int, list[int]] = defaultdict(list)
        self.ordered: OrderedDict[str, int] = OrderedDict(first=0)
        self.seen: set[int] = set()
        self.sizes.append(self.sizes)  # a cycle
        self.sums, self.kept, self.array = torch.zeros(3), [torch.zeros(2)], np.zeros(2)
        self.generators = [torch.Generator(), random.Random(0), np.random.default_rng(0)]

    def forward(self, x: Tensor) -> Tensor:
        self.recent.append(len(x))
        self.counted[8].append(len(x))
        self.ordered[str(len(x))] = len(x)
        self.seen.add(len(x))
        self.sums.add_(1)
        self.kept[0].add_(1)
        self.array += 1
        torch.rand(1, generator=self.generators[0])
        self.generators[1].random()
        self.generators[2].random()
        return self.inner(x)


def drawn(generators: list[Any]) -> list[float]:
    return [generator.random() for generator in generators]


def test_containers_of_all_kinds_are_restored(drifted: nn.Module, digits: zoo.Data) -> None:
    model = Collecting(drifted)
    model(digits.test[0][:8])
    inner = model.counted[8]
    expected = drawn(copy.deepcopy(model.generators[1:])), model.generators[0].get_state()
    diagnose(model, digits.batches())
    assert (list(model.recent), dict(model.counted), model.seen) == ([8], {8: [8]}, {8})
    assert model.recent.maxlen == 3
    assert list(model.ordered.items()) == [("first", 0), ("8", 8)]
    assert model.counted[8] is inner
    assert model.sums.tolist() == [1, 1, 1]
    assert model.kept[0].tolist() == [1, 1]
    assert model.array.tolist() == [1, 1]
    assert torch.equal(model.generators[0].get_state(), expected[1])
    assert drawn(model.generators[1:]) == expected[0]


class Memory:
    """A class of this file, as its networks."""

    def __init__(self) -> None:
        self.calls, self.sizes, self.last = 0, [0], torch.zeros(1)


@dataclass
class Counted:
    calls: int = 0


class Delegating(Remembering):
    """Keeps what it saw in objects."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.memory, self.several = Memory(), [Counted(), SimpleNamespace(calls=0)]

    def forward(self, x: Tensor) -> Tensor:
        for each in (self.memory, *self.several):
            each.calls += 1
        self.memory.sizes.append(len(x))
        self.memory.last.add_(1)
        return self.inner(x)


def test_objects_that_keep_state_are_restored(drifted: nn.Module, digits: zoo.Data) -> None:
    model = Delegating(drifted)
    diagnose(model, digits.batches())
    assert [each.calls for each in (model.memory, *model.several)] == [0, 0, 0]
    assert model.memory.sizes == [0]
    assert model.memory.last.item() == 0


def test_reading_from_a_loader_keeps_the_random_state(cnn: nn.Module, digits: zoo.Data) -> None:
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*digits.test), 50, shuffle=True)
    before = torch.get_rng_state()
    diagnose(cnn, loader)
    assert torch.equal(before, torch.get_rng_state())


def test_compiled_parts_are_not_compiled_again(drifted: nn.Module, digits: zoo.Data) -> None:
    graphs = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    model = nn.Sequential(torch.compile(drifted, backend=backend), nn.Identity()).eval()
    with torch.no_grad():
        model(digits.test[0])
    count = len(graphs)
    assert diagnose(model, digits.batches()).has_errors
    assert len(graphs) == count > 0


@pytest.mark.parametrize("raises", [False, True])
def test_the_model_is_left_exactly_as_it_was(drifted: nn.Module, digits: zoo.Data, raises: bool) -> None:
    drifted.train()
    drifted.get_submodule("5").eval()
    drifted.get_submodule("1").weight.requires_grad_(False)
    drifted.get_submodule("10").register_forward_pre_hook(lambda *_: None)
    digits.loss(drifted(digits.test[0][:8]), digits.test[1][:8]).backward()
    before, calls = state_of(drifted), []

    def forward(model: nn.Module, batch: Any) -> Tensor:
        calls.append(torch.rand(1))
        random.random()
        np.random.rand()  # noqa: NPY002
        if raises and len(calls) > 10:
            raise RuntimeError("of the model")
        return model(batch[0])

    if raises:
        with pytest.raises(RuntimeError, match="of the model"):
            diagnose(drifted, digits.batches(), forward=forward)
    else:
        diagnose(drifted, digits.batches(), forward=forward)
    assert same(before, state_of(drifted))
