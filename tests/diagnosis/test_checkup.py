"""Planted faults get their code, healthy networks get none, and the measurements are exact."""

import copy
import re
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bnmodel
from benchmarks.diagnosis import faults
from benchmarks.diagnosis import networks as zoo
from benchmarks.diagnosis.faults import FAULTS, Fault, darker, inverted, pass_through
from benchmarks.diagnosis.healthy import HEALTHY, Healthy, flipped, handed_in
from bnmodel.diagnosis import Report, diagnose
from bnmodel.diagnosis.deviation import cause, deviation_of
from bnmodel.diagnosis.moments import Moments
from bnmodel.diagnosis.report import cells
from bnmodel.nn.batchnorm import CustomBatchNorm


def serious(report: Report) -> set[str]:
    return {finding.code for finding in report.findings if finding.severity != "note"}


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_planted_fault_gets_its_code(fault: Fault) -> None:
    case = fault.make(0)
    report = diagnose(case.model, case.batches, **case.options)
    found = serious(report) if fault.name not in faults.MILD else report.codes
    assert fault.code in found, str(report)
    for finding in report.findings:
        compile(finding.remedy, "remedy", "exec")  # a line of code


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint of parameters only",
        "one layer drifted",
        "Keras's momentum 0.99",
        "momentum 0.001, 60 steps",
        "track_running_stats=False",
        "one norm left in train mode",
        "one NaN",
    ],
)
def test_the_remedy_is_a_line_of_code_that_cures(name: str, digits: zoo.Data) -> None:
    case = next(fault for fault in FAULTS if fault.name == name).make(0)
    first = diagnose(case.model, case.batches, **case.options).findings[0]
    names = {"model": case.model, "bnmodel": bnmodel, "training_batches": digits.batches(64, "train")}
    exec(first.remedy, names)
    assert diagnose(names["model"], case.batches, **case.options).sound


def test_the_remedy_passes_forward_on(drifted: nn.Module, digits: zoo.Data) -> None:
    report = diagnose(drifted, digits.batches(), forward=lambda model, batch: model(batch[0]))
    assert report.findings[0].remedy == "model = bnmodel.recalibrate(model, training_batches, forward=forward)"


FEW = ("cnn", "cnn, CustomBatchNorm", "mlp, input normalised", "LSTM", "regression", "U-Net", "siamese, same inputs")
SLOW = ("batches of 4", "batches of 4 without targets", "training data")  # in the benchmark


@pytest.mark.parametrize("network", [h for h in HEALTHY if h.name in FEW], ids=lambda h: h.name)
def test_a_healthy_network_gets_no_error_and_no_warning(network: Healthy) -> None:
    for way, model, batches in handed_in(network.trained(), network.data()):
        if way not in SLOW:
            report = diagnose(model, batches)
            assert report.sound, f"{way}: {report}"


def test_the_layer_where_the_drift_begins_is_named(digits: zoo.Data) -> None:
    case = faults.one_layer_drifted(1)
    (finding,) = [f for f in diagnose(case.model, case.batches).findings if f.severity != "note"]
    assert (finding.code, finding.layer) == ("stale-statistics", "5")


def test_layers_after_a_stale_one_are_its_consequences(drifted: nn.Module, digits: zoo.Data) -> None:
    report = diagnose(drifted, digits.batches())
    assert [f.layer for f in report.findings if f.severity != "note"] == ["1"]
    assert {layer.consequence_of for layer in report.layers} == {"", "1"}


def test_other_data_are_not_stale_statistics_where_a_reference_is_given(cnn: nn.Module, digits: zoo.Data) -> None:
    dark = [(darker(x), y) for x, y in digits.batches()]
    assert "stale-statistics" in serious(diagnose(cnn, dark))
    assert serious(diagnose(cnn, dark, reference=digits.batches(64, "train"))) == {"different-data"}
    assert not serious(diagnose(cnn, digits.batches(), reference=digits.batches(64, "train")))


def test_stale_statistics_stay_stale_with_a_reference(drifted: nn.Module, digits: zoo.Data) -> None:
    report = diagnose(drifted, digits.batches(), reference=digits.batches(64, "train"))
    assert serious(report) == {"stale-statistics"}


def test_statistics_frozen_in_training_are_no_fault_if_the_network_was_trained_with_them(digits: zoo.Data) -> None:
    case = faults.frozen_fine_tuning(0)
    assert diagnose(case.model, case.batches).sound


def test_statistics_whose_repair_costs_accuracy_are_to_be_kept(cnn: nn.Module, digits: zoo.Data) -> None:
    model = copy.deepcopy(cnn)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for inputs, targets in zoo.shuffled(digits, 64, 100):
        optimizer.zero_grad()
        digits.loss(model(2 * inputs + 1), targets).backward()
        optimizer.step()
    batches = [(2 * x + 1, y) for x, y in digits.batches()]
    (finding,) = diagnose(model, batches).findings
    assert (finding.code, finding.severity) == ("stale-statistics", "note")
    assert "recalibrate" not in finding.remedy
    exec(finding.remedy, {"model": model})
    assert diagnose(model, batches).sound


def test_data_on_which_recalibration_costs_accuracy_are_to_be_preprocessed(cnn: nn.Module, digits: zoo.Data) -> None:
    mirrored = [(x.flip(-1), y) for x, y in digits.batches()]
    (finding,) = diagnose(cnn, mirrored, reference=digits.batches(64, "train")).findings
    assert finding.code == "different-data"
    assert "repaired: -" in finding.message
    assert finding.remedy.startswith("x = preprocess_as_in_training(x)")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])  # the square of the last overflows
def test_an_input_that_is_not_finite_is_invalid_at_the_first_layer_only(
    value: float, cnn: nn.Module, digits: zoo.Data
) -> None:
    inputs = digits.batches()[0][0].clone()
    inputs[3, 0, 2, 2] = value
    report = diagnose(cnn, [inputs])
    (finding,) = report.findings
    assert [layer.distance for layer in report.layers] == [None] * 3  # no channel can be compared
    assert (finding.code, finding.severity) == ("invalid-statistics", "error")
    expected = "values too large for a variance" if value == 1e30 else "NaN or infinite values"
    assert f"the layer's input holds {expected}" in finding.message
    assert finding.layer == next(name for name, part in cnn.named_modules() if isinstance(part, nn.BatchNorm2d))


@pytest.mark.parametrize("shift", [1, 7])
def test_targets_that_are_no_class_are_refused(shift: int, cnn: nn.Module, digits: zoo.Data) -> None:
    shifted = [(x, y + shift) for x, y in digits.batches()]
    with pytest.raises(ValueError, match=r"targets: expected classes 0 … 9, received 1[0-9]; number them from 0"):
        diagnose(cnn, shifted)
    ignored = [(x, torch.where(y == 0, 255, y)) for x, y in digits.batches()]
    assert diagnose(cnn, ignored).sound


def test_a_norm_that_is_never_called_is_no_fault(cnn: nn.Module, digits: zoo.Data) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.unused = cnn, nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    report = diagnose(Wrapped().eval(), digits.batches())
    assert report.sound
    assert {layer.name: layer.calls for layer in report.layers}["unused"] == 0


def test_all_norms_frozen_in_a_model_in_train_mode_is_no_mixed_mode(cnn: nn.Module, digits: zoo.Data) -> None:
    cnn.train()
    for name in ("1", "5", "10"):
        cnn.get_submodule(name).eval()
    assert "mixed-modes" not in diagnose(cnn, digits.batches()).codes


def test_a_model_left_in_train_mode_is_named_if_eval_mode_predicts_better(cnn: nn.Module, digits: zoo.Data) -> None:
    sorted_by_class = digits.test[1].argsort()
    x, y = (part[sorted_by_class] for part in digits.test)
    one_class = list(zip(x.split(16), y.split(16), strict=True))
    assert "training-mode" not in diagnose(cnn, one_class).codes
    (found,) = [finding for finding in diagnose(cnn.train(), one_class).findings if finding.severity != "note"]
    assert (found.code, found.severity) == ("training-mode", "warning")
    assert found.remedy == "model.eval()  # before predicting"
    assert "training-mode" not in diagnose(cnn, digits.batches()).codes  # shuffled: both modes predict alike


def test_a_shared_norm_with_inputs_alike_is_no_several_populations(digits: zoo.Data) -> None:
    alike = zoo.trained(lambda: zoo.Siamese(flipped), digits, steps=60)
    assert "several-populations" not in diagnose(alike.eval(), digits.batches()).codes
    apart = zoo.trained(lambda: zoo.Siamese(inverted), digits, steps=60)
    assert "several-populations" in diagnose(apart.eval(), digits.batches()).codes


def test_channels_inactive_on_few_samples_are_not_dead(digits: zoo.Data) -> None:
    model = zoo.trained(lambda: zoo.relu_first(), digits, steps=60).eval()
    assert "dead-channels" not in diagnose(model, [digits.test[0][:8]]).codes


def test_a_few_dead_channels_are_a_note(cnn: nn.Module, digits: zoo.Data) -> None:
    with torch.no_grad():
        cnn.get_submodule("5").weight[3] = 0
    (finding,) = [f for f in diagnose(cnn, digits.batches()).findings if f.code == "dead-channels"]
    assert (finding.severity, finding.layer) == ("note", "5")
    assert finding.message.startswith("1 of 24 channels")


def test_residual_branches_that_start_at_zero_are_a_note(digits: zoo.Data) -> None:
    model = pass_through(zoo.built(lambda: zoo.resnet(zero_init=True), digits), digits.batches(), lambda x: x, 40)
    dead = [f for f in diagnose(model.eval(), digits.batches()).findings if f.code == "dead-channels"]
    assert [(f.layer, f.severity) for f in dead] == [("3.bn2", "note"), ("4.bn2", "note")]


def test_constant_features_of_the_data_are_a_note() -> None:
    x = torch.rand(64, 8, generator=torch.Generator().manual_seed(0)) - 1
    x[:, :3] = -0.4
    model = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].running_var[:] = 0.1  # type: ignore[index, union-attr, operator]
        model[0].running_var[0] = 1e-8  # type: ignore[index, union-attr, operator]  # the others varied in training
        model[0].running_mean[:] = -0.5  # type: ignore[index, union-attr, operator]
    (dead,) = [f for f in diagnose(model.eval(), [x]).findings if f.code == "dead-channels"]
    assert dead.message.startswith("1 of 8 channels")
    model[0].running_var[:3] = 1e-8  # type: ignore[index, union-attr, operator]
    (dead,) = [f for f in diagnose(model, [x]).findings if f.code == "dead-channels"]
    assert dead.message.startswith("3 of 8 channels")
    assert dead.severity == "note"
    assert "training_x" in dead.remedy
    with torch.no_grad():
        model[0].weight[:4] = 0  # type: ignore[index, union-attr, operator]
    (dead,) = [f for f in diagnose(model, [x]).findings if f.code == "dead-channels"]
    assert dead.severity == "warning"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_one_invalid_value_is_an_error_of_that_layer_alone(cnn: nn.Module, digits: zoo.Data, value: float) -> None:
    cnn.get_submodule("5").running_var[2] = value
    report = diagnose(cnn, digits.batches())
    assert [(f.code, f.layer) for f in report.findings if f.severity == "error"] == [("invalid-statistics", "5")]
    assert not any("nan" in cells(layer) for layer in report.layers)


def test_the_answer_does_not_depend_on_how_the_data_are_split(drifted: nn.Module, digits: zoo.Data) -> None:
    reports = [diagnose(drifted, digits.batches(size)) for size in (500, 100, 7)]
    for report in reports[1:]:
        for layer, first in zip(report.layers, reports[0].layers, strict=True):
            assert layer.distance == pytest.approx(first.distance, rel=1e-4)
            assert layer.variance_ratio == pytest.approx(first.variance_ratio, rel=1e-4)
        assert serious(report) == serious(reports[0])


def test_distance_and_ratio_are_those_of_the_population_in_eval_mode(drifted: nn.Module, digits: zoo.Data) -> None:
    layer, inputs = drifted.get_submodule("5"), []
    handle = layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0].double()))
    with torch.no_grad():
        drifted.eval()(digits.test[0])
    handle.remove()
    var, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
    far = (mean - layer.running_mean) / (layer.running_var + layer.eps).sqrt()
    ratio = ((var + layer.eps) / (layer.running_var + layer.eps)).log().mean().exp()
    (record,) = [r for r in diagnose(drifted, digits.batches()).layers if r.name == "5"]
    assert record.largest_distance == pytest.approx(float(far.abs().max()), rel=1e-4)
    assert record.distance == pytest.approx(float(far.clamp(-3, 3).square().mean().sqrt()), rel=0.01)
    assert record.variance_ratio == pytest.approx(float(ratio), rel=1e-4)


def test_outcomes_are_those_of_the_two_modes(drifted: nn.Module, digits: zoo.Data) -> None:
    report = diagnose(drifted, digits.batches(50))
    with torch.no_grad():
        evaluated = torch.cat([drifted.eval()(x) for x, _ in digits.batches(50)])
        trained = torch.cat([copy.deepcopy(drifted).train()(x) for x, _ in digits.batches(50)])
    labels = digits.test[1]
    assert report.train_outcome is not None
    for outcome, outputs in ((report.eval_outcome, evaluated), (report.train_outcome, trained)):
        assert outcome.accuracy == pytest.approx(float((outputs.argmax(1) == labels).double().mean()))
        assert outcome.loss == pytest.approx(float(digits.loss(outputs, labels)), rel=1e-3)
    assert report.disagreement == pytest.approx(float((evaluated.argmax(1) != trained.argmax(1)).double().mean()))


@pytest.mark.parametrize(
    "kind", [nn.BatchNorm2d, nn.SyncBatchNorm, CustomBatchNorm, type("Own", (nn.BatchNorm2d,), {})]
)
def test_every_kind_of_batch_norm_is_examined(kind: Any, digits: zoo.Data) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), kind(4), nn.Flatten(), nn.Linear(144, 10)).eval()
    report = diagnose(model, digits.batches())
    assert [(f.code, f.layer) for f in report.findings] == [("never-updated", "1")]
    assert report.train_outcome is not None


class AlwaysBatch(nn.BatchNorm2d):
    """Batch statistics whatever the mode."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)


class InFours(AlwaysBatch):
    """Accepts whole groups of four samples only."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.unflatten(0, (-1, 4)).flatten(0, 1))


class Activated(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class Noisy(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.randn_like(x)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (AlwaysBatch, "batch-statistics-in-eval"),
        (InFours, "batch-statistics-in-eval"),
        (Activated, "never-updated"),
        (Noisy, "never-updated"),
    ],
)
def test_a_subclass_that_always_uses_its_batch_is_found(kind: Any, code: str, digits: zoo.Data) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), kind(4), nn.Flatten(), nn.Linear(144, 10)).eval()
    report = diagnose(model, digits.batches())
    assert [(f.code, f.layer) for f in report.findings] == [(code, "1")]
    names = {"model": model, "bnmodel": bnmodel, "nn": nn, "training_batches": digits.batches()}
    exec(report.findings[0].remedy, names)
    assert not diagnose(names["model"], digits.batches()).has_errors


class Functional(nn.Module):
    """Calls F.batch_norm itself, as implementations of meta-learning do."""

    def __init__(self, training: bool, groups: int | None = None) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(144, 10)
        self.always, self.groups = training, groups

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.groups:  # adaptive instance norm: each sample has its own statistics
            y = nn.functional.batch_norm(x.reshape(1, -1, *x.shape[2:]), None, None, training=True)
            return self.last(y.view_as(x).flatten(1))
        norm = self.norm
        mode = self.always or self.training
        x = nn.functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, mode)
        return self.last(x.flatten(1))


@pytest.mark.parametrize(
    ("model", "codes"),
    [
        (Functional(True), [("batch-statistics-in-eval", "block")]),
        (Functional(False), []),
        (Functional(False, groups=4), []),
    ],
    ids=["training=True", "training=self.training", "per sample"],
)
def test_batch_statistics_of_a_functional_norm_are_found(model: nn.Module, codes: list, digits: zoo.Data) -> None:
    whole = nn.Sequential()
    whole.add_module("block", model)
    assert [(f.code, f.layer) for f in diagnose(whole.eval(), digits.batches()).findings] == codes


def test_scripted_norms_are_refused(cnn: nn.Module, digits: zoo.Data) -> None:
    with pytest.raises(ValueError, match="before scripting"):
        diagnose(torch.jit.script(cnn), digits.batches())


def test_wrapped_models_are_examined(drifted: nn.Module, digits: zoo.Data) -> None:
    report = diagnose(nn.DataParallel(drifted).eval(), digits.batches())
    assert [f.layer for f in report.findings if f.severity != "note"] == ["module.1"]


def test_a_model_without_batch_norms_is_sound(digits: zoo.Data) -> None:
    report = diagnose(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), digits.batches())
    assert report.sound
    assert report.layers == ()


@pytest.mark.parametrize("layer", [nn.LazyBatchNorm2d, lambda: nn.LazyConv2d(3, 3)])
def test_a_lazy_layer_is_refused(layer: Any, digits: zoo.Data) -> None:
    with pytest.raises(ValueError, match="lazy"):
        diagnose(nn.Sequential(layer()), digits.batches())


def test_four_samples_show_gross_drift_and_the_report_says_that_they_are_few(cnn: nn.Module, digits: zoo.Data) -> None:
    four = [(digits.test[0][:4], digits.test[1][:4])]
    assert "stale-statistics" not in diagnose(cnn, four).codes
    pass_through(cnn, digits.batches(), lambda x: 0.2 * x - 3)
    report = diagnose(cnn.eval(), four)
    assert "stale-statistics" in report.codes
    assert "use a few hundred" in str(report)
    assert "at least 4 samples" in str(diagnose(cnn, [digits.test[0][:3]]))
    assert "few hundred" not in str(diagnose(cnn, digits.batches()))


def test_without_targets_the_report_says_how_many_answers_differ_and_nothing_of_accuracy() -> None:
    norm = nn.BatchNorm1d(4)
    report = str(diagnose(nn.Sequential(norm, nn.Linear(4, 2)), torch.randn(64, 4).split(16)))
    assert "of the answers differ between eval mode and batch statistics" in report
    assert "eval mode:" not in report


def test_a_deviation_without_harm_is_a_note_even_if_a_later_layer_shows_it() -> None:
    case = faults.cumulative_average(1)
    report = diagnose(case.model, case.batches)
    assert report.sound
    assert [(f.code, f.severity) for f in report.findings] == [("stale-statistics", "note")]


def test_a_drift_that_changes_no_answer_takes_less_than_three_passes(drifted: nn.Module, digits: zoo.Data) -> None:
    with torch.no_grad():
        drifted.get_submodule("12").bias[3] += 1000
    calls = []
    inputs = [x for x, _ in digits.batches(16)[:4]]
    drifted.register_forward_pre_hook(lambda *_: calls.append(1))
    diagnose(drifted, inputs)
    assert len(calls) <= 3 * len(inputs)


def test_a_small_rest_of_the_initial_variance_is_an_unconverged_average() -> None:
    norm = nn.BatchNorm1d(8, momentum=0.01)
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(600):  # (1 − 0.01)^600 = 0.24%, of a variance a thousandth of the initial 1
            norm(0.03 * torch.randn(64, 8))
    x = 0.03 * torch.randn(2000, 8)
    moments = Moments()
    moments.add(x, len(x))
    population = moments.statistics()
    assert population is not None
    found = deviation_of(norm, population)
    assert found is not None
    assert cause(norm, population, found, 64) == "unconverged-average"


class SharedInSequence(nn.Module):
    """One norm for three layers in a row: each call's input depends on the call before."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(3):
            x = self.norm(self.conv(x).relu())
        output: Tensor = self.head(x.mean((2, 3)))
        return output


def test_several_populations_in_sequence_are_judged_by_statistics_that_follow_each_other(digits: zoo.Data) -> None:
    model = zoo.trained(SharedInSequence, digits, steps=200, lr=3e-3)
    report = diagnose(model, digits.batches())
    (finding,) = [f for f in report.findings if f.code == "several-populations"]
    assert report.train_outcome is not None
    lost = (report.train_outcome.accuracy or 0) - (report.eval_outcome.accuracy or 0)
    assert lost > 0.2
    assert finding.severity == "error", str(report)


def test_a_shared_norm_whose_average_would_do_is_stale(digits: zoo.Data) -> None:
    model = zoo.trained(lambda: zoo.Siamese(inverted), digits, steps=100).eval()
    calls = diagnose(model, digits.batches())
    (layer,) = {finding.layer for finding in calls.findings if finding.code == "several-populations"}
    norm = model.get_submodule(layer)
    norm.running_mean += 3 * norm.running_var.sqrt()
    norm.running_var *= 10
    assert serious(diagnose(model, digits.batches())) == {"stale-statistics"}


def test_two_inputs_of_forward_are_not_called_targets(cnn: nn.Module, digits: zoo.Data) -> None:
    pairs = [(x, x.flip(-1)) for x, _ in digits.batches()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        diagnose(cnn, pairs, forward=lambda model, batch: model(batch[0]) + model(batch[1]))


def test_other_data_that_no_recalibration_cures_is_told_by_the_accuracy_on_the_reference(
    cnn: nn.Module, digits: zoo.Data
) -> None:
    x, y = digits.test
    turned = list(zip(x.flip(2, 3).split(64), y.split(64), strict=True))
    report = diagnose(cnn, turned, reference=digits.batches(64, "train"))
    (finding,) = [f for f in report.findings if f.code == "different-data" and f.severity != "note"]
    assert finding.severity == "warning"
    assert re.search(r"accuracy \d+\.\d% instead of (9\d|100)\.\d% on the reference", finding.message)
    assert finding.remedy.startswith("x = preprocess_as_in_training(x)")
    assert diagnose(cnn, digits.batches(), reference=digits.batches(64, "train")).sound


def test_a_loss_that_is_no_scalar_is_refused_in_words(cnn: nn.Module, digits: zoo.Data) -> None:
    with pytest.raises(ValueError, match=r"loss: expected a scalar.*\[64, 10\].*\.mean\(\)"):
        diagnose(cnn, digits.batches(), loss=lambda outputs, _: outputs)
    with pytest.raises(ValueError, match=r"returns a scalar, received NoneType"):
        diagnose(cnn, digits.batches(), loss=lambda *_: None)  # type: ignore[arg-type, return-value]


class Functional(nn.Sequential):
    """Dropout that no module shows."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.dropout(x, 0.5, self.training))


@pytest.mark.parametrize("functional", [False, True])
def test_a_variance_shift_is_traced_to_dropout(functional: bool, digits: zoo.Data) -> None:
    layers = [nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Linear(32, 10)]
    torch.manual_seed(0)
    model = Functional(*layers) if functional else nn.Sequential(nn.Dropout(0.5), *layers)
    (finding,) = diagnose(pass_through(model, digits.batches(), lambda x: x, 60).eval(), digits.batches()).findings
    assert finding.code == "stale-statistics"
    assert "they fit its input in train mode: dropout" in finding.message
    assert "dropout behind the last batch norm" in finding.remedy
