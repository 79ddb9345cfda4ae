"""`watch` records a training, warns about findings, and does not change the training."""

import copy
import csv
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.diagnosis import networks as zoo
from bnmodel.diagnosis import watch
from bnmodel.findings import Finding


def test_training_is_the_same_with_and_without(digits: zoo.Data) -> None:
    plain = zoo.built(zoo.cnn, digits)
    watched = copy.deepcopy(plain)
    zoo.train(plain, digits, steps=12)
    with watch(watched, every=2):
        zoo.train(watched, digits, steps=12)
    assert all(torch.equal(value, watched.state_dict()[name]) for name, value in plain.state_dict().items())
    assert all(not module._forward_pre_hooks for module in watched.modules())


def test_every_nth_step_of_every_layer_is_recorded(digits: zoo.Data, tmp_path: Path) -> None:
    model = zoo.built(zoo.cnn, digits)
    with watch(model, every=5, file=tmp_path / "norms.csv") as watching:
        zoo.train(model, digits, steps=12)
        model.eval()(digits.test[0][:4])
    assert [(m.step, m.layer) for m in watching.measurements] == [
        (step, layer) for step in (0, 5, 10) for layer in ("1", "5", "10")
    ]
    rows = list(csv.DictReader((tmp_path / "norms.csv").open()))
    assert [row["layer"] for row in rows] == ["1", "5", "10"] * 3
    assert float(rows[0]["distance"]) == pytest.approx(watching.measurements[0].distance)


def test_distance_is_that_of_the_batch_before_the_step() -> None:
    norm = nn.BatchNorm1d(3)
    x = torch.randn(40, 3) + 2
    with watch(norm, every=1) as watching:
        norm(x)
    expected = float((x.mean(0).square() / (1 + norm.eps)).mean().sqrt())
    assert watching.measurements[0].distance == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "size", "codes"),
    [
        ({}, 64, set()),
        ({"momentum": 0.99}, 64, {"noisy-statistics"}),
        ({}, 2, {"tiny-batches"}),
        ({"track_running_stats": False}, 64, {"batch-statistics-in-eval"}),
        ({"momentum": 0.0}, 64, {"never-updated"}),
    ],
)
def test_a_finding_is_reported_once_per_layer(
    digits: zoo.Data, options: dict[str, Any], size: int, codes: set[str]
) -> None:
    found: list[Finding] = []
    model = zoo.built(lambda: zoo.mlp(64, **options), digits)
    with watch(model, every=1, on_finding=found.append):
        zoo.train(model, digits, steps=30, size=size)
    assert {finding.code for finding in found} == codes
    assert len(found) == 2 * len(codes)


class Residual(nn.Module):
    """The last norm of a block starts with γ = 0, as with torchvision's zero_init_residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(64), nn.Linear(64, 10)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1) + self.norm(x.flatten(1)))


def test_norms_frozen_at_their_initial_values_are_reported(digits: zoo.Data) -> None:
    found: list[Finding] = []
    model = zoo.built(zoo.cnn, digits)
    with watch(model, every=1, on_finding=found.append):
        for _ in range(5):
            model.train()
            for name in ("1", "5"):
                model.get_submodule(name).eval()
            model(digits.train[0][:64])
    assert [(f.layer, f.code) for f in found if f.code == "never-updated"] == [
        ("1", "never-updated"),
        ("5", "never-updated"),
    ]


def test_norms_frozen_with_statistics_are_not_reported(digits: zoo.Data) -> None:
    found: list[Finding] = []
    model = zoo.built(zoo.cnn, digits)
    zoo.train(model, digits, steps=40)
    with watch(model, every=1, on_finding=found.append):
        for _ in range(5):
            model.train()
            model.get_submodule("1").eval()
            model(digits.train[0][:64])
    assert found == []


def test_scales_driven_to_zero_are_reported(digits: zoo.Data) -> None:
    found: list[Finding] = []
    model = zoo.built(zoo.cnn, digits)
    with watch(model, every=1, on_finding=found.append):
        zoo.train(model, digits, steps=30)
        assert found == []
        with torch.no_grad():
            model.get_submodule("5").weight[::2] *= 1e-6  # type: ignore[union-attr, index, operator]
        zoo.train(model, digits, steps=4, lr=0.0)
    assert [(f.layer, f.code) for f in found] == [("5", "dead-channels")]


def test_scales_that_start_at_zero_are_not_reported(digits: zoo.Data) -> None:
    found: list[Finding] = []
    model = Residual()
    with watch(model, every=1, on_finding=found.append):
        zoo.train(model, digits, steps=10)
    assert found == []


@pytest.mark.parametrize(("momentum", "codes"), [(0.001, ["unconverged-average"]), (0.1, []), (None, [])])
def test_an_average_near_its_initial_values_is_reported_at_the_end(momentum: float | None, codes: list[str]) -> None:
    norm = nn.BatchNorm1d(3, momentum=momentum)
    found: list[Finding] = []
    with watch(norm, every=1, on_finding=found.append):
        for _ in range(10):
            norm(torch.randn(40, 3) + 2)
        assert found == []
    assert [finding.code for finding in found] == codes


def test_invalid_statistics_are_reported_at_once(digits: zoo.Data) -> None:
    found: list[Finding] = []
    model = zoo.built(zoo.cnn, digits)
    with watch(model, every=1, on_finding=found.append):
        model(torch.full((4, 1, 8, 8), float("nan")))
    assert {(finding.code, finding.layer) for finding in found} == {
        ("invalid-statistics", layer) for layer in ("1", "5", "10")
    }


def test_the_json_file_has_null_for_values_that_json_lacks(tmp_path: Path) -> None:
    x = torch.randn(8, 3)
    x[0, 0] = torch.inf
    with watch(nn.BatchNorm1d(3), every=1, file=tmp_path / "norms.json") as watching:
        watching.model(x)
    (row,) = json.loads((tmp_path / "norms.json").read_text(), parse_constant=pytest.fail)["measurements"]
    assert row["distance"] is None


def test_the_file_may_be_json(digits: zoo.Data, tmp_path: Path) -> None:
    model = zoo.built(zoo.cnn, digits)
    with watch(model, every=1, file=tmp_path / "norms.json"):
        zoo.train(model, digits, steps=2)
    content = json.loads((tmp_path / "norms.json").read_text())
    assert len(content["measurements"]) == 6
    assert content["findings"] == []


def test_scalars_go_to_a_writer(digits: zoo.Data) -> None:
    class Writer:
        tags: set[str] = set()  # noqa: RUF012

        def add_scalar(self, tag: str, value: float, step: int) -> None:
            self.tags.add(tag)

        def flush(self) -> None:
            pass

    model = zoo.built(zoo.cnn, digits)
    with watch(model, every=1, tensorboard=Writer()):
        zoo.train(model, digits, steps=1)
    assert "batch norm distance/5" in Writer.tags


@pytest.mark.parametrize(
    "options", [{"every": 0}, {"every": "often"}, {"every": 2.5}, {"file": "norms.txt"}, {"on_finding": "print"}]
)
def test_wrong_options_are_refused(cnn: nn.Module, options: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match="expected"):
        watch(cnn, **options)


def test_the_writer_of_a_folder_is_closed(cnn: nn.Module, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    before = threading.active_count()
    with watch(cnn, every=1, tensorboard=tmp_path):
        assert threading.active_count() > before
    assert threading.active_count() == before


def test_a_copy_made_while_watching_is_free_of_hooks_in_effect(digits: zoo.Data, tmp_path: Path) -> None:
    model = zoo.built(zoo.cnn, digits)
    with watch(model, every=1) as watching:
        zoo.train(model, digits, steps=2)
        best = copy.deepcopy(model)
        torch.save(model, tmp_path / "model.pt")
        measured = len(watching.measurements)
        zoo.train(best, digits, steps=2)
        assert len(watching.measurements) <= measured + 3  # those of the last step of `model`
    torch.save(best, tmp_path / "best.pt")


def test_a_finding_needs_measurements_in_a_row(digits: zoo.Data) -> None:
    model = zoo.built(zoo.cnn, digits)
    found: list[Finding] = []
    with watch(model, every=1, on_finding=found.append):
        model.train()
        for count in (1, 64, 64) * 4:  # every third batch is too small
            model(digits.train[0][: max(count, 2)])
    assert not [finding for finding in found if finding.code == "tiny-batches"]


def test_a_loop_that_never_calls_the_watched_module_is_reported(cnn: nn.Module, caplog: Any) -> None:
    with watch(cnn):
        pass
    assert "no training step was seen" in caplog.text
    with watch(nn.Linear(3, 3)):
        pass
    assert "no batch norm found" in caplog.text


class Repeated(nn.Module):
    """Calls one norm many times per step."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(5):
            x = self.norm(x)
        return self.head(x)


def test_in_a_row_means_steps_not_calls() -> None:
    model = Repeated()
    found: list[Finding] = []
    with watch(model, every=1, on_finding=found.append):
        for size in (64, 2, 64, 64):
            model(torch.randn(size, 4)).sum().backward()
    assert found == []


def test_an_unconverged_variance_is_reported(digits: zoo.Data) -> None:
    """The mean of a convolution's outputs is often near the initial 0, while the variance is far below 1."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16, momentum=0.003))
    x = (digits.train[0] - digits.train[0].mean(0)) / 10
    with watch(model.train(), every=5) as watching:
        for part in x[:640].split(32):
            model(part)
    assert watching.measurements[-1].distance < 0.3
    (finding,) = watching.findings
    assert (finding.code, finding.severity) == ("unconverged-average", "warning")
    assert "times the running variance" in finding.message


def test_a_compiled_model_is_not_traced_through_the_hooks(digits: zoo.Data) -> None:
    model = torch.compile(zoo.built(zoo.cnn, digits), backend="eager")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with watch(model.train(), every=1) as watching:
        for x, _ in digits.batches()[:3]:
            model(x)
    traced = " ".join(map(str, torch._dynamo.utils.counters["graph_break"]))
    assert len(watching.measurements) == 9
    assert "item" not in traced
    assert "numpy" not in traced


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match="received dict"):
        watch({})  # type: ignore[arg-type]
