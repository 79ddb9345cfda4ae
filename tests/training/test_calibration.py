"""Calibration, against hand calculations and samples with known probabilities."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bnmodel import SimpleCNN
from bnmodel.data import load_sample
from bnmodel.nn.models import Network, RobustCNN
from bnmodel.training import calibrate
from bnmodel.training.calibration import calibration_error, fit_temperature, fold_temperature
from bnmodel.training.evaluation import predict_log_probs


def answers(winner: list[float]) -> Tensor:
    """Log-probabilities (N, 2) whose first class has these probabilities."""
    p = torch.tensor(winner, dtype=torch.float64)
    return torch.stack((p, 1 - p), dim=1).log()


def calibrated(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Log-probabilities (N, 10) and labels drawn with these probabilities."""
    generator = torch.Generator().manual_seed(seed)
    log_probs = F.log_softmax(2 * torch.randn(count, 10, generator=generator, dtype=torch.float64), dim=1)
    return log_probs, torch.multinomial(log_probs.exp(), 1, generator=generator)[:, 0]


def test_the_calibration_error_equals_a_calculation_by_hand() -> None:
    # four answers of 0.8, of which two are right; one answer of 0.6, which is right
    error = calibration_error(answers([0.8, 0.8, 0.8, 0.8, 0.6]), torch.tensor([0, 0, 1, 1, 0]))
    assert error == pytest.approx((4 * abs(2 / 4 - 0.8) + 1 * abs(1 - 0.6)) / 5)


def test_the_calibration_error_is_0_for_certain_right_answers_and_1_for_certain_wrong_ones() -> None:
    sure = answers([1 - 1e-12] * 5)
    assert calibration_error(sure, torch.zeros(5).long()) == pytest.approx(0, abs=1e-9)
    assert calibration_error(sure, torch.ones(5).long()) == pytest.approx(1, abs=1e-9)


def test_calibrated_probabilities_have_almost_no_calibration_error_and_a_temperature_of_one() -> None:
    log_probs, labels = calibrated(50_000)
    assert calibration_error(log_probs, labels) < 0.01
    assert fit_temperature(log_probs, labels) == pytest.approx(1, abs=0.02)


@settings(deadline=None, max_examples=15)
@given(temperature=st.floats(0.2, 5))
def test_the_temperature_by_which_logits_were_multiplied_is_found(temperature: float) -> None:
    log_probs, labels = calibrated(2_000, seed=1)
    right = fit_temperature(log_probs, labels)
    assert fit_temperature(log_probs * temperature, labels) == pytest.approx(right * temperature, rel=0.01)


@pytest.mark.parametrize("network", [SimpleCNN, RobustCNN])
def test_a_folded_temperature_divides_the_logits_and_changes_no_answer(network: type[Network]) -> None:
    model = network().eval()
    images = load_sample(train=False).images[:50]
    before = predict_log_probs(model, images)
    fold_temperature(model, 0.5)
    after = predict_log_probs(model, images)
    torch.testing.assert_close(after, F.log_softmax(before / 0.5, dim=1))
    assert torch.equal(before.argmax(1), after.argmax(1))


def test_calibrating_a_network_lowers_its_validation_loss_and_calibration_error() -> None:
    model = SimpleCNN().eval()
    fold_temperature(model, 0.02)  # overconfident
    digits = load_sample(train=False)
    before = F.nll_loss(predict_log_probs(model, digits.images), digits.labels)
    results = calibrate(model, digits)
    assert results["validation_loss"] < before
    assert results["temperature"] > 1
    assert results["calibration_error"] < results["calibration_error_before"]
