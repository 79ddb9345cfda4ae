"""Dynamic axes: an axis varies only if the files are right at other sizes; a size that cannot vary is named."""

import math
import operator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from norm_helpers import Body, X
from torch import Tensor, nn

from bnmodel.deploy import ExportError, certify, fold, golden, load
from bnmodel.deploy.axes import dynamic_axes
from bnmodel.deploy.formats import torchscript
from bnmodel.deploy.loading import FORMATS
from bnmodel.deploy.sizes import plain_sizes
from bnmodel.deploy.tracing import export


class Views(Body):
    """Two views of each sample, one after the other in a batch of 2 · N."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        z = self.body(torch.cat([x, x.flip(-1)])).mean((2, 3))
        a, b = z.chunk(2)
        c, d = z.split(x.size(0))
        e, f = z.split([x.shape[0], x.shape[0]])
        return a * b, c - d, e + f


class Stored(Body):
    """Returns constants, as detectors return their anchors."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.body(x), self.norm.running_mean, torch.arange(3.0) * 2


class InDouble(Body):
    """Takes and returns float64, and computes in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.float()).double()


class CountedInATensor(Body):
    """Computes a size from a tensor's value."""

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.tensor(2 * x.size(0)).item()
        return self.body(x).reshape(rows, -1)


@pytest.mark.parametrize("make", [Views, Stored, InDouble, CountedInATensor])
def test_all_formats_give_the_answers_at_another_batch_size(make, tmp_path):
    network, x = make().eval(), X.double() if make is InDouble else X
    certify(network, x, tmp_path, formats=FORMATS)
    other = torch.rand(7, *x.shape[1:], dtype=x.dtype)
    expected = network(other)
    for format in FORMATS:
        received = load(tmp_path, format=format)(other.numpy()).values()
        for one, tensor in zip(received, expected if isinstance(expected, tuple) else [expected], strict=True):
            np.testing.assert_allclose(one, tensor.detach().numpy(), rtol=1e-4, atol=1e-5)


class Similarity(Body):
    """Compares every sample with every other one."""

    def forward(self, x: Tensor) -> Tensor:
        z = F.normalize(self.body(x).flatten(1))
        return z @ z.T


def test_a_matrix_of_similarities_has_the_batch_on_both_axes(tmp_path):
    certify(Similarity().eval(), X, tmp_path, formats=FORMATS)
    assert load(tmp_path).metadata["outputs"][0]["shape"] == ["N", "N"]
    assert load(tmp_path)(torch.rand(6, 3, 9, 9).numpy())["output"].shape == (6, 6)


class FixedByLoop(Body):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([sample * 2 for sample in self.body(x)])


class Indexed(Body):
    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        return self.body(x)[index]


class OtherFrom300On(Body):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) if x.shape[0] < 300 else self.body(x) * 2


@pytest.mark.parametrize(
    ("make", "example", "why"),
    [
        (FixedByLoop, X, "fixed at 4"),
        (Indexed, (X, torch.tensor([0, 3, 1, 1])), "fixed at 4: the network raises for parts of the example"),
        (OtherFrom300On, X, "fixed at 4: the network computes something else at N = 384"),
    ],
)
def test_the_batch_is_fixed_where_the_graph_is_right_for_one_size(make, example, why, tmp_path):
    with pytest.warns(UserWarning, match=why):
        certify(make().eval(), example, tmp_path, formats="torchscript")
    assert load(tmp_path).metadata["inputs"][0]["shape"][0] == 4


class Wider(Body):
    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return y if x.shape[3] <= 100 else self.after(y)


class Chunked(Body):
    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return y if x.shape[3] <= 100 else torch.cat([y[..., :50], y[..., 50:]], -1)


def test_a_branch_on_a_size_that_was_asked_to_vary_is_refused_and_one_that_makes_no_difference_is_not(tmp_path):
    for exported in (
        lambda network: certify(network, X, tmp_path, dynamic=(3,)),
        lambda network: fold(network, X, (3,)),
    ):
        with pytest.raises(ExportError, match=r"W = 128 than at 9, since its control flow depends on sizes"):
            exported(Wider().eval())
        exported(Chunked().eval())


class SingleRow(Body):
    """Treats an image of one row in another way; a tracer takes every dynamic size for 2 or more."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(F.pad(x, (1, 1, 1, 1)))
        return y if x.shape[2] > 1 else self.after(y)


class Halves(Body):
    """Returns two tensors, or one for an image that is one pixel wide."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.body(F.pad(x, (1, 1, 1, 1))).chunk(2, -1)


class Strips(Body):
    """Goes through strips of four columns, three in the example; a graph of three is right for any smaller image."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([strip * 2 for strip in self.body(F.pad(x, (1, 1, 1, 1))).split(4, 3)], 3)


def test_larger_sizes_are_compared_although_many_smaller_ones_agree(tmp_path):
    with pytest.raises(ExportError, match=r"something else at W = 16 than at 10"):
        fold(Strips().eval(), torch.rand(4, 3, 9, 10), (3,))


def test_a_branch_for_a_size_of_1_is_refused_and_another_number_of_outputs_there_is_not_compared(tmp_path):
    with pytest.raises(ExportError, match=r"something else at H = 1 than at 9"):
        fold(SingleRow().eval(), X, (2,))
    fold(Halves().eval(), X, (3,))


class Sampled(Body):
    """Samples its input on a grid, whose decomposition calls torch.linspace with the image's size."""

    def forward(self, x: Tensor) -> Tensor:
        moved = torch.tensor([[1.0, 0.1, 0], [0, 1, 0.1]]).expand(len(x), 2, 3)
        return self.body(F.grid_sample(x, F.affine_grid(moved, x.shape, align_corners=False), align_corners=False))


class Projected(nn.Module):
    """An LSTM with projections, which torch's ONNX exporter writes wrongly and for one length of the sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(9, 4, proj_size=3, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, (_, cell) = self.recurrent(x[:, 0])
        return y, cell[0]


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(("make", "lacks"), [(Sampled, None), (Projected, "an invalid LSTM .*dimension 2")])
def test_what_the_onnx_exporter_fixes_is_not_fixed_in_the_other_files(make, lacks, tmp_path):
    network, other = make().eval(), torch.rand(3, 3, 12, 9)
    with pytest.warns(UserWarning, match=lacks) if lacks else nullcontext():
        certify(network, X, tmp_path, dynamic=(0, 2))
    for format in FORMATS if lacks is None else ("torchscript", "pt2"):
        received, expected = load(tmp_path, format=format)(other.numpy()).values(), network(other)
        for one, tensor in zip(received, expected if isinstance(expected, tuple) else [expected], strict=True):
            np.testing.assert_allclose(one, tensor.detach(), rtol=1e-4, atol=1e-5)


class Coordinates(Body):
    """Adds the coordinates of the pixels (Liu et al. 2018, CoordConv)."""

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (torch.linspace(-1, 1, size) for size in x.shape[2:])
        return self.body(x + rows.view(-1, 1) * columns)


def test_coordinates_of_an_image_of_any_size_are_exported(tmp_path):
    network = Coordinates().eval()
    certify(network, X, tmp_path, dynamic=(0, 2, 3), formats=FORMATS)
    other = torch.rand(2, 3, 12, 17)
    for format in FORMATS:
        received = load(tmp_path, format=format)(other.numpy())["output"]
        np.testing.assert_allclose(received, network(other).detach(), rtol=1e-4, atol=1e-5)


class Sizes(Body):
    """Computes with sizes as people write it; torch.export in its default mode fixes most of them."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.body(x)
        height, width = y.shape[2:]
        half = F.interpolate(y, size=(int(height / 2), int(width * 0.5)))
        padded = F.pad(y, (math.ceil(width / 2), math.floor(height / 4)))
        return half, padded, y / math.sqrt(width), y.new_zeros(len(x), 2), y * float(height)


def test_sizes_that_pass_through_python_functions_stay_dynamic(tmp_path):
    network = Sizes().eval()
    certify(network, X, tmp_path, dynamic=(0, 2, 3), formats=FORMATS)
    other = torch.rand(2, 3, 12, 17)
    for format in FORMATS:
        received = load(tmp_path, format=format)(other.numpy()).values()
        for one, tensor in zip(received, network(other), strict=True):
            np.testing.assert_allclose(one, tensor.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("factor", "exact"), [(0.5, True), (0.1, False)])
def test_a_product_is_written_as_a_division_only_if_it_is_exact(factor, exact):
    class Cropped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, : math.ceil(x.shape[1] * factor)]  # of 30 · 0.1: 4, since 0.1 is more than a tenth

    graph = export(Cropped(), (torch.rand(2, 20),), ({1: "L"},)).graph
    plain_sizes(graph)
    assert (operator.floordiv in [node.target for node in graph.nodes]) == exact


class OverTime(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.conv, self.recurrent = nn.Conv1d(4, 6, 3, 2), kind(6, 5, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        y = self.recurrent(self.conv(x).transpose(1, 2))[0]
        return y.reshape(y.size(0) * y.size(1), -1).relu()


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_recurrent_layer_takes_sequences_of_any_length(kind, tmp_path):
    network = OverTime(kind, num_layers=2, bidirectional=True).eval()
    certify(network, torch.rand(4, 4, 20), tmp_path, dynamic=(0, 2), formats=FORMATS)
    other = torch.rand(3, 4, 31)
    for format in FORMATS:
        received = load(tmp_path, format=format)(other.numpy())["output"]
        np.testing.assert_allclose(received, network(other).detach(), rtol=1e-4, atol=1e-5)


def test_a_recurrent_layer_that_fixes_its_time_axis_is_named(tmp_path):
    with pytest.raises(ExportError, match=r"torch\.export fixes the number of time steps of recurrent, or"):
        certify(OverTime(nn.RNN).eval(), torch.rand(4, 4, 20), tmp_path, dynamic=(0, 2))


class SequenceFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x, x, x, need_weights=False)[0]


def test_the_batch_may_be_another_axis_than_the_first(tmp_path):
    network, x = SequenceFirst().eval(), torch.randn(7, 4, 8)
    with pytest.raises(ExportError, match=r"depends on the rest of its batch.*dynamic=\{0: 'L', 1: 'N'\}"):
        certify(network, x, tmp_path, dynamic=(0, 1))
    certify(network, x, tmp_path, dynamic={0: "L", 1: "N"}, formats="onnx")
    other = torch.randn(9, 5, 8)
    np.testing.assert_allclose(load(tmp_path)(other.numpy())["output"], network(other).detach(), atol=1e-5)


class OneSequence(nn.Module):
    """Takes (L, C), without a batch axis."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.recurrent(x)[0]


def test_a_single_sequence_may_have_any_length(tmp_path):
    network = OneSequence().eval()
    certify(network, torch.randn(9, 5), tmp_path, dynamic={0: "L"}, formats="onnx")
    other = torch.randn(14, 5)
    np.testing.assert_allclose(load(tmp_path)(other.numpy())["output"], network(other).detach(), atol=1e-5)


def test_a_file_with_hard_coded_sizes_is_not_written(tmp_path, monkeypatch):
    from bnmodel.deploy.formats import WRITERS

    def traced(program, metadata, path):
        with torchscript():
            module = torch.jit.trace(program.graph, program.example, check_trace=False)
            torch.jit.save(module, str(path), _extra_files={"metadata.json": "{}"})

    class Resized(Body):
        def forward(self, x: Tensor) -> Tensor:
            return F.interpolate(self.body(x), size=x.shape[2:])

    monkeypatch.setitem(WRITERS, "torchscript", traced)
    with pytest.warns(UserWarning, match="torchscript was not written: .*golden vectors"):
        certify(Resized().eval(), X, tmp_path, dynamic=(0, 2, 3), formats=None)
    assert load(tmp_path).format == "onnx"


def test_axes_counted_from_the_end_have_their_own_names():
    assert dynamic_axes((0, -1), ["x"], [X]) == (({0: "N", 3: "W"},), True)


class CrossAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        return self.attend(x, memory, memory, need_weights=False)[0]


def test_axes_of_different_sizes_have_different_names_and_both_vary(tmp_path):
    example = torch.randn(4, 5, 8), torch.randn(4, 9, 8)
    certify(CrossAttention().eval(), example, tmp_path, formats="onnx", dynamic={"x": (0, 1), "memory": (0, 1)})
    metadata = load(tmp_path).metadata
    assert [one["shape"] for one in metadata["inputs"]] == [["N", "L", 8], ["N", "L_memory", 8]]
    cases = golden.read(tmp_path / golden.FILE)["model"].inputs
    assert all(len({case[place].shape[1] for case in cases}) > 1 for place in (0, 1))
    with pytest.raises(ExportError, match=r"one size of the axes named T, received 5 and, for axis 1 of memory, 9"):
        certify(CrossAttention().eval(), example, tmp_path, dynamic={"x": {1: "T"}, "memory": {1: "T"}})
