"""Batches of every usual form are read; others are refused with a remedy."""

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from benchmarks.diagnosis import networks as zoo
from bnmodel.diagnosis import Report, diagnose
from bnmodel.diagnosis.batches import call, mixed, read_batches


def serious(report: Report) -> set[str]:
    return {finding.code for finding in report.findings if finding.severity != "note"}


class Named(nn.Module):
    """Two inputs by keyword, outputs in a dict."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: Tensor, scale: Tensor) -> dict[str, Tensor]:
        return {"logits": self.inner(image * scale.view(-1, 1, 1, 1)), "scale": scale}


@pytest.mark.parametrize("form", ["dict and targets", "dict", "inputs", "numpy", "forward"])
def test_batches_may_have_any_usual_form(drifted: nn.Module, digits: zoo.Data, form: str) -> None:
    pairs = digits.batches()
    named = [({"image": x, "scale": torch.ones(len(x))}, y) for x, y in pairs]
    model, batches, options = {
        "dict and targets": (Named(drifted), named, {}),
        "dict": (Named(drifted), [inputs for inputs, _ in named], {}),
        "inputs": (drifted, [x for x, _ in pairs], {}),
        "numpy": (drifted, [(x.numpy(), y.numpy()) for x, y in pairs], {}),
        "forward": (drifted, [{"x": x, "label": y} for x, y in pairs], {"forward": lambda m, b: m(b["x"])}),
    }[form]
    report = diagnose(model.eval(), iter(batches), **options)
    assert "stale-statistics" in serious(report)
    assert (report.eval_outcome.accuracy is not None) == (form in ("dict and targets", "numpy", "forward"))


def test_a_dict_with_other_names_than_forwards_says_how_to_pass_it(drifted: nn.Module, digits: zoo.Data) -> None:
    loader = [{"x": x, "label": y} for x, y in digits.batches()]
    with pytest.raises(TypeError, match=r"pass forward=lambda model, batch: model\(batch\['x'\]\)"):
        diagnose(drifted, loader)


class Halves(nn.Module):
    """Two inputs by position."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, top: Tensor, bottom: Tensor) -> Tensor:
        return self.inner(torch.cat([top, bottom], 2))


@pytest.mark.parametrize("targets", [False, True])
def test_a_model_of_two_inputs_takes_batches_of_two_inputs(drifted: nn.Module, digits: zoo.Data, targets: bool) -> None:
    batches = [(x[:, :, :4], x[:, :, 4:], y)[: 3 if targets else 2] for x, y in digits.batches()]
    report = diagnose(Halves(drifted).eval(), batches)
    assert "stale-statistics" in serious(report)
    assert (report.eval_outcome.accuracy is not None) == targets


class Sum(nn.Module):
    """Any number of inputs (N, C, L)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *parts: Tensor) -> Tensor:
        return self.inner(sum(parts).unsqueeze(1))


def test_a_list_of_inputs_as_a_loader_collates_them_is_passed_by_position(cnn: nn.Module, digits: zoo.Data) -> None:
    report = diagnose(Sum(cnn).eval(), [[[x[:, 0] / 2, x[:, 0] / 2], y] for x, y in digits.batches()])
    assert report.samples == 500
    assert report.sound


class Detector(nn.Module):
    """A list of images → a dict per image, as torchvision's detectors."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: list[Tensor], targets: Any = None) -> list[dict[str, Tensor]]:
        return [
            {"labels": row.argsort(descending=True)[:2], "scores": row[row > 0]}
            for row in self.inner(torch.stack(images))
        ]


@pytest.mark.parametrize("form", ["pairs", "forward"])
def test_lists_of_images_are_taken_as_detectors_take_them(
    trained_cnn: nn.Module, drifted: nn.Module, digits: zoo.Data, form: str
) -> None:
    batches = [(list(x), [{"labels": label} for label in y]) for x, y in digits.batches(4)]
    options: dict[str, Any] = {"forward": lambda model, batch: model(batch[0])} if form == "forward" else {}
    report = diagnose(Detector(drifted).eval(), batches, **options)
    assert report.samples == 500
    assert "stale-statistics" in serious(report)
    assert report.disagreement
    assert diagnose(Detector(copy.deepcopy(trained_cnn)).eval(), batches, **options).sound


def test_a_loss_of_ones_own_is_used(drifted: nn.Module, digits: zoo.Data) -> None:
    def loss(outputs: Tensor, batch: Any) -> Tensor:
        return nn.functional.multi_margin_loss(outputs, batch["label"])

    batches = [{"x": x, "label": y} for x, y in digits.batches()]
    report = diagnose(drifted, batches, loss=loss, forward=lambda model, batch: model(batch["x"]))
    with torch.no_grad():
        expected = nn.functional.multi_margin_loss(drifted(digits.test[0]), digits.test[1])
    assert report.eval_outcome.loss == pytest.approx(float(expected), rel=1e-3)
    assert "stale-statistics" in serious(report)


@pytest.mark.parametrize("change", [lambda x: x[::-1], lambda x: x.astype(">f4")])
def test_arrays_in_reverse_or_of_another_byte_order_are_read(
    cnn: nn.Module, digits: zoo.Data, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    inputs = change(digits.test[0].numpy())
    expected = diagnose(cnn, [torch.tensor(inputs.astype(np.float32))])
    assert diagnose(cnn, [inputs]).layers == expected.layers


def test_an_array_of_text_as_targets_is_not_scored_with_a_warning(cnn: nn.Module, digits: zoo.Data) -> None:
    x, y = digits.test
    with pytest.warns(UserWarning, match=r"targets: expected int64 classes.*received <U"):
        report = diagnose(cnn, [(x, y.numpy().astype(str))])
    assert report.eval_outcome.accuracy is None


def test_unsigned_targets_are_classes(cnn: nn.Module, digits: zoo.Data) -> None:
    x, y = digits.test
    expected = diagnose(cnn, [(x, y)]).eval_outcome
    assert diagnose(cnn, [(x, y.numpy().astype(np.uint16))]).eval_outcome == expected


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "at least one batch"),
        (torch.zeros(4, 1, 8, 8), "split it"),
        ([(torch.zeros(2), torch.zeros(2), torch.zeros(2))], "forward=lambda"),
        ([[torch.zeros(1, 8, 8)] * 3], r"write \(images,\) for a list of images"),
        ({"x": torch.zeros(2)}, r"use \[batch\]"),
        ([3], "forward=lambda"),
        (None, "expected an iterable of batches, received NoneType"),
        (TensorDataset(torch.zeros(4, 1, 8, 8)), r"received TensorDataset; use torch.utils.data.DataLoader\(dataset"),
        ((torch.zeros(4, 1, 8, 8), torch.zeros(4).long()), r"received one pair; use \[\(inputs, targets\)\]"),
    ],
)
def test_batches_of_other_forms_are_refused_with_a_remedy(cnn: nn.Module, batches: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        diagnose(cnn, batches)


def test_an_endless_iterator_is_refused(cnn: nn.Module, digits: zoo.Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bnmodel.diagnosis.batches.MOST_BYTES", 1 << 20)
    with pytest.raises(ValueError, match="islice"):
        diagnose(cnn, itertools.cycle(digits.batches()))


class Sparse(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to_dense())


def test_sparse_inputs_are_read_also_one_by_one(digits: zoo.Data) -> None:
    x, y = digits.test[0][:64].flatten(1), digits.test[1][:64]
    model = Sparse(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 10)).eval()
    one_by_one = list(zip(x.split(1), y.split(1), strict=True))
    expected = diagnose(model, one_by_one)
    assert diagnose(model, [(each.to_sparse(), target) for each, target in one_by_one]) == expected


@dataclass(frozen=True)
class Pair:
    left: Tensor
    right: Tensor


def test_inputs_in_a_dataclass_are_mixed_with_those_of_all_batches() -> None:
    class Sum(nn.Module):
        def forward(self, pair: Pair) -> Tensor:
            return pair.left + pair.right

    x = torch.arange(12.0)[:, None]
    batches = read_batches([(Pair(a, 10 * a), a) for a in x.split(3)], None, 1, "batches")
    found = mixed(batches, 4, 12)
    assert found is not None
    outputs = torch.cat([call(Sum(), batch, None) for batch in found])
    assert sorted(outputs.flatten().tolist()) == (11 * x).flatten().tolist()
