"""Outputs and targets of other forms than one label per sample, and models that change their input."""

import copy

import pytest
import torch
from torch import Tensor, nn

from benchmarks.diagnosis import networks as zoo
from benchmarks.diagnosis.faults import darker, noisier
from bnmodel.diagnosis import Report, diagnose, recalibrate
from bnmodel.diagnosis.outcome import Scores, changed
from bnmodel.diagnosis.scoring import Head


def serious(report: Report) -> set[str]:
    return {finding.code for finding in report.findings if finding.severity != "note"}


def drifted(model: nn.Module, x: Tensor) -> nn.Module:
    result = copy.deepcopy(model).train()
    with torch.no_grad():
        for part in noisier(darker(x)).split(50) * 3:
            result(part)
    return result.eval()


class InPlace(nn.Module):
    """Normalises its input in place."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.sub_(0.3).div_(2))


def test_an_input_that_the_model_changes_in_place_is_the_same_in_every_pass(digits: zoo.Data) -> None:
    model = InPlace(zoo.built(zoo.cnn, digits))
    batches = [x * 2 + 0.3 for x, _ in digits.batches(64, "train")]
    before = [batch.clone() for batch in batches]
    once = recalibrate(model, batches)
    assert all(map(torch.equal, batches, before))
    expected = recalibrate(model.inner, [x for x, _ in digits.batches(64, "train")])
    for one, other in zip(once.buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    diagnose(model, batches)
    assert all(map(torch.equal, batches, before))


def test_integers_fit_a_single_logit(digits: zoo.Data) -> None:
    def build() -> nn.Module:
        return nn.Sequential(zoo.cnn(), nn.ReLU(), nn.Linear(10, 1))

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(output[:, 0], target.float())

    even = zoo.Data(*((x, (y % 2 == 0).long()) for x, y in (digits.train, digits.test)), loss)
    model = zoo.trained(build, even, steps=200).eval()
    report = diagnose(model, even.batches())
    with torch.no_grad():
        right = (model(even.test[0])[:, 0] > 0) == even.test[1].bool()
    assert report.eval_outcome.accuracy == pytest.approx(float(right.float().mean()), abs=0.01)
    assert report.sound
    assert "stale-statistics" in serious(diagnose(drifted(model, even.test[0]), even.batches()))


class HeightAndWeight(nn.Module):
    """Two values in different units."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.head = inner, nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x)) * torch.tensor([0.1, 1.0]) + torch.tensor([1.7, 70.0])


def test_values_of_different_size_are_no_classes(cnn: nn.Module, digits: zoo.Data) -> None:
    model, inputs = HeightAndWeight(cnn).eval(), list(digits.test[0].split(50))
    assert diagnose(model, inputs).sound
    report = diagnose(drifted(model, digits.test[0]), inputs)
    assert report.recalibration is not None
    assert report.recalibration.value > 0.2
    assert "stale-statistics" in serious(report)


def test_the_largest_of_many_features_changes_easily() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(500, 64, generator=generator)
    moved = features + 0.1 * torch.randn(features.shape, generator=generator)
    far = features + 2 * torch.randn(features.shape, generator=generator)

    def head(values: Tensor) -> Head:
        return Head(values.argmax(1, keepdim=True), values=values)

    assert changed([(head(features), head(moved))]).mean() == 0
    assert changed([(head(features), head(far))]).mean() > 0.5


def test_labels_in_a_dict_of_inputs_are_targets(cnn: nn.Module, digits: zoo.Data) -> None:
    batches = [{"image": x, "labels": y, "weight": torch.ones(len(x))} for x, y in digits.batches()]
    report = diagnose(cnn, batches, forward=lambda model, batch: model(batch["image"]))
    assert report.eval_outcome.accuracy == pytest.approx(diagnose(cnn, digits.batches()).eval_outcome.accuracy)
    without = [{"image": x, "place": y} for x, y in digits.batches()]
    assert diagnose(cnn, without, forward=lambda model, batch: model(batch["image"])).eval_outcome.accuracy is None


def test_a_loss_gets_the_whole_batch_that_is_no_pair(cnn: nn.Module, digits: zoo.Data) -> None:
    def loss(outputs: Tensor, batch: tuple[Tensor, ...]) -> Tensor:
        return (nn.functional.cross_entropy(outputs, batch[1], reduction="none") * batch[2]).mean()

    batches = [(x, y, torch.ones(len(x))) for x, y in digits.batches()]
    report = diagnose(cnn, batches, forward=lambda model, batch: model(batch[0]), loss=loss)
    assert report.eval_outcome.loss == pytest.approx(diagnose(cnn, digits.batches()).eval_outcome.loss, rel=1e-4)
    with pytest.warns(UserWarning, match="loss: not used, since the batches have no targets"):
        diagnose(cnn, [x for x, _ in digits.batches()], loss=lambda *_: torch.zeros(()))


def test_a_rare_class_counts_as_much_as_a_frequent_one() -> None:
    classes = torch.cat([torch.zeros(980), torch.ones(20)]).long()
    before, after = Scores(), Scores()
    before.heads[0] = [Head(torch.zeros(1000, 1).long(), (classes == 0).double(), classes=classes)]
    after.heads[0] = [Head(classes[:, None], torch.ones(1000).double(), classes=classes)]
    (gain,) = after.gains_over(before)
    assert (gain.kind, gain.severity) == ("balanced accuracy", "error")
    assert gain.value == pytest.approx(0.5)


def test_a_gain_in_loss_is_measured_on_all_batches() -> None:
    friedman = zoo.regression()
    model = zoo.trained(lambda: zoo.mlp(10, 1), friedman, steps=400).eval()
    changed_model = copy.deepcopy(model).train()
    with torch.no_grad():
        for x in friedman.train[0].split(50):
            changed_model(x * 1.15)
    changed_model.eval()
    order = friedman.test[1].flatten().argsort()
    batches = list(zip(friedman.test[0][order].split(50), friedman.test[1][order].split(50), strict=True))
    gain = diagnose(changed_model, batches).recalibration
    assert gain is not None
    assert (gain.kind, gain.samples) == ("loss", 500)
    assert 0 < gain.value <= 1


def supervised_contrastive(embeddings: Tensor, classes: Tensor) -> Tensor:
    """Khosla et al. 2020: embeddings of a class are similar, others are not."""
    unit = nn.functional.normalize(embeddings)
    similar = (unit @ unit.T / 0.1).fill_diagonal_(-1e9)
    same = (classes[:, None] == classes).float().fill_diagonal_(0)
    return -(similar.log_softmax(1) * same).sum(1).div(same.sum(1).clamp(min=1)).mean()


class Graphs:
    """A batch class of one's own: three nodes per graph, one target per graph."""

    def __init__(self, nodes: Tensor, y: Tensor) -> None:
        self.nodes, self.y = nodes, y


def test_graphs_with_several_nodes_are_scored_by_their_targets() -> None:
    torch.manual_seed(0)
    y = torch.arange(200) % 3
    nodes = torch.randn(200, 3, 4) + 4 * nn.functional.one_hot(y, 4).unsqueeze(1)
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Identity()).eval()
    with torch.no_grad():
        model[0].running_mean[0] = 40  # type: ignore[index, union-attr, operator]
    batches = [Graphs(x.flatten(0, 1), t) for x, t in zip(nodes.split(25), y.split(25), strict=True)]
    report = diagnose(model, batches, forward=lambda model, batch: model(batch.nodes).view(-1, 3, 4).mean(1))
    assert report.eval_outcome.samples == 200
    assert report.eval_outcome.accuracy < 0.7 < report.train_outcome.accuracy  # type: ignore[operator, union-attr]
    assert "stale-statistics" in serious(report)


def test_embeddings_with_classes_as_targets_are_compared_by_their_values(digits: zoo.Data) -> None:
    def build() -> nn.Module:
        return nn.Sequential(zoo.cnn(), nn.ReLU(), nn.Linear(10, 64))

    data = zoo.Data(digits.train, digits.test, supervised_contrastive)
    model = zoo.trained(build, data, steps=150).eval()
    with pytest.warns(UserWarning, match="do not predict these classes"):
        assert diagnose(model, digits.batches()).sound
    with pytest.warns(UserWarning, match="do not predict these classes"):
        report = diagnose(drifted(model, digits.test[0]), digits.batches())
    assert "stale-statistics" in serious(report)
    assert report.recalibration is not None
    assert report.recalibration.kind == "answers"


def test_a_classifier_at_chance_keeps_its_accuracy(cnn: nn.Module, digits: zoo.Data) -> None:
    assert diagnose(zoo.built(zoo.cnn, digits), digits.batches()).eval_outcome.accuracy is not None
    cnn.get_submodule("12").weight.data.zero_()
    assert diagnose(cnn, digits.batches()).eval_outcome.accuracy == pytest.approx(0.1, abs=0.05)


@pytest.mark.parametrize("labelled", [False, True])
def test_a_model_without_outputs_is_named_as_the_reason(digits: zoo.Data, labelled: bool) -> None:
    class Silent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = zoo.built(zoo.cnn, digits)

        def forward(self, x: Tensor) -> None:
            self.inner(x)

    batches = digits.batches() if labelled else [x for x, _ in digits.batches()]
    with pytest.warns(UserWarning, match="outputs: expected a tensor with a row per sample") as caught:
        diagnose(Silent().eval(), batches)
    assert len(caught) == 1


class InPlaceNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        normalised = super().forward(x)
        return normalised if self.training else x.copy_(normalised)


def test_a_norm_that_overwrites_its_input_is_measured_on_what_the_model_computes(digits: zoo.Data) -> None:
    inner = nn.Sequential(nn.Conv2d(1, 8, 3), InPlaceNorm(8), nn.Flatten(), nn.Linear(288, 10))
    model = zoo.train(inner, digits, steps=60).eval()
    report = diagnose(model, digits.batches())
    with torch.no_grad():
        expected = torch.cat([nn.functional.cross_entropy(model(x), y, reduction="none") for x, y in digits.batches()])
    assert report.eval_outcome.loss == pytest.approx(float(expected.mean()), rel=1e-6)
    assert report.sound
