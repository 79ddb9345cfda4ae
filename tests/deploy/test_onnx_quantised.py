"""`inspect` on dynamically quantised files: whether quantisation is the reason for a dependence on the batch."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bnmodel.deploy import inspect
from tests.deploy.onnx_helpers import codes, model, saved


def quantised(mixing: str = "") -> onnx.ModelProto:
    """Dynamically quantised dense layers, each of which makes the rounding errors of the one before larger."""
    lines, parts, source = [], {}, "x"
    rng = np.random.default_rng(0)
    for k in range(5):
        parts[f"w{k}"] = rng.integers(0, 256, (8, 8)).astype(np.uint8)
        parts[f"z{k}"] = np.uint8(128)
        parts[f"s{k}"] = np.float32(0.01)
        lines += [
            f"q{k}, a{k}, b{k} = DynamicQuantizeLinear({source})",
            f"i{k} = MatMulInteger(q{k}, w{k}, b{k}, z{k})",
            f"f{k} = Cast<to=1>(i{k})",
            f"u{k} = Mul(a{k}, s{k})",
            f"h{k} = Mul(f{k}, u{k})",
            f"e{k} = Tanh(h{k})",
        ]
        source = f"e{k}"
    nodes = "\n".join([*lines, mixing or f"y = Identity({source})"])
    return model(nodes, parts, inputs="float[N,8] x", output="float[N,8] y")


def test_a_large_effect_of_dynamic_quantisation_is_a_warning_as_without_it_there_is_none(tmp_path: Path) -> None:
    inspection = inspect(saved(tmp_path, quantised()))
    assert inspection.batch_invariance["difference"] > 0.1
    (finding,) = inspection.findings
    assert (finding.code, finding.severity) == ("batch-dependent", "warning")
    assert "dynamic quantisation" in finding.message


def test_a_dependence_that_remains_without_the_quantisation_is_an_error(tmp_path: Path) -> None:
    mixing = "m = ReduceMax<axes=[0], keepdims=1>(e4)\nn = Mul(m, small)\ny = Add(e4, n)"
    parsed = quantised(mixing)
    parsed.graph.initializer.append(numpy_helper.from_array(np.float32(0.02), "small"))
    assert codes(saved(tmp_path, parsed), "error") == {"batch-dependent", "batch-statistics-in-eval"}


LSTM = """
    t = Transpose<perm=[1, 0, 2]>(x)
    o = com.microsoft.DynamicQuantizeLSTM<hidden_size=4>(t, w, r, , , , , , ws, wz, rs, rz)
    s = Squeeze(o, one)
    y = Transpose<perm=[1, 0, 2]>(s)
"""


@pytest.mark.parametrize("scales", [(1,), (1, 16)])
def test_a_dynamically_quantised_lstm_is_compared_without_its_quantisation(
    tmp_path: Path, scales: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    parts = {
        "w": rng.integers(0, 256, (1, 3, 16)).astype(np.uint8),
        "r": rng.integers(0, 256, (1, 4, 16)).astype(np.uint8),
        "ws": np.full(scales, 0.1, np.float32),
        "wz": np.full(scales, 128, np.uint8),
        "rs": np.full(scales, 0.1, np.float32),
        "rz": np.full(scales, 128, np.uint8),
        "one": np.int64([1]),
    }
    parsed = model(LSTM, parts, inputs="float[N,T,3] x", output="float[N,T,4] y")
    parsed.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    inspection = inspect(saved(tmp_path, parsed))
    assert inspection.batch_dependent
    assert inspection.sound, str(inspection)


def test_a_small_share_is_not_called_0_per_cent(tmp_path: Path) -> None:
    nodes = "m = ReduceMean<axes=[0], keepdims=1>(x)\nn = Mul(m, small)\ny = Add(x, n)"
    parsed = model(nodes, {"small": np.float32([0.003])}, inputs="float[N,8] x", output="float[N,8] y")
    (message,) = [f.message for f in inspect(saved(tmp_path, parsed)).findings if f.code == "batch-dependent"]
    assert re.search(r"up to 0\.[1-9]%", message)
