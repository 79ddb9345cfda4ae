"""`inspect` on ONNX files with planted faults, and on similar files that are sound."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from bnmodel.deploy import inspect
from export.__main__ import main
from tests.deploy.onnx_helpers import (
    EVAL,
    RNG,
    TRAIN,
    Build,
    answers,
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


NEIGHBOURS = {
    "Conv": ("h = Conv(x, w, b)\n" + EVAL, {"w": weights(4, 3, 3, 3), "b": weights(4)}),
    "grouped ConvTranspose": (
        "g = Concat<axis=1>(x, x)\nh = ConvTranspose<group=2>(g, w)\n" + EVAL,
        {"w": weights(6, 2, 3, 3)},
    ),
    "Conv after": (
        "g = Concat<axis=1>(x, x)\ne = Slice(g, zero, four, one)\nh = Relu(e)\n"
        + EVAL.replace("y =", "n =")
        + "\ny = Conv<group=2>(n, w)",
        {"w": weights(6, 2, 3, 3), "zero": np.array([0]), "four": np.array([4]), "one": np.array([1])},
    ),
}


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_folding_leaves_the_answers_and_no_batch_norm(tmp_path: Path, name: str) -> None:
    nodes, parts = NEIGHBOURS[name]
    path = saved(tmp_path, model(nodes, parts | statistics()))
    assert "unfolded" in codes(path)
    inspection = inspect(path, fold_to=tmp_path / "folded.onnx")
    assert inspection.folded is not None
    assert inspection.folded["batch_norms"] == 1
    x = RNG.normal(size=(3, 3, 8, 8)).astype(np.float32)
    before, after = answers(path, x), answers(tmp_path / "folded.onnx", x)
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
    assert inspect(tmp_path / "folded.onnx").batch_norms == 0


@pytest.mark.parametrize("transposed", [0, 1])
def test_folding_into_a_dense_layer(tmp_path: Path, transposed: int) -> None:
    w = weights(4, 5) if not transposed else weights(5, 4)
    nodes = f"h = Relu(x)\n{EVAL.replace('y =', 'n =')}\ny = Gemm<transB={transposed}>(n, w)"
    path = saved(tmp_path, model(nodes, {"w": w} | statistics(), inputs="float[N,4] x", output="float[N,5] y"))
    inspect(path, fold_to=tmp_path / "folded.onnx")
    x = RNG.normal(size=(3, 4)).astype(np.float32)
    before, after = answers(path, x), answers(tmp_path / "folded.onnx", x)
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("first", [True, False])
def test_folding_into_a_dense_layer_without_bias(tmp_path: Path, first: bool) -> None:
    dense = "h = MatMul(x, w)\ny = BatchNormalization(h, gamma, beta, mean, var)"
    if not first:
        dense = "h = Relu(x)\nn = BatchNormalization(h, gamma, beta, mean, var)\ny = MatMul(n, w)"
    path = saved(
        tmp_path, model(dense, {"w": weights(4, 4)} | statistics(), inputs="float[N,4] x", output="float[N,4] y")
    )
    assert "unfolded" in codes(path)
    inspect(path, fold_to=tmp_path / "folded.onnx")
    x = RNG.normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(answers(tmp_path / "folded.onnx", x), answers(path, x), rtol=1e-5, atol=1e-5)
    assert inspect(tmp_path / "folded.onnx").batch_norms == 0


def test_a_dense_layer_over_the_last_of_three_axes_is_no_neighbour_to_fold_into(tmp_path: Path) -> None:
    nodes = "h = MatMul(x, w)\ny = BatchNormalization(h, gamma, beta, mean, var)"
    parts = {"w": weights(4, 4)} | statistics()
    path = saved(tmp_path, model(nodes, parts, inputs="float[N,4,4] x", output="float[N,4,4] y"))
    assert inspect(path, fold_to=tmp_path / "folded.onnx").batch_norms == 1
    assert (inspect(tmp_path / "folded.onnx").batch_norms) == 1


def test_a_file_in_float16_is_folded(tmp_path: Path) -> None:
    parts = {name: array.astype(np.float16) for name, array in ({"w": weights(4, 4)} | statistics()).items()}
    nodes = f"h = Relu(x)\n{EVAL.replace('y =', 'n =')}\ny = Gemm(n, w)"
    path = saved(tmp_path, model(nodes, parts, inputs="float16[N,4] x", output="float16[N,4] y"))
    assert (inspect(path, fold_to=tmp_path / "folded.onnx").folded or {})["batch_norms"] == 1


def test_dynamic_quantisation_is_named_as_the_reason_for_a_small_dependence_on_the_batch(tmp_path: Path) -> None:
    nodes = "q, scale, zero = DynamicQuantizeLinear(x)\ny = DequantizeLinear(q, scale, zero)"
    inspection = inspect(saved(tmp_path, model(nodes, {})))
    (finding,) = inspection.findings
    assert (finding.code, finding.severity) == ("batch-dependent", "warning")
    assert "takes its scale from the whole batch" in finding.message
    assert inspection.sound
    assert inspection.batch_dependent


def without_shape(parsed: onnx.ModelProto) -> onnx.ModelProto:
    for value in parsed.graph.output:
        value.type.tensor_type.ClearField("shape")
    return parsed


def old_format() -> onnx.ModelProto:
    """IR version 3, in which every initialiser is an input as well."""
    parsed = convolution(EVAL, statistics(), opset=8)
    parsed.ir_version = 3
    for tensor in parsed.graph.initializer:
        parsed.graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, list(tensor.dims)))
    return parsed


@pytest.mark.parametrize("build", [lambda: without_shape(convolution(EVAL, statistics())), old_format])
def test_files_as_other_tools_write_them_are_read_and_folded(tmp_path: Path, build: Build) -> None:
    path = saved(tmp_path, build())
    inspection = inspect(path, fold_to=tmp_path / "folded.onnx")
    assert inspection.sound
    assert inspection.batch_invariance["checked"]
    assert (inspection.folded or {})["batch_norms"] == 1


def test_a_gemm_that_adds_a_matrix_is_no_neighbour_to_fold_into(tmp_path: Path) -> None:
    parts = {"w": weights(5, 4), "c": weights(4, 4), **statistics()}
    path = saved(tmp_path, model(f"h = Gemm(x, w, c)\n{EVAL}", parts, inputs="float[4,5] x", output="float[4,4] y"))
    inspection = inspect(path, fold_to=tmp_path / "folded.onnx")
    assert "unfolded" not in {finding.code for finding in inspection.findings}
    assert (inspection.folded or {})["batch_norms"] == 0


@pytest.mark.parametrize("read", ["h", "y"])
def test_what_a_branch_reads_is_not_folded_away(tmp_path: Path, read: str) -> None:
    """`h`: input of the norm, after a convolution; `y`: its output, before a convolution."""
    branch = f"z = If (flag) <then_branch = yes () => (float[N,4,6,6] a) {{ a = Relu({read}) }}, "
    branch += f"else_branch = no () => (float[N,4,6,6] b) {{ b = Neg({read}) }}>"
    if read == "h":
        nodes = f"h = Conv(x, w)\n{EVAL}\n{branch}"
    else:
        nodes = f"g = Conv(x, w)\nh = Relu(g)\n{EVAL}\no = Conv(y, v)\n{branch}"
    parts = {"w": weights(4, 3, 3, 3), "v": weights(2, 4, 1, 1), "flag": np.array(True), **statistics()}
    parsed = model(nodes, parts, output="float[N,4,6,6] y, float[N,4,6,6] z" if read == "h" else "float[N,4,6,6] z")
    inspection = inspect(saved(tmp_path, parsed), fold_to=tmp_path / "folded.onnx")
    assert (inspection.folded or {})["batch_norms"] == 0


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


def test_a_batch_norm_before_a_padded_convolution_is_kept(tmp_path: Path) -> None:
    nodes = "h = Relu(x)\n" + EVAL.replace("y =", "n =") + "\ny = Conv<pads=[1, 1, 1, 1]>(n, w)"
    path = saved(tmp_path, model(nodes, {"w": weights(4, 3, 3, 3)} | statistics(3)))
    assert "unfolded" not in codes(path)


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
    assert main(["inspect", str(tmp_path / "absent.onnx")]) == 1
    assert "no such file" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["inspect"])
