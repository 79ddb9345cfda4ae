"""Small ONNX models with a batch norm, in onnx's text format."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from bnmodel.deploy import inspect

RNG = np.random.default_rng(0)
Parts = dict[str, np.ndarray]
Build = Callable[[], onnx.ModelProto]


def statistics(channels: int = 4) -> Parts:
    rng = np.random.default_rng(1)
    return {
        "gamma": rng.uniform(0.5, 2, channels).astype(np.float32),
        "beta": rng.normal(size=channels).astype(np.float32),
        "mean": rng.normal(size=channels).astype(np.float32),
        "var": rng.uniform(0.5, 2, channels).astype(np.float32),
    }


def model(
    nodes: str, parts: Parts, opset: int = 17, inputs: str = "float[N,3,8,8] x", output: str = "float[N,M,P,Q] y"
) -> onnx.ModelProto:
    """A model from onnx's text format; `parts` are its initialisers."""
    text = f'<ir_version: 8, opset_import: ["" : {opset}]> g ({inputs}) => ({output}) {{ {nodes} }}'
    parsed = onnx.parser.parse_model(text)
    parsed.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in parts.items())
    return parsed


def saved(tmp_path: Path, parsed: onnx.ModelProto) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(parsed, str(path))
    return path


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=shape).astype(np.float32)


def convolution(norm: str, parts: Parts, opset: int = 17) -> onnx.ModelProto:
    nodes = f"h = Conv(x, w)\n{norm}"
    return model(nodes, {"w": weights(4, 3, 3, 3), **parts}, opset)


EVAL = "y = BatchNormalization(h, gamma, beta, mean, var)"
TRAIN = "y, m, v = BatchNormalization<training_mode=1>(h, gamma, beta, mean, var)"


def answers(path: Path, x: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(str(path)).run(None, {"x": x})[0]


def codes(path: Path, severity: str | None = None) -> set[str]:
    return {finding.code for finding in inspect(path).findings if severity in (None, finding.severity)}
