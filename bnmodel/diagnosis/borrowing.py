"""Borrow a model: eval mode without gradients, everything restored afterwards."""

import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import is_dataclass
from functools import partial
from itertools import chain
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

GENERATORS = (torch.Generator, np.random.Generator, random.Random)
CONTAINERS = (list, deque, dict, set)
PLAIN = (bool, int, float, str, type(None))  # most attributes: skipped early, since isinstance(…, Tensor) is slow


def bare(model: nn.Module) -> nn.Module:
    """The module without the wrappers of torch.compile, DataParallel and DistributedDataParallel, which skip hooks."""
    while True:
        if isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        else:
            return model


def device_of(model: nn.Module) -> torch.device | None:
    """Device of the first parameter or buffer; None if there is none."""
    return next((tensor.device for tensor in chain(model.parameters(), model.buffers())), None)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Restore the global random state of torch, CUDA, NumPy and Python afterwards."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def _eagerly() -> AbstractContextManager[Any]:
    """Run compiled parts eagerly, since hooks would make them compile again; without torch._dynamo there are none."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _contents(
    attributes: Iterable[dict[str, Any]], files: set[str]
) -> tuple[list[Any], list[Tensor | np.ndarray], list[Any]]:
    """Lists, deques, dicts and sets among `attributes` and inside them; tensors, arrays and random generators in these.

    The attributes of an object are such a dict if it is a data class or its class is defined in one of the Python
    modules `files`. Other objects, such as a trainer, may refer to anything.
    """
    found: dict[int, Any] = {}
    tensors: dict[int, Tensor | np.ndarray] = {}
    generators: list[Any] = []
    waiting = [value for own in attributes for value in own.values()]
    while waiting:
        value = waiting.pop()
        if isinstance(value, CONTAINERS):
            if id(value) not in found:
                found[id(value)] = value
                waiting += value.values() if isinstance(value, dict) else value
        elif type(value) in PLAIN:
            continue
        elif isinstance(value, (Tensor, np.ndarray)):
            tensors[id(value)] = value
        elif isinstance(value, GENERATORS):
            generators.append(value)
        elif _holds_state(value, files):
            waiting.append(vars(value))
    return list(found.values()), list(tensors.values()), generators


def _holds_state(value: Any, files: set[str]) -> bool:
    plain = not isinstance(value, (type, nn.Module)) and hasattr(value, "__dict__")
    return plain and (isinstance(value, SimpleNamespace) or is_dataclass(value) or type(value).__module__ in files)


def _restorer(generator: Any) -> Callable[[], object]:
    """A function that sets `generator` back to its present state."""
    if isinstance(generator, torch.Generator):
        return partial(generator.set_state, generator.get_state())
    if isinstance(generator, random.Random):
        return partial(generator.setstate, generator.getstate())
    return partial(setattr, generator.bit_generator, "state", generator.bit_generator.state)


@contextmanager
def borrowed(model: nn.Module) -> Iterator[None]:
    """Put `model` into eval mode without gradients; restore attributes, buffers and random state afterwards."""
    attributes = [(module, dict(vars(module))) for module in model.modules()]  # `training` is one
    containers, tensors, generators = _contents(
        [own for _, own in attributes], {type(module).__module__ for module, _ in attributes}
    )
    copies = [(value, dict(value) if isinstance(value, dict) else list(value)) for value in containers]
    registered = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    others = [tensor for tensor in tensors if id(tensor) not in registered]
    restorers = [_restorer(generator) for generator in generators]
    arrays = [(array, array.copy()) for array in others if isinstance(array, np.ndarray)]
    kept = (*model.buffers(), *(tensor for tensor in others if isinstance(tensor, Tensor)))
    contents = [(tensor, tensor.detach().clone()) for tensor in kept]
    with random_state_kept(), torch.no_grad(), _eagerly():
        try:
            for module, _ in attributes:
                module.training = False
            yield
        finally:
            for module, own in attributes:
                vars(module).clear()
                vars(module).update(own)
            for container, before in copies:
                container.clear()
                container.extend(before) if isinstance(container, (list, deque)) else container.update(before)
            for restore in restorers:
                restore()
            for array, values in arrays:
                if array.flags.writeable:
                    array[...] = values
            for tensor, content in contents:
                if not torch.equal(tensor, content):
                    tensor.detach().copy_(content)
