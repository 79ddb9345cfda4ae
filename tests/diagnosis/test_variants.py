"""Networks and batches unlike those of the benchmark, each with and without a fault."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.diagnosis import networks as zoo
from benchmarks.diagnosis.faults import darker
from bnmodel.diagnosis import Report, diagnose, recalibrate, watch
from bnmodel.findings import Finding


def found(report: Report, code: str) -> list[Finding]:
    return [finding for finding in report.findings if finding.code == code]


def drift(model: nn.Module, inputs: list[Tensor]) -> nn.Module:
    """A copy after train-mode passes over other inputs."""
    drifted = copy.deepcopy(model).train()
    with torch.no_grad():
        for x in inputs * 3:
            drifted(darker(3 * x))
    return drifted.eval()


class Tagger(nn.Module):
    """(N, C, L) of any length → (N, 10, L)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(8, 24, 3, padding=1), nn.BatchNorm1d(24), nn.ReLU(), nn.Conv1d(24, 10, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.squeeze(1))


def test_sequences_of_different_lengths(digits: zoo.Data) -> None:
    lines = zoo.Data(*((x, y[:, None].expand(-1, 8)) for x, y in (digits.train, digits.test)), F.cross_entropy)
    model = zoo.trained(Tagger, lines, steps=60).eval()
    batches = [x[..., : 8 if index % 2 else 5] for index, (x, _) in enumerate(lines.batches())]
    assert diagnose(model, batches).sound
    assert found(diagnose(drift(model, batches), batches), "stale-statistics")[0].severity == "error"


class Tokens(nn.Module):
    """A transformer's layer with batch norm over all tokens, (N·L, C)."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embedding = nn.Linear(8, width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(8 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embedding(x.squeeze(1))
        h = h + self.attention(h, h, h, need_weights=False)[0]
        return self.head(F.relu(self.norm(h.flatten(0, 1))).reshape(len(x), -1))


def test_a_transformer_with_batch_norm_over_tokens(digits: zoo.Data) -> None:
    model = zoo.trained(Tokens, digits, steps=120).eval()
    assert diagnose(model, digits.batches()).sound
    assert not diagnose(drift(model, [x for x, _ in digits.batches()]), digits.batches()).sound


def rare_labels(targets: Tensor) -> Tensor:
    """One of 40 labels is present: 97.5% are right if none is predicted."""
    return F.one_hot(targets, 40).float() + F.one_hot(targets + 10, 40).float()


def test_rare_labels_count_as_much_as_frequent_ones(digits: zoo.Data) -> None:
    labels = zoo.Data(
        *((x, rare_labels(y)) for x, y in (digits.train, digits.test)), F.binary_cross_entropy_with_logits
    )
    model = zoo.trained(lambda: zoo.mlp(64, 40), labels, steps=250).eval()
    assert diagnose(model, labels.batches()).sound
    drifted = diagnose(drift(model, [x for x, _ in labels.batches()]), labels.batches())
    (finding,) = (f for f in drifted.findings if f.severity != "note")
    assert (finding.code, finding.severity) == ("stale-statistics", "error")


def test_smoothed_targets_are_classes(cnn: nn.Module, digits: zoo.Data) -> None:
    smoothed = [(x, 0.9 * F.one_hot(y, 10) + 0.01) for x, y in digits.batches()]
    expected = diagnose(cnn, digits.batches()).eval_outcome.accuracy
    assert diagnose(cnn, smoothed).eval_outcome.accuracy == pytest.approx(expected)


def test_half_precision(cnn: nn.Module, digits: zoo.Data) -> None:
    batches = [(x.bfloat16(), y) for x, y in digits.batches()]
    drifted = drift(cnn, [x for x, _ in digits.batches()])
    assert diagnose(cnn.bfloat16(), batches).sound
    assert not diagnose(drifted.bfloat16(), batches).sound


def test_filters_set_to_zero_are_dead_though_their_statistics_are_not(cnn: nn.Module, digits: zoo.Data) -> None:
    layer = cnn.get_submodule("4")
    with torch.no_grad():
        layer.weight[:8] = 0
        layer.bias[:8] = 0
    (finding,) = found(diagnose(cnn, digits.batches()), "dead-channels")
    assert (finding.severity, finding.layer) == ("warning", "5")


def test_one_huge_scale_leaves_the_other_channels_alive(cnn: nn.Module, digits: zoo.Data) -> None:
    with torch.no_grad():
        cnn.get_submodule("5").weight[2] = 2e5
    report = diagnose(cnn, digits.batches())
    assert not found(report, "dead-channels")
    assert found(report, "exploding-channels")


def test_a_large_momentum_is_a_note_where_batches_are_large_enough(digits: zoo.Data) -> None:
    model = zoo.trained(lambda: zoo.mlp(64, momentum=1.0), digits, steps=100, schedule=True).eval()
    report = diagnose(model, digits.batches())
    assert report.sound
    assert [finding.code for finding in report.findings] == ["noisy-statistics"]


class Halves(nn.BatchNorm2d):
    """Ghost batch norm as it is often written: statistics of two halves of a batch in one buffer."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("running_mean", torch.zeros(2 * channels))
        self.register_buffer("running_var", torch.ones(2 * channels))

    def forward(self, x: Tensor) -> Tensor:
        mean, var = (each.view(2, -1).mean(0) for each in (self.running_mean, self.running_var))
        return F.batch_norm(x, mean, var, self.weight, self.bias)


class ChannelsLast(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(-1, 1)).movedim(1, -1)


def test_a_subclass_that_is_no_norm_per_channel_of_axis_1_is_passed_over() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.ghost = nn.Conv2d(3, 4, 3), Halves(4)
            self.b, self.last, self.plain = nn.Conv2d(4, 6, 3), ChannelsLast(6), nn.BatchNorm2d(6)

        def forward(self, x: Tensor) -> Tensor:
            y = self.b(self.ghost(self.a(x)))
            return self.plain(self.last(y.movedim(1, -1)).movedim(-1, 1))

    model, batches = Mixed(), [torch.randn(16, 3, 9, 9) for _ in range(4)]
    with watch(model, every=1) as record:
        model(batches[0])
    assert {each.layer for each in record.measurements} == {"plain"}
    model = recalibrate(model.eval(), batches)
    report = diagnose(model, batches)
    assert [finding for finding in report.findings if finding.severity != "note"] == []
    assert {layer.name: layer.calls for layer in report.layers} == {"plain": 1, "last": 0}


def test_a_single_argument_that_is_a_list_is_passed_as_one() -> None:
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, levels: list[Tensor]) -> list[Tensor]:
            return [self.norm(level) for level in levels]

    batches = [([torch.randn(8, 3, 8, 8), torch.randn(8, 3, 4, 4)],) for _ in range(4)]
    assert diagnose(recalibrate(Pyramid().eval(), batches), batches).sound


def test_a_forward_in_inference_mode_is_checked() -> None:
    class Predictor(nn.Sequential):
        @torch.inference_mode()
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    model = Predictor(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).eval()
    batches = [torch.randn(16, 5) for _ in range(6)]
    assert diagnose(recalibrate(model, batches), batches).sound
    assert [finding.code for finding in diagnose(model, batches).findings] == ["never-updated"]
