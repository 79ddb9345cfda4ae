"""`diagnose` and `recalibrate` in cases that people meet: unlabelled samples, random forwards, broken parameters."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from benchmarks.diagnosis import networks as zoo
from bnmodel.diagnosis import diagnose, recalibrate
from bnmodel.diagnosis.outcome import Gain
from bnmodel.diagnosis.staleness import _severity


def labelled(digits: zoo.Data, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(digits.test[0].split(50), targets.split(50), strict=True))


def test_statistics_of_one_class_are_an_error_with_and_without_targets(cnn: nn.Module, digits: zoo.Data) -> None:
    x, y = digits.train
    update_bn([x[y == 3]], cnn)
    cnn.eval()
    for batches in (digits.batches(), list(digits.test[0].split(64))):
        (first, *_) = diagnose(cnn, batches).findings
        assert (first.code, first.severity) == ("stale-statistics", "error")


@pytest.mark.parametrize(
    ("size", "gain", "expected"),
    [
        (0.2, Gain("accuracy", 0.06, 0.02, 0.10, 500), "warning"),
        (0.2, Gain("accuracy", 0.04, 0.02, 0.06, 500), "warning"),  # proven, though the deviation is small
        (0.2, Gain("accuracy", 0.04, 0.005, 0.075, 500), "note"),
        (0.2, Gain("answers", 0.12, 0.10, 0.14, 500), "note"),
        (0.4, Gain("accuracy", 0.06, 0.02, 0.10, 500), "error"),
        (0.4, Gain("answers", 0.12, 0.10, 0.14, 500), "error"),
        (0.4, Gain("answers", 0.60, 0.40, 0.80, 32), "note"),
        (0.6, Gain("answers", 0.60, 0.40, 0.80, 32), "error"),
    ],
)
def test_a_small_deviation_is_at_most_a_warning(size: float, gain: Gain, expected: str) -> None:
    assert _severity(size, gain, gain.samples) == expected


def test_after_a_training_that_diverged_the_remedy_is_an_earlier_checkpoint(cnn: nn.Module, digits: zoo.Data) -> None:
    norm = next(part for part in cnn.modules() if isinstance(part, nn.BatchNorm2d))
    norm.running_mean.fill_(float("nan"))
    (first, *_) = diagnose(cnn, digits.batches()).findings
    assert "reset_running_stats" in first.remedy
    next(cnn.parameters()).data.fill_(float("nan"))
    (first, *_) = diagnose(cnn, digits.batches()).findings
    assert first.code == "invalid-statistics"
    assert "of a checkpoint before the weights became NaN" in first.remedy


def test_samples_without_a_label_do_not_count(cnn: nn.Module, digits: zoo.Data) -> None:
    x, y = digits.test
    half = torch.where(torch.arange(len(y)) % 2 == 0, -100, y)
    with_ignored = diagnose(cnn, labelled(digits, half)).eval_outcome
    alone = diagnose(cnn, list(zip(x[1::2].split(25), y[1::2].split(25), strict=True))).eval_outcome
    assert with_ignored.accuracy == pytest.approx(alone.accuracy)
    assert with_ignored.loss == pytest.approx(alone.loss)


@pytest.mark.filterwarnings("ignore:targets")
def test_without_any_label_there_is_no_accuracy(cnn: nn.Module, digits: zoo.Data) -> None:
    outcome = diagnose(cnn, labelled(digits, torch.full_like(digits.test[1], -100))).eval_outcome
    assert (outcome.accuracy, outcome.loss) == (None, None)


def test_targets_that_fit_no_output_are_named(cnn: nn.Module, digits: zoo.Data) -> None:
    with pytest.warns(UserWarning, match=r"targets: expected int64 classes.*received torch\.float32 \[50\]"):
        diagnose(cnn, labelled(digits, digits.test[1].float()))


@pytest.mark.parametrize("parameter", ["weight", "bias"])
def test_broken_parameters_are_found_at_their_layer(cnn: nn.Module, digits: zoo.Data, parameter: str) -> None:
    getattr(cnn.get_submodule("5"), parameter).data[2] = float("nan")
    (finding, *_) = diagnose(cnn, digits.batches()).findings
    assert (finding.code, finding.severity, finding.layer) == ("invalid-statistics", "error", "5")
    assert parameter in finding.message


def test_a_random_forward_draws_the_same_numbers_in_every_pass(cnn: nn.Module, digits: zoo.Data) -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = cnn

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(self.inner(x), 0.5)

    x = digits.test[0]
    model = recalibrate(Noisy().eval(), [x])
    assert diagnose(model, [x]).disagreement == 0


def test_few_samples_of_a_sound_autoencoder_are_no_error() -> None:
    torch.manual_seed(0)
    data = zoo.mnist()
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 784), nn.Sigmoid()
    )
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for index in torch.randint(0, len(data.train[0]), (300, 64)):
        x = data.train[0][index]
        optimizer.zero_grad()
        F.binary_cross_entropy(model(x), x.flatten(1)).backward()
        optimizer.step()
    x = data.test[0]
    alarms = [not diagnose(model.eval(), list(x[start : start + 48].split(16))).sound for start in range(0, 960, 96)]
    assert sum(alarms) <= 1


class Chosen(nn.Module):
    """One of two norms, by the batch's first value."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm1d(3), nn.BatchNorm1d(3)])

    def forward(self, x: Tensor) -> Tensor:
        return self.norms[int(x[0, 0] > 0)](x)


def test_a_layer_that_the_first_batch_does_not_reach_is_recalibrated_too() -> None:
    first, second = -torch.rand(20, 3), torch.rand(20, 3)
    model = recalibrate(Chosen().eval(), [first, second])
    torch.testing.assert_close(model.norms[0].running_mean, first.mean(0))
    torch.testing.assert_close(model.norms[1].running_mean, second.mean(0))


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (nn.BatchNorm1d(3), torch.rand(1, 3), "at least 2 values per channel"),
        (nn.BatchNorm1d(3).half(), torch.tensor([[-1e3], [1e3]]).repeat(1, 3).half(), r"exceed torch\.float16"),
    ],
)
def test_statistics_that_cannot_be_used_are_refused(model: nn.Module, x: Tensor, message: str) -> None:
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        recalibrate(model.eval(), [x], inplace=True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_without_values_is_refused() -> None:
    with pytest.raises(ValueError, match="received a meta tensor"):
        diagnose(nn.Sequential(nn.BatchNorm1d(3)).to("meta"), [torch.rand(8, 3)])
    with pytest.raises(ValueError, match=r"1.running_mean: .* received a meta tensor"):
        diagnose(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, affine=False, device="meta")), [torch.rand(8, 3)])


@pytest.mark.parametrize("options", [{"loss": "mse"}, {"forward": "call"}])
def test_a_name_in_place_of_a_function_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(TypeError, match=r"expected a function, received '\w+'"):
        diagnose(nn.BatchNorm1d(3).eval(), [torch.rand(8, 3)], **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"forward: expected a function, received 'call'"):
        recalibrate(nn.BatchNorm1d(3), [torch.rand(8, 3)], forward="call")  # type: ignore[arg-type]


def test_batch_statistics_of_torchs_operator_are_found(digits: zoo.Data) -> None:
    class Operator(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.batch_norm(x, None, None, None, None, True, 0.1, 1e-5, False)

    model = nn.Sequential(nn.Conv2d(1, 3, 3), Operator(), nn.Flatten(), nn.LazyLinear(10))
    model(digits.test[0][:2])
    found = [(finding.code, finding.layer) for finding in diagnose(model.eval(), digits.batches()).findings]
    assert ("batch-statistics-in-eval", "1") in found
