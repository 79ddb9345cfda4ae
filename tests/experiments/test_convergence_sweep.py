"""The sweep of short runs: its training, the shipped results, and the claims tested on them."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from bnmodel import data
from bnmodel.__main__ import main
from bnmodel.experiments import catalogue, convergence_sweep
from bnmodel.experiments.claims import Claim, Measure, claims, steps_to
from bnmodel.experiments.convergence import RATES, recipe
from bnmodel.experiments.convergence_sweep import Cell, Sweep
from bnmodel.experiments.gradients import POSITIONS
from bnmodel.nn.init import INITIALIZERS
from bnmodel.training.trainer import new_network
from demo.tabs import convergence as tab

SMALL = data.load_sample(train=True)[slice(128)], data.load_sample(train=False)[slice(100)]


@pytest.fixture(scope="module")
def shipped() -> Sweep:
    return convergence_sweep.read()


def test_the_shipped_sweep_holds_every_setting_once_per_seed_and_well_formed(shipped):
    settings = [(cell.seed, cell.position, cell.initializer, cell.rate) for cell in shipped.cells]
    assert len(set(settings)) == len(settings) == shipped.seeds * convergence_sweep.SETTINGS
    assert shipped.seeds >= 5
    for cell in shipped.cells:
        assert (cell.accuracy is None) == (cell.loss is None) == (cell.diverged is not None)
        assert len(cell.accuracies) == len(cell.losses)
        looks = shipped.steps // shipped.every if cell.diverged is None else cell.diverged // shipped.every - 1
        assert len(cell.accuracies) == looks
        assert all(0 <= accuracy <= 1 for accuracy in (*cell.accuracies, cell.accuracy or 0))
        assert all(math.isfinite(loss) and loss > 0 for loss in (*cell.losses, cell.loss or 1))
    assert convergence_sweep.SWEEP_FILE.stat().st_size < 300_000


def test_the_shipped_sweep_says_which_command_made_it(shipped):
    options = f"--dataset mnist --steps {shipped.steps} --every {shipped.every} --seeds {shipped.seeds}"
    assert shipped.command == f"python -m bnmodel sweep {options}"
    json.loads(convergence_sweep.SWEEP_FILE.read_text(), parse_constant=pytest.fail)  # no NaN, which is not JSON


def test_the_claims_follow_from_the_cells(shipped):
    """As arrays: (seed, position, initialiser, rate); Student's t for five seeds from a printed table."""
    names = [name for name in INITIALIZERS if name != "zeros"]
    final, steps, easier = (np.full((5, 3, 5, len(RATES)), value) for value in (0.0, math.inf, math.inf))
    for cell in shipped.cells:
        if cell.initializer != "zeros":
            at = cell.seed, POSITIONS.index(cell.position), names.index(cell.initializer), RATES.index(cell.rate)
            final[at] = cell.accuracy or 0
            for target, times in ((0.97, steps), (0.95, easier)):
                good = np.flatnonzero(np.array(cell.accuracies) >= target)
                times[at] = shipped.every * (1 + good[0]) if len(good) else math.inf
    shared = np.isfinite(easier).all((0, 1))
    best = len(RATES) - 1 - np.median(final, 2)[:, :, ::-1].argmax(-1)  # (seed, position)
    at_best = np.take_along_axis(final, best[:, :, None, None], 3)[..., 0]
    slow = final[:, :, 1:, RATES.index(0.01)]
    expected = [  # (seed, position), whether it is compared as a ratio
        (np.isfinite(steps).sum((2, 3)), False),
        (np.exp(np.log(easier[:, :, shared]).mean(-1)), True),
        (largest_rate((final >= 0.9).any(2)), True),
        (largest_rate((final[:, :, 1:] >= 0.9).all(2)), True),
        (100 * np.ptp(slow, -1), False),
        (100 * np.ptp(at_best[:, :, 1:], -1), False),
        (100 * np.ptp(at_best, -1), False),
    ]
    measures = [measure for claim in claims(shipped) for measure in claim.measures]
    assert shared.any()
    for measure, (values, ratio) in zip(measures, expected, strict=True):
        scaled = np.log(values) if ratio else values
        for k, position in enumerate(POSITIONS):
            found = measure.interval(position)
            half = 2.776 * scaled[:, k].std(ddof=1) / math.sqrt(5)
            low, high = scaled[:, k].mean() - half, scaled[:, k].mean() + half
            bounds = np.array([found.low, found.high])
            assert (np.log(bounds) if ratio else bounds) == pytest.approx([low, high], rel=1e-3, abs=1e-3)
            gain = (scaled[:, k] - scaled[:, 0]) * (1 if measure.larger_is_better else -1)
            if position != "none":
                assert measure.better(position) == (gain.mean() - 2.776 * gain.std(ddof=1) / math.sqrt(5) > 0)


def largest_rate(good):
    """(seed, position, rate) → the largest rate that is good, (seed, position)."""
    return np.where(good, np.array(RATES), 0).max(-1)


@pytest.mark.parametrize(
    ("none", "after", "better"),
    [
        ((1.0, 2.0, 3.0), (2.0, 3.1, 4.0), True),  # paired: the seeds differ more than the positions do
        ((1.0, 2.0, 3.0), (0.9, 1.9, 3.0), False),
        ((1.0, 2.0, 3.0), (9.0, 1.0, 3.0), False),  # larger on average, by one seed alone
    ],
)
def test_a_position_is_better_if_the_interval_of_the_paired_difference_excludes_zero(none, after, better):
    measure = Measure("accuracy", {"none": none, "before": none, "after": after}, larger_is_better=True)
    assert measure.better("after") == better
    assert not measure.better("before")


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [(2.0, 2.0, "holds"), (1.0, 2.0, "holds in part"), (0.5, 1.0, "does not hold here")],
)
def test_the_verdict_follows_from_the_measures(before, after, verdict):
    values = {position: (x, x) for position, x in (("none", 1.0), ("before", before), ("after", after))}
    assert Claim("Faster", (Measure("accuracy", values, larger_is_better=True),)).verdict == verdict


def test_no_network_learns_from_zeros(shipped):
    assert all((cell.accuracy or 0) < 0.12 for cell in shipped.cells if cell.initializer == "zeros")


def test_a_cell_is_the_plain_loop_with_torchs_own_loss_and_optimiser():
    chosen = recipe("after", 0.1)
    cell = convergence_sweep.one(chosen, *SMALL, steps=3, every=3)
    model, _ = new_network(chosen)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=1e-4)
    order = torch.cat([torch.randperm(128, generator=g) for g in [torch.Generator().manual_seed(0)] for _ in range(2)])
    for index in order[: 3 * 64].split(64):
        optimizer.zero_grad()
        nn.NLLLoss()(model(SMALL[0].images[index]), SMALL[0].labels[index]).backward()
        optimizer.step()
    with torch.no_grad():
        answers = model.eval()(SMALL[1].images)
    assert cell.loss == pytest.approx(nn.NLLLoss()(answers, SMALL[1].labels).item(), rel=1e-3)
    assert cell.accuracy == pytest.approx((answers.argmax(1) == SMALL[1].labels).float().mean().item())
    assert (cell.accuracies, len(cell.losses)) == ((cell.accuracy,), 1)


def test_a_sweep_is_unchanged_after_writing_and_reading(tmp_path):
    cells = (
        Cell(0, "none", "zeros", 10.0, None, None, (0.1,), (2.3,), 80),
        Cell(1, "after", "zeros", 1.0, 0.5, 1.0, (), (), None),
    )
    sweep = Sweep("a command", 400, 40, 2, cells)
    convergence_sweep.write(sweep, tmp_path / "sweep.json")
    assert catalogue.plain(convergence_sweep.read(tmp_path / "sweep.json")) == catalogue.plain(sweep)


def test_an_interrupted_sweep_continues_and_ends_as_an_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.setattr(convergence_sweep, "RATES", (0.1,))
    monkeypatch.setattr(convergence_sweep, "INITIALIZERS", {"he_normal": None})
    path, sizes = tmp_path / "sweep.json", (2, 1)
    whole = convergence_sweep.run(*SMALL, "a command", *sizes, seeds=2)
    convergence_sweep.write(dataclasses.replace(whole, cells=whole.cells[:4]), path)
    known = convergence_sweep.resumed(path, "a command")
    trained = []
    again = convergence_sweep.run(*SMALL, "a command", *sizes, seeds=2, known=known, on_cell=trained.append)
    assert (again, len(trained), len(whole.cells)) == (whole, 2, 6)
    with pytest.raises(data.DataError, match="expected the sweep of another, received that of a command"):
        convergence_sweep.resumed(path, "another")


def test_a_setting_that_diverged_with_most_seeds_has_no_mean_accuracy():
    good, bad = (Cell(0, "none", "zeros", 1.0, accuracy, accuracy, (), (), None) for accuracy in (0.5, None))
    assert convergence_sweep.mean_accuracy([good, good, bad]) == 0.5
    assert convergence_sweep.mean_accuracy([good, bad]) is None


def test_a_training_whose_loss_became_infinite_has_diverged_and_no_accuracy():
    cell = convergence_sweep.one(recipe("none", 1e30, "random_normal"), *SMALL, steps=4, every=2)
    assert (cell.accuracy, cell.loss, cell.accuracies, cell.diverged) == (None, None, (), 2)


def test_the_steps_to_a_target_end_at_the_first_evaluation_that_reaches_it():
    cell = Cell(0, "none", "zeros", 1.0, 0.5, 1.0, (0.5, 0.98, 0.9), (1.0, 1.0, 1.0), None)
    assert steps_to(cell, 40) == 80
    assert steps_to(cell, 40, target=0.99) is None


@pytest.mark.parametrize("name", ["convergence_sweep", "early_stopping"])
def test_the_command_writes_a_png_an_svg_and_json(tmp_path, name):

    assert main(["experiment", name, "--out", str(tmp_path)]) == 0
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".png", ".svg"]
    assert json.loads((tmp_path / f"{name}.json").read_text())


def test_an_experiment_needs_a_name_or_all(capsys):

    for wrong in (["experiment"], ["experiment", "gradients", "--all"]):
        assert main(wrong) == 1
        assert "expected a name, or --all" in capsys.readouterr().err


def test_the_page_shows_the_mean_of_every_setting_in_every_map_and_frames_one_setting_in_each(shipped):
    maps = tab.recorded_maps("he_normal", 0.1).split("<h3>")[0]
    assert maps.count("<td") == convergence_sweep.SETTINGS
    assert maps.count("outline: 2px") == len(POSITIONS)
    cells = [
        cell for cell in shipped.cells if (cell.position, cell.initializer, cell.rate) == ("after", "he_normal", 0.1)
    ]
    mean = 100 * np.mean([cell.accuracy for cell in cells])
    assert f"<b>{mean:.1f}</b>" in maps
    assert f"<b>{mean:.1f}%</b>" in tab.in_words(shipped, "he_normal", 0.1)


def test_the_page_says_with_how_many_seeds_a_setting_diverged():
    good, bad = (Cell(0, "none", "zeros", 1.0, accuracy, accuracy, (), (), None) for accuracy in (0.5, None))
    assert tab.outcome([good, bad]) == "<b>50.0%</b> (50.0 – 50.0), diverged with 1 of 2 seeds"
    assert tab.outcome([bad]) == "diverged with every seed"
    assert "50.0<small>1 of 3 ×</small>" in tab.in_cell([good, good, bad], False)
    assert "<small>" not in tab.in_cell([good, bad, bad], False)  # a single ×


def test_the_claims_are_a_table_of_a_line_per_measure_and_a_column_per_position_of_the_norm(shipped):
    groups = tab.in_claims(shipped).split("<tbody>")[1:]
    rows = [re.findall(r"<tr>(.*?)</tr>", group) for group in groups]
    assert [len(group) - 1 for group in rows] == [len(claim.measures) for claim in claims(shipped)]
    assert [len(re.findall("<td>", row)) for group in rows for row in group[1:]] == [3] * sum(len(g) - 1 for g in rows)
    assert [group[0] for group in rows] == [
        f'<th scope="rowgroup" colspan="4"><b>{claim.name}: {claim.verdict}</b></th>' for claim in claims(shipped)
    ]
    learned = claims(shipped)[0].measures[0]
    cells = re.findall("<td>(.*?)</td>", rows[0][1])
    values = [re.sub("<.*?>", "", cell) for cell in cells]
    assert values == [str(learned.interval(position)) for position in POSITIONS]
    assert ["<b>" in cell for cell in cells] == [
        False,
        *(learned.better(position) for position in POSITIONS[1:]),
    ]


@pytest.mark.parametrize("option", ["steps", "every", "seeds"])
def test_an_empty_sweep_is_refused(option: str) -> None:
    digits = data.load_sample(train=True)
    with pytest.raises(ValueError, match=f"{option}: expected at least 1, received 0"):
        convergence_sweep.run(digits, digits, "command", **{option: 0})
