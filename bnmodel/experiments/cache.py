"""Cache results by the content of the arguments: networks and tensors with the same bytes are the same key."""

import hashlib
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from cachetools import LRUCache, cached
from torch import Tensor, nn

P = ParamSpec("P")
R = TypeVar("R")
_constant: WeakKeyDictionary[nn.Module, Hashable] = WeakKeyDictionary()  # network → its digest


def cache_by_content(maxsize: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """An LRU cache of `maxsize` results for a function of networks, tensors and hashable values.

    Results are shared: do not modify them.
    """
    return cached(LRUCache(maxsize), key=content_key, lock=Lock())


def hold_constant(network: nn.Module) -> None:
    """Compute the digest of `network` once, since it will not change any more; its copies may."""
    _constant[network] = content(network)


def content_key(*args: Any, **kwargs: Any) -> Hashable:
    """The arguments of a call, with networks and tensors replaced by digests."""
    return (*map(content, args), *((name, content(value)) for name, value in sorted(kwargs.items())))


def content(value: Any) -> Any:
    """A hashable digest of a network or tensor; any other value is returned as it is."""
    if isinstance(value, Tensor):
        return _digest(value)
    if isinstance(value, nn.Module):
        if value in _constant:
            return _constant[value]
        return repr(value), value.training, *((name, _digest(tensor)) for name, tensor in value.state_dict().items())
    return value


def _digest(tensor: Tensor) -> tuple[Any, ...]:
    array = tensor.detach().cpu().contiguous().numpy()
    return array.shape, array.dtype.str, hashlib.sha256(array.data).digest()  # with the processor's help
