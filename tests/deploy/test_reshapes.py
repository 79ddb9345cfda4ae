"""Successive changes of shape are merged, with the same values."""

import pytest
import torch
from graph_helpers import Function, Of, graph_of

from bnmodel.deploy.nodes import operator_name
from bnmodel.deploy.reshapes import merge_reshapes

CASES: dict[str, tuple[Function, list[str]]] = {
    "undone": (lambda x: x.unsqueeze(0).squeeze(0) + 1, ["add"]),
    "several": (lambda x: x.flatten().view(2, 30, 2)[None].relu(), ["reshape", "relu"]),
    "one part of one": (lambda x: x[None][0].relu(), ["relu"]),
    "one part of several": (lambda x: x[0][None].relu(), ["select", "reshape", "relu"]),
    "transposed": (lambda x: x.t().reshape(2, 60).flatten().relu(), ["t", "reshape", "relu"]),
    "transposed back": (lambda x: x.t()[None][0].relu(), ["t", "relu"]),
    "used twice": (lambda x: x[None] + x[None].relu().squeeze(0), ["reshape", "reshape", "relu", "reshape", "add"]),
}


@pytest.mark.parametrize("name", CASES)
def test_changes_of_shape_are_merged(name: str) -> None:
    function, operators = CASES[name]
    x = torch.randn(10, 12)
    graph = graph_of(function, x)
    merge_reshapes(graph.graph)
    graph.recompile()
    assert [operator_name(node) for node in graph.graph.nodes if operator_name(node)] == operators
    torch.testing.assert_close(graph(x), function(x), rtol=0, atol=0)


def test_those_of_dynamic_shape_stay() -> None:
    x = torch.randn(10, 12)
    sizes = ({0: torch.export.Dim("n", min=2)},)
    graph = torch.export.export(Of(lambda x: x.unsqueeze(0).squeeze(0) + 1), (x,), dynamic_shapes=sizes).module()
    merge_reshapes(graph.graph)
    graph.recompile()
    assert "unsqueeze" in [operator_name(node) for node in graph.graph.nodes]
    torch.testing.assert_close(graph(torch.ones(3, 12)), torch.full((3, 12), 2.0))
