"""Tools for torch's batch norm work with CustomBatchNorm too."""

import copy
import io
import warnings

import onnxruntime
import pytest
import torch
import torchvision
from batchnorm_helpers import largest_error, random_input
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, stack_module_state, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torchvision.models.feature_extraction import create_feature_extractor

from bnmodel import CustomBatchNorm, batch_norm

X = random_input(0, 6, 3, 4, 4)


def pair(**options) -> tuple[CustomBatchNorm, nn.BatchNorm2d]:  # type: ignore[no-untyped-def]
    """Ours and torch's with the same random parameters."""
    theirs = nn.BatchNorm2d(3, **options)
    theirs(X)
    for seed, parameter in enumerate(theirs.parameters()):
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(seed))
    ours = CustomBatchNorm(3, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


# --- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"affine": False}, {"track_running_stats": False}], ids=str)
def test_state_dicts_load_in_both_directions(options: dict) -> None:
    ours, theirs = pair(**options)
    nn.BatchNorm2d(3, **options).load_state_dict(ours.state_dict())
    assert largest_error(ours.eval()(X), theirs.eval()(X)) <= 1e-6


def test_a_state_dict_without_a_count_loads_as_in_torch() -> None:
    state = {name: t for name, t in nn.BatchNorm2d(3).state_dict().items() if name != "num_batches_tracked"}
    layer = CustomBatchNorm(3)
    layer.load_state_dict(state)
    assert layer.num_batches_tracked == 0


def test_a_state_dict_of_gamma_and_beta_loads() -> None:
    layer = CustomBatchNorm(2)
    state = nn.Sequential(layer).state_dict()
    old = {name.replace("weight", "gamma").replace("bias", "beta"): tensor for name, tensor in state.items()}
    old["0.gamma"], old["0.beta"] = torch.tensor([2.0, 3.0]), torch.tensor([4.0, 5.0])
    nn.Sequential(layer).load_state_dict(old)
    assert layer.gamma.tolist() == layer.weight.tolist() == [2, 3]
    assert layer.beta.tolist() == layer.bias.tolist() == [4, 5]
    assert "0.gamma" in old


def test_assigned_half_precision_statistics_become_float32() -> None:
    layer = CustomBatchNorm(3)
    layer.load_state_dict(nn.BatchNorm2d(3).half().state_dict(), assign=True)
    assert layer.running_var.dtype == torch.float32


# --- tools -----------------------------------------------------------------------------------------------------------


def test_update_bn_recomputes_the_statistics() -> None:
    ours, theirs = pair()
    for layer in (ours, theirs):
        torch.optim.swa_utils.update_bn([X, X + 3], nn.Sequential(layer))
    assert largest_error(ours.running_mean, theirs.running_mean) <= 1e-6
    assert ours.num_batches_tracked == 2


def test_averaged_model_averages_it() -> None:
    averaged = torch.optim.swa_utils.AveragedModel(pair()[0], use_buffers=True)
    averaged.update_parameters(pair()[0])
    assert largest_error(averaged.module.weight, pair()[0].weight) <= 1e-6


def test_convert_sync_batchnorm_gives_torchs_layer() -> None:
    ours, _ = pair()
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(ours))[0]
    assert type(converted) is nn.SyncBatchNorm
    assert converted.weight is ours.weight


def test_fuse_conv_bn_eval_fuses_it() -> None:
    conv, (norm, _) = nn.Conv2d(2, 3, 3).eval(), pair()
    x = random_input(1, 2, 2, 5, 5)
    fused = torch.nn.utils.fusion.fuse_conv_bn_eval(conv, norm.eval())
    assert largest_error(fused(x), norm(conv(x))) <= 1e-5


@pytest.mark.parametrize("training", [True, False])
def test_symbolic_trace_keeps_the_layer_with_its_modes_and_statistics(training: bool) -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), pair()[0]).train(training)
    traced = torch.fx.symbolic_trace(copy.deepcopy(network))
    assert torch.equal(traced(X), network(X))
    assert torch.equal(traced.get_submodule("1").running_mean, network[1].running_mean)
    assert torch.equal(traced.eval()(X), network.eval()(X))


def test_torchvision_takes_it_as_norm_layer_and_extracts_its_features() -> None:
    torch.manual_seed(0)
    ours = torchvision.models.resnet18(norm_layer=CustomBatchNorm, zero_init_residual=True).eval()
    theirs = torchvision.models.resnet18().eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(1, 3, 32, 32)
    features = create_feature_extractor(ours, ["layer1.0.bn1", "fc"])(x)
    assert features["layer1.0.bn1"].shape == (1, 64, 8, 8)
    assert largest_error(features["fc"], theirs(x)) <= 1e-4


# --- switches and inputs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.complex64], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_an_input_that_is_not_floating_point_is_refused(dtype: torch.dtype, training: bool) -> None:
    with pytest.raises(TypeError, match=f"expected a floating-point input, received {dtype}"):
        CustomBatchNorm(1).train(training)(torch.ones(4, 1).to(dtype))


@pytest.mark.parametrize(
    "change", [{"track_running_stats": False}, {"momentum": None}, {"momentum": 0.5}, {"eps": 1.0}]
)
def test_an_attribute_changed_at_run_time_has_the_effect_that_it_has_in_torch(change: dict) -> None:
    ours, theirs = pair()
    for layer in (ours, theirs):
        for name, value in change.items():
            setattr(layer, name, value)
    for training in (True, False):
        assert largest_error(ours.train(training)(X), theirs.train(training)(X)) <= 1e-6
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(getattr(ours, name), buffer)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_without_a_count_it_moves_its_statistics_as_torch_does(momentum: float | None) -> None:
    ours, theirs = pair(momentum=momentum)
    for layer in (ours, theirs):
        layer.num_batches_tracked = None
        layer(X)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)


def test_without_its_buffers_it_uses_batch_statistics_in_eval_mode() -> None:
    ours, theirs = pair()
    for layer in (ours.eval(), theirs.eval()):
        layer.running_mean = layer.running_var = None
    assert largest_error(ours(X), theirs(X)) <= 1e-6


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4, 4), (2, 3, 0)], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_an_empty_batch_passes_and_moves_no_statistics(shape: tuple[int, ...], training: bool) -> None:
    layer = CustomBatchNorm(3).train(training)
    x = torch.empty(shape, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.shape == x.grad.shape == shape
    assert layer.running_mean.tolist() == [0, 0, 0]
    assert layer.running_var.tolist() == [1, 1, 1]
    assert layer.weight.grad.tolist() == layer.bias.grad.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": torch.zeros(3)}, "expected mean and var, or neither"),
        ({"gamma": torch.ones(1)}, "of 3 values .* received 1"),
        ({"x": torch.zeros(1, 3)}, "at least 2 values per channel"),
    ],
    ids=["mean alone", "short gamma", "one value"],
)
def test_the_function_refuses_inconsistent_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batch_norm(**{"x": torch.zeros(4, 3), **arguments})


# --- torch.func and forward mode -------------------------------------------------------------------------------------


def loss_of(layer: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    return functional_call(layer, parameters, (x,)).sin().sum()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("transform", [grad, jacrev, jacfwd, hessian], ids=lambda f: f.__name__)
def test_transforms_of_torch_func_agree_with_torchs_layer(transform, training: bool) -> None:  # type: ignore[no-untyped-def]
    results = []
    for layer in pair(track_running_stats=not training, dtype=torch.float32):
        layer = copy.deepcopy(layer).double().train(training)
        parameters = dict(layer.named_parameters())
        results.append(transform(lambda p, layer=layer: loss_of(layer, p, X.double()))(parameters))
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-8)


def test_an_ensemble_has_the_outputs_gradients_and_statistics_of_its_members() -> None:
    members = [pair()[0] for _ in range(2)]
    nn.init.constant_(members[1].weight, 2.0)
    parameters, buffers = stack_module_state(members)

    def loss(p: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
        return loss_of(members[0], {**p, **b}, X)

    gradients = vmap(grad(loss))(parameters, buffers)
    for index, member in enumerate(members):
        member(X).sin().sum().backward()
        torch.testing.assert_close(gradients["weight"][index], member.weight.grad)
        torch.testing.assert_close(buffers["running_mean"][index], member.running_mean)


@pytest.mark.parametrize("strategy", ["reverse-mode", "forward-mode"])
@pytest.mark.parametrize("training", [True, False])
def test_vectorised_jacobians_agree_with_plain_ones(strategy: str, training: bool) -> None:
    layer = pair(momentum=0.0)[0].train(training)
    x = X[:2, :, :2, :2].clone()
    fast = torch.autograd.functional.jacobian(layer, x, vectorize=True, strategy=strategy)
    torch.testing.assert_close(fast, torch.autograd.functional.jacobian(layer, x), rtol=1e-4, atol=1e-5)


# --- compiled, exported, traced --------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("training", [True, False])
def test_compiled_without_graph_breaks_it_is_the_same_layer(training: bool, momentum: float | None) -> None:
    layer = pair(momentum=momentum)[0].train(training)
    compiled = torch.compile(copy.deepcopy(layer), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(X), layer(X), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(compiled.running_var, layer.running_var)


@pytest.mark.parametrize("training", [True, False])
def test_compiled_autograd_takes_its_gradient_without_graph_breaks(training: bool) -> None:
    layer, x = pair()[0].train(training), X.clone().requires_grad_()
    expected = torch.autograd.grad(layer(x).sin().sum(), x)[0]
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="aot_eager", fullgraph=True)):
        layer(x).sin().sum().backward()
    torch.testing.assert_close(x.grad, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_exported_saved_and_loaded_it_keeps_its_mode_and_moves_its_statistics(training: bool) -> None:
    layer = pair()[0].train(training)
    dynamic = ({0: torch.export.Dim("batch")},)
    file = io.BytesIO()
    torch.export.save(torch.export.export(copy.deepcopy(layer), (X,), dynamic_shapes=dynamic), file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    torch.testing.assert_close(loaded(X[:4]), layer(X[:4]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loaded.running_mean, layer.running_mean)


@pytest.mark.parametrize("training", [True, False])
def test_make_fx_traces_its_forward_and_backward_pass(training: bool) -> None:
    layer = pair()[0].train(training)

    def step(x: Tensor) -> tuple[Tensor, Tensor]:
        y = layer(x)
        return y, torch.autograd.grad(y.pow(3).sum(), x)[0]

    x = random_input(1, *X.shape).requires_grad_()
    torch.testing.assert_close(make_fx(step)(X.clone().requires_grad_())(x), step(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"track_running_stats": False}], ids=str)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_the_legacy_onnx_exporter_and_jit_trace_give_the_same_answers(options: dict, training: bool) -> None:
    layer = pair(**options)[0].train(training)
    traced = torch.jit.trace(copy.deepcopy(layer), X)
    file = io.BytesIO()
    torch.onnx.export(
        copy.deepcopy(layer),
        (X,),
        file,
        dynamo=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        input_names=["x"],
        dynamic_axes={"x": {0: "batch"}},
    )
    session = onnxruntime.InferenceSession(file.getvalue())
    expected = layer(X[:4])
    torch.testing.assert_close(torch.from_numpy(session.run(None, {"x": X[:4].numpy()})[0]), expected.detach())
    torch.testing.assert_close(traced(X[:4]), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["eager", "script"])
def test_gradients_with_frozen_statistics_keep_their_digits_far_from_zero(form: str) -> None:
    x = torch.randn(1024, 1, generator=torch.Generator().manual_seed(0)) + 1e4
    layer = CustomBatchNorm(1)
    layer.running_mean.fill_(1e4)
    exact = copy.deepcopy(layer).double().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = torch.jit.script(layer.eval()) if form == "script" else layer.eval()
    weights = torch.rand(1024, 1, generator=torch.Generator().manual_seed(1))
    (layer(x) * weights).sum().backward()
    (exact(x.double()) * weights).sum().backward()
    assert largest_error(layer.weight.grad, exact.weight.grad) <= 2e-6
