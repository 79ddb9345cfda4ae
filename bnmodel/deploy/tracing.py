"""`torch.export` without its messages, and with torch's transformer made traceable."""

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules import transformer

from bnmodel.deploy.axes import Axes
from bnmodel.deploy.signature import FlatNetwork


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


def export(network: torch.nn.Module, tensors: Sequence[Tensor], axes: Sequence[Axes]) -> torch.export.ExportedProgram:
    """`torch.export.export` of a network or a flat graph; `axes`: dynamic axes per input."""
    hints: tuple[Any, ...] = tuple(dict.fromkeys(chosen, torch.export.Dim.AUTO) for chosen in axes)
    shapes = (hints,) if isinstance(network, FlatNetwork) else hints
    with quiet(), _masks_as_given(), redirect_stderr(io.StringIO()):  # it prints graphs that it cannot trace
        return torch.export.export(network, tuple(tensors), dynamic_shapes=shapes, strict=False)


@contextmanager
def _masks_as_given() -> Iterator[None]:
    """Skip the transformer's comparison of its mask with a causal one: a branch on values cannot be traced.

    The comparison only chooses an algorithm; the mask is applied either way.
    """
    before = transformer._detect_is_causal_mask
    transformer._detect_is_causal_mask = lambda mask, is_causal=None, size=None: bool(is_causal)
    try:
        yield
    finally:
        transformer._detect_is_causal_mask = before
