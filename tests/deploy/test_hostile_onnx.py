"""`inspect` on damaged, endless and huge ONNX files, and on files that reach outside their folder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bnmodel.deploy import ExportError, inspect
from bnmodel.deploy.sandbox import Limits
from tests.deploy.onnx_helpers import EVAL, TRAIN, Build, codes, convolution, model, saved, statistics


def hostile_loop() -> onnx.ModelProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Sin", ["a"], ["b"])],
        "body",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in (("i", 7, []), ("c", 9, []), ("a", 1, [None, 3, 8, 8]))],
        [helper.make_tensor_value_info(n, t, s) for n, t, s in (("d", 9, []), ("b", 1, [None, 3, 8, 8]))],
    )
    parsed = model("y = Relu(x)", {"n": np.array(2**60), "t": np.array(True)})
    parsed.graph.node[0].CopyFrom(helper.make_node("Loop", ["n", "t", "x"], ["y"], body=body))
    return parsed


def huge() -> onnx.ModelProto:
    return model("z = ConstantOfShape(s)\ny = Add(x, z)", {"s": np.array([2**14, 2**10, 2**9, 2**9])})


def elsewhere(location: str) -> Build:
    def build() -> onnx.ModelProto:
        parsed = convolution(EVAL, statistics())
        tensor = parsed.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        return parsed

    return build


def custom() -> onnx.ModelProto:
    parsed = model("y = Relu(x)", {})
    parsed.graph.node[0].domain = "evil"
    parsed.opset_import.append(helper.make_opsetid("evil", 1))
    return parsed


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (elsewhere("../../etc/passwd"), "beside the model"),
        (elsewhere("/etc/passwd"), "beside the model"),
        (elsewhere("absent.bin"), "beside the model"),
        (custom, "evil::Relu"),
    ],
)
def test_a_file_that_reaches_outside_is_refused_in_words(tmp_path: Path, build: Build, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        inspect(saved(tmp_path, build()))


def test_weights_in_a_second_file_are_read_beside_the_model_and_refused_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(
        convolution(TRAIN, statistics()), str(path), save_as_external_data=True, location="weights", size_threshold=0
    )
    assert "training-mode" in codes(path)
    with pytest.raises(ExportError, match="expected one file"):
        inspect(path, external_data=False)


@pytest.mark.parametrize("build", [hostile_loop, huge])
def test_an_endless_or_huge_model_ends_at_the_limits(tmp_path: Path, build: Build) -> None:
    try:
        inspection = inspect(saved(tmp_path, build()), limits=Limits(memory=2**29, seconds=2))
    except ExportError as error:
        assert "model.onnx" in str(error)  # noqa: PT017
    else:
        assert not inspection.batch_invariance["checked"]


def test_the_findings_in_the_graph_are_kept_if_the_run_does_not_end(tmp_path: Path) -> None:
    parsed = hostile_loop()
    norm = convolution(TRAIN, statistics(3), opset=17)
    parsed.graph.initializer.extend(tensor for tensor in norm.graph.initializer if tensor.name != "w")
    parsed.graph.node.extend(norm.graph.node[1:])
    parsed.graph.node[0].output[0] = parsed.graph.node[1].input[0]
    inspection = inspect(saved(tmp_path, parsed), limits=Limits(seconds=2))
    assert {finding.code for finding in inspection.findings} == {"training-mode"}
    assert inspection.batch_invariance["reason"] == "its run did not end within the limits of time and memory"
    with pytest.raises(ExportError, match="within 2 s"):
        inspect(saved(tmp_path, parsed), fold_to=tmp_path / "folded.onnx", limits=Limits(seconds=2))


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "no protobuf": lambda content: b"\xff" * 100,
    "claims 4 GB": lambda content: b"\x3a\xff\xff\xff\xff\x0f" + content,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_refused_in_words(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = saved(tmp_path, convolution(EVAL, statistics()))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ExportError, match=r"model\.onnx: expected"):
        inspect(path)


def test_the_worker_imports_nothing_of_the_project() -> None:
    sources = [path.read_text() for path in Path("bnmodel/deploy/onnx_worker").glob("*.py")]
    assert sources
    assert not [source for source in sources if "import bnmodel" in source or "from bnmodel" in source]


def test_a_name_cannot_rewrite_the_terminal(tmp_path: Path) -> None:
    parsed = convolution(TRAIN, statistics())
    parsed.graph.node[1].name = "\x1b[2J\nmodel.onnx: sound\u202e"
    inspection = inspect(saved(tmp_path, parsed))
    assert str(inspection).replace("\n", "").isprintable()
    assert r"\x1b[2J\nmodel.onnx: sound\u202e" in str(inspection)
    parsed.graph.node[1].input[0] = "\x1b[2Jabsent"
    with pytest.raises(ExportError) as raised:
        inspect(saved(tmp_path, parsed))
    assert str(raised.value).isprintable()


def test_a_sparse_constant_is_no_reason_to_stop(tmp_path: Path) -> None:
    parts = statistics()
    del parts["beta"]
    parsed = convolution(EVAL, parts)
    values, places = (helper.make_tensor("", kind, [1], [1]) for kind in (TensorProto.FLOAT, TensorProto.INT64))
    sparse = helper.make_sparse_tensor(values, places, [4])
    parsed.graph.node.insert(0, helper.make_node("Constant", [], ["beta"], sparse_value=sparse))
    assert inspect(saved(tmp_path, parsed)).sound
