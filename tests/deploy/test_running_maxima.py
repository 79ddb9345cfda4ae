"""Running maxima become max pooling in ONNX files, with the same values."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from graph_helpers import Function, Of, graph_of
from torch import Tensor

from bnmodel.data.ruled_lines import around
from bnmodel.data.shadows import highest
from bnmodel.deploy import certify
from bnmodel.deploy.running_maxima import with_pooling

X = torch.zeros(4, 20, 24)
POOL = torch.ops.aten.max_pool2d.default


def maximum(*values: Tensor) -> Tensor:
    first, *rest = values
    return torch.maximum(first, maximum(*rest)) if rest else first


def of_columns(x: Tensor) -> Tensor:
    return maximum(x[:, :, :-2], x[:, :, 1:-1], x[:, :, 2:])


def twice(x: Tensor) -> Tensor:
    """A maximum of three rows that is needed itself, and one of five."""
    three = maximum(x[:, :-2], x[:, 1:-1], x[:, 2:])
    return three[:, 1:-1] + maximum(three[:, :-2], three[:, 2:])


def slices_of_slices(x: Tensor) -> Tensor:
    return maximum(x[:, 1:][:, 1:], x[:, :-1][:, :-1], x[:, 1:][:, :-1])


def padded(x: Tensor, pads: tuple[int, int, int, int], mode: str = "replicate") -> Tensor:
    framed = F.pad(x, pads, mode)
    return maximum(framed[:, :-2], framed[:, 1:-1], framed[:, 2:])


OTHERS: dict[str, Function] = {
    "a gap": lambda x: maximum(x[:, :-4], x[:, 1:-3], x[:, 4:]),
    "of two rows": lambda x: maximum(x[:, :-1], x[:, 1:]),
    "without the first row": lambda x: maximum(x[:, 1:-2], x[:, 2:-1], x[:, 3:]),
    "without the last row": lambda x: maximum(x[:, :-3], x[:, 1:-2], x[:, 2:-1]),
    "of channels": lambda x: maximum(x[:-2], x[1:-1], x[2:]),
    "every other row": lambda x: maximum(x[:, :-2:2], x[:, 1:-1:2], x[:, 2::2]),
    "rows and columns": lambda x: maximum(x[:, :-2, 1:-1], x[:, 1:-1, 2:], x[:, 2:, :-2]),
    "of different values": lambda x: maximum(x[:, :-2], (2 * x)[:, 1:-1], x[:, 2:]),
    "of an image without channels": lambda x: maximum(x[0, :-2], x[0, 1:-1], x[0, 2:]),
    "of integers": lambda x: of_columns(x.to(torch.int64)),
    "broadcast": lambda x: maximum(x[:, 2:3], x[:, 0:18], x[:, 1:19]),
    "of half precision": lambda x: of_columns(x.half()),
    "minima": lambda x: torch.minimum(torch.minimum(x[:, :-2], x[:, 1:-1]), x[:, 2:]),
}


@pytest.mark.parametrize(
    ("function", "kernels"),
    [(around, [[3, 3]]), (highest, [[13, 13]]), (of_columns, [[1, 3]]), (twice, [[3, 1], [5, 1]]),
     (slices_of_slices, [[3, 1]])],
)  # fmt: skip
def test_running_maxima_are_pooled(function: Function, kernels: list[list[int]]) -> None:
    graph = graph_of(function, X)
    before = str(graph.graph)
    pooled = with_pooling(graph)
    assert pooled is not None
    assert str(graph.graph) == before
    assert [node.args[1] for node in pooled.graph.nodes if node.target is POOL] == kernels
    x = torch.randn(4, 20, 24)
    torch.testing.assert_close(pooled(x), function(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("function", "kernel", "padding"),
    [
        (around, [3, 3], [1, 1]),
        (lambda x: around(around(x)), [5, 5], [2, 2]),
        (lambda x: around(x[None])[0], [3, 3], [1, 1]),
        (lambda x: padded(x, (0, 0, 1, 1)), [3, 1], [1, 0]),
        (lambda x: padded(x, (0, 0, 2, 2)), [3, 1], [0, 0]),
        (lambda x: padded(x, (0, 0, 1, 0)), [3, 1], [0, 0]),
        (lambda x: padded(x, (0, 0, 1, 1), "constant"), [3, 1], [0, 0]),
    ],
    ids=["one", "two", "several images", "rows", "wider than the window", "on one side", "with zeros"],
)
def test_only_padding_that_repeats_the_edge_is_part_of_pooling(
    function: Function, kernel: list[int], padding: list[int]
) -> None:
    pooled = with_pooling(graph_of(function, X))
    assert pooled is not None
    (pool,) = [node for node in pooled.graph.nodes if node.target is POOL]
    assert pool.args[1:] == (kernel, [1, 1], padding)
    x = -torch.rand(4, 20, 24)  # less than the zeros of padding
    torch.testing.assert_close(pooled(x), function(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", OTHERS)
def test_other_maxima_stay(name: str) -> None:
    assert with_pooling(graph_of(OTHERS[name], X)) is None


def test_the_onnx_file_pools_and_the_others_slice(tmp_path: Path) -> None:
    x = torch.randn(4, 20, 24)
    assert all(check.passed for check in certify(Of(around).eval(), (x,), tmp_path, dynamic=False))
    path = tmp_path / "model.onnx"
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert "MaxPool" in kinds
    assert not {"Max", "Slice"} & set(kinds)
    assert not [node for node in torch.export.load(tmp_path / "model.pt2").graph.nodes if node.target is POOL]
    result = onnxruntime.InferenceSession(path).run(None, {"x": x.numpy()})[0]
    np.testing.assert_array_equal(result, around(x).numpy())
