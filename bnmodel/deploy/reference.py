"""The reference of all comparisons: a network evaluated in float64, also if it casts to other types.

A copy in `double()` is not enough for a network that casts (`x.float()`, `torch.zeros(…, dtype=torch.float32)`).
`InFloat64` replaces every floating type below float64 while the network runs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from bnmodel.deploy.allowance import UNIT_ROUNDOFF
from bnmodel.deploy.copying import detached_copy, unregistered
from bnmodel.deploy.errors import ExportError, first_line
from bnmodel.deploy.signature import FlatNetwork, named_tensors

WIDE = {
    torch.float32: torch.float64,
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.complex64: torch.complex128,
}


def widened(tensor: Tensor) -> Tensor:
    """A floating tensor in float64 (complex128); others as they are."""
    return tensor.to(WIDE[tensor.dtype]) if tensor.dtype in WIDE else tensor


class InFloat64(TorchDispatchMode):
    """While active, operators compute in float64 instead of smaller floating types."""

    supports_higher_order_operators = True  # torch.cond runs one of its branches, whose operators come here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        written = _written(func)
        given = [_wide(arg) if index not in written else _wide_type(arg) for index, arg in enumerate(args)]
        options = {name: _wide(value) if name != "out" else value for name, value in (kwargs or {}).items()}
        return func(*given, **options)


def _written(func: Any) -> set[int]:
    """Positions of the arguments that an operator writes to; those keep their storage."""
    arguments = func._schema.arguments if hasattr(func, "_schema") else ()
    return {index for index, arg in enumerate(arguments) if arg.alias_info is not None and arg.alias_info.is_write}


def _wide(value: Any) -> Any:
    return tree_map(lambda leaf: widened(leaf) if isinstance(leaf, Tensor) else _wide_type(leaf), value)


def _wide_type(value: Any) -> Any:
    return WIDE.get(value, value) if isinstance(value, torch.dtype) else value


@contextmanager
def float64() -> Any:
    """Evaluate in float64, without gradients."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), InFloat64():  # type: ignore[no-untyped-call]
            yield
    finally:
        torch.set_default_dtype(before)


def _tensors(network: nn.Module, remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters(remove_duplicate=remove_duplicate)
    yield from network.named_buffers(remove_duplicate=remove_duplicate)


class Reference:
    """`network` in float64, as a function from a list of tensors to a list of float64 (or integer) tensors."""

    def __init__(self, network: FlatNetwork) -> None:
        self.original = network
        self.network = detached_copy(network).double()
        for part in unregistered(self.network):
            part.double()

    def rounded(self, seed: int = 0) -> "Reference":
        """A copy with every parameter and buffer moved up or down by twice the unit roundoff of its original type.

        One unit stands for the rounding of folded weights, the other for that of a runtime's products.
        """
        moved = Reference(self.original)
        generator = torch.Generator().manual_seed(seed)
        before = dict(_tensors(self.original, remove_duplicate=False))
        with torch.no_grad():
            for name, new in _tensors(moved.network):  # double() gives each of two layers that share a buffer its own
                old = before[name]
                unit = UNIT_ROUNDOFF.get(str(old.dtype).removeprefix("torch."))
                if unit is not None and new.is_floating_point():
                    signs = torch.randint(0, 2, new.shape, generator=generator) * 2 - 1
                    new.mul_(1 + 2 * unit * signs)
        return moved

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Raises: ExportError if an operator cannot be evaluated in float64."""
        try:
            with float64():
                outputs = self.network(*(widened(tensor.clone()) for tensor in tensors))
            return [widened(output).clone() for output in outputs]
        except ExportError:
            raise
        except Exception as error:
            raise ExportError(
                f"{type(self.network.model).__name__} cannot be evaluated in float64, against which exported files are "
                f"compared: {first_line(error)}"
            ) from error


def evaluated(network: FlatNetwork, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The network's outputs in their own types, as a flat list.

    Raises:
        ExportError: the network raises on this input.
    """
    return [output.detach().clone() for _, output in named_tensors(called(network, tensors))]


def called(network: FlatNetwork, tensors: Sequence[Tensor]) -> Any:
    """The network's output as it returns it; `tensors` are not changed.

    Raises:
        ExportError: the network raises on this input.
    """
    try:
        with torch.no_grad():
            return network.call(*(tensor.clone() for tensor in tensors))
    except ExportError:
        raise
    except Exception as error:
        sizes = ", ".join(str(list(tensor.shape)) for tensor in tensors)
        raise ExportError(
            f"{type(network.model).__name__} raises on the example {sizes}: {first_line(error)}; "
            "pass inputs that the network accepts"
        ) from error
