"""CustomBatchNorm as a module: saving, copying, scripting, export and errors."""

import copy
import io
import warnings

import pytest
import torch
from batchnorm_helpers import largest_error, random_input
from torch import nn

from bnmodel import CustomBatchNorm

# --- state -----------------------------------------------------------------------------------------------------------


def test_the_state_dict_holds_parameters_and_running_statistics() -> None:
    assert set(CustomBatchNorm(3).state_dict()) == {
        "weight",
        "bias",
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }


@pytest.mark.parametrize(("affine", "tracking"), [(False, True), (True, False), (False, False)])
def test_disabled_parameters_and_statistics_are_not_in_the_state_dict(affine: bool, tracking: bool) -> None:
    layer = CustomBatchNorm(3, affine=affine, track_running_stats=tracking)
    assert len(layer.state_dict()) == 2 * affine + 3 * tracking
    assert len(list(layer.parameters())) == 2 * affine


def test_saved_and_loaded_it_gives_the_same_outputs() -> None:
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


def test_a_deep_copy_is_independent() -> None:
    layer = CustomBatchNorm(3)
    layer(random_input(0, 8, 3))
    state = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    twin = copy.deepcopy(layer)
    twin(random_input(1, 8, 3))
    nn.init.constant_(twin.gamma, 5.0)
    assert all(torch.equal(tensor, state[name]) for name, tensor in layer.state_dict().items())
    assert twin.num_batches_tracked == 2
    assert not torch.equal(twin.running_mean, layer.running_mean)


def test_reset_running_stats_resets_statistics_but_not_parameters() -> None:
    layer = CustomBatchNorm(2)
    layer(random_input(0, 8, 2))
    nn.init.constant_(layer.gamma, 5.0)
    layer.reset_running_stats()
    assert layer.running_mean.tolist() == [0, 0]
    assert layer.running_var.tolist() == [1, 1]
    assert layer.num_batches_tracked == 0
    assert layer.gamma.tolist() == [5, 5]


def test_reset_parameters_gives_the_initial_state() -> None:
    layer = CustomBatchNorm(2)
    layer(random_input(0, 8, 2))
    nn.init.constant_(layer.gamma, 5.0), nn.init.constant_(layer.beta, 5.0)
    layer.reset_parameters()
    fresh = CustomBatchNorm(2).state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in layer.state_dict().items())


def scripted(module: nn.Module) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        return torch.jit.script(module)


@pytest.mark.parametrize(
    ("momentum", "affine", "tracking"), [(0.1, True, True), (None, True, True), (0.1, False, True), (0.1, True, False)]
)
def test_scripted_it_gives_the_same_outputs_and_statistics(
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


def test_scripted_it_raises_the_same_error() -> None:
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


# --- errors ----------------------------------------------------------------------------------------------------------


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
        ({"num_features": 32.0}, "num_features"),
        ({"num_features": 3, "eps": -1e-5}, "eps"),
        ({"num_features": 3, "eps": float("nan")}, "eps"),
        ({"num_features": 3, "momentum": -0.1}, "momentum"),
        ({"num_features": 3, "momentum": 1.5}, "momentum"),
        ({"num_features": 3, "momentum": float("nan")}, "momentum"),
    ],
    ids=str,
)
def test_a_constructor_argument_out_of_range_is_refused_by_name(options: dict, name: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^{name}: expected .* received"):
        CustomBatchNorm(**options)
