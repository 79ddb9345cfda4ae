"""Recalibrated statistics are exactly those of the population, however the data are split."""

import copy

import pytest
import torch
from torch import Tensor, nn

from benchmarks.diagnosis import faults
from benchmarks.diagnosis import networks as zoo
from bnmodel.diagnosis import diagnose, recalibrate
from bnmodel.nn.batchnorm import CustomBatchNorm


def by_hand(model: nn.Sequential, x: Tensor) -> None:
    """Layer after layer on all data at once."""
    for layer in model:
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            var, mean = torch.var_mean(x.double(), [0, *range(2, x.dim())], correction=1)
            layer.running_mean.copy_(mean)
            layer.running_var.copy_(var)
        x = layer.eval()(x)


@torch.no_grad()
@pytest.mark.parametrize("size", [500, 64, 7, 1])
def test_statistics_are_the_populations_however_the_data_are_split(
    drifted: nn.Module, digits: zoo.Data, size: int
) -> None:
    expected = copy.deepcopy(drifted)
    by_hand(expected, digits.test[0])  # type: ignore[arg-type]
    got = recalibrate(drifted, digits.test[0].split(size))
    for name, buffer in expected.named_buffers():
        if "running" in name:
            torch.testing.assert_close(got.get_buffer(name), buffer, rtol=2e-4, atol=2e-5)


def test_a_copy_is_returned_and_the_model_stays(drifted: nn.Module, digits: zoo.Data) -> None:
    before = copy.deepcopy(drifted.train().state_dict())
    got = recalibrate(drifted, digits.batches())
    assert got is not drifted
    assert all(torch.equal(before[name], value) for name, value in drifted.state_dict().items())
    assert got.training
    assert all(module.training for module in drifted.modules())


def test_in_place_changes_the_statistics_alone(drifted: nn.Module, digits: zoo.Data) -> None:
    before = copy.deepcopy(drifted.state_dict())
    buffer = drifted.get_buffer("1.running_mean")
    assert recalibrate(drifted, digits.batches(), inplace=True) is drifted
    assert drifted.get_buffer("1.running_mean") is buffer
    changed = {name for name, value in drifted.state_dict().items() if not torch.equal(before[name], value)}
    assert changed == {f"{layer}.running_{kind}" for layer in ("1", "5", "10") for kind in ("mean", "var")}


def test_it_cures_what_the_report_says_it_would(digits: zoo.Data) -> None:
    case = faults.tiny_momentum(0)
    report = diagnose(case.model, case.batches)
    assert report.recalibration is not None
    assert report.recalibration.value > 0.2
    cured = diagnose(recalibrate(case.model, digits.batches(64, "train")), case.batches)
    assert cured.sound, str(cured)
    assert cured.eval_outcome.accuracy is not None
    assert report.eval_outcome.accuracy is not None
    assert cured.eval_outcome.accuracy > report.eval_outcome.accuracy + 0.2


def test_layers_that_were_never_updated_count_as_updated_afterwards(digits: zoo.Data) -> None:
    case = faults.weights_only_checkpoint(0)
    cured = recalibrate(case.model, digits.batches(64, "train"))
    assert diagnose(cured, digits.batches()).sound
    assert cured.get_buffer("1.num_batches_tracked") > 0


@torch.no_grad()
def test_a_layer_called_twice_gets_the_average_over_its_calls() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x) + self.norm(3 * x + 5)

    x = torch.randn(200, 2)
    got = recalibrate(Shared(), x.split(50)).norm
    torch.testing.assert_close(got.running_mean, (x.mean(0) + (3 * x + 5).mean(0)) / 2, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got.running_var, (x.var(0) + (3 * x + 5).var(0)) / 2, rtol=1e-2, atol=1e-3)


@torch.no_grad()
def test_a_mean_far_larger_than_the_deviation_loses_no_digits() -> None:
    x = 3000 + torch.randn(400, 3, 6, 6)
    got = recalibrate(CustomBatchNorm(3), x.split(100))
    torch.testing.assert_close(got.running_var, x.double().var((0, 2, 3)).float(), rtol=1e-4, atol=0)


def test_layers_without_running_statistics_get_some_if_asked_for(digits: zoo.Data) -> None:
    case = faults.no_running_statistics(0)
    with pytest.warns(UserWarning, match=r"^1, .*: without running statistics .*; pass track=True"):
        assert recalibrate(case.model, digits.batches()).get_submodule("1").running_mean is None
    tracked = recalibrate(case.model, digits.batches(64, "train"), track=True)
    assert diagnose(tracked, digits.batches()).sound
    assert tracked.get_buffer("1.num_batches_tracked") > 0


def test_a_recalibration_of_nothing_warns(cnn: nn.Module, digits: zoo.Data) -> None:
    with pytest.warns(UserWarning, match="no batch norm was called"):
        recalibrate(cnn, digits.batches(), forward=lambda *_: None)
    with pytest.warns(UserWarning, match="no batch norm was found"):
        recalibrate(nn.Flatten(), digits.batches())


def test_invalid_inputs_are_refused_and_no_statistics_are_changed(cnn: nn.Module, digits: zoo.Data) -> None:
    with torch.no_grad():
        cnn.get_submodule("4").weight[0] = float("nan")
    before = {name: buffer.clone() for name, buffer in cnn.named_buffers()}
    with pytest.raises(ValueError, match=r"5: expected finite inputs.*check data"):
        recalibrate(cnn, digits.batches(), inplace=True)
    assert all(torch.equal(before[name], buffer) for name, buffer in cnn.named_buffers())


def test_a_failed_recalibration_in_place_leaves_layers_without_statistics_as_they_were() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False), nn.BatchNorm1d(3))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="finite"):
        recalibrate(model, [torch.full((8, 3), float("nan"))], inplace=True, track=True)
    assert not model[0].track_running_stats
    assert model[0].running_mean is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
