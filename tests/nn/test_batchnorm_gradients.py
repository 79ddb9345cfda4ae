"""Derivatives of CustomBatchNorm, against torch's layers and finite differences."""

import gc
import weakref

import pytest
import torch
from batchnorm_helpers import SHAPES, TOLERANCE, TORCH_LAYERS, Case, cases, largest_error, quick, random_input
from hypothesis import given
from torch import Tensor

from bnmodel import CustomBatchNorm, batch_norm
from bnmodel.nn import batchnorm_autograd, channel_sums


@quick
@given(cases())
def test_gradients_of_input_gamma_and_beta_equal_torchs(case: Case) -> None:
    ours, theirs = case.layers()
    for step, training in enumerate(case.modes):
        x = random_input(case.seed + step, *case.shape, dtype=case.dtype)
        upstream = random_input(case.seed + step + 1, *case.shape, dtype=case.dtype)
        mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
        ours.zero_grad(), theirs.zero_grad()
        ours.train(training)(mine).backward(upstream)
        theirs.train(training)(other).backward(upstream)
        assert largest_error(mine.grad, other.grad) <= TOLERANCE[case.dtype]
        if case.affine:
            # a sum over the batch may cancel to nearly nothing: relative to what was summed
            summed = upstream.abs().sum(dim=[axis for axis in range(x.dim()) if axis != 1]).max()
            assert largest_error(ours.gamma.grad, theirs.weight.grad, summed) <= TOLERANCE[case.dtype]
            assert largest_error(ours.beta.grad, theirs.bias.grad, summed) <= TOLERANCE[case.dtype]


FORMATS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("of_x", FORMATS, ids=str)
@pytest.mark.parametrize("of_gradient", FORMATS, ids=str)
@pytest.mark.parametrize("shape", [(7, 5, 4, 3), (3, 1, 2, 2), (128, 12, 9, 9)], ids=str)
def test_gradients_are_torchs_in_every_memory_format(
    shape: tuple[int, ...], of_gradient: torch.memory_format, of_x: torch.memory_format
) -> None:
    x, upstream = random_input(0, *shape) + 2, random_input(1, *shape)
    ours, theirs = CustomBatchNorm(shape[1]), torch.nn.BatchNorm2d(shape[1], dtype=torch.float64)
    mine = x.contiguous(memory_format=of_x).requires_grad_()
    exact = x.detach().double().requires_grad_()
    ours(mine).backward(upstream.contiguous(memory_format=of_gradient))
    theirs(exact).backward(upstream.double())
    summed = upstream.abs().sum(dim=(0, 2, 3)).max()
    assert largest_error(mine.grad, exact.grad) <= 1e-6
    assert largest_error(ours.gamma.grad, theirs.weight.grad, summed) <= 1e-6
    assert largest_error(ours.beta.grad, theirs.bias.grad, summed) <= 1e-6


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("offset", [0, 100])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 8e-6), (torch.bfloat16, 5e-3)], ids=str)
def test_an_input_of_several_blocks_gives_the_exact_outputs_and_gradients(
    dtype: torch.dtype,
    tolerance: float,
    offset: float,
    memory_format: torch.memory_format,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channel_sums, "BLOCK", 200)
    x, upstream = (random_input(0, 17, 5, 4, 3) + offset).to(dtype), random_input(1, 17, 5, 4, 3, dtype=dtype) + 1
    ours, theirs = CustomBatchNorm(5), torch.nn.BatchNorm2d(5, dtype=torch.float64)
    mine, exact = x.clone(memory_format=memory_format).requires_grad_(), x.double().requires_grad_()
    y, expected = ours(mine), theirs(exact)
    y.backward(upstream.contiguous(memory_format=memory_format)), expected.backward(upstream.double())
    summed = upstream.abs().sum(dim=(0, 2, 3)).max()
    assert largest_error(y, expected) <= tolerance
    assert largest_error(mine.grad, exact.grad) <= tolerance
    assert largest_error(ours.gamma.grad, theirs.weight.grad, summed) <= 5e-6
    assert largest_error(ours.beta.grad, theirs.bias.grad, summed) <= 2e-6
    assert largest_error(ours.running_var, theirs.running_var) <= 1e-6


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_second_derivatives_equal_torchs(shape: tuple[int, ...]) -> None:
    penalties = []
    for layer in (CustomBatchNorm(3), TORCH_LAYERS[len(shape) - 2](3)):
        x = random_input(0, *shape, dtype=torch.float64).requires_grad_()
        (gradient,) = torch.autograd.grad(layer.double()(x).sin().sum(), x, create_graph=True)
        penalties.append(torch.autograd.grad(gradient.square().sum(), [x, *layer.parameters()]))
    for mine, other in zip(*penalties, strict=True):
        assert largest_error(mine, other) <= 1e-11


@pytest.mark.parametrize("shape", [(4, 2), (3, 2, 2, 2)], ids=str)
@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_first_and_second_derivatives_agree_with_finite_differences(check, shape: tuple[int, ...]) -> None:  # type: ignore[no-untyped-def]
    x = random_input(0, *shape, dtype=torch.float64).requires_grad_()
    gamma = torch.tensor([0.7, -1.3], dtype=torch.float64, requires_grad=True)
    beta = torch.tensor([0.2, 0.5], dtype=torch.float64, requires_grad=True)
    assert check(lambda *inputs: batch_norm(*inputs)[0], (x, gamma, beta))


@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_derivatives_with_given_statistics_agree_with_finite_differences(check) -> None:  # type: ignore[no-untyped-def]
    x = random_input(0, 3, 2, 2, dtype=torch.float64).requires_grad_()
    gamma, beta = torch.tensor([[0.7, -1.3], [0.2, 0.5]], dtype=torch.float64, requires_grad=True)
    mean, var = torch.tensor([[0.1, -0.4], [0.9, 1.6]], dtype=torch.float64, requires_grad=True)
    assert check(lambda *inputs: batch_norm(*inputs)[0], (x, gamma, beta, mean, var))


def test_the_layer_in_training_mode_can_be_differentiated_twice() -> None:
    layer = CustomBatchNorm(2, dtype=torch.float64)
    x = random_input(0, 3, 2, 2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradgradcheck(layer, (x,))


def test_running_statistics_hold_no_graph() -> None:
    layer = CustomBatchNorm(3)
    layer(random_input(0, 8, 3).requires_grad_())
    for name, buffer in layer.named_buffers():
        assert not buffer.requires_grad, name
        assert buffer.grad_fn is None, name


def test_the_layer_does_not_keep_the_graph_of_a_batch_alive() -> None:
    class Saved:
        """A tensor saved for the backward pass; released with the graph."""

        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor.detach()  # the tensor itself would reference the graph

    kept: list[weakref.ref[Saved]] = []

    def pack(tensor: Tensor) -> Saved:
        saved = Saved(tensor)
        kept.append(weakref.ref(saved))
        return saved

    layer = CustomBatchNorm(3)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        y = layer(random_input(0, 8, 3).requires_grad_())
    assert any(reference() is not None for reference in kept)
    del y
    gc.collect()
    assert all(reference() is None for reference in kept)


@pytest.mark.parametrize("create_graph", [True, False])
def test_a_training_step_before_the_backward_pass_leaves_the_gradients_of_an_eval_pass(create_graph: bool) -> None:
    layer, x = CustomBatchNorm(3, dtype=torch.float64), random_input(0, 8, 3, dtype=torch.float64).requires_grad_()
    wanted = (x, *layer.parameters())
    expected = torch.autograd.grad(layer.eval()(x).sin().sum(), wanted)
    loss = layer(x).sin().sum()
    layer.train()(x + 5)
    torch.testing.assert_close(torch.autograd.grad(loss, wanted, create_graph=create_graph), expected)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_the_gradient_of_a_frozen_layer_needs_no_sums(
    memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batchnorm_autograd, "_gradient_sums", None)
    layer = CustomBatchNorm(3).eval().requires_grad_(False)
    torch.nn.init.constant_(layer.weight, 2.0)
    x = random_input(0, 4, 3, 5, 6).contiguous(memory_format=memory_format).requires_grad_()
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, 2 / (1 + 1e-5) ** 0.5))


@pytest.mark.filterwarnings("ignore:TF32")
def test_with_onednn_disabled_the_sums_do_not_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_sums, "BLOCK", 0)
    x = random_input(0, 16, 3, 5, 6).contiguous(memory_format=torch.channels_last)
    with torch.backends.mkldnn.flags(enabled=False):
        assert not channel_sums.has_fused_sums(x, x)
