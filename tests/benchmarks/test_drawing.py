"""The drawing benchmark: digits become strokes, strokes become drawings, and accuracies have intervals."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import benchmarks
from benchmarks import drawing, stroke_styles
from benchmarks.rasteriser import BLACK, WHITE, Drawing, draw, place
from benchmarks.strokes import Strokes, resample, vectorise
from bnmodel import Sketch
from bnmodel.data import Digits, load_sample
from export.recogniser import load

PLAIN = Drawing()
SAMPLE = load_sample(False)
SEVEN: Strokes = [np.array([[8.0, 5.0], [19.0, 5.0], [12.0, 23.0]])]
NINE_TURNS = np.linspace(0, 2 * np.pi, 40)
NINE: Strokes = [
    np.concatenate(
        [np.stack([14 + 5 * np.cos(NINE_TURNS), 9 - 5 * np.sin(NINE_TURNS)], axis=1), [[19.0, 9.0], [18.0, 24.0]]]
    )
]
FOUR_ARM = resample(np.array([[9.0, 5.0], [8.0, 14.0], [16.5, 14.0]]), 0.5)  # ends at the stem
FOUR_STEM = np.array([[18.0, 4.0], [17.5, 12.0], [17.0, 18.0], [17.0, 24.0]])
FOUR: Strokes = [resample(np.array([[9.0, 5.0], [8.0, 14.0], [22.0, 14.0]]), 0.5), FOUR_STEM]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def ink(canvas: np.ndarray) -> np.ndarray:
    """bool (H, W): darker than half."""
    return canvas[:, :, 0] < 128


def line_image(start: tuple[float, float], end: tuple[float, float], width: float = 2.5) -> np.ndarray:
    """A straight line with round ends, (x, y) in pixels → float (28, 28), one pixel wide grey edges."""
    rows, columns = np.mgrid[:28, :28] + 0.5
    a, way = np.array(start), np.subtract(end, start)
    along = np.clip(((columns - a[0]) * way[0] + (rows - a[1]) * way[1]) / (way @ way), 0, 1)
    distance = np.hypot(columns - a[0] - along * way[0], rows - a[1] - along * way[1])
    return np.clip(width / 2 + 0.5 - distance, 0, 1)


# --- pixels → strokes ------------------------------------------------------------------------------------------------


@settings(deadline=None, derandomize=True, max_examples=40)
@given(*[st.tuples(st.floats(4, 24), st.floats(4, 24)) for _ in range(2)])
def test_a_straight_line_becomes_one_stroke_between_its_ends(a: tuple[float, float], b: tuple[float, float]):
    if np.hypot(*np.subtract(a, b)) < 6:
        return
    (stroke,) = vectorise(line_image(a, b))
    found = sorted([tuple(stroke[0]), tuple(stroke[-1])])
    best = min(np.abs(np.subtract(found, expected)).max() for expected in ((a, b), (b, a)))
    assert best < 1.5
    way = np.subtract(b, a) / np.hypot(*np.subtract(b, a))
    off = np.abs((stroke - a) @ np.array([-way[1], way[0]]))
    assert off.max() < 0.5


def test_a_ring_becomes_one_closed_stroke() -> None:
    rows, columns = np.mgrid[:28, :28] + 0.5
    image = np.clip(2 - abs(np.hypot(rows - 14, columns - 14) - 7), 0, 1)
    (stroke,) = vectorise(image)
    np.testing.assert_allclose(stroke[0], stroke[-1])
    np.testing.assert_allclose(np.hypot(*(stroke - 14).T), 7, atol=0.35)


def test_a_crossing_becomes_two_straight_strokes() -> None:
    strokes = vectorise(np.maximum(line_image((5, 7), (23, 21)), line_image((5, 21), (23, 7))))
    assert len(strokes) == 2
    for stroke in strokes:
        assert abs(stroke[0] - stroke[-1]).min() > 12
        assert np.hypot(*(stroke - 14).T).min() < 0.6


def test_a_dot_stays_a_dot_and_a_blank_image_has_no_stroke() -> None:
    dot = np.zeros((28, 28))
    dot[12:14, 20:22] = 1
    (stroke,) = vectorise(dot)
    np.testing.assert_allclose(stroke, [[21, 13]], atol=0.5)
    assert vectorise(np.zeros((28, 28))) == []


def test_redrawn_digits_of_mnist_cover_the_same_pixels() -> None:
    sketch, overlaps = Sketch(), []
    for image in SAMPLE.images[:100, 0].numpy():
        area = (image > 0.5).sum()
        strokes = vectorise(image)
        length = sum(np.hypot(*np.diff(stroke, axis=0).T).sum() for stroke in strokes)
        brush = min(0.2, 0.65 * area / max(length, 1) / 24)  # about as wide as the pen was
        drawn = sketch(torch.from_numpy(draw(strokes, replace(PLAIN, brush=brush), rng())))[0].numpy() > 0.4
        near = [np.roll(drawn, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
        overlaps.append(max((other & (image > 0.4)).sum() / (other | (image > 0.4)).sum() for other in near))
    assert np.median(overlaps) > 0.7
    assert np.quantile(overlaps, 0.05) > 0.45


# --- strokes → canvas ------------------------------------------------------------------------------------------------


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    st.integers(56, 400),
    st.integers(56, 400),
    st.floats(0.3, 0.6),
    st.floats(0.02, 0.12),
    st.sampled_from([-15, 0, 15]),
)
def test_the_ink_fills_the_requested_box(width: int, height: int, size: float, brush: float, angle: float) -> None:
    condition = Drawing(width, height, brush=brush, size=size, rotation=angle)
    canvas = draw(SEVEN, condition, rng())
    assert canvas.shape == (height, width, 4)
    assert canvas.dtype == np.uint8
    rows, columns = (np.flatnonzero(ink(canvas).any(axis=axis)) for axis in (1, 0))
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(size * min(width, height), abs=2.5)
    assert np.mean([rows[0], rows[-1] + 1]) == pytest.approx(height / 2, abs=1.5)
    assert np.mean([columns[0], columns[-1] + 1]) == pytest.approx(width / 2, abs=1.5)


def test_a_dot_is_drawn_as_a_disc_as_wide_as_the_brush() -> None:
    canvas = draw([np.array([[14.0, 14.0]])], replace(PLAIN, brush=0.1), rng())
    assert (255 - canvas[:, :, 0]).sum() / 255 == pytest.approx(np.pi * 14**2, rel=0.02)


def test_pen_and_paper_have_the_requested_colours() -> None:
    red, yellow = (200, 20, 30, 255), (255, 230, 80, 255)
    for pen, paper in ((BLACK, WHITE), (WHITE, BLACK), (red, yellow)):
        canvas = draw(SEVEN, replace(PLAIN, pen=pen, paper=paper), rng())
        assert tuple(canvas[0, 0]) == paper
        assert (canvas == pen).all(axis=2).mean() > 0.03
    transparent = draw(SEVEN, replace(PLAIN, pen=red, paper=(0, 0, 0, 0)), rng())
    assert tuple(transparent[0, 0]) == (0, 0, 0, 0)
    half_covered = (transparent[:, :, 3] > 60) & (transparent[:, :, 3] < 200)
    assert half_covered.any()
    assert (transparent[half_covered][:, :3] == red[:3]).all()  # not mixed with the colour of transparent paper


def test_a_turn_is_clockwise_a_slant_to_the_right_and_a_tremor_repeats_with_its_seed() -> None:
    upright: Strokes = [np.array([[14.0, 4.0], [14.0, 24.0]])]
    for condition in (replace(PLAIN, rotation=15), replace(PLAIN, slant=15)):
        (stroke,) = place(upright, condition, rng())
        across, down = stroke[-1] - stroke[0]
        assert np.degrees(np.arctan2(-across, down)) == pytest.approx(15)
    shaky = replace(PLAIN, shake=0.03)
    once, again = draw(SEVEN, shaky, rng()), draw(SEVEN, shaky, rng())
    np.testing.assert_array_equal(once, again)
    assert (ink(once) ^ ink(draw(SEVEN, PLAIN, rng()))).any()


def test_invalid_drawings_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one, received none"):
        draw([], PLAIN, rng())
    with pytest.raises(ValueError, match="expected more than the brush"):
        draw(SEVEN, replace(PLAIN, size=0.05), rng())


# --- styles ----------------------------------------------------------------------------------------------------------


def test_a_crossed_seven_has_more_ink_in_the_middle_and_is_not_crossed_twice() -> None:
    crossed = stroke_styles.crossed(SEVEN)
    assert crossed is not None
    before, after = (ink(draw(strokes, PLAIN, rng()))[120:180].sum() for strokes in (SEVEN, crossed))
    assert after > 1.5 * before
    assert stroke_styles.crossed(crossed) is None


def test_a_plain_one_gets_a_foot_and_a_flag_and_other_digits_do_not() -> None:
    one: Strokes = [np.array([[15.0, 4.0], [14.5, 14.0], [14.0, 24.0]])]
    footed, flagged = stroke_styles.footed(one), stroke_styles.footed(one, flag=True)
    assert footed is not None
    assert flagged is not None
    assert np.ptp(footed[-1], axis=0).tolist() == pytest.approx([10, 0])
    assert footed[-1].mean(axis=0).tolist() == pytest.approx([14, 24])
    assert (flagged[-1][-1] < [12, 12]).all()
    assert stroke_styles.footed(SEVEN) is None


def test_a_nine_keeps_its_height_and_its_stem_and_gets_a_smaller_head() -> None:
    small = stroke_styles.small_headed(NINE)
    assert small is not None
    (before,), (after,) = NINE, small
    assert [after[:, 1].min(), after[:, 1].max()] == pytest.approx([before[:, 1].min(), before[:, 1].max()], abs=0.1)
    head = after[after[:, 1] < 11]
    assert np.ptp(head[:, 0]) < 0.75 * np.ptp(before[:, 0])
    assert after[-1].tolist() == pytest.approx([18, 24], abs=0.5)


def test_a_fours_arm_leans_to_the_stem_or_away_from_it_and_the_rest_stays() -> None:
    closed, opened = stroke_styles.closed(FOUR), stroke_styles.wide_open(FOUR)
    assert closed is not None
    assert opened is not None
    assert closed[1][0].tolist() == pytest.approx([18, 4])
    assert opened[1][0].tolist() == pytest.approx([4, 5])
    for strokes in (closed, opened):
        assert len(strokes) == 2
        np.testing.assert_array_equal(strokes[0], FOUR_STEM)
        bar = FOUR[0][:, 0] > 10
        np.testing.assert_array_equal(strokes[1][bar], FOUR[0][bar])
    assert stroke_styles.closed(closed) is None


def test_a_closed_four_whose_bar_ended_at_the_stem_gets_one_that_crosses_it() -> None:
    closed = stroke_styles.closed([FOUR_ARM, FOUR_STEM])
    assert closed is not None
    assert len(closed) == 3
    assert closed[-1][-1, 0] > 20


# --- counting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("correct", "low", "high"),
    [
        # z = 1.96: centre (0.8 + 0.19208) / 1.38416, half width 1.96 · √(0.016 + 0.009604) / 1.38416
        (8, 0.490158, 0.943318),
        (0, 0, 3.841459 / 13.841459),
        (10, 10 / 13.841459, 1),
    ],
)
def test_a_scores_interval_is_wilsons_computed_by_hand(correct: int, low: float, high: float) -> None:
    score = drawing.score(np.arange(10) < correct)
    assert (score.n, score.correct, score.accuracy) == (10, correct, correct / 10)
    assert (score.low, score.high) == pytest.approx((low, high), abs=1e-5)


@given(st.integers(10, 900))
@settings(deadline=None, derandomize=True, max_examples=20)
def test_digits_are_chosen_evenly_and_none_twice(count: int) -> None:
    labels = SAMPLE.labels.numpy()
    chosen = drawing.choose(labels, count, rng())
    assert len(chosen) == len(set(chosen.tolist())) == count
    assert np.ptp(np.bincount(labels[chosen], minlength=10)) <= 1


def test_the_lectures_network_reads_the_redrawn_sample(monkeypatch, capsys) -> None:
    few = {name: drawing.CONDITIONS[name] for name in ("plain", "white on black")}
    monkeypatch.setattr(drawing, "CONDITIONS", few)
    result = drawing.run({"lecture": load(Path("checkpoints/lecture"))}, SAMPLE, 60)
    model = result["models"]["lecture"]
    assert list(model["conditions"]) == [*few, *stroke_styles.STYLES]
    plain = model["conditions"]["plain"]
    assert plain["n"] == 60
    assert plain["accuracy"] == plain["correct"] / 60 > 0.95
    assert plain["low"] < plain["accuracy"] <= plain["high"] + 1e-9
    worst = min(model["conditions"], key=lambda name: model["conditions"][name]["accuracy"])
    assert model["worst"]["condition"] == worst
    assert model["mean"] == pytest.approx(np.mean([row["accuracy"] for row in model["conditions"].values()]))
    json.dumps(result)
    assert "plain" in capsys.readouterr().out


def test_results_are_written_by_the_names_of_the_models(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(benchmarks, "RESULTS", tmp_path)
    monkeypatch.setattr(drawing, "CONDITIONS", {"plain": PLAIN})
    monkeypatch.setattr(drawing, "STYLES", {})
    monkeypatch.setattr(drawing.data, "load_mnist", lambda train, root: Digits(SAMPLE.images, SAMPLE.labels))
    assert drawing.main(["--model", "checkpoints/lecture", "--digits", "10"]) == 0
    assert json.loads((tmp_path / "drawing.json").read_text())["models"]["lecture"]["conditions"]["plain"]["n"] == 10


def test_an_unknown_model_is_a_clear_error_and_nothing_is_written(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(benchmarks, "RESULTS", tmp_path / "results")
    assert drawing.main(["--model", str(tmp_path / "nobody")]) == 1
    error = capsys.readouterr().err
    assert "nobody" in error
    assert "export it again" in error
    assert not (tmp_path / "results").exists()
