"""CustomBatchNorm against torch's own layers, hand calculation and finite differences."""

import copy
import gc
import io
import warnings
import weakref
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bnmodel import CustomBatchNorm, batch_norm

TORCH_LAYERS = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)  # by the number of spatial axes
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
SHAPES = [(6, 3), (5, 3, 7), (4, 3, 5, 6), (3, 3, 4, 2, 5)]
quick = settings(deadline=None, derandomize=True, max_examples=150)


def random_input(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Channels of different centre and spread, as activations have."""
    generator = torch.Generator().manual_seed(seed)
    per_channel = (1, shape[1], *[1] * (len(shape) - 2))
    spread = torch.rand(per_channel, generator=generator, dtype=torch.float64) + 0.5
    centre = torch.rand(per_channel, generator=generator, dtype=torch.float64) * 2 - 1
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * spread + centre).to(dtype)


def largest_error(actual: Tensor, expected: Tensor, scale: Tensor | float | None = None) -> float:
    """Largest difference, relative to the largest of `expected`, or to `scale` where sums cancel."""
    assert actual.shape == expected.shape
    difference = (actual.detach().double() - expected.detach().double()).abs().max()
    return float(difference / (expected.detach().double().abs().max() if scale is None else scale))


def assert_equal_layers(ours: CustomBatchNorm, theirs: nn.Module, tolerance: float, scale: Tensor | float) -> None:
    """Parameters and running statistics; `scale` is that of the values that were averaged."""
    for our_name, their_name in (("gamma", "weight"), ("beta", "bias"), ("running_mean",) * 2, ("running_var",) * 2):
        mine, other = getattr(ours, our_name), getattr(theirs, their_name)
        assert (mine is None) == (other is None), our_name
        if mine is not None:
            assert largest_error(mine, other, max(float(scale), float(other.detach().abs().max()))) <= tolerance, (
                our_name
            )
    assert (ours.num_batches_tracked is None) == (theirs.num_batches_tracked is None)
    if ours.num_batches_tracked is not None:
        assert ours.num_batches_tracked == theirs.num_batches_tracked
        assert ours.num_batches_tracked.dtype == theirs.num_batches_tracked.dtype


@dataclass(frozen=True)
class Case:
    shape: tuple[int, ...]
    eps: float
    momentum: float | None
    affine: bool
    tracking: bool
    dtype: torch.dtype
    modes: tuple[bool, ...]  # a step each, True for training
    seed: int

    def layers(self) -> tuple[CustomBatchNorm, nn.Module]:
        """Ours and torch's with the same options and the same γ and β, neither of them trivial."""
        channels, options = self.shape[1], (self.eps, self.momentum, self.affine, self.tracking)
        ours = CustomBatchNorm(channels, *options, dtype=self.dtype)
        theirs = TORCH_LAYERS[len(self.shape) - 2](channels, *options, dtype=self.dtype)
        if self.affine:
            generator = torch.Generator().manual_seed(self.seed)
            gamma = torch.rand(channels, generator=generator, dtype=self.dtype) + 0.5
            gamma[::2] *= -1
            beta = torch.randn(channels, generator=generator, dtype=self.dtype)
            with torch.no_grad():
                ours.gamma.copy_(gamma), theirs.weight.copy_(gamma)
                ours.beta.copy_(beta), theirs.bias.copy_(beta)
        return ours, theirs


@st.composite
def cases(draw: st.DrawFn) -> Case:
    spatial = draw(st.lists(st.integers(1, 5), max_size=3))
    return Case(
        shape=(draw(st.integers(8, 20)), draw(st.integers(1, 5)), *spatial),
        eps=draw(st.sampled_from([1e-5, 1e-3, 0.1])),
        momentum=draw(st.sampled_from([None, 0.0, 0.01, 0.1, 0.7, 1.0])),
        affine=draw(st.booleans()),
        tracking=draw(st.booleans()),
        dtype=draw(st.sampled_from(list(TOLERANCE))),
        modes=tuple(draw(st.lists(st.booleans(), min_size=1, max_size=5))),
        seed=draw(st.integers(0, 10_000)),
    )


# --- the same answers as torch's layers ------------------------------------------------------------------------------


@quick
@given(cases())
def test_outputs_equal_torchs_over_any_series_of_training_and_eval_steps(case: Case) -> None:
    ours, theirs = case.layers()
    for step, training in enumerate(case.modes):
        x = random_input(case.seed + step, *case.shape, dtype=case.dtype)
        y, expected = ours.train(training)(x), theirs.train(training)(x)
        assert y.dtype == expected.dtype
        assert largest_error(y, expected) <= TOLERANCE[case.dtype]


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


@quick
@given(cases())
def test_running_statistics_equal_torchs_over_any_series_of_steps(case: Case) -> None:
    ours, theirs = case.layers()
    for step, training in enumerate(case.modes):
        x = random_input(case.seed + step, *case.shape, dtype=case.dtype)
        ours.train(training)(x), theirs.train(training)(x)
        assert_equal_layers(ours, theirs, TOLERANCE[case.dtype], scale=x.abs().max())


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("momentum", [0.1, None, 0.0, 1.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_running_statistics_equal_torchs_after_a_hundred_steps(
    shape: tuple[int, ...], momentum: float | None, dtype: torch.dtype
) -> None:
    ours = CustomBatchNorm(3, momentum=momentum, dtype=dtype)
    theirs = TORCH_LAYERS[len(shape) - 2](3, momentum=momentum, dtype=dtype)
    for step in range(100):
        x = random_input(step, *shape, dtype=dtype)
        ours(x), theirs(x)
    assert ours.num_batches_tracked == 100
    assert_equal_layers(ours, theirs, TOLERANCE[dtype], scale=x.abs().max())
    assert largest_error(ours.eval()(x), theirs.eval()(x)) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_a_network_trained_with_it_becomes_the_same_network(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    mine = nn.Sequential(nn.Conv2d(2, 4, 3), CustomBatchNorm(4), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3)).to(dtype)
    other = copy.deepcopy(mine)
    other[1] = nn.BatchNorm2d(4, dtype=dtype)
    for network in (mine, other):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        for step in range(10):
            optimizer.zero_grad()
            network(random_input(step, 8, 2, 6, 6, dtype=dtype)).square().mean().backward()
            optimizer.step()
    x = random_input(99, 8, 2, 6, 6, dtype=dtype)
    # rounding errors grow with every step of training: ten times the tolerance of one
    assert largest_error(mine.eval()(x), other.eval()(x)) <= 10 * TOLERANCE[dtype]


@pytest.mark.parametrize("offset", [0.0, 10.0, 1000.0])
def test_a_large_offset_costs_no_more_precision_than_in_torchs_layer(offset: float) -> None:
    x = random_input(0, 64, 3, 5, 5) + offset
    exact = nn.BatchNorm2d(3, dtype=torch.float64)(x.double())
    ours, theirs = CustomBatchNorm(3), nn.BatchNorm2d(3)
    assert largest_error(ours(x), exact) <= 2 * largest_error(theirs(x), exact) + 1e-6
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


# --- the mathematics by hand -----------------------------------------------------------------------------------------


def test_two_values_become_minus_one_and_one() -> None:
    y, mean, var = batch_norm(torch.tensor([[1.0], [3.0]]), eps=0.0)
    assert y.tolist() == [[-1.0], [1.0]]
    assert (mean.item(), var.item()) == (2.0, 1.0)  # the biased variance


def test_given_statistics_gamma_and_beta_are_used_as_the_formula_says() -> None:
    one = torch.ones(1)
    y, mean, var = batch_norm(torch.tensor([[5.0], [9.0]]), 10 * one, 7 * one, mean=one, var=3 * one, eps=1.0)
    assert y.tolist() == [[10 * (5 - 1) / 2 + 7], [10 * (9 - 1) / 2 + 7]]
    assert (mean.item(), var.item()) == (1.0, 3.0)


def test_running_statistics_move_a_tenth_of_the_way_to_the_mean_and_the_unbiased_variance() -> None:
    layer = CustomBatchNorm(1)
    layer(torch.tensor([[1.0], [3.0]]))  # mean 2, variance 1 biased, 2 unbiased
    assert layer.running_mean.item() == pytest.approx(0.9 * 0 + 0.1 * 2)
    assert layer.running_var.item() == pytest.approx(0.9 * 1 + 0.1 * 2)


def test_the_stored_variance_is_unbiased_over_batch_and_space() -> None:
    layer, x = CustomBatchNorm(3, momentum=1.0), random_input(0, 4, 3, 2, 2)
    layer(x)
    assert largest_error(layer.running_var, x.transpose(0, 1).flatten(1).var(dim=1, correction=1)) <= 1e-6


def test_without_momentum_every_batch_counts_the_same() -> None:
    layer = CustomBatchNorm(1, momentum=None)
    for low, high in ((0.0, 2.0), (10.0, 14.0), (-4.0, -4.0)):  # means 1, 12, −4; unbiased variances 2, 8, 0
        layer(torch.tensor([[low], [high]]))
    assert layer.running_mean.item() == pytest.approx((1 + 12 - 4) / 3)
    assert layer.running_var.item() == pytest.approx((2 + 8 + 0) / 3)


def test_momentum_zero_never_moves_the_statistics() -> None:
    layer = CustomBatchNorm(2, momentum=0.0)
    layer(random_input(0, 8, 2))
    assert layer.running_mean.tolist() == [0, 0]
    assert layer.running_var.tolist() == [1, 1]
    assert layer.num_batches_tracked == 1


def test_momentum_one_keeps_the_last_batch_alone() -> None:
    layer = CustomBatchNorm(2, momentum=1.0)
    layer(random_input(0, 8, 2))
    layer(x := random_input(1, 8, 2))
    assert largest_error(layer.running_mean, x.mean(0)) <= 1e-6


@quick
@given(cases())
def test_training_output_has_mean_beta_and_the_spread_of_gamma(case: Case) -> None:
    layer, _ = case.layers()
    x = random_input(case.seed, *case.shape, dtype=torch.float64)
    y = layer.double()(x).transpose(0, 1).flatten(1)  # (C, values)
    var = x.transpose(0, 1).flatten(1).var(dim=1, correction=0)
    gamma, beta = (layer.gamma, layer.beta) if case.affine else (torch.ones(1), torch.zeros(1))
    torch.testing.assert_close(y.mean(1), beta.double().expand(len(y)), rtol=0, atol=1e-12)
    torch.testing.assert_close(y.var(1, correction=0), gamma.double() ** 2 * var / (var + case.eps))


def test_a_constant_channel_becomes_beta() -> None:
    layer = CustomBatchNorm(2)
    nn.init.constant_(layer.beta, 0.25)
    torch.testing.assert_close(layer(torch.full((4, 2, 3), 7.0)), torch.full((4, 2, 3), 0.25), rtol=0, atol=1e-3)


# --- modes -----------------------------------------------------------------------------------------------------------


def test_in_eval_mode_an_answer_does_not_depend_on_its_company() -> None:
    layer = CustomBatchNorm(3)
    layer(random_input(0, 8, 3, 4, 4))
    x = random_input(1, 8, 3, 4, 4)
    together = layer.eval()(x)
    assert torch.equal(together, torch.cat([layer(sample) for sample in x.split(1)]))


def test_in_training_mode_an_answer_depends_on_its_company() -> None:
    layer, x = CustomBatchNorm(3), random_input(1, 8, 3, 4, 4)
    assert not torch.allclose(layer(x)[:4], layer(x[:4]), atol=1e-2)


def test_eval_mode_leaves_the_statistics_alone() -> None:
    layer = CustomBatchNorm(3).eval()
    layer(random_input(0, 8, 3))
    assert layer.running_mean.tolist() == [0, 0, 0]
    assert layer.running_var.tolist() == [1, 1, 1]
    assert layer.num_batches_tracked == 0


def test_the_pure_function_changes_nothing_it_is_given() -> None:
    x, mean, var = random_input(0, 4, 2), torch.zeros(2), torch.ones(2)
    copies = x.clone(), mean.clone(), var.clone()
    batch_norm(x, None, None, mean, var)
    assert all(torch.equal(value, copied) for value, copied in zip((x, mean, var), copies, strict=True))


# --- precision and memory --------------------------------------------------------------------------------------------


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
def test_half_precision_gives_the_float32_answer_rounded_once(
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


def test_a_layer_made_in_half_precision_averages_in_float32() -> None:
    layer, reference = CustomBatchNorm(3, momentum=1e-4, dtype=torch.float16), CustomBatchNorm(3, momentum=1e-4)
    for step in range(50):  # steps that float16 would round away
        x = random_input(step, 16, 3, dtype=torch.float16)
        assert layer(x).dtype == torch.float16
        reference(x.float())
    assert largest_error(layer.running_var, reference.running_var) <= 1e-6
    assert largest_error(layer.running_mean, reference.running_mean) <= 1e-6


def test_moving_to_float64_takes_the_statistics_along() -> None:
    layer = CustomBatchNorm(3)
    layer(random_input(0, 16, 3))
    mean = layer.running_mean.clone()
    layer.to(torch.float64)
    assert layer.running_mean.dtype == layer.running_var.dtype == torch.float64
    assert torch.equal(layer.running_mean, mean.double())


# --- derivatives -----------------------------------------------------------------------------------------------------


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
        """What the graph keeps of a tensor for the backward pass; dies with the graph."""

        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor.detach()  # itself, it would hold the graph that holds it

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


# --- life as a module ------------------------------------------------------------------------------------------------


def test_the_state_dict_holds_parameters_and_running_statistics() -> None:
    assert set(CustomBatchNorm(3).state_dict()) == {
        "gamma",
        "beta",
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }


@pytest.mark.parametrize(("affine", "tracking"), [(False, True), (True, False), (False, False)])
def test_what_is_switched_off_is_not_in_the_state_dict(affine: bool, tracking: bool) -> None:
    layer = CustomBatchNorm(3, affine=affine, track_running_stats=tracking)
    assert len(layer.state_dict()) == 2 * affine + 3 * tracking
    assert len(list(layer.parameters())) == 2 * affine


def test_saved_and_loaded_it_gives_the_same_answers() -> None:
    layer, loaded = CustomBatchNorm(3), CustomBatchNorm(3)
    nn.init.normal_(layer.gamma), nn.init.normal_(layer.beta)
    for step in range(5):
        layer(random_input(step, 8, 3))
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    x = random_input(9, 8, 3)
    assert torch.equal(loaded.eval()(x), layer.eval()(x))
    assert loaded.num_batches_tracked == 5


def test_moving_the_layer_moves_its_running_statistics() -> None:
    layer = nn.Sequential(CustomBatchNorm(3)).to("meta")[0]  # a device that every machine has
    assert {tensor.device.type for tensor in (*layer.parameters(), *layer.buffers())} == {"meta"}
    assert len(list(layer.buffers())) == 3


def test_the_running_statistics_are_updated_in_place() -> None:
    layer = CustomBatchNorm(3)
    before = dict(layer.named_buffers())
    layer(random_input(0, 8, 3))
    assert all(buffer is before[name] for name, buffer in layer.named_buffers())


def test_a_deep_copy_goes_its_own_way() -> None:
    layer = CustomBatchNorm(3)
    layer(random_input(0, 8, 3))
    state = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    twin = copy.deepcopy(layer)
    twin(random_input(1, 8, 3))
    nn.init.constant_(twin.gamma, 5.0)
    assert all(torch.equal(tensor, state[name]) for name, tensor in layer.state_dict().items())
    assert twin.num_batches_tracked == 2
    assert not torch.equal(twin.running_mean, layer.running_mean)


def test_reset_running_stats_forgets_every_batch_but_not_what_was_learned() -> None:
    layer = CustomBatchNorm(2)
    layer(random_input(0, 8, 2))
    nn.init.constant_(layer.gamma, 5.0)
    layer.reset_running_stats()
    assert layer.running_mean.tolist() == [0, 0]
    assert layer.running_var.tolist() == [1, 1]
    assert layer.num_batches_tracked == 0
    assert layer.gamma.tolist() == [5, 5]


def test_reset_parameters_makes_it_new() -> None:
    layer = CustomBatchNorm(2)
    layer(random_input(0, 8, 2))
    nn.init.constant_(layer.gamma, 5.0), nn.init.constant_(layer.beta, 5.0)
    layer.reset_parameters()
    fresh = CustomBatchNorm(2).state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in layer.state_dict().items())


def scripted(module: nn.Module) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and still what other apps load
        return torch.jit.script(module)


@pytest.mark.parametrize(
    ("momentum", "affine", "tracking"), [(0.1, True, True), (None, True, True), (0.1, False, True), (0.1, True, False)]
)
def test_scripted_it_gives_the_same_answers_and_keeps_the_same_statistics(
    momentum: float | None, affine: bool, tracking: bool
) -> None:
    layer = CustomBatchNorm(3, momentum=momentum, affine=affine, track_running_stats=tracking)
    script = scripted(copy.deepcopy(layer))
    for step, training in enumerate((True, True, False, True, False)):
        for x in (random_input(step, 8, 3), random_input(step, 8, 3, 4, 4)):
            torch.testing.assert_close(script.train(training)(x), layer.train(training)(x), rtol=1e-6, atol=1e-6)
    assert list(script.state_dict()) == list(layer.state_dict())
    for name, tensor in layer.state_dict().items():
        torch.testing.assert_close(script.state_dict()[name], tensor, rtol=1e-6, atol=1e-6)


def test_scripted_it_refuses_what_the_layer_refuses() -> None:
    with pytest.raises(Exception, match="at least 2 values per channel"):
        scripted(CustomBatchNorm(3))(torch.zeros(1, 3))


def test_exported_in_eval_mode_it_takes_any_batch_size_and_uses_the_running_statistics() -> None:
    layer = CustomBatchNorm(3)
    layer(random_input(0, 8, 3, 4, 4))
    layer.eval()
    dynamic = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(layer, (random_input(1, 2, 3, 4, 4),), dynamic_shapes=dynamic).module()
    for size in (1, 5):
        x = random_input(2, size, 3, 4, 4)
        torch.testing.assert_close(exported(x), layer(x), rtol=1e-6, atol=1e-6)


# --- from torch's layer and back -------------------------------------------------------------------------------------


def trained_torch_layer(dimensions: int, **options) -> nn.Module:  # type: ignore[no-untyped-def]
    layer = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dimensions - 1](3, **options)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    layer(random_input(0, 4, 3, *[2] * dimensions, dtype=options.get("dtype", torch.float32)))
    return layer


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("dimensions", "options"),
    [
        (1, {}),
        (2, {"eps": 0.1, "momentum": None}),
        (3, {"momentum": 0.5}),
        (2, {"affine": False}),
        (2, {"track_running_stats": False}),
        (2, {"affine": False, "track_running_stats": False}),
        (2, {"bias": False}),
        (2, {"dtype": torch.float64}),
    ],
    ids=str,
)
def test_from_torch_gives_the_same_layer(dimensions: int, options: dict, training: bool) -> None:
    torch.manual_seed(0)
    theirs = trained_torch_layer(dimensions, **options).train(training)
    ours = CustomBatchNorm.from_torch(theirs)
    assert ours.training == training
    for step in range(3):
        x = random_input(step, 4, 3, *[2] * dimensions, dtype=options.get("dtype", torch.float32))
        assert ours(x).dtype == x.dtype
        assert largest_error(ours(x), theirs(x)) <= 1e-6
        theirs(x)  # as often as ours
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert (mine is None) == (other is None)
        if mine is not None:
            torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize(("affine", "tracking"), [(True, True), (True, False), (False, True), (False, False)])
def test_to_torch_gives_the_same_layer(affine: bool, tracking: bool, dimensions: int, training: bool) -> None:
    torch.manual_seed(0)
    ours = CustomBatchNorm(3, 1e-3, None, affine, tracking)
    for parameter in ours.parameters():
        nn.init.normal_(parameter)
    shape = (4, 3, *[2] * dimensions)
    ours(random_input(0, *shape))
    theirs = ours.train(training).to_torch(dimensions)
    assert type(theirs) is (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dimensions - 1]
    assert theirs.training == training
    for step in range(3):
        x = random_input(step, *shape)
        assert largest_error(ours(x), theirs(x)) <= 1e-6
    assert_equal_layers(ours, theirs, 1e-6, scale=x.abs().max())


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"track_running_stats": False}, {"dtype": torch.float64}])
def test_there_and_back_again_changes_nothing(options: dict) -> None:
    theirs = trained_torch_layer(2, **options)
    back = CustomBatchNorm.from_torch(theirs).to_torch(2)
    assert repr(back) == repr(theirs)
    assert list(back.state_dict()) == list(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], tensor, rtol=0, atol=0)


def test_a_half_precision_torch_layer_becomes_one_with_float32_statistics() -> None:
    theirs = trained_torch_layer(2).half()
    ours = CustomBatchNorm.from_torch(theirs)
    assert ours.gamma.dtype == torch.float16
    assert ours.running_mean.dtype == torch.float32
    assert torch.equal(ours.running_mean, theirs.running_mean.float())


def test_the_converted_layer_shares_nothing_with_the_first() -> None:
    theirs = trained_torch_layer(2)
    state = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    ours = CustomBatchNorm.from_torch(theirs)
    ours(random_input(3, 4, 3, 2, 2))
    nn.init.zeros_(ours.gamma)
    assert all(torch.equal(tensor, state[name]) for name, tensor in theirs.state_dict().items())


@pytest.mark.parametrize(
    "layer", [nn.LayerNorm(3), nn.InstanceNorm2d(3), nn.Linear(3, 3)], ids=lambda x: type(x).__name__
)
def test_from_torch_refuses_another_kind_of_layer(layer: nn.Module) -> None:
    with pytest.raises(TypeError, match=type(layer).__name__):
        CustomBatchNorm.from_torch(layer)


def test_to_torch_refuses_four_dimensions() -> None:
    with pytest.raises(ValueError, match="expected 1, 2 or 3, received 4"):
        CustomBatchNorm(3).to_torch(4)


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1), (1, 3, 1, 1), (1, 3, 1, 1, 1), (0, 3, 4)], ids=str)
def test_one_value_per_channel_is_refused_in_training_mode(shape: tuple[int, ...]) -> None:
    layer = CustomBatchNorm(3)
    with pytest.raises(ValueError, match=r"at least 2 values per channel, received [01] from shape"):
        layer(torch.zeros(shape))
    assert layer.num_batches_tracked == 0


def test_one_value_per_channel_is_refused_in_eval_mode_without_running_statistics() -> None:
    with pytest.raises(ValueError, match="at least 2 values per channel"):
        CustomBatchNorm(3, track_running_stats=False).eval()(torch.zeros(1, 3))


def test_one_value_per_channel_is_fine_in_eval_mode() -> None:
    x = random_input(0, 1, 3)
    assert largest_error(CustomBatchNorm(3).eval()(x), nn.BatchNorm1d(3).eval()(x)) <= 1e-6


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 2, 2, 2, 2)], ids=str)
def test_another_number_of_axes_is_refused(shape: tuple[int, ...], training: bool) -> None:
    with pytest.raises(ValueError, match=f"received {len(shape)} axes"):
        CustomBatchNorm(3).train(training)(torch.zeros(shape))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(4, 2), (4, 1), (3, 4, 3), (4, 5, 3, 3)], ids=str)
def test_another_number_of_channels_is_refused(shape: tuple[int, ...], training: bool) -> None:
    with pytest.raises(ValueError, match=f"expected 3 channels on axis 1, received {shape[1]}"):
        CustomBatchNorm(3).train(training)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"num_features": 0}, "num_features"),
        ({"num_features": -2}, "num_features"),
        ({"num_features": 3, "eps": -1e-5}, "eps"),
        ({"num_features": 3, "eps": float("nan")}, "eps"),
        ({"num_features": 3, "momentum": -0.1}, "momentum"),
        ({"num_features": 3, "momentum": 1.5}, "momentum"),
        ({"num_features": 3, "momentum": float("nan")}, "momentum"),
    ],
    ids=str,
)
def test_a_constructor_argument_out_of_range_is_refused_by_name(options: dict, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected .* received"):
        CustomBatchNorm(**options)
