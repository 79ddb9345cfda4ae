"""`inspect` on files of old versions of ONNX."""

from pathlib import Path

import numpy as np
import onnx

from bnmodel.deploy import inspect
from tests.deploy.onnx_helpers import answers, codes, convolution, model, saved, statistics, weights


def test_weights_that_are_not_inputs_are_accepted_in_files_of_ir_version_3(tmp_path: Path) -> None:
    parsed = model("y = Mul(x, w)", {"w": weights(1, 3, 1, 1)})
    parsed.ir_version = 3
    parsed.opset_import[0].version = 7
    inspection = inspect(saved(tmp_path, parsed))
    assert inspection.batch_invariance["checked"]


OLD = "y = BatchNormalization<is_test=1>(h, gamma, beta, mean, var)"


def test_operators_that_the_runtime_no_longer_has_are_converted_for_the_run(tmp_path: Path) -> None:
    folded = tmp_path / "folded.onnx"
    parsed = convolution(OLD, statistics(), opset=6)
    inspection = inspect(saved(tmp_path, parsed), fold_to=folded)
    assert inspection.batch_invariance["checked"], inspection.batch_invariance["reason"]
    assert inspection.opset == 6
    assert inspection.folded is not None
    assert inspection.folded["batch_norms"] == 1
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    current = onnx.version_converter.convert_version(parsed, 9)
    onnx.save(current, str(tmp_path / "current.onnx"))
    np.testing.assert_allclose(answers(folded, x), answers(tmp_path / "current.onnx", x), rtol=1e-4, atol=1e-5)


def test_statistics_filled_by_an_operator_are_read(tmp_path: Path) -> None:
    parts = statistics()
    del parts["mean"], parts["var"]
    parts["count"] = np.int64([4])
    nodes = """mean = ConstantOfShape(count)
var = ConstantOfShape<value=float[1] {1.0}>(count)
y = BatchNormalization(h, gamma, beta, mean, var)"""
    assert codes(saved(tmp_path, convolution(nodes, parts)), "error") == {"never-updated"}


def test_a_huge_filled_constant_is_not_built(tmp_path: Path) -> None:
    nodes = "w = ConstantOfShape(count)\nh = Conv(x, w)\ny = BatchNormalization(h, gamma, beta, mean, var)"
    parts = statistics() | {"count": np.int64([4, 3, 2**20, 2**20])}
    assert "NaN" not in str(inspect(saved(tmp_path, model(nodes, parts))))
