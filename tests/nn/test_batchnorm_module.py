"""CustomBatchNorm as a module: saved, copied, scripted, exported, made from torch's layer and back, refusing."""

import copy
import io
import warnings

import pytest
import torch
from batchnorm_helpers import (
    assert_equal_layers,
    largest_error,
    random_input,
)
from torch import nn

from bnmodel import CustomBatchNorm

# --- life as a module ------------------------------------------------------------------------------------------------


def test_the_state_dict_holds_parameters_and_running_statistics() -> None:
    assert set(CustomBatchNorm(3).state_dict()) == {
        "weight",
        "bias",
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


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1), (1, 3, 1, 1), (1, 3, 1, 1, 1)], ids=str)
def test_one_value_per_channel_is_refused_in_training_mode(shape: tuple[int, ...]) -> None:
    layer = CustomBatchNorm(3)
    with pytest.raises(ValueError, match=r"at least 2 values per channel, received 1 from shape"):
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
