"""`inspect` writes a folded copy only if its comparison with the original is meaningful."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bnmodel.deploy import ExportError, inspect
from tests.deploy.onnx_helpers import EVAL, convolution, saved, statistics

# sin(10⁶ · h): rounding alone changes the output entirely, as it does the order of a detector's boxes
UNSTABLE = "z = BatchNormalization(h, gamma, beta, mean, var)\nl = Mul(z, large)\ny = Sin(l)"


def unstable(nodes: str) -> onnx.ModelProto:
    parsed = convolution(nodes, statistics())
    parsed.graph.initializer.append(numpy_helper.from_array(np.float32([1e8]), "large"))
    return parsed


def test_outputs_that_rounding_changes_are_compared_at_the_folded_layers(tmp_path: Path) -> None:
    folded = inspect(saved(tmp_path, unstable(UNSTABLE)), fold_to=tmp_path / "folded.onnx").folded
    assert folded is not None
    assert folded["batch_norms"] == 1
    assert folded["difference"] <= folded["allowed"] == 1e-5


def test_a_folded_layer_behind_what_rounding_changes_is_refused(tmp_path: Path) -> None:
    nodes = UNSTABLE.replace("y = Sin", "s = Sin")
    parsed = unstable(nodes + "\nc = Conv(s, w2)\ny = BatchNormalization(c, gamma, beta, mean, var)")
    parsed.graph.initializer.append(numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w2"))
    with pytest.raises(ExportError, match="cannot be certified: rounding alone changes its values"):
        inspect(saved(tmp_path, parsed), fold_to=tmp_path / "folded.onnx")
    assert not (tmp_path / "folded.onnx").exists()


def test_a_model_with_random_answers_is_compared_before_they_become_random(tmp_path: Path) -> None:
    behind = EVAL.replace("y =", "z =") + "\nr = RandomNormalLike(z)\ny = Add(z, r)"
    folded = inspect(saved(tmp_path, convolution(behind, statistics())), fold_to=tmp_path / "folded.onnx").folded
    assert folded is not None
    assert folded["difference"] <= folded["allowed"] == 1e-5
    parsed = convolution(EVAL, statistics())
    parsed.graph.node.insert(0, onnx.parser.parse_node("noise = RandomNormalLike(x)"))
    parsed.graph.node[1].input[0] = "noise"
    with pytest.raises(ExportError, match="cannot be certified: rounding alone changes its values, or they are random"):
        inspect(saved(tmp_path, parsed), fold_to=tmp_path / "folded.onnx")
