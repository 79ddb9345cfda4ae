"""`certify`: any network is written in every format with its names, and a wrong file is found."""

import io
import json
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnmodel.deploy import ExportError, certificate, certification, certify, load, verify
from bnmodel.deploy.formats import WRITERS
from bnmodel.deploy.loading import FORMATS


def conv(*more: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), *more)
    network[1].running_mean.normal_()
    network[1].running_var.uniform_(0.5, 2)
    return network.eval()


X = torch.rand(4, 3, 8, 8)


def broken(folder: Path) -> set[tuple[str, str]]:
    return {(check.name, check.file) for check in verify(folder) if not check.passed}


class TwoInputs(nn.Module):
    """Any argument names, an optional input, several named outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.norm, self.table = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Embedding(7, 5)

    def forward(self, image: Tensor, kind: Tensor, bias: Tensor | None = None) -> dict[str, object]:
        features = self.norm(self.image(image)).mean((2, 3))
        scores = features + self.table(kind)
        return {"scores": scores if bias is None else scores + bias, "parts": (features, kind + 1)}


@pytest.fixture(scope="module")
def two_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    certify(TwoInputs().eval(), {"image": X, "kind": torch.tensor([0, 3, 6, 3])}, folder, name="two")
    return folder


@pytest.mark.parametrize("format", FORMATS)
def test_a_certified_network_answers_by_name_in_every_format(two_inputs, format):
    predict = load(two_inputs, format=format)
    assert predict.inputs == ("image", "kind")
    assert predict.outputs == ("scores", "parts_0", "parts_1")
    answers = predict(X.numpy()[:3], kind=np.array([1, 2, 3]))
    assert {name: (array.shape, str(array.dtype)) for name, array in answers.items()} == {
        "scores": ((3, 5), "float32"),
        "parts_0": ((3, 5), "float32"),
        "parts_1": ((3,), "int64"),
    }
    np.testing.assert_array_equal(answers["parts_1"], [2, 3, 4])
    with pytest.raises(ValueError, match="two: expected image, kind, received none for kind"):
        predict(X.numpy())
    with pytest.raises(ValueError, match=r"image: expected float32 \(N, 3, 8, 8\), received float64"):
        predict(X.double().numpy(), np.array([1, 2, 3, 4]))


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_another_network_is_found_though_it_is_resealed(two_inputs, format, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in two_inputs.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    network = TwoInputs().eval()
    network.load_state_dict({name: value * (1 + 1e-4) for name, value in network.state_dict().items()})
    other = tmp_path / "other"
    certify(network, {"image": X, "kind": torch.tensor([0, 3, 6, 3])}, other, name="two", formats=format)
    (folder / f"two.{format}").write_bytes((other / f"two.{format}").read_bytes())
    assert ("unchanged", f"two.{format}") in broken(folder)
    certificate.write(folder, certificate.models(folder), [])
    assert ("golden vectors", f"two.{format}") in broken(folder)


def test_small_outputs_behind_a_norm_on_axis_1_of_three_are_right_in_every_format(tmp_path):
    torch.manual_seed(0)
    norm, head = nn.BatchNorm1d(6), nn.Linear(36, 1)
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.weight.uniform_(0.5, 2)
        head.weight.mul_(1e-5)
        head.bias.zero_()
    network = nn.Sequential(nn.Linear(12, 6), norm, nn.ReLU(), nn.Flatten(), head).eval()
    x = torch.rand(4, 6, 12)
    certify(network, x, tmp_path)
    with torch.no_grad():
        expected = network.double()(x.double()).numpy()
    for format in FORMATS:
        received = load(tmp_path, format=format)(x.numpy())["output"]
        np.testing.assert_allclose(received, expected, rtol=2e-5, atol=0)


def test_a_small_output_does_not_hide_a_wrong_file(tmp_path, monkeypatch):
    network = conv(nn.Flatten(), nn.Linear(4 * 36, 2))
    with torch.no_grad():
        network[4].weight.mul_(torch.tensor([[1e-6], [1e3]]))
        network[4].bias.zero_()
    certify(network, X, tmp_path, formats="pt2")
    write = WRITERS["pt2"]

    def spoilt(program, metadata, path):
        weight = next(value for value in program.graph.state_dict().values() if value.shape == (2, 144))
        with torch.no_grad():
            weight[0] *= 1 + 1e-4  # 1e-13 of the larger output
        write(program, metadata, path)

    monkeypatch.setitem(WRITERS, "pt2", spoilt)
    with pytest.raises(ExportError, match=r"golden vectors.*of what is allowed"):
        certify(network, X, tmp_path / "spoilt", formats="pt2")


def scaled(state: dict[str, Tensor]) -> None:
    state["weight"][0] *= 1 + 1e-3


def shifted(state: dict[str, Tensor]) -> None:
    state["bias"][1] *= 1 + 1e-3


def zeroed(state: dict[str, Tensor]) -> None:
    state["weight"][3] = 0  # its outputs are 0.2 at most


def one_weight(state: dict[str, Tensor]) -> None:
    state["weight"].view(-1)[7] *= 1 + 1e-2


@pytest.mark.parametrize("spoil", [scaled, shifted, zeroed, one_weight])
def test_sabotage_of_a_single_folded_channel_is_found(spoil, tmp_path, monkeypatch):
    network = conv(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5))
    write = WRITERS["pt2"]

    def spoilt(program, metadata, path):
        state = program.graph.state_dict()
        name = next(name for name, value in state.items() if name.startswith("folded") and value.dim() == 4)
        with torch.no_grad():
            spoil({"weight": state[name], "bias": state[name.replace("weight", "bias")]})
        write(program, metadata, path)

    monkeypatch.setitem(WRITERS, "pt2", spoilt)
    with pytest.raises(ExportError, match=r"golden vectors.*of what is allowed"):
        certify(network, X, tmp_path, formats="pt2")


@pytest.mark.parametrize("off", ["running_mean", "running_var", "weight", "bias"])
def test_statistics_that_are_a_little_off_in_one_channel_are_found(off, tmp_path, monkeypatch):
    network = conv(nn.MaxPool2d(2))
    fold_graph = certification.fold_graph

    def spoilt(captured):
        state = captured.graph.state_dict()
        value = next(value for name, value in state.items() if name.endswith(f"1.{off}"))
        with torch.no_grad():
            value[3] += 1e-3
        return fold_graph(captured)

    monkeypatch.setattr(certification, "fold_graph", spoilt)
    with pytest.raises(ExportError, match=r"golden vectors.*of what is allowed"):
        certify(network, X, tmp_path, formats="pt2")


class ByHook(nn.Module):
    """Returns an intermediate output that a hook has stored in the network."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.stored = conv(), []
        self.body[0].register_forward_hook(lambda _module, _inputs, output: self.stored.append(output))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.stored.clear()
        return self.body(x), self.stored[0]


class Causal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x, mask=nn.Transformer.generate_square_subsequent_mask(x.shape[1]))


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = conv()

    def forward(self, x: Tensor, factor: Tensor) -> Tensor:
        return self.body(x) * factor


class Cast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3).half(), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x.half()).float())


@pytest.mark.parametrize(
    ("make", "example", "kept"),
    [
        (ByHook, X, ["body.1"]),
        (Causal, torch.randn(3, 5, 8), []),
        (Scaled, (X, torch.tensor(2.0)), []),
        (Cast, X, ["norm"]),
    ],
    ids=["a hook", "a causal transformer", "a scalar input", "a cast before the norm"],
)
def test_uncommon_networks_are_certified(make, example, kept, tmp_path):
    certify(make().eval(), example, tmp_path, formats="pt2")
    assert list(load(tmp_path).metadata["batch_norms_not_folded"]) == kept


def test_a_second_network_joins_the_first_and_the_same_name_replaces_it(tmp_path):
    certify(conv(), X, tmp_path, name="a", formats=("onnx", "pt2"))
    certify(conv(nn.Flatten()), X, tmp_path, name="b", formats="pt2")
    assert broken(tmp_path) == set()
    assert sorted(certificate.models(tmp_path)) == ["a", "b"]
    assert load(tmp_path, "a")(X.numpy())["output"].ndim == 4
    certify(conv(), X, tmp_path, name="a", formats="pt2")
    assert not (tmp_path / "a.onnx").exists()
    assert broken(tmp_path) == set()
    (tmp_path / "b.pt2").write_bytes(b"garbage")
    assert ("unchanged", "b.pt2") in broken(tmp_path)
    with pytest.raises(ExportError, match="expected the name of one of"):
        load(tmp_path)


def test_one_format_may_fail_unless_it_was_asked_for(tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("no such operator")

    monkeypatch.setitem(WRITERS, "torchscript", fails)
    reason = "torch cannot write it (RuntimeError: no such operator); use other operators"
    with pytest.warns(UserWarning, match=re.escape(f"model.torchscript was not written: {reason}")):
        certify(conv(), X, tmp_path)
    model = certificate.models(tmp_path)["model"]
    assert model.formats == ["onnx", "pt2"]
    assert model.not_written == {"torchscript": reason}
    assert broken(tmp_path) == set()
    with pytest.raises(ExportError, match="written as onnx, pt2, not as torchscript"):
        load(tmp_path, format="torchscript")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(ExportError, match=r"model\.torchscript: torch cannot write it \(RuntimeError"):
        certify(conv(), X, tmp_path, formats=("torchscript", "onnx"))
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_failure_is_recorded_without_the_folder_of_the_machine_that_exported(tmp_path, monkeypatch):
    def writes_garbage(program, metadata, path):
        path.write_bytes(b"garbage")

    monkeypatch.setitem(WRITERS, "onnx", writes_garbage)
    with pytest.warns(UserWarning, match=r"model\.onnx was not written: loads: model\.onnx: damaged"):
        certify(conv(), X, tmp_path)
    assert str(tmp_path) not in (tmp_path / "certificate.json").read_text()


def test_half_precision_double_and_a_batch_of_one_are_certified(tmp_path):
    for name, dtype in (("half", torch.float16), ("bfloat", torch.bfloat16), ("double", torch.float64)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ONNX Runtime has no double convolution, and no bfloat16
            certify(conv().to(dtype), X[:1].to(dtype), tmp_path, name=name, formats=None if name == "double" else "pt2")
    assert broken(tmp_path) == set()


def test_an_example_may_be_an_array_or_require_gradients(tmp_path):
    certify(conv(), X.numpy(), tmp_path, name="array", formats="pt2")
    certify(conv(), X.clone().requires_grad_(), tmp_path, name="gradient", formats="pt2")
    assert broken(tmp_path) == set()


def test_names_of_input_and_output_can_be_chosen(tmp_path):
    certify(conv(), example=X, folder=tmp_path, name="named", input="pixels", output="features")
    for format in FORMATS:
        predict = load(tmp_path, format=format)
        assert (predict.inputs, predict.outputs) == (("pixels",), ("features",))


class Segmentation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = conv(), nn.Conv2d(4, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        return F.interpolate(self.head(self.body(image)), size=image.shape[-2:], mode="bilinear")


def test_height_and_width_vary_where_asked_for_in_every_format(tmp_path):
    certify(Segmentation().eval(), X, tmp_path, dynamic=(0, 2, 3))
    metadata = load(tmp_path).metadata
    assert metadata["inputs"][0]["shape"] == ["N", 3, "H", "W"]
    model = onnx.load(tmp_path / "model.onnx")
    assert [one.dim_param or one.dim_value for one in model.graph.input[0].type.tensor_type.shape.dim] == [
        "N",
        3,
        "H",
        "W",
    ]
    image = np.random.default_rng(0).random((2, 3, 11, 20), np.float32)
    answers = [load(tmp_path, format=format)(image)["output"] for format in FORMATS]
    for answer in answers:
        assert answer.shape == (2, 3, 11, 20)
        np.testing.assert_allclose(answer, answers[0], atol=1e-5)


class FixedSize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(4, 3 * 8 * 8)


def test_an_axis_that_the_network_fixes_is_a_warning_and_if_asked_for_an_error(tmp_path):
    with pytest.warns(UserWarning, match="fixed at 4"):
        certify(FixedSize().eval(), X, tmp_path, formats="pt2")
    with pytest.raises(ExportError, match=r"fixed|fixes axis 0|every other size"):
        certify(FixedSize().eval(), X, tmp_path, formats="pt2", dynamic={0: "N"})


def test_the_opset_is_the_lowest_that_loses_nothing_or_the_one_asked_for(tmp_path):
    certify(conv(), X, tmp_path, name="low", formats="onnx")
    certify(conv(), X, tmp_path, name="asked", formats="onnx", opset=17)
    opsets = {name: onnx.load(tmp_path / f"{name}.onnx").opset_import[0].version for name in ("low", "asked")}
    assert opsets == {"low": 13, "asked": 17}
    assert load(tmp_path, "asked").metadata["versions"]["onnx_opset"] == 17


def test_the_same_network_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        certify(conv(nn.MaxPool2d(2)), X, tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_no_file_holds_paths_of_the_machine_or_the_example(tmp_path):
    certify(conv(), X, tmp_path)
    for path in (path for path in tmp_path.iterdir() if path.suffix != ".json"):
        contents = [path.read_bytes()]
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(io.BytesIO(contents[0])) as archive:
                contents += [archive.read(name) for name in archive.namelist()]
                assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
        for content in contents:
            for word in (str(Path.cwd()), "site-packages", "test_certify", str(tmp_path)):
                assert word.encode() not in content, (path.name, word)
            assert X[0, 0].numpy().tobytes() not in content


def test_a_norm_that_is_kept_is_named_with_the_reason(tmp_path):
    network = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1)).eval()
    network[1].running_mean.normal_()
    certify(network, X, tmp_path, formats="onnx")
    kept = json.loads((tmp_path / "certificate.json").read_text())["models"]["model"]["batch_norms_not_folded"]
    assert list(kept) == ["1"]
    assert "pads with zeros" in kept["1"]


def test_a_damaged_certificate_is_not_overwritten(tmp_path):
    certify(conv(), X, tmp_path, formats="pt2")
    (tmp_path / "certificate.json").write_text("{")
    with pytest.raises(ExportError, match=r"certificate\.json: damaged"):
        certify(conv(), X, tmp_path, name="other", formats="pt2")
    assert not (tmp_path / "other.pt2").exists()
