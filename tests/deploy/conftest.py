"""Fixtures for the tests of the export."""

import copy
import functools
from collections.abc import Iterator

import pytest
import torch._export.utils
from torch.onnx._internal.exporter._registration import ONNXRegistry


@pytest.fixture(scope="session", autouse=True)
def conversions_are_listed_once() -> Iterator[None]:
    """Let torch list operators and their conversions to ONNX once: that is half of the export of a small network."""
    listed = functools.cache(ONNXRegistry.from_torchlib)

    def from_torchlib(**options: int) -> ONNXRegistry:
        registry = copy.copy(listed(**options))
        registry.functions = {name: list(conversions) for name, conversions in registry.functions.items()}
        return registry

    with pytest.MonkeyPatch.context() as patched:
        materialise = functools.cache(torch._export.utils._materialize_cpp_cia_ops)
        patched.setattr(torch._export.utils, "_materialize_cpp_cia_ops", materialise)
        patched.setattr(ONNXRegistry, "from_torchlib", staticmethod(from_torchlib))
        yield
