"""CustomBatchNorm on a GPU, against torch's layer there.

Without the requirements of the app: pytest --confcutdir tests/nn tests/nn/test_batchnorm_cuda.py
"""

import copy

import pytest
import torch
from batchnorm_helpers import TORCH_LAYERS, largest_error, random_input
from torch import Tensor, nn

from bnmodel import CustomBatchNorm
from bnmodel.nn import convert_batchnorm

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

TOLERANCE = {torch.float32: 2e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7, torch.float64: 1e-12}
SHAPES = [(32, 6), (16, 6, 9), (8, 6, 12, 10), (4, 6, 5, 4, 6)]
dtypes = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


def pair(spatial: int, dtype: torch.dtype, **options) -> tuple[CustomBatchNorm, nn.Module]:  # type: ignore[no-untyped-def]
    """Ours in float32 and torch's in float64, with the same parameters and statistics, none of them trivial."""
    theirs = TORCH_LAYERS[spatial](6, **options).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn(6, generator=generator).to(dtype).double())
    if theirs.running_mean is not None:
        theirs.running_mean.copy_(torch.randn(6, generator=generator))
        theirs.running_var.copy_(torch.rand(6, generator=generator) + 0.5)
    ours = CustomBatchNorm(6, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours.to("cuda", torch.float64 if dtype == torch.float64 else torch.float32), theirs.cuda()


def forward_backward(layer: nn.Module, x: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    x = x.detach().requires_grad_()
    y = layer(x)
    y.backward(gradient)
    parameters = {name: parameter.grad for name, parameter in layer.named_parameters()}
    return {"y": y, "x": x.grad, **parameters}  # type: ignore[dict-item]


def compare(ours: CustomBatchNorm, theirs: nn.Module, x: Tensor, dtype: torch.dtype) -> None:
    """A forward and a backward pass of ours in `dtype` against torch's in float64."""
    gradient = random_input(100, *x.shape, dtype=dtype).cuda()
    actual = forward_backward(ours, x, gradient)
    expected = forward_backward(theirs, x.double(), gradient.double())
    assert actual["y"].dtype == actual["x"].dtype == dtype
    for name, value in expected.items():
        rounding = dtype if name in ("y", "x") else actual[name].dtype
        assert largest_error(actual[name], value) <= 2 * TOLERANCE[rounding], name
    for name, value in theirs.named_buffers():
        torch.testing.assert_close(getattr(ours, name).to(value.dtype), value, rtol=1e-5, atol=1e-6)


@modes
@dtypes
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_outputs_gradients_and_statistics_are_those_of_float64(
    shape: tuple[int, ...], dtype: torch.dtype, training: bool
) -> None:
    ours, theirs = pair(len(shape) - 2, dtype)
    ours.train(training), theirs.train(training)
    for seed in range(2):
        compare(ours, theirs, random_input(seed, *shape, dtype=dtype).cuda(), dtype)
        ours.zero_grad(), theirs.zero_grad()


@modes
@dtypes
def test_channels_last_gives_the_same_values_and_stays_channels_last(dtype: torch.dtype, training: bool) -> None:
    ours, theirs = pair(2, dtype)
    ours.train(training), theirs.train(training)
    x = random_input(0, 8, 6, 12, 10, dtype=dtype).cuda().contiguous(memory_format=torch.channels_last)
    compare(ours, theirs, x, dtype)
    assert ours(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "options", [{"affine": False}, {"bias": False}, {"momentum": None}, {"momentum": 0.7}], ids=str
)
def test_options_mean_what_they_mean_on_the_cpu(options: dict) -> None:
    x = random_input(0, 8, 6, 4, 4)
    layer = CustomBatchNorm(6, **options)
    on_gpu = copy.deepcopy(layer).cuda()
    for training in (True, True, False):
        y, expected = on_gpu.train(training)(x.cuda()), layer.train(training)(x)
        torch.testing.assert_close(y.cpu(), expected, rtol=1e-5, atol=1e-5)
    for name, buffer in layer.named_buffers():
        torch.testing.assert_close(getattr(on_gpu, name).cpu(), buffer, rtol=1e-5, atol=1e-6)


@modes
@pytest.mark.parametrize("shape", [(0, 6), (0, 6, 4, 4), (2, 6, 0)], ids=str)
def test_an_empty_batch_passes_and_moves_no_statistics(shape: tuple[int, ...], training: bool) -> None:
    layer = CustomBatchNorm(6, device="cuda").train(training)
    x = torch.empty(shape, device="cuda", requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.shape == shape
    assert layer.running_var.tolist() == [1] * 6


@modes
@pytest.mark.parametrize("mean", [1e2, 1e4])
def test_far_from_zero_it_is_at_least_as_exact_as_torchs_layer(mean: float, training: bool) -> None:
    x = (random_input(0, 64, 6, 16, 16) + mean).cuda()
    statistics = x.double().mean((0, 2, 3)), x.double().var((0, 2, 3))
    results = []
    for layer in (nn.BatchNorm2d(6).double(), nn.BatchNorm2d(6), CustomBatchNorm(6)):
        layer = layer.cuda().train(training)
        if not training:
            layer.running_mean.copy_(statistics[0]), layer.running_var.copy_(statistics[1])
        gradient = random_input(1, *x.shape).cuda().to(layer.weight.dtype)
        results.append(forward_backward(layer, x.to(layer.weight.dtype), gradient))
    exact, theirs, ours = results
    for name, value in exact.items():
        assert largest_error(ours[name], value) <= 4 * largest_error(theirs[name], value) + 2e-6, name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_keeps_the_dtype_of_the_input_and_float32_statistics(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), CustomBatchNorm(6)).cuda()
    theirs = convert_batchnorm(network, "torch", dimensions=2)
    x = random_input(0, 8, 3, 10, 10).cuda()
    with torch.autocast("cuda", dtype):
        y, expected = network(x), theirs(x)
    assert y.dtype == expected.dtype == dtype
    torch.testing.assert_close(y, expected, rtol=2 * TOLERANCE[dtype], atol=2 * TOLERANCE[dtype])
    assert network[1].running_mean.dtype == torch.float32
    torch.testing.assert_close(network[1].running_var, theirs[1].running_var, rtol=1e-4, atol=1e-5)


def test_mixed_precision_with_a_gradient_scaler_trains_as_with_torchs_layer() -> None:
    torch.manual_seed(0)
    networks: dict[str, nn.Module] = {}
    networks["ours"] = nn.Sequential(
        nn.Conv2d(1, 8, 3), CustomBatchNorm(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 2)
    ).cuda()
    networks["torch"] = convert_batchnorm(networks["ours"], "torch", dimensions=2)
    images = random_input(0, 128, 1, 8, 8).cuda()
    labels = (images.mean((1, 2, 3)) > images.mean()).long()
    losses = {}
    for name, network in networks.items():
        optimizer, scaler = torch.optim.SGD(network.parameters(), lr=0.05), torch.amp.GradScaler("cuda")
        for _ in range(30):
            with torch.autocast("cuda", torch.float16):
                loss = nn.functional.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        assert scaler.get_scale() > 1
        losses[name] = float(loss)
    assert losses["ours"] < 0.5
    assert losses["ours"] == pytest.approx(losses["torch"], rel=0.05)


@modes
def test_a_cuda_graph_replays_the_layer_and_moves_its_statistics(training: bool) -> None:
    layer = CustomBatchNorm(6, device="cuda").train(training)
    reference = copy.deepcopy(layer)
    static = random_input(0, 8, 6, 4, 4).cuda()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.no_grad():
        for _ in range(3):
            layer(static), reference(static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), torch.no_grad():
        y = layer(static)
    for seed in (1, 2):
        x = random_input(seed, 8, 6, 4, 4).cuda()
        static.copy_(x)
        graph.replay()
        torch.testing.assert_close(y, reference(x))
    for name, buffer in reference.named_buffers():
        torch.testing.assert_close(getattr(layer, name), buffer)


def test_a_training_step_is_captured_by_make_graphed_callables() -> None:
    layer = CustomBatchNorm(6, device="cuda", momentum=0.0)
    sample = random_input(0, 8, 6, 4, 4).cuda().requires_grad_()
    reference = copy.deepcopy(layer)
    graphed = torch.cuda.make_graphed_callables(layer, (sample,))
    x, gradient = random_input(1, 8, 6, 4, 4).cuda(), random_input(2, 8, 6, 4, 4).cuda()
    torch.testing.assert_close(
        forward_backward(graphed, x, gradient), forward_backward(reference, x, gradient), rtol=1e-5, atol=1e-5
    )


@modes
def test_no_step_waits_for_the_gpu(training: bool) -> None:
    layer = CustomBatchNorm(6, device="cuda").train(training)
    x = random_input(0, 8, 6, 4, 4).cuda().requires_grad_()
    layer(x).sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        layer(x).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@modes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiled_it_is_the_same_layer(dtype: torch.dtype, training: bool) -> None:
    torch.compiler.reset()
    ours, theirs = pair(2, dtype)
    ours.train(training), theirs.train(training)
    compiled = torch.compile(ours, fullgraph=True)
    x, gradient = (random_input(seed, 8, 6, 12, 10, dtype=dtype).cuda() for seed in range(2))
    actual = forward_backward(compiled, x, gradient)
    expected = forward_backward(theirs, x.double(), gradient.double())
    for name, value in actual.items():
        key = name.removeprefix("_orig_mod.")
        assert largest_error(value, expected[key]) <= 4 * TOLERANCE[dtype], name
    torch.testing.assert_close(ours.running_var.double(), theirs.running_var, rtol=1e-5, atol=1e-6)


def test_convert_batchnorm_keeps_values_device_and_memory_format() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4))
    model = model.cuda().to(memory_format=torch.channels_last)
    x = random_input(0, 4, 3, 10, 10).cuda().contiguous(memory_format=torch.channels_last)
    model(x)
    ours = convert_batchnorm(model)
    back = convert_batchnorm(ours, to="torch")
    assert type(ours[1]) is CustomBatchNorm
    assert type(back[1]) is nn.BatchNorm2d
    for converted in (ours, back):
        assert all(tensor.is_cuda for tensor in converted.state_dict().values())
        for training in (False, True):
            y, expected = converted.train(training)(x), copy.deepcopy(model).train(training)(x)
            torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
            assert y.is_contiguous(memory_format=torch.channels_last)


def test_derivatives_of_the_second_order_agree_with_finite_differences() -> None:
    layer = CustomBatchNorm(3, device="cuda", dtype=torch.float64, momentum=0.0)
    x = random_input(0, 3, 3, 2, 2, dtype=torch.float64).cuda().requires_grad_()
    for training in (True, False):
        layer.train(training)
        assert torch.autograd.gradcheck(layer, (x,))
        assert torch.autograd.gradgradcheck(layer, (x,))


def test_transforms_of_torch_func_agree_with_torchs_layer() -> None:
    x = random_input(0, 8, 6, 4, 4).cuda()
    results = []
    for layer in (nn.BatchNorm2d(6, track_running_stats=False), CustomBatchNorm(6, track_running_stats=False)):
        layer = layer.cuda()
        parameters = dict(layer.named_parameters())

        def loss(p: dict[str, Tensor], layer: nn.Module = layer) -> Tensor:
            return torch.func.functional_call(layer, p, (x,)).sin().sum()

        results.append(torch.func.grad(loss)(parameters))
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)
