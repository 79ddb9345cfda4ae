"""convert_batchnorm: the same model with the batch norms of the other family."""

import copy
import warnings

import pytest
import torch
from batchnorm_helpers import random_input
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


def test_other_normalisations_and_what_is_already_converted_stay_silently() -> None:
    model = nn.Sequential(nn.LayerNorm(3), nn.InstanceNorm1d(3), CustomBatchNorm(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert repr(convert_batchnorm(model)) == repr(model)


def test_half_precision_statistics_become_float32_and_half_again() -> None:
    ours = convert_batchnorm(nn.BatchNorm2d(3).half())
    assert (ours.weight.dtype, ours.running_var.dtype) == (torch.float16, torch.float32)
    assert convert_batchnorm(ours, to="torch").running_var.dtype == torch.float16


def test_what_cannot_be_done_is_refused_before_anything_changes() -> None:
    model = nn.Sequential(convert_batchnorm(nn.BatchNorm1d(3)), CustomBatchNorm(3))
    with pytest.raises(ValueError, match="dimensions: expected 1, 2 or 3, since '1'"):
        convert_batchnorm(model, to="torch", inplace=True)
    assert type(model[0]) is CustomBatchNorm
    with pytest.raises(ValueError, match="to: expected 'custom' or 'torch', received 'ours'"):
        convert_batchnorm(model, to="ours")
    with pytest.raises(ValueError, match="dimensions: expected 1, 2 or 3, received 4"):
        convert_batchnorm(model, to="torch", dimensions=4)
