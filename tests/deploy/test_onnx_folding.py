"""`inspect(…, fold_to=…)`: batch norms of ONNX files are folded only if that is exact."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from bnmodel.deploy import ExportError, inspect
from tests.deploy.onnx_helpers import (
    EVAL,
    RNG,
    Build,
    answers,
    codes,
    convolution,
    model,
    saved,
    statistics,
    weights,
)

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


def test_a_batch_norm_before_a_padded_convolution_is_kept(tmp_path: Path) -> None:
    nodes = "h = Relu(x)\n" + EVAL.replace("y =", "n =") + "\ny = Conv<pads=[1, 1, 1, 1]>(n, w)"
    path = saved(tmp_path, model(nodes, {"w": weights(4, 3, 3, 3)} | statistics(3)))
    assert "unfolded" not in codes(path)


def test_weights_stored_in_float16_are_folded_in_the_type_of_their_layer(tmp_path: Path) -> None:
    nodes = f"w = Cast<to=1>(half)\nh = Conv(x, w)\n{EVAL}"
    path = saved(tmp_path, model(nodes, {"half": weights(4, 3, 3, 3).astype(np.float16)} | statistics()))
    assert (inspect(path, fold_to=tmp_path / "folded.onnx").folded or {})["batch_norms"] == 1
    x = RNG.normal(size=(3, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(answers(tmp_path / "folded.onnx", x), answers(path, x), rtol=1e-5, atol=1e-5)


def test_statistics_per_position_are_not_folded_per_channel(tmp_path: Path) -> None:
    """`spatial=0` of opset 8: a mean and variance for each value of a sample."""
    parts = {name: RNG.uniform(1, 2, (4, 6, 6)).astype(np.float32) for name in statistics()}
    parsed = convolution(EVAL.replace("Normalization(", "Normalization<spatial=0>("), parts, opset=8)
    assert (inspect(saved(tmp_path, parsed), fold_to=tmp_path / "folded.onnx").folded or {})["batch_norms"] == 0


def test_a_model_whose_outputs_overflow_gets_no_unlimited_allowance(tmp_path: Path) -> None:
    parts = {name: array.astype(np.float16) for name, array in statistics().items()}
    parts["var"][:] = 0  # amplified by 10⁴: infinite in some places, with and without optimisation in different ones
    nodes = "h = Conv(x, w)\n" + EVAL.replace("Normalization(", "Normalization<epsilon=0.00000001>(")
    half = model(
        nodes,
        parts | {"w": weights(4, 3, 3, 3).astype(np.float16)},
        inputs="float16[N,3,8,8] x",
        output="float16[N,4,6,6] y",
    )
    folded = inspect(saved(tmp_path, half), fold_to=tmp_path / "folded.onnx").folded
    assert folded is not None
    assert folded["allowed"] < 0.01


def test_a_scalar_input_is_no_obstacle_to_folding(tmp_path: Path) -> None:
    nodes = f"c = Conv(x, w)\nh = Mul(c, t)\n{EVAL.replace('y =', 'n =')}\ny = Conv(n, v)"
    parts = {"w": weights(4, 3, 3, 3), "v": weights(2, 4, 1, 1)} | statistics()
    path = saved(tmp_path, model(nodes, parts, inputs="float[N,3,8,8] x, float t"))
    assert (inspect(path, fold_to=tmp_path / "folded.onnx").folded or {})["batch_norms"] == 1


@pytest.mark.parametrize("level", ["ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"])
def test_a_file_saved_by_onnx_runtime_after_its_optimisations_is_read(tmp_path: Path, level: str) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    parsed = convolution(EVAL, statistics(16) | {"w": weights(16, 3, 3, 3)})
    onnxruntime.InferenceSession(parsed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inspection = inspect(tmp_path / "optimised.onnx")
    assert inspection.sound
    assert inspection.batch_invariance["checked"]


def test_a_bias_of_zeros_as_long_as_the_weight_is_folded(tmp_path: Path) -> None:
    """As torch's exporter writes a convolution without bias if it does not optimise the file."""
    bias = "s = Shape<start=0, end=1>(w)\nt = CastLike(zero, x)\nb = Expand(t, s)\nh = Conv(x, w, b)\n"
    path = saved(tmp_path, model(bias + EVAL, {"w": weights(4, 3, 3, 3), "zero": np.float16(0), **statistics()}))
    assert inspect(path, fold_to=tmp_path / "folded.onnx").folded["batch_norms"] == 1
    x = RNG.normal(size=(2, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(answers(tmp_path / "folded.onnx", x), answers(path, x), rtol=1e-4, atol=1e-5)


def test_an_infinite_scale_is_not_folded(tmp_path: Path) -> None:
    parts = {"w": weights(4, 3, 3, 3), **statistics(), "var": np.float32([1, 0, 1, 1])}
    path = saved(tmp_path, model("h = Conv(x, w)\n" + EVAL.replace("tion(", "tion<epsilon=0.0>("), parts))
    assert inspect(path, fold_to=tmp_path / "folded.onnx").folded["batch_norms"] == 0


def test_a_model_that_takes_a_sequence_is_not_folded_and_the_input_is_named(tmp_path: Path) -> None:
    nodes = "x = SequenceAt(many, zero)\nh = Conv(x, w)\n" + EVAL
    parts = {"w": weights(4, 3, 3, 3), "zero": np.int64(0), **statistics()}
    path = saved(tmp_path, model(nodes, parts, inputs="seq(float[N,3,8,8]) many"))
    with pytest.raises(ExportError, match="random inputs are generated for tensors only, not for many; export"):
        inspect(path, fold_to=tmp_path / "folded.onnx")
