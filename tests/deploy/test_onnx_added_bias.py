"""`inspect` folds a batch norm into a linear layer whose bias is added by a separate operator."""

from pathlib import Path

import numpy as np
import pytest

from bnmodel.deploy import inspect
from tests.deploy.onnx_helpers import EVAL, RNG, answers, codes, model, saved, statistics, weights

IMAGE = "float[N,3,8,8] x", "float[N,4,P,Q] y", (3, 3, 8, 8)
ROWS = "float[N,3] x", "float[N,4] y", (3, 3)
LAYERS = {
    "Conv": ("c = Conv(x, w)\nh = Add(c, a)", {"w": weights(4, 3, 3, 3), "a": weights(1, 4, 1, 1)}, IMAGE),
    "Conv with its own": (
        "c = Conv(x, w, b)\nh = Add(a, c)",
        {"w": weights(4, 3, 3, 3), "b": weights(4), "a": weights(4, 1, 1)},
        IMAGE,
    ),
    "ConvTranspose": ("c = ConvTranspose(x, w)\nh = Add(c, a)", {"w": weights(3, 4, 2, 2), "a": weights(1)}, IMAGE),
    "MatMul": ("c = MatMul(x, w)\nh = Add(c, a)", {"w": weights(3, 4), "a": weights(4)}, ROWS),
    "Gemm": ("c = Gemm<transB=1>(x, w)\nh = Add(c, a)", {"w": weights(4, 3), "a": weights(1, 4)}, ROWS),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_batch_norm_is_folded_through_an_added_bias(tmp_path: Path, name: str) -> None:
    nodes, parts, (inputs, output, shape) = LAYERS[name]
    path = saved(tmp_path, model(f"{nodes}\n{EVAL}", parts | statistics(), inputs=inputs, output=output))
    assert "unfolded" in codes(path)
    inspection = inspect(path, fold_to=tmp_path / "folded.onnx")
    assert inspection.folded is not None
    assert inspection.folded["batch_norms"] == 1
    x = RNG.normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(answers(tmp_path / "folded.onnx", x), answers(path, x), rtol=1e-4, atol=1e-5)
    assert inspect(tmp_path / "folded.onnx").batch_norms == 0


@pytest.mark.parametrize(
    ("nodes", "parts"),
    [
        ("c = Conv(x, w)\nh = Add(c, a)", {"a": weights(1, 4, 1, 6)}),  # a bias per column
        ("c = Conv(x, w)\nh = Add(c, a)", {"a": weights(2, 4, 1, 1)}),  # per sample
        ("c = Conv(x, w)\nh = Add(c, a)", {"a": weights(6)}),  # per column, too
        ("c = Conv(x, w)\nd = Conv(x, w)\nh = Add(c, d)", {}),
    ],
)
def test_what_is_not_a_bias_per_channel_is_not_folded(tmp_path: Path, nodes: str, parts: dict[str, np.ndarray]) -> None:
    parsed = model(f"{nodes}\n{EVAL}", {"w": weights(4, 3, 3, 3), **parts} | statistics(), inputs="float[2,3,8,8] x")
    assert "unfolded" not in codes(saved(tmp_path, parsed))


def test_a_value_before_the_bias_that_another_layer_reads_is_kept(tmp_path: Path) -> None:
    nodes = f"c = Conv(x, w)\nh = Add(c, a)\n{EVAL}\nz = Relu(c)"
    parts = {"w": weights(4, 3, 3, 3), "a": weights(1, 4, 1, 1)} | statistics()
    path = saved(tmp_path, model(nodes, parts, output="float[N,4,P,Q] y, float[N,4,P,Q] z"))
    assert "unfolded" not in codes(path)
