"""`inspect` on ONNX files with planted faults, and on similar files that are sound."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bnmodel.deploy import inspect
from export.__main__ import main
from tests.deploy.onnx_helpers import (
    EVAL,
    TRAIN,
    codes,
    convolution,
    model,
    saved,
    statistics,
    weights,
)


def test_a_batch_norm_with_stored_statistics_is_sound(tmp_path: Path) -> None:
    inspection = inspect(saved(tmp_path, convolution(EVAL, statistics())))
    assert inspection.sound
    assert inspection.batch_norms == 1
    assert inspection.batch_invariance["checked"]
    assert inspection.batch_invariance["difference"] < 1e-5


def test_training_mode_is_found_and_seen_to_depend_on_the_batch(tmp_path: Path) -> None:
    inspection = inspect(saved(tmp_path, convolution(TRAIN, statistics())))
    assert {finding.code for finding in inspection.findings} == {"training-mode", "batch-dependent"}
    assert not inspection.sound


@pytest.mark.parametrize(("value", "mode"), [(0, "error"), (1, None)])
def test_is_test_of_old_files_is_read(tmp_path: Path, value: int, mode: str | None) -> None:
    norm = f"y = BatchNormalization<is_test={value}>(h, gamma, beta, mean, var)"
    path = saved(tmp_path, convolution(norm, statistics(), opset=6))
    assert ("training-mode" in codes(path)) == (mode is not None)


def test_computed_statistics_are_batch_statistics(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        network,
        (torch.rand(2, 3, 8, 8),),
        str(path),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("N")},),
        external_data=False,
        verbose=False,
    )
    assert codes(path, "error") == {"batch-statistics-in-eval", "batch-dependent"}


HAND_WRITTEN = """
    m = ReduceMean<axes=[0, 2, 3], keepdims=1>(x)
    c = Sub(x, m)
    q = Mul(c, c)
    v = ReduceMean<axes=[0, 2, 3], keepdims=1>(q)
    e = Add(v, eps)
    s = Sqrt(e)
    y = Div(c, s)
"""


def test_statistics_computed_from_constants_are_not_batch_statistics(tmp_path: Path) -> None:
    nodes = """h = Conv(x, w)
mean = Mul(half, twice)
y = BatchNormalization(h, gamma, beta, mean, var)"""
    parts = statistics()
    constants = {"half": parts.pop("mean"), "twice": np.full(1, 2, np.float32)}
    file = saved(tmp_path, model(nodes, {"w": weights(4, 3, 3, 3), **parts, **constants}))
    assert not {finding.code for finding in inspect(file).findings if finding.severity != "note"}


def test_a_hand_written_batch_norm_with_batch_statistics_is_found(tmp_path: Path) -> None:
    path = saved(tmp_path, model(HAND_WRITTEN, {"eps": np.float32([1e-5])}))
    assert codes(path, "error") == {"batch-statistics-in-eval", "batch-dependent"}


def test_a_layer_norm_is_sound(tmp_path: Path) -> None:
    nodes = HAND_WRITTEN.replace("[0, 2, 3]", "[1, 2, 3]")
    assert codes(saved(tmp_path, model(nodes, {"eps": np.float32([1e-5])}))) == set()


def test_a_mean_over_the_batch_that_is_an_output_of_its_own_is_sound(tmp_path: Path) -> None:
    nodes = "y = Relu(x)\nz = ReduceMean<axes=[0], keepdims=0>(x)"
    path = saved(tmp_path, model(nodes, {}, output="float[N,3,8,8] y, float[3,8,8] z"))
    assert inspect(path).sound


def test_statistics_as_at_initialisation_are_an_error_and_nearly_so_are_not(tmp_path: Path) -> None:
    parts = statistics() | {"mean": np.zeros(4, np.float32), "var": np.ones(4, np.float32)}
    assert codes(saved(tmp_path, convolution(EVAL, parts)), "error") == {"never-updated"}
    parts["mean"][2] = 1e-3
    assert codes(saved(tmp_path, convolution(EVAL, parts)), "error") == set()


@pytest.mark.parametrize(("name", "value"), [("mean", np.nan), ("var", np.inf), ("var", -0.1)])
def test_invalid_statistics_are_an_error(tmp_path: Path, name: str, value: float) -> None:
    parts = statistics()
    parts[name][1] = value
    assert "invalid-statistics" in codes(saved(tmp_path, convolution(EVAL, parts)), "error")


def test_a_variance_of_0_without_epsilon_is_an_error(tmp_path: Path) -> None:
    parts = statistics()
    parts["var"][1] = 0
    without = EVAL.replace("Normalization(", "Normalization<epsilon=0.0>(")
    assert "invalid-statistics" in codes(saved(tmp_path, convolution(without, parts)), "error")
    assert codes(saved(tmp_path, convolution(EVAL, parts)), "error") == set()


def test_parameters_of_another_length_are_an_error(tmp_path: Path) -> None:
    parts = statistics() | {"gamma": np.ones(3, np.float32)}
    (finding,) = [one for one in inspect(saved(tmp_path, convolution(EVAL, parts))).findings if one.layer]
    assert finding.code == "invalid-statistics"
    assert finding.message == "γ, β, mean and variance have 3, 4, 4, 4 values, expected one per channel in each"


def test_dead_channels_are_a_note_and_from_a_quarter_on_a_warning(tmp_path: Path) -> None:
    parts = statistics(16) | {"w": weights(16, 3, 3, 3)}
    parts["gamma"][:3] = 0
    assert "dead-channels" in codes(saved(tmp_path, convolution(EVAL, parts)), "note")
    parts["gamma"][:4] = 0
    assert "dead-channels" in codes(saved(tmp_path, convolution(EVAL, parts)), "warning")


@pytest.mark.parametrize(("mode", "expected"), [("true", {"active-dropout"}), ("false", set())])
def test_a_dropout_counts_in_training_mode_only(tmp_path: Path, mode: str, expected: set[str]) -> None:
    nodes = f"y = Dropout(x, ratio, {mode})"
    parts = {"ratio": np.float32(0.5), "true": np.array(True), "false": np.array(False)}
    assert codes(saved(tmp_path, model(nodes, {k: v for k, v in parts.items() if k in ("ratio", mode)}))) == expected


def test_a_fixed_batch_is_a_note_and_invariance_is_checked(tmp_path: Path) -> None:
    parsed = convolution(TRAIN, statistics())
    parsed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    inspection = inspect(saved(tmp_path, parsed))
    assert {f.code for f in inspection.findings} == {"fixed-batch", "training-mode", "batch-dependent"}


def test_a_recurrent_layer_with_time_first_is_not_called_dependent_on_its_batch(tmp_path: Path) -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.lstm(x)[0]

    path = tmp_path / "model.onnx"
    example, axes = torch.rand(5, 2, 3), {"x": {0: "T"}}
    torch.onnx.export(Reader().eval(), (example,), str(path), dynamo=False, dynamic_axes=axes, input_names=["x"])
    assert inspect(path).sound


def test_dynamic_quantisation_is_named_as_the_reason_for_a_small_dependence_on_the_batch(tmp_path: Path) -> None:
    nodes = "q, scale, zero = DynamicQuantizeLinear(x)\ny = DequantizeLinear(q, scale, zero)"
    inspection = inspect(saved(tmp_path, model(nodes, {})))
    (finding,) = inspection.findings
    assert (finding.code, finding.severity) == ("batch-dependent", "warning")
    assert "takes its scale from the whole batch" in finding.message
    assert inspection.sound
    assert inspection.batch_dependent


def test_an_input_beside_the_batch_keeps_its_size(tmp_path: Path) -> None:
    nodes = "a = Conv(x, w)\nh = Mul(a, scale)\n" + EVAL
    parsed = model(nodes, {"w": weights(4, 3, 3, 3), **statistics()}, inputs="float[N,3,8,8] x, float[4,1,1] scale")
    invariance = inspect(saved(tmp_path, parsed)).batch_invariance
    assert invariance["checked"], invariance["reason"]


def test_random_answers_are_not_called_batch_dependent(tmp_path: Path) -> None:
    parsed = model("r = RandomNormalLike(x)\ny = Add(x, r)", {})
    inspection = inspect(saved(tmp_path, parsed))
    assert inspection.sound
    assert inspection.batch_invariance["reason"] == "two runs on one input differ"


def test_the_command_exits_0_when_sound_1_when_not_and_2_for_wrong_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path, convolution(EVAL, statistics()))
    assert main(["inspect", str(path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["batch_norms"] == 1
    assert [finding["code"] for finding in answer["findings"]] == ["unfolded"]
    path = saved(tmp_path, convolution(TRAIN, statistics()))
    assert main(["inspect", str(path)]) == 1
    assert "training-mode" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "absent.onnx")]) == 2
    assert "no such file" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["inspect"])


BRANCH = """h = Conv(x, w)
    y = If (flag) <then_branch = yes () => (float[N,4,6,6] a) { a = BatchNormalization(h, gamma, beta, mean, var) },
        else_branch = no () => (float[N,4,6,6] b) { b = Neg(h) }>"""


@pytest.mark.parametrize(("mean", "var", "code"), [(0, 1, "never-updated"), (0, -1, "invalid-statistics")])
def test_a_batch_norm_in_a_branch_reads_its_statistics_outside(
    tmp_path: Path, mean: float, var: float, code: str
) -> None:
    parts = {"w": weights(4, 3, 3, 3), "flag": np.array(False), **statistics()}
    assert not codes(saved(tmp_path, model(BRANCH, parts)))
    parts |= {"mean": np.full(4, mean, np.float32), "var": np.full(4, var, np.float32)}
    assert codes(saved(tmp_path, model(BRANCH, parts)), "error") == {code}


def test_statistics_computed_outside_a_branch_are_batch_statistics(tmp_path: Path) -> None:
    parts = {"w": weights(4, 3, 3, 3), "flag": np.array(False), **statistics()}
    del parts["mean"]
    nodes = BRANCH.replace("h = Conv(x, w)", "h = Conv(x, w)\nmean = ReduceMean<axes=[0, 2, 3], keepdims=0>(h)")
    assert codes(saved(tmp_path, model(nodes, parts)), "error") == {"batch-statistics-in-eval"}


@pytest.mark.parametrize("name", ["gamma", "beta"])
def test_parameters_that_are_not_finite_are_an_error(tmp_path: Path, name: str) -> None:
    parts = statistics()
    parts[name][1] = np.nan
    assert codes(saved(tmp_path, convolution(EVAL, parts)), "error") == {"invalid-statistics"}


def test_standardised_weights_are_no_batch_norm_in_training_mode(tmp_path: Path) -> None:
    """A scaled standardised convolution normalises its weights with a batch norm in training mode."""
    ones = {"one": np.ones(4, np.float32), "zero": np.zeros(4, np.float32)}
    nodes = """s = Reshape(w, flat)
        n, m, v = BatchNormalization<training_mode=1>(s, one, zero, zero, one)
        k = Reshape(n, shape)
        y = Conv(x, k)"""
    shapes = {"flat": np.array([1, 4, 27]), "shape": np.array([4, 3, 3, 3])}
    assert codes(saved(tmp_path, model(nodes, {"w": weights(4, 3, 3, 3), **ones, **shapes}))) == set()


def test_statistics_repeated_for_each_sample_are_stored_ones(tmp_path: Path) -> None:
    """An instance norm with running statistics, as a batch norm over samples and channels."""
    nodes = """size = Shape<start=0, end=1>(x)
        g = Tile(gamma, size)
        b = Tile(beta, size)
        m = Tile(mean, size)
        v = Tile(var, size)
        r = Reshape(x, merged)
        n = BatchNormalization(r, g, b, m, v)
        shape = Shape(x)
        y = Reshape(n, shape)"""
    parts = {"merged": np.array([1, -1, 8, 8]), **statistics(3)}
    assert codes(saved(tmp_path, model(nodes, parts))) == set()


def test_a_scalar_input_does_not_hide_batch_statistics(tmp_path: Path) -> None:
    nodes = HAND_WRITTEN.replace("y = Div", "d = Div") + "y = Mul(d, t)"
    path = saved(tmp_path, model(nodes, {"eps": np.float32([1e-5])}, inputs="float[N,3,8,8] x, float t"))
    assert codes(path, "error") == {"batch-statistics-in-eval", "batch-dependent"}


def test_labels_and_nan_are_not_called_batch_invariant(tmp_path: Path) -> None:
    labels = HAND_WRITTEN.replace("y = Div", "d = Div") + "f = Flatten(d)\ny = ArgMax<axis=1, keepdims=0>(f)"
    for nodes, output in ((labels, "int64[N] y"), ("y = Mul(x, nan)", "float[N,3,8,8] y")):
        parts = {"eps": np.float32([1e-5])} if nodes is labels else {"nan": np.float32([np.nan])}
        invariance = inspect(saved(tmp_path, model(nodes, parts, output=output))).batch_invariance
        assert not invariance["checked"]
        assert "finite real numbers" in invariance["reason"]


@pytest.mark.parametrize("shape", ["3,32,32", "32,32,3"])
def test_a_single_image_of_fixed_size_is_not_taken_for_a_batch(tmp_path: Path, shape: str) -> None:
    order = "[0,3,1,2]" if shape.endswith("3") else "[0,1,2,3]"
    back = "[0,2,3,1]" if shape.endswith("3") else "[0,1,2,3]"
    nodes = f"""u = Unsqueeze(x, axis)
        t = Transpose<perm={order}>(u)
        c = Conv<pads=[1,1,1,1]>(t, w)
        b = Transpose<perm={back}>(c)
        y = Squeeze(b, axis)"""
    parts = {"w": weights(3, 3, 3, 3), "axis": np.array([0])}
    inspection = inspect(saved(tmp_path, model(nodes, parts, inputs=f"float[{shape}] x", output=f"float[{shape}] y")))
    assert inspection.findings == ()
    assert inspection.batch_invariance["reason"] == "the first axis of the inputs is not a batch axis"


def test_batch_statistics_are_found_in_a_file_of_one_larger_batch(tmp_path: Path) -> None:
    parsed = convolution(TRAIN, statistics())
    parsed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 6
    assert codes(saved(tmp_path, parsed)) == {"fixed-batch", "training-mode", "batch-dependent"}


def test_a_difference_that_is_not_finite_is_told_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = "m = ReduceMax<keepdims=0>(x)\nd = Sub(one, m)\ns = Sqrt(d)\ny = Mul(x, s)"
    path = saved(tmp_path, model(nodes, {"one": np.float32(1)}))
    assert main(["inspect", str(path), "--json"]) == 1
    text = capsys.readouterr().out
    assert "which values are finite" in text
    assert "Infinity" not in text  # no JSON
    assert json.loads(text)["batch_invariance"]["difference"] is None


def test_a_mean_variance_normalisation_over_the_batch_is_found(tmp_path: Path) -> None:
    assert codes(saved(tmp_path, model("y = MeanVarianceNormalization(x)", {})), "error") == {
        "batch-statistics-in-eval",
        "batch-dependent",
    }


def test_a_finding_of_many_layers_is_printed_once(tmp_path: Path) -> None:
    nodes = "h0 = Conv(x, w)\n" + "\n".join(
        f"h{k + 1} = BatchNormalization(h{k}, gamma, beta, mean, var)" for k in range(8)
    )
    parts = {"w": weights(4, 3, 3, 3), **statistics(), "mean": np.zeros(4, np.float32), "var": np.ones(4, np.float32)}
    inspection = inspect(saved(tmp_path, model(nodes + "\ny = Relu(h8)", parts)))
    assert sum(finding.code == "never-updated" for finding in inspection.findings) == 8
    assert str(inspection).count("never-updated") == 1
    assert "the same in 7 more: h2, h3, h4, h5, h6 …" in str(inspection)


def test_categories_of_a_small_embedding_are_run(tmp_path: Path) -> None:
    nodes = "e = Gather(table, i)\nh = Add(x, e)\n" + TRAIN
    parts = {"table": weights(2, 4), **statistics()}
    path = saved(tmp_path, model(nodes, parts, inputs="float[N,4] x, int64[N] i", output="float[N,4] y"))
    assert "batch-dependent" in codes(path, "error")


def test_a_generator_that_draws_its_own_noise_is_not_taken_for_a_constant(tmp_path: Path) -> None:
    nodes = "n = RandomNormal<shape=[4, 3, 8, 8]>()\nh = Conv(n, w)\n" + TRAIN.replace("y,", "z,") + "\ny = Add(z, x)"
    parts = {"w": weights(4, 3, 3, 3), **statistics()}
    assert "training-mode" in codes(saved(tmp_path, model(nodes, parts, inputs="float[1] x")), "error")


def test_training_mode_in_a_branch_is_found(tmp_path: Path) -> None:
    parts = {"w": weights(4, 3, 3, 3), "flag": np.array(False), **statistics()}
    nodes = BRANCH.replace("a = BatchNormalization(", "a, m, v = BatchNormalization<training_mode=1>(")
    assert codes(saved(tmp_path, model(nodes, parts)), "error") == {"training-mode"}


def test_what_fold_leaves_in_a_branch_is_not_called_foldable(tmp_path: Path) -> None:
    parts = {"w": weights(4, 3, 3, 3), "flag": np.array(True), **statistics()}
    nodes = BRANCH.replace("a = Batch", "c = Conv(x, w)\n a = Batch").replace("Normalization(h", "Normalization(c")
    path = saved(tmp_path, model(nodes, parts))
    assert codes(path) == set()
    assert (inspect(path, fold_to=tmp_path / "folded.onnx").folded or {})["batch_norms"] == 0


def test_a_file_that_cannot_be_run_is_not_called_sound() -> None:
    report = str(inspect("checkpoints/lecture/sketch.onnx"))
    assert "sketch.onnx: no error found" in report
    assert "batch invariance not checked" in report


def test_the_findings_are_printed_even_if_folding_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "examples/onnx/train-mode.onnx", "--fold", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert "training-mode" in printed.out
    assert "error:" in printed.err


@pytest.mark.parametrize("nodes", ["y = CumSum(x, zero)", "f = Gather<axis=0>(x, zero)\ny = Sub(x, f)"])
def test_a_dependence_on_earlier_samples_of_the_batch_is_found(tmp_path: Path, nodes: str) -> None:
    parsed = model(nodes, {"zero": np.int64(0)}, inputs="float[N,3] x", output="float[N,3] y")
    assert codes(saved(tmp_path, parsed), "error") == {"batch-dependent"}


def test_a_batch_norm_without_channels_was_not_forgotten(tmp_path: Path) -> None:
    parsed = model("y = BatchNormalization(x, gamma, beta, mean, var)", statistics(0), inputs="float[N,0,8,8] x")
    assert not codes(saved(tmp_path, parsed))
