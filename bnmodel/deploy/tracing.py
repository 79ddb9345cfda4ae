"""`torch.export` without its messages, for more networks, and for recurrent layers of any length."""

import io
import logging
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch._subclasses import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.nn.modules import transformer

from bnmodel.deploy.axes import Axes
from bnmodel.deploy.errors import ExportError
from bnmodel.deploy.signature import FlatNetwork

aten = torch.ops.aten
LINSPACE = torch.linspace
DATA: Any = torch.Tensor.data
DEEPCOPY: Any = torch.Tensor.__deepcopy__


@contextmanager
def quiet() -> Iterator[None]:
    """Without gradients, and without the exporters' progress logs and warnings about their internals."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def export(
    network: torch.nn.Module, tensors: Sequence[Tensor], axes: Sequence[Axes], strict: bool = False
) -> torch.export.ExportedProgram:
    """`torch.export.export` of a network or a flat graph; `axes`: dynamic axes per input."""
    hints: tuple[Any, ...] = tuple(dict.fromkeys(chosen, torch.export.Dim.AUTO) for chosen in axes)
    shapes = hints
    if isinstance(network, FlatNetwork):
        shapes, network = (hints,), network.copy()  # what forward stores while it is traced has no values
    # it prints graphs that it cannot trace
    with quiet(), _traceable(), any_length(), redirect_stderr(io.StringIO()):
        return torch.export.export(network, tuple(tensors), dynamic_shapes=shapes, strict=strict)


@contextmanager
def _traceable() -> Iterator[None]:
    """Replace what torch.export or the formats lack: checks of values, linspace of a dynamic size, `tensor.data`,
    copies of tensors, and the fused kernels of torch's transformers.
    """
    replaced: list[tuple[Any, str, Any]] = [
        (transformer, "_detect_is_causal_mask", _given_causality),
        (torch, "linspace", _linspace),
        (torch.backends.mha, "get_fastpath_enabled", _never),
        (torch.Tensor, "data", property(_data, _set_data)),
        (torch.Tensor, "__deepcopy__", _deepcopy),
    ]
    if torchvision := sys.modules.get("torchvision.transforms._functional_tensor"):
        replaced.append((torchvision, "normalize", _normalize))
    with _replaced(replaced):
        yield


@contextmanager
def dynamic_linspace() -> Iterator[None]:
    """Let decompositions, such as affine_grid's, call torch.linspace with a dynamic size, which it would fix."""
    with _replaced([(torch, "linspace", _linspace)]):
        yield


@contextmanager
def _replaced(attributes: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """attributes: owner, name, and the value while the block runs."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in attributes]
    try:
        for owner, name, value in attributes:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def _given_causality(mask: Tensor | None, is_causal: bool | None = None, size: int | None = None) -> bool:
    """Without the transformer's comparison of its mask with a causal one, which only chooses an algorithm."""
    return bool(is_causal)


def _never() -> bool:
    return False


def _is_traced(tensor: Tensor) -> bool:
    return isinstance(tensor, (FakeTensor, FunctionalTensor))


def _data(tensor: Tensor) -> Tensor:
    """tensor.data; of a traced tensor as tensor.detach(), since the former would become a constant without values."""
    return tensor.detach() if _is_traced(tensor) else DATA.__get__(tensor)


def _set_data(tensor: Tensor, value: Tensor) -> None:
    """tensor.data = value; of a traced tensor as tensor.copy_(value), since the former would not be in the graph.

    `module.to` sets the data of parameters, to the same values.
    """
    if not _is_traced(tensor) or isinstance(tensor, torch.nn.Parameter):
        DATA.__set__(tensor, value)
    elif (tensor.shape, tensor.dtype) != (value.shape, value.dtype):
        raise ExportError(
            "forward sets `tensor.data` to a tensor of another shape or type; assign the new one to a variable"
        )
    else:
        tensor.copy_(value)


def _deepcopy(tensor: Tensor, memo: dict[int, Any]) -> Any:
    """copy.deepcopy(tensor); of a traced tensor as tensor.clone(), since its storage cannot be copied."""
    return memo.setdefault(id(tensor), tensor.clone()) if _is_traced(tensor) else DEEPCOPY(tensor, memo)


def _linspace(start: Any, end: Any, steps: Any = None, **options: Any) -> Tensor:
    """torch.linspace; with a dynamic number of steps, which torch.export would fix, as a torch.arange."""
    dtype = options.get("dtype") or torch.get_default_dtype()
    if not isinstance(steps, torch.SymInt) or not dtype.is_floating_point:
        return LINSPACE(start, end, steps, **options)
    positions = torch.arange(steps, **{**options, "dtype": dtype})
    step = (end - start) / positions[-1:].clamp(min=1)
    from_end = positions[-1:] - positions  # from the nearer end, as torch does
    return torch.where(positions <= from_end, start + step * positions, end - step * from_end)


def _normalize(image: Tensor, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> Tensor:
    """torchvision's, without its comparison of `std` with 0."""
    shift, scale = (torch.as_tensor(one, dtype=image.dtype).reshape(-1, 1, 1) for one in (mean, std))
    return image.sub_(shift).div_(scale) if inplace else (image - shift) / scale


@contextmanager
def exact_constants() -> Iterator[None]:
    """Let onnxscript's optimiser take only 0 for 0 and 1 for 1.

    With its tolerance of 1e-8, x / (norm + 1e-9) becomes x / norm, which is NaN where x is 0.
    """
    from onnxscript.rewriter import _matcher

    before = _matcher.math  # type: ignore[attr-defined]
    _matcher.math = SimpleNamespace(isclose=_equal_in_float32)  # type: ignore[attr-defined, assignment]
    try:
        yield
    finally:
        _matcher.math = before  # type: ignore[attr-defined]


def _equal_in_float32(found: float, sought: float, **_: float) -> bool:
    """Equal if `sought` is an integer, else up to float32's rounding."""
    return found == sought or (not float(sought).is_integer() and math.isclose(found, sought, rel_tol=2**-24))


@contextmanager
def any_length() -> Iterator[None]:
    """Give the tracer the shapes of an LSTM's and a GRU's results.

    It would otherwise unroll their time steps, which fixes the number of steps and is slow.
    """
    shapes: dict[Any, Callable[..., Any]] = {aten.lstm.input: _lstm_results, aten.gru.input: _gru_results}
    before = {target: (decomposition_table[target], dict(target.py_kernels)) for target in shapes}
    try:
        for target, results in shapes.items():
            decomposition_table[target] = results
            target.py_kernels.update(dict.fromkeys(target.py_kernels, results))
            target._dispatch_cache.clear()
        yield
    finally:
        for target, (decomposition, kernels) in before.items():
            decomposition_table[target] = decomposition
            target.py_kernels.update(kernels)
            target._dispatch_cache.clear()


def _lstm_results(input: Tensor, hx: Sequence[Tensor], params: Sequence[Tensor], *options: Any) -> tuple[Tensor, ...]:
    return *_gru_results(input, hx[0], params, *options), torch.empty_like(hx[1])


def _gru_results(input: Tensor, hx: Tensor, params: Sequence[Tensor], *options: Any) -> tuple[Tensor, ...]:
    """options: has_biases, num_layers, dropout, train, bidirectional, batch_first."""
    size = hx.shape[-1] * (2 if options[4] else 1)
    return input.new_empty([*input.shape[:-1], size]), torch.empty_like(hx)
