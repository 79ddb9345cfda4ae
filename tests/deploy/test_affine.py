"""Scaling before a view equals viewing and then scaling by the moved scale."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bnmodel.deploy import affine

SHAPES = [(2, 3, 4), (2, 12), (6, 4), (24,), (2, 3, 2, 2), (1, 2, 3, 4), (2, 1, 12), (4, 6), (3, 8), (2, 3, 4, 1)]


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.sampled_from(SHAPES), st.sampled_from(SHAPES), st.integers(0, 3), st.integers(0, 100))
def test_scaling_and_viewing_commute(before, after, axis, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(before, generator=generator, dtype=torch.float64)
    sizes = [1] * len(before)
    sizes[axis % len(before)] = before[axis % len(before)]
    scale = torch.rand(sizes, generator=generator, dtype=torch.float64)
    moved = affine.reshaped(scale, before, after)
    assert moved is not None  # all sizes are known
    torch.testing.assert_close((x * scale).reshape(after), x.reshape(after) * moved, rtol=0, atol=0)


def test_views_of_unknown_sizes_are_followed_only_where_they_keep_channels_apart():
    class Views(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1), x.flatten(0, 1), x.view(x.shape[0], 2, 3, 4)

    program = torch.export.export(
        Views(), (torch.rand(5, 6, 4),), dynamic_shapes=({0: torch.export.Dim.AUTO},), strict=False
    )
    values = [node.meta["val"] for node in program.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)]
    nodes = {tuple(map(str, value.shape[1:])): value.shape for value in values}
    before = nodes[("6", "4")]
    scale = torch.rand(1, 6, 1, dtype=torch.float64)
    assert affine.reshaped(scale, before, nodes[("24",)]).shape == (1, 24)
    assert affine.reshaped(scale, before, nodes[("2", "3", "4")]).shape == (1, 2, 3, 1)
    assert affine.reshaped(scale, before, nodes[("4",)]) is None  # (N · 6, 4): the channel is lost in the batch
    assert affine.reshaped(torch.rand(1, 1, 4), before, nodes[("4",)]).shape == (1, 4)


@pytest.mark.parametrize("order", [(0, 2, 1), (2, 0, 1)])
def test_a_permutation_is_undone_by_its_inverse(order):
    scale = torch.rand(2, 3, 4)
    back = scale.permute(order).permute(affine.inverse(order))
    assert torch.equal(back, scale)
