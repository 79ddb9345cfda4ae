"""Conversion between torch's batch norms and CustomBatchNorm, of models and of single layers."""

import copy
import warnings

import pytest
import torch
from batchnorm_helpers import assert_equal_layers, largest_error, random_input
from torch import nn

from bnmodel import CustomBatchNorm
from bnmodel.nn import convert_batchnorm


def a_model() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, eps=1e-3, momentum=None), nn.Flatten(), nn.BatchNorm1d(48, bias=False)
    )
    model(random_input(0, 5, 2, 6, 6))
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize("training", [True, False])
def test_a_converted_model_gives_the_same_outputs_and_statistics(training: bool) -> None:
    theirs = a_model().train(training)
    ours = convert_batchnorm(theirs)
    assert [type(module) for module in ours[1::2]] == [CustomBatchNorm] * 2
    for step in range(3):
        x = random_input(step, 5, 2, 6, 6)
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor, rtol=1e-5, atol=1e-5)


def test_there_and_back_gives_the_same_classes_options_and_values() -> None:
    model = a_model()
    back = convert_batchnorm(convert_batchnorm(model), to="torch")
    assert repr(back) == repr(model)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in back.state_dict().items())


def test_a_copy_shares_nothing_with_the_model_and_leaves_it_alone() -> None:
    model = a_model()
    state = copy.deepcopy(model.state_dict())
    converted = convert_batchnorm(model)
    converted(random_input(3, 5, 2, 6, 6))
    assert type(model[1]) is nn.BatchNorm2d
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in converted.parameters()}


def test_in_place_the_parameters_stay_those_of_the_optimiser() -> None:
    model = a_model()
    before = list(model.parameters())
    assert convert_batchnorm(model, inplace=True) is model
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))


def test_requires_grad_mode_dtype_and_names_of_parameters_stay() -> None:
    model = a_model().double()
    model[1].weight.requires_grad_(False)
    model[1].eval()
    converted = convert_batchnorm(model)
    assert not converted[1].weight.requires_grad
    assert converted[1].bias.requires_grad
    assert not converted[1].training
    assert converted[3].training
    assert {tensor.dtype for tensor in converted[1].parameters()} == {torch.float64}
    assert list(converted.state_dict()) == list(model.state_dict())


def test_hooks_stay_and_their_handles_remove_them_in_place() -> None:
    model, calls = a_model(), []
    handle = model[1].register_forward_hook(lambda *_: calls.append("forward"))
    model[1].register_forward_pre_hook(lambda *_: calls.append("before"))
    convert_batchnorm(model, inplace=True)(random_input(0, 5, 2, 6, 6))
    assert calls == ["before", "forward"]
    handle.remove()
    model(random_input(0, 5, 2, 6, 6))
    assert calls == ["before", "forward", "before"]


def test_a_shared_layer_stays_shared() -> None:
    norm = nn.BatchNorm1d(3)
    converted = convert_batchnorm(nn.ModuleDict({"a": norm, "b": nn.Sequential(norm, norm)}))
    assert converted["a"] is converted["b"][0] is converted["b"][1]


def test_a_bare_layer_is_converted_too() -> None:
    assert type(convert_batchnorm(nn.BatchNorm3d(2))) is CustomBatchNorm
    assert type(convert_batchnorm(CustomBatchNorm(2), to="torch", dimensions=3)) is nn.BatchNorm3d


def test_a_sync_batch_norm_becomes_synchronised_and_comes_back() -> None:
    ours = convert_batchnorm(nn.SyncBatchNorm(3))
    assert ours.synchronised
    assert type(convert_batchnorm(ours, to="torch")) is nn.SyncBatchNorm
    assert type(convert_batchnorm(CustomBatchNorm(3, synchronised=True), to="torch")) is nn.SyncBatchNorm


@pytest.mark.parametrize("layer", [type("Mine", (nn.BatchNorm2d,), {})(3), nn.LazyBatchNorm2d()], ids=["own", "lazy"])
def test_a_subclass_stays_with_a_warning_that_names_it(layer: nn.Module) -> None:
    model = nn.Sequential(nn.ReLU(), layer)
    with pytest.warns(UserWarning, match=f"'1' stays as it is: {type(layer).__name__}"):
        converted = convert_batchnorm(model, inplace=True)
    assert type(converted[1]) is type(layer)


def test_a_lazy_norm_is_named_instead_of_torchs_error_on_copying() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.LazyBatchNorm2d())
    with pytest.raises(ValueError, match=r"'1': .*LazyBatchNorm2d.*run one batch through the model first"):
        convert_batchnorm(model)
    model(torch.rand(2, 2, 5, 5))
    assert type(convert_batchnorm(model)[1]) is CustomBatchNorm


def test_other_normalisations_and_converted_layers_stay_without_a_warning() -> None:
    model = nn.Sequential(nn.LayerNorm(3), nn.InstanceNorm1d(3), CustomBatchNorm(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert repr(convert_batchnorm(model)) == repr(model)


def test_half_precision_statistics_become_float32_and_half_again() -> None:
    ours = convert_batchnorm(nn.BatchNorm2d(3).half())
    assert (ours.weight.dtype, ours.running_var.dtype) == (torch.float16, torch.float32)
    assert convert_batchnorm(ours, to="torch").running_var.dtype == torch.float16


def test_load_hooks_and_shared_calls_are_those_of_the_replacement() -> None:
    model, called = nn.Sequential(nn.BatchNorm2d(3)), []
    model[0].register_load_state_dict_pre_hook(lambda layer, *_: called.append(type(layer)))
    model[0].compile(backend="eager")
    for to in ("custom", "torch"):
        convert_batchnorm(model, to=to, inplace=True).load_state_dict(model.state_dict())
        x = random_input(0, 4, 3, 2, 2)
        assert torch.equal(model.eval()(x), model[0].forward(x))  # the compiled call was that of the first layer
    assert called == [CustomBatchNorm, nn.BatchNorm2d]


def test_an_invalid_argument_is_refused_before_anything_changes() -> None:
    model = nn.Sequential(convert_batchnorm(nn.BatchNorm1d(3)), CustomBatchNorm(3))
    with pytest.raises(ValueError, match="dimensions: expected 1, 2 or 3, since '1'"):
        convert_batchnorm(model, to="torch", inplace=True)
    assert type(model[0]) is CustomBatchNorm
    with pytest.raises(ValueError, match="to: expected 'custom' or 'torch', received 'ours'"):
        convert_batchnorm(model, to="ours")
    with pytest.raises(ValueError, match="dimensions: expected 1, 2 or 3, received 4"):
        convert_batchnorm(model, to="torch", dimensions=4)


# --- CustomBatchNorm.from_torch and to_torch --------------------------------------------------------------------------


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


def test_what_is_no_module_is_not_converted() -> None:
    with pytest.raises(TypeError, match=r"model: expected an nn\.Module, received dict"):
        convert_batchnorm({})  # type: ignore[arg-type]


def test_to_torch_refuses_four_dimensions() -> None:
    with pytest.raises(ValueError, match="expected 1, 2 or 3, received 4"):
        CustomBatchNorm(3).to_torch(4)


def test_the_way_back_follows_whether_the_layer_is_synchronised() -> None:
    ours = convert_batchnorm(nn.BatchNorm2d(3))
    ours.synchronised = True
    assert type(convert_batchnorm(ours, to="torch")) is nn.SyncBatchNorm
    ours = convert_batchnorm(nn.SyncBatchNorm(3))
    ours.synchronised = False
    assert type(convert_batchnorm(ours, to="torch", dimensions=2)) is nn.BatchNorm2d
    with pytest.raises(ValueError, match="dimensions"):
        convert_batchnorm(ours, to="torch", dimensions=True)
    with pytest.raises(ValueError, match="dimensions: expected 1, 2 or 3, received 2"):
        convert_batchnorm(ours, to="torch", dimensions=2.0)  # type: ignore[arg-type]
