"""Uncommon networks: all formats are written, or what cannot be written is named."""

import copy
import functools
import math
import threading
import weakref
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from norm_helpers import Body, X
from torch import Tensor, nn

import bnmodel
from bnmodel.deploy import ExportError, certify, load
from bnmodel.deploy.certificate import models
from bnmodel.deploy.formats import torchscript
from bnmodel.deploy.loading import FORMATS
from bnmodel.deploy.signature import arguments


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias, self.norm = (
            nn.Parameter(torch.randn(9, 5)),
            nn.Parameter(torch.rand(5)),
            nn.BatchNorm1d(5),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x[:, 0, 0] @ self.weight + self.bias)


class StandardisedWeights(Body):
    def forward(self, x: Tensor) -> Tensor:
        weight = F.batch_norm(self.conv.weight.reshape(1, 4, -1), None, None, training=True).view(4, 3, 3, 3)
        return self.norm(F.conv2d(x, weight))


class InstanceNorm(Body):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).relu()


class Autocast(Body):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.float16):
            y = self.body(x)
        with torch.no_grad():
            return y.float()


class Mapped(Body):
    def forward(self, x: Tensor) -> Tensor:
        return torch.vmap(lambda sample: sample.sum(0))(self.body(x))


class RarePools(Body):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.body(x)
        return (
            F.adaptive_max_pool2d(y, 1),
            F.adaptive_max_pool2d(y, (3, 2)),
            F.avg_pool2d(y, 3, 2, 1, divisor_override=5),
            F.rrelu(y),
        )


class Lock(Body):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        with self.lock:
            return self.body(x)


class SharedStatistics(Body):
    """Two norms with one running mean."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.BatchNorm2d(4)
        self.second.running_mean, self.second.weight = self.norm.running_mean, self.norm.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.body(x))


class GhostBatches(Body):
    """Normalised in chunks of the batch (here one), as in TabNet."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.norm(chunk) for chunk in self.conv(x).chunk(math.ceil(x.shape[0] / 512))])


class AdaptiveInstanceNorm(Body):
    """Each sample is normalised by its own statistics, by a batch norm of (1, N·C, H, W), as in MUNIT."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        style, size = y.mean((2, 3)), y.shape[0]
        one = y.reshape(1, size * 4, *y.shape[2:])
        mean, var = self.norm.running_mean.repeat(size), self.norm.running_var.repeat(size)
        return F.batch_norm(one, mean, var, style.flatten() + 2, None, training=True).view_as(y)


class Event(Body):
    """It holds an object that contains a lock, which cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.event, self.random = threading.Event(), torch.Generator()

    def forward(self, x: Tensor) -> Tensor:
        assert not self.event.is_set()
        return self.body(x)


class Indirect(Body):
    """It calls its layers through closures and a weak reference; one layer is not registered."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = {
            "all": [lambda x: self.conv(x), functools.partial(lambda x, scale: self.norm(x) * scale, scale=2)]
        }
        self.itself, self.hidden = weakref.ref(self), (nn.Conv2d(4, 4, 1),)

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps["all"]:
            x = step(x)
        return self.hidden[0](self.itself().after(x))


class Scripted(Body):
    def __init__(self) -> None:
        super().__init__()
        with torchscript():
            self.activation = torch.jit.script(rectified)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.body(x))


class ForQuantisation(Body):
    """A float network with quantisation stubs, as in torchvision.models.quantization."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
        self.sums = torch.ao.nn.quantized.FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(self.quant(x))
        return self.dequant(self.sums.add(y, y))


class Spectrogram(Body):
    """Sound: a spectrogram, and its masked inverse."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        sound = self.body(x).flatten(1)
        spectrum = torch.stft(sound, 16, 8, window=torch.hann_window(16), return_complex=True)
        loud = spectrum.abs()
        return loud, torch.istft(spectrum * loud.sigmoid(), 16, 8, window=torch.hann_window(16))


class Neighbours(Body):
    """Point clouds: each point's distance to its nearest neighbours."""

    def forward(self, x: Tensor) -> Tensor:
        points = self.body(x).flatten(2).mT
        return torch.cdist(points, points[:, :9]).topk(3, largest=False).values


class Bags(Body):
    """Averages embeddings that are looked up by int32 indices."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        places = (x[:, 0, 0] * 5).to(torch.int32)
        return self.body(x).mean((2, 3)) + self.bag(places)


class Flags(Body):
    """Boolean constants without axes as factors, summands and divisors."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("on", torch.tensor(True))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.body(x)
        return y * self.on, self.on + y, y / self.on, (y > 0) * self.on, (y > 0) + self.on


class Sliced(nn.Module):
    """Calls a part of its layers, which is a new nn.Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.layers[:3](x)
        return y, self.layers[3:](y)


class Tokens(Body):
    """A transformer of several layers, which torch runs with fused kernels in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, norm_first=True)
        self.encode = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.first = nn.Parameter(torch.rand(4))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.body(x).flatten(2).mT
        return self.encode(torch.cat([self.first.expand(len(x), 1, -1), tokens], 1))[:, 0]


class Copies(Body):
    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        before = copy.deepcopy(y)
        y.data = y.data * 2
        return y - before.tanh()


def rectified(x: Tensor) -> Tensor:
    return x.relu()


@pytest.mark.filterwarnings("ignore:torch.ao")
@pytest.mark.parametrize(
    "make",
    [
        ForQuantisation,
        Scripted,
        Product,
        StandardisedWeights,
        InstanceNorm,
        Autocast,
        Mapped,
        RarePools,
        Lock,
        Event,
        Indirect,
        SharedStatistics,
        GhostBatches,
        AdaptiveInstanceNorm,
        Spectrogram,
        Neighbours,
        Bags,
        Flags,
        Sliced,
        Tokens,
        Copies,
    ],
)
def test_all_formats_are_written_and_the_norm_is_folded(make, tmp_path):
    certify(make().eval(), X, tmp_path, formats=FORMATS)
    metadata = load(tmp_path).metadata
    assert len(metadata["batch_norms_folded"]) == (2 if make is SharedStatistics else 1)
    assert metadata["batch_norms_not_folded"] == {}


def features(network: nn.Module) -> nn.Module:
    """A GraphModule whose `copy.deepcopy` is in train mode."""
    from torchvision.models.feature_extraction import create_feature_extractor

    return create_feature_extractor(network, {"norm": "features"}).eval()


def test_a_network_whose_copy_is_in_train_mode_is_compared_with_itself_in_eval_mode(tmp_path):
    network = features(nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4))))
    network.norm.running_mean.fill_(3)
    certify(network, X, tmp_path, formats="torchscript")
    assert max(models(tmp_path)["model"].yardsticks[0].error) < 1e-5
    with torch.no_grad():
        expected = network(X)["features"].numpy()
    np.testing.assert_allclose(load(tmp_path)(X.numpy())["features"], expected, rtol=1e-5, atol=1e-5)
    assert not bnmodel.recalibrate(network, [X]).training


def test_a_network_whose_rounding_is_as_large_as_its_answers_is_refused(tmp_path):
    class Chaotic(Body):
        def forward(self, x: Tensor) -> Tensor:
            return (self.body(x) * 1e9).sin()

    with pytest.raises(ExportError, match=r"answers in float32 and in float64 differ by \d+% of the largest"):
        certify(Chaotic().eval(), X, tmp_path)


class Extremes(Body):
    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x).relu()
        return (y - y.amin()) / (y.amax() + 1)


def test_extremes_over_all_axes_are_written(tmp_path):
    certify(Extremes().eval(), X, tmp_path, formats=FORMATS, dynamic=False)


class Running(Body):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).cummax(2).values


class FromComplex(Body):
    def forward(self, z: Tensor) -> Tensor:
        return self.body(z.real)


class ThroughComplex(Body):
    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(self.body(x))
        low = torch.zeros_like(spectrum)
        low[:, :, :2, :2] = spectrum[:, :, :2, :2]
        return torch.fft.irfft2(low, s=(7, 7))


class ToComplex(Body):
    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return torch.complex(y, -y)


class NarrowOutput(Body):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.body(x)
        return y, y.bfloat16()


@pytest.mark.parametrize(
    ("make", "dtype", "reason"),
    [
        (Running, torch.float32, r"ONNX exporter has no conversion of aten\.cummax; compute it with other operators"),
        (FromComplex, torch.complex64, r"takes no complex tensors \(z\); .*view_as_real"),
        (ToComplex, torch.float32, r"takes no complex tensors \(output\); .*view_as_real"),
        (ThroughComplex, torch.float32, r"no aten\.zeros_like of complex numbers; compute with real and imaginary"),
        (lambda: nn.Conv2d(3, 4, 3).double(), torch.float64, r"it has no Conv for .*network\.float\(\)"),
        (NarrowOutput, torch.float32, r"no bfloat16 to NumPy or from it \(output_1\); convert in forward"),
        (lambda: nn.Conv2d(3, 4, 3).bfloat16(), torch.bfloat16, r"ONNX's Conv takes no bfloat16; .*network\.float\(\)"),
    ],
)
def test_what_onnx_runtime_lacks_is_named_as_the_reason(make, dtype, reason, tmp_path):
    with pytest.warns(UserWarning, match=r"model\.onnx was not written: .*" + reason):
        certify(make().eval(), X.to(dtype), tmp_path)
    assert "onnx" not in models(tmp_path)["model"].formats


class Condition(Body):
    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return torch.cond(torch.tensor(2.0) > 1, lambda v: self.norm(v), lambda v: v - 1, (y,))


def test_a_norm_in_a_branch_is_kept_and_named(tmp_path):
    with pytest.warns(UserWarning, match="torchscript was not written"):
        certify(Condition().eval(), X, tmp_path, dynamic=False)
    kept = load(tmp_path, format="pt2").metadata["batch_norms_not_folded"]
    assert list(kept.values()) == ["it is in a branch that depends on the input"]


class Names(Body):
    def forward(self, X: Tensor, x: Tensor, torch: Tensor, **others: Tensor) -> dict[str, Tensor]:
        scale = (x + torch + others["from"])[:, None, None, None]
        return {"lambda": self.body(X) * scale, "Y": x + 1, "y": x + 2}


def test_names_that_are_no_identifiers_are_changed_and_stay_distinct(tmp_path):
    given = {name: torch.rand(4) for name in ("x", "torch", "from")}
    certify(Names().eval(), {"X": X, **given}, tmp_path)
    for format in FORMATS:
        predict = load(tmp_path, format=format)
        assert predict.inputs == ("X", "x_1", "torch_", "from_")
        answer = predict(X.numpy(), *(tensor.numpy() for tensor in given.values()))
        assert list(answer) == ["lambda_", "Y", "y_1"]
        np.testing.assert_array_equal(answer["Y"], (given["x"] + 1).numpy())


def test_an_array_without_axes_stays_without_axes():
    class Scaled(nn.Module):
        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return x * scale

    assert arguments(Scaled(), (X.numpy(), np.array(2.0))).tensors[1].shape == ()


class SmallConstants(Body):
    """ε of 1e-9 and less, which decide what happens at 0."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x).relu()
        mean = y / (y.sum(1, keepdim=True) + 1e-9)
        unit = y / (y.square().sum(1, keepdim=True).sqrt() + 1e-12)
        return torch.cat([mean, unit, (y + 1e-8).log(), y * (1 + 3e-6) - 1e-10], 1)


def test_small_constants_are_kept(tmp_path):
    network = SmallConstants().eval()
    nn.init.constant_(network.norm.bias, -100.0)  # so that all outputs of the ReLU are 0
    certify(network, X, tmp_path)
    expected = network(X).detach().numpy()
    assert np.isfinite(expected).all()
    for format in FORMATS:
        np.testing.assert_allclose(load(tmp_path, format=format)(X.numpy())["output"], expected, rtol=1e-6, atol=1e-12)
    nn.init.zeros_(network.norm.bias)
    certify(network, torch.rand(X.shape), tmp_path)
    inputs = torch.full_like(X, -1e3).numpy()
    for format in FORMATS:
        assert np.isfinite(load(tmp_path, format=format)(inputs)["output"]).all()
