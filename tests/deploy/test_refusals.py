"""A network that cannot be exported is refused with an ExportError that names the layer, the reason and the remedy."""

import copy
import dataclasses
from collections import UserDict

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnmodel import CustomBatchNorm, SimpleCNN
from bnmodel.deploy import ExportError, certify, fold


def conv(**options: bool) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, **options), nn.ReLU())


def norm_in_train_mode() -> nn.Module:
    network = conv().eval()
    network[1].train()
    return network


def dropout_in_train_mode() -> nn.Module:
    network = nn.Sequential(conv(), nn.Dropout(0.5)).eval()
    network[1].train()
    return network


def not_finite() -> nn.Module:
    network = conv().eval()
    network[0].weight.data[0, 0] = float("nan")
    return network


def negative_variance() -> nn.Module:
    network = conv().eval()
    network[1].running_var[2] = -1.0
    return network


def zero_variance() -> nn.Module:
    network = conv(eps=0.0).eval()
    network[1].running_var[2] = 0.0
    return network


def statistics_not_finite() -> nn.Module:
    network = conv().eval()
    network[1].running_mean[2] = float("inf")
    return network


class BatchStatistics(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = conv()

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(self.body(x), None, None, training=True)


class MeanOfTheBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu() if x.sum() > 0 else x.tanh()


class Selected(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        kept = x[x > 0]
        return kept[: len(kept) // 2]


class Loop(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        for _ in range(int(x.sum())):
            x = x.relu()
        return x


def clipped(x: Tensor) -> Tensor:
    if x.amax() > 1:
        return x.clamp(max=1)
    return x


class BranchInFunction(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return clipped(x)


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class AlwaysDrops(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5)


class Strings(nn.Module):
    def forward(self, x: Tensor) -> dict[str, object]:
        return {"x": object(), "y": x}


class Raises(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no CUDA here")


class Differentiates(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.func.grad(lambda y: y.sin().sum())(x)


class Reshapes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        y.data = y.data.flatten(1)
        return y


class CopiesShallowly(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return copy.copy(x * 2) + 1


def sparse() -> nn.Module:
    network = nn.Sequential(nn.Linear(6, 2)).eval()
    network[0].weight = nn.Parameter(network[0].weight.detach().to_sparse(), requires_grad=False)
    return network


class InList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = [conv()]

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[0](x)


class Cast(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)


def quantised() -> nn.Module:
    from torch.ao.quantization import FakeQuantize

    return nn.Sequential(conv(), FakeQuantize()).eval()


class PaddedTokens(nn.Module):
    """In eval mode, torch returns 0 at padded positions."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
        self.encode = nn.TransformerEncoder(layer, 1, enable_nested_tensor=True)

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(6)[None] >= 4 + torch.arange(len(x))[:, None]
        return self.encode(x[:, 0], src_key_padding_mask=places)


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(6, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        lengths = (x[:, 0, :, 0] > 0).sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(x[:, 0], lengths, batch_first=True, enforce_sorted=False)
        return self.recurrent(packed)[1][-1]


class FakeQuantised(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127)


X = torch.rand(3, 3, 6, 6)


@pytest.mark.filterwarnings("ignore:torch.ao")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (norm_in_train_mode, r"^1: BatchNorm2d in train mode.*call eval\(\)"),
        (dropout_in_train_mode, r"^1: Dropout in train mode.*call eval\(\)"),
        (not_finite, r"not finite: 0\.weight.*train again"),
        (negative_variance, r"^1: variance of -1 in running_var.*recalibrate"),
        (zero_variance, r"^1: variance of 0 in running_var, expected running_var \+ eps above 0.*recalibrate"),
        (statistics_not_finite, r"^1: running statistics are not finite"),
        (lambda: conv(track_running_stats=False).eval(), r"^1: expected.*running.*track_running_stats=True"),
        (lambda: nn.Sequential(CustomBatchNorm(3, track_running_stats=False)).eval(), "^0: expected.*running"),
        (lambda: BatchStatistics().eval(), "batch norm with batch statistics"),
        (lambda: Branch().eval(), r"Branch: its control flow.*depend on values.*torch\.where"),
        (lambda: AlwaysDrops().eval(), "random numbers|two evaluations"),
        (lambda: Noise().eval(), "random numbers|two evaluations"),
        (lambda: Strings().eval(), "output x: expected tensors in tuples, lists or dicts, received object"),
        (lambda: Raises().eval(), r"Raises raises on the example \[3, 3, 6, 6\]: no CUDA here"),
        (lambda: conv().to("meta").eval(), r"0\.weight.*on the meta device.*load the weights"),
        (lambda: nn.Sequential(nn.LazyConv2d(4, 3)).eval(), r"0\.weight.*uninitialised.*run one batch"),
        (lambda: torch.jit.script(conv().eval()), "the network: scripted.*export the original Python module"),
        (lambda: nn.Sequential(torch.jit.script(conv())).eval(), "0: scripted"),
        (lambda: InList().eval(), r"not registered.*nn\.ModuleList.*BatchNorm2d in train mode"),
        (sparse, r"^0\.weight \(torch\.sparse_coo\): expected dense weights.*to_dense"),
        (lambda: Differentiates().eval(), r"torch\.func.*write the derivative with torch operators"),
        (lambda: Reshapes().eval(), r"forward sets `tensor\.data`.* at `y\.data = .*assign the new one to a variable"),
        (lambda: CopiesShallowly().eval(), r"trace it .* at `return copy\.copy.*; use other torch operators there"),
        (quantised, r"^1: quantised or prepared for it .*FakeQuantize.*export the float network"),
        (lambda: PaddedTokens().eval(), "^encode: in eval mode.*padded positions.*enable_nested_tensor=False"),
        (lambda: Packed().eval(), "packed sequences cannot be traced.*on padded sequences"),
        (lambda: FakeQuantised().eval(), "fake quantisation.*export the float network"),
        (lambda: nn.ModuleList([conv()]).eval(), "^ModuleList has no forward; export the network that uses it"),
        (lambda: nn.Sequential(conv(), Cast(torch.uint16)).eval(), r"^output output: expected.*torch\.uint16"),
        (lambda: "not a network", r"expected a torch\.nn\.Module, received str"),
    ],
)
def test_a_network_that_cannot_be_exported_is_refused_with_a_reason(make, words, tmp_path):
    with pytest.raises(ExportError, match=words):
        certify(make(), X, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("network", "line"),
    [
        (Branch(), "return x.relu() if x.sum() > 0 else x.tanh()"),
        (Selected(), "return kept[: len(kept) // 2]"),
        (Loop(), "for _ in range(int(x.sum())):"),
        (BranchInFunction(), "if x.amax() > 1:"),
    ],
)
def test_a_dependence_on_values_is_refused_with_the_line_of_the_network_and_without_torchs_advice(network, line):
    with pytest.raises(ExportError) as caught:
        fold(network.eval(), X)
    message = str(caught.value)
    assert f"depend on values of the input at `{line}` (test_refusals.py, line " in message
    assert "torch.where" in message
    assert len(message) < 300


def test_a_sample_that_depends_on_its_batch_is_refused_unless_the_batch_is_fixed(tmp_path):
    with pytest.raises(ExportError, match=r"depends on the rest of its batch.*dynamic=False"):
        certify(MeanOfTheBatch().eval(), X, tmp_path)
    certify(MeanOfTheBatch().eval(), X, tmp_path, dynamic=False, formats="pt2")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "golden", "certificate", "a b"])
def test_a_name_that_is_no_file_name_is_refused_and_nothing_is_written(name, tmp_path):
    with pytest.raises(ExportError, match="name: expected letters"):
        certify(conv().eval(), X, tmp_path / "folder", name=name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"formats": ["onnx", "tflite"]}, "formats: expected some of torchscript, onnx, pt2, received tflite"),
        ({"formats": []}, "received none"),
        ({"dynamic": {7: "W"}}, "dynamic: input has axes 0 … 3, received 7"),
        ({"dynamic": 2}, r"dynamic: expected axes of input, as in \(0, 2\), received 2"),
        ({"dynamic": {"image": {0: "N"}}}, "dynamic: expected inputs of input, received image"),
        ({"input": ("a", "b")}, "input: expected 1 distinct identifiers"),
        ({"input": "no identifier"}, "input: expected 1 distinct identifiers"),
        ({"input": "class"}, "input: expected 1 distinct identifiers"),
        ({"opset": 99}, "opset: expected a number from 1 to"),
        ({"opset": "18"}, "opset: expected a number from 1 to .* received '18'"),
        ({"about": ["licence"]}, "about: expected a dict, received list"),
        ({"about": {"author": "\ud800"}}, "about: expected JSON values, received: .*surrogates not allowed"),
        ({"about": {"licence": object()}}, "about: expected JSON values, received: Object of type object"),
        ({"input": "x", "output": "x"}, "output: x is also the name of an input"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused(options, words, tmp_path):
    with pytest.raises(ExportError, match=words):
        certify(conv().eval(), X, tmp_path, **options)


def test_an_example_that_does_not_fit_is_refused(tmp_path):
    for example in ((X, X), {"image": X, "mask": X}, None, "text", np.array([[None]])):
        with pytest.raises(ExportError, match="example"):
            certify(conv().eval(), example, tmp_path)


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, torch.optim.swa_utils.AveragedModel, lambda m: torch.compile(m, backend="eager")]
)
def test_wrappers_are_taken_off_with_a_warning(wrap):
    with pytest.warns(UserWarning, match="the network that it wraps, Sequential, is exported"):
        result = fold(wrap(conv().eval()).eval(), X)
    assert result.folded == ["1"]


def test_a_mask_of_minus_infinity_is_accepted():
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.full((6, 6), float("-inf")).triu(1))

        def forward(self, x: Tensor) -> Tensor:
            return (x + self.mask).softmax(-1)

    fold(Masked().eval(), X)


def test_the_default_recogniser_is_exportable_after_it_was_refused():
    network = SimpleCNN().eval()
    network.block1.norm.train()
    with pytest.raises(ExportError, match=r"block1\.norm"):
        fold(network, torch.rand(2, 1, 28, 28))
    assert network.block1.norm.training
    assert fold(network.eval(), torch.rand(2, 1, 28, 28)).kept == {}


@dataclasses.dataclass
class Request:
    image: Tensor


@pytest.mark.parametrize("wrap", [Request, lambda image: UserDict(image=image)])
def test_an_argument_of_another_class_is_refused_since_its_tensors_would_become_constants(wrap):
    for example in (wrap(X), (wrap(X),), {"input": [wrap(X)]}):
        with pytest.raises(ExportError, match=r"in tuples, lists or dicts, received (Request|UserDict) for input"):
            fold(conv().eval(), example)


def test_an_example_without_samples_is_refused():
    with pytest.raises(ExportError, match=r"at least one sample, received shape \[0, 3, 6, 6\]"):
        fold(conv().eval(), X[:0])


def test_an_output_without_values_is_refused_since_nothing_can_be_compared(tmp_path):
    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x[:, :0]

    with pytest.raises(ExportError, match="output_1: empty for this example"):
        certify(Nothing().eval(), X, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_any_other_kind_becomes_an_export_error(tmp_path):
    class Broken(nn.Module):
        def named_modules(self, *_: object, **__: object) -> object:
            raise ZeroDivisionError("somebody's code")

    with pytest.raises(ExportError, match="the export failed: ZeroDivisionError: somebody's code"):
        certify(Broken().eval(), X, tmp_path)
    assert list(tmp_path.iterdir()) == []
