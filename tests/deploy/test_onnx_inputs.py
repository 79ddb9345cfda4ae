"""`inspect` runs files whose batch is not the first axis of every input, and gives the reason if it cannot."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from bnmodel.deploy import inspect
from tests.deploy.onnx_helpers import codes, model, saved, weights

RECURRENT = """
    t = Transpose<perm=[1, 0, 2]>(x)
    o, last = GRU<hidden_size=5>(t, w, r, , , state)
    s = Squeeze(o, one)
    y = Transpose<perm=[1, 0, 2]>(s)
"""


def recurrent(inputs: str) -> onnx.ModelProto:
    parts = {"w": weights(1, 15, 3), "r": weights(1, 15, 5), "one": np.int64([1])}
    return model(RECURRENT, parts, inputs=inputs, output="float[N,T,5] y, float[1,N,5] last")


@pytest.mark.parametrize(
    "inputs",
    [
        "float[batch,seq,3] x, float[1,batch,5] state",
        "float[?,?,3] x, float[1,?,5] state",
        "float[2,7,3] x, float[1,2,5] state",
    ],
)
def test_the_state_of_a_recurrent_layer_has_its_batch_on_the_second_axis(tmp_path: Path, inputs: str) -> None:
    invariance = inspect(saved(tmp_path, recurrent(inputs))).batch_invariance
    assert invariance["checked"], invariance["reason"]


def test_a_batch_that_is_named_is_found_behind_the_time(tmp_path: Path) -> None:
    nodes = "m = ReduceMean<axes=[1], keepdims=1>(x)\ny = Sub(x, m)"
    parsed = model(nodes, {}, inputs="float[time,batch,6] x", output="float[time,batch,6] y")
    assert codes(saved(tmp_path, parsed), "error") == {"batch-dependent"}
    parsed = model(nodes.replace("[1]", "[0]"), {}, inputs="float[time,batch,6] x", output="float[time,batch,6] y")
    assert inspect(saved(tmp_path, parsed)).batch_invariance["checked"]


def test_a_state_for_one_sample_makes_a_file_for_one_sample(tmp_path: Path) -> None:
    invariance = inspect(saved(tmp_path, recurrent("float[N,T,3] x, float[1,1,5] state"))).batch_invariance
    assert invariance["reason"].startswith("it runs with one sample, not with 4 (Input initial_h must have shape")


def test_a_length_that_is_a_sum_is_the_sum_of_the_others(tmp_path: Path) -> None:
    nodes = "a = Concat<axis=1>(past, x)\ny = Concat<axis=2>(a, bias)"
    inputs = "float[batch,seq,3] x, float[batch,past,3] past, float[batch,total,3] bias"
    parsed = model(nodes, {}, inputs=inputs, output="float[batch,M,6] y")
    parsed.graph.input[2].type.tensor_type.shape.dim[1].dim_param = "past + seq"
    invariance = inspect(saved(tmp_path, parsed)).batch_invariance
    assert invariance["checked"], invariance["reason"]


def test_sound_needs_hundreds_of_samples(tmp_path: Path) -> None:
    parsed = model("y = Conv(x, w)", {"w": weights(2, 1, 300)}, inputs="float[N,1,T] x", output="float[N,2,U] y")
    assert inspect(saved(tmp_path, parsed)).batch_invariance["checked"]


@pytest.mark.parametrize("axes", ["", ", zero"])
def test_an_output_without_an_axis_for_one_sample_is_compared_all_the_same(tmp_path: Path, axes: str) -> None:
    nodes = f"h = ReduceMean<axes=[1], keepdims=1>(x)\ny = Squeeze(h{axes})"
    parts = {} if axes == "" else {"zero": np.int64([1])}
    inspection = inspect(saved(tmp_path, model(nodes, parts, inputs="float[N,6] x", output="float[N] y")))
    assert inspection.batch_invariance["checked"], inspection.batch_invariance["reason"]
    assert inspection.sound


def test_class_scores_in_dictionaries_are_compared(tmp_path: Path) -> None:
    """As classifiers of the domain ai.onnx.ml give them."""
    text = """<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>
        g (float[N,2] x) => (seq(map(int64, float)) y) {
            NODES
            y = ai.onnx.ml.ZipMap<classlabels_int64s=[0, 1]>(s)
        }"""
    sound = onnx.parser.parse_model(text.replace("NODES", "s = Softmax<axis=1>(x)"))
    invariance = inspect(saved(tmp_path, sound)).batch_invariance
    assert invariance["checked"], invariance["reason"]
    mixed = onnx.parser.parse_model(text.replace("NODES", "s = Softmax<axis=0>(x)"))
    assert codes(saved(tmp_path, mixed), "error") == {"batch-dependent"}


def test_the_reason_is_the_message_without_its_preamble(tmp_path: Path) -> None:
    parsed = model("y = Reshape(x, s)", {"s": np.int64([7, 11, 13])}, inputs="float[3,4] x", output="float[A,B,C] y")
    reason = inspect(saved(tmp_path, parsed)).batch_invariance["reason"]
    assert "ONNXRuntimeError" not in reason
    assert "onnxruntime_src" not in reason
    assert "run (The input tensor cannot be reshaped" in reason


def test_rounding_does_not_hide_that_the_samples_of_a_fixed_batch_are_mixed(tmp_path: Path) -> None:
    """The sum of large values depends on their order, as if the order of the samples had a meaning."""
    nodes = "s = Add(x, large)\nm = ReduceMean<axes=[0], keepdims=1>(s)\ny = Sub(s, m)"
    parts = {"large": np.float32([30000])}
    parsed = model(nodes, parts, inputs="float[4,3,8,8] x", output="float[4,3,8,8] y")
    assert "batch-dependent" in codes(saved(tmp_path, parsed), "error")


def test_the_reason_is_the_message_without_the_function_it_came_from(tmp_path: Path) -> None:
    reason = inspect(saved(tmp_path, model("y = Relu(x)", {}, opset=99))).batch_invariance["reason"]
    assert reason.startswith("it could not be run (ONNX Runtime only *guarantees* support")
