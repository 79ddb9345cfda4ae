"""CustomBatchNorm in half precision and in any memory format."""

import pytest
import torch
from batchnorm_helpers import TORCH_LAYERS, assert_equal_layers, largest_error, random_input
from torch import nn
from torch.nn.utils import prune

from bnmodel import CustomBatchNorm


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("shape", "memory_format"),
    [((4, 3, 5, 6), torch.channels_last), ((3, 3, 4, 2, 5), torch.channels_last_3d)],
    ids=["2d", "3d"],
)
def test_channels_last_gives_the_same_values_and_stays_channels_last(
    shape: tuple[int, ...], memory_format: torch.memory_format, training: bool
) -> None:
    ours, x = CustomBatchNorm(3).train(training), random_input(0, *shape)
    theirs = TORCH_LAYERS[len(shape) - 2](3).train(training)
    y = ours(x.contiguous(memory_format=memory_format))
    assert y.is_contiguous(memory_format=memory_format)
    assert not y.is_contiguous()
    assert largest_error(y, theirs(x)) <= 1e-6
    assert_equal_layers(ours, theirs, 1e-6, scale=x.abs().max())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_channels_last_stays_channels_last_in_half_precision(dtype: torch.dtype) -> None:
    x = random_input(0, 4, 3, 5, 6, dtype=dtype).contiguous(memory_format=torch.channels_last)
    assert CustomBatchNorm(3)(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.transpose(2, 3),
        lambda x: x.permute(3, 1, 0, 2),
        lambda x: x[::2, :, 1:, ::3],
        lambda x: x.flip(0)[:, :, 0].expand(-1, -1, -1),
        lambda x: x[:, :, :1].expand(-1, -1, 4, -1),
    ],
    ids=["transposed", "permuted", "strided", "sliced", "expanded"],
)
def test_an_input_that_is_not_contiguous_gives_the_values_and_gradients_of_its_copy(view) -> None:  # type: ignore[no-untyped-def]
    mine, other = (random_input(0, 6, 6, 4, 6).requires_grad_() for _ in range(2))
    assert not view(mine).is_contiguous()
    y, expected = CustomBatchNorm(6)(view(mine)), CustomBatchNorm(6)(view(other).contiguous())
    y.square().mul(torch.arange(y.shape[-1])).sum().backward()
    expected.square().mul(torch.arange(y.shape[-1])).sum().backward()
    assert largest_error(y, expected) <= 1e-6
    assert largest_error(mine.grad, other.grad) <= 1e-5  # sums of an expanded input cancel


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float16, 2**-11), (torch.bfloat16, 2**-8)], ids=str)
def test_half_precision_gives_the_float32_output_rounded_once(
    dtype: torch.dtype, rounding: float, training: bool
) -> None:
    layer, reference = CustomBatchNorm(3), CustomBatchNorm(3)
    x = random_input(0, 16, 3, 5, 5, dtype=dtype) + 3
    for _ in range(3):
        layer(x), reference(x.float())
    y, expected = layer.train(training)(x), reference.train(training)(x.float())
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), expected, rtol=1.01 * rounding, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_inputs_give_float32_statistics(dtype: torch.dtype) -> None:
    layer, reference = CustomBatchNorm(3), CustomBatchNorm(3)
    for step in range(20):
        x = random_input(step, 16, 3, 5, dtype=dtype) + 3
        layer(x), reference(x.float())
    assert layer.running_mean.dtype == layer.running_var.dtype == torch.float32
    assert largest_error(layer.running_mean, reference.running_mean) <= 1e-6
    assert largest_error(layer.running_var, reference.running_var) <= 1e-6


def test_half_precision_input_gets_a_half_precision_gradient() -> None:
    x = random_input(0, 16, 3, 5, 5, dtype=torch.float16).requires_grad_()
    exact = x.detach().double().requires_grad_()
    upstream = random_input(1, 16, 3, 5, 5, dtype=torch.float16)
    CustomBatchNorm(3)(x).backward(upstream)
    nn.BatchNorm2d(3, dtype=torch.float64)(exact).backward(upstream.double())
    assert x.grad.dtype == torch.float16
    assert largest_error(x.grad, exact.grad) <= 2e-3


@pytest.mark.parametrize("convert", [nn.Module.half, nn.Module.bfloat16], ids=["half", "bfloat16"])
def test_a_layer_in_half_precision_keeps_its_float32_statistics_exactly(convert) -> None:  # type: ignore[no-untyped-def]
    network = nn.Sequential(CustomBatchNorm(3))
    network(random_input(0, 16, 3))
    mean, var = network[0].running_mean.clone(), network[0].running_var.clone()
    convert(network)
    assert network[0].gamma.dtype in (torch.float16, torch.bfloat16)
    assert torch.equal(network[0].running_mean, mean)
    assert torch.equal(network[0].running_var, var)
    assert network[0].running_mean.dtype == torch.float32


def test_other_buffers_of_a_layer_in_half_precision_become_half_as_in_torch() -> None:
    layer = CustomBatchNorm(3)
    prune.l1_unstructured(layer, "weight", amount=1)
    assert layer.half().weight_mask.dtype == torch.float16
    assert layer.running_var.dtype == torch.float32


def test_a_layer_made_in_half_precision_averages_in_float32() -> None:
    layer, reference = CustomBatchNorm(3, momentum=1e-4, dtype=torch.float16), CustomBatchNorm(3, momentum=1e-4)
    for step in range(50):  # steps that float16 would round away
        x = random_input(step, 16, 3, dtype=torch.float16)
        assert layer(x).dtype == torch.float16
        reference(x.float())
    assert largest_error(layer.running_var, reference.running_var) <= 1e-6
    assert largest_error(layer.running_mean, reference.running_mean) <= 1e-6


def test_conversion_to_float64_converts_the_statistics() -> None:
    layer = CustomBatchNorm(3)
    layer(random_input(0, 16, 3))
    mean = layer.running_mean.clone()
    layer.to(torch.float64)
    assert layer.running_mean.dtype == layer.running_var.dtype == torch.float64
    assert torch.equal(layer.running_mean, mean.double())
