"""Networks that torch.export alone refuses, or traces for one size, and are exported nevertheless."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from norm_helpers import Body, X
from torch import Tensor, nn
from torchvision import transforms

from bnmodel.deploy import certify, load
from bnmodel.deploy.loading import FORMATS


class Normalised(Body):
    """Normalises its input as torchvision does, which compares the standard deviation with 0."""

    def __init__(self) -> None:
        super().__init__()
        self.normalise = transforms.Normalize([0.4, 0.5, 0.6], [0.2, 0.3, 0.25])

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.normalise(x))


class TextLine(Body):
    """Averages over the height of a line of text, and keeps its width."""

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(self.body(x), (1, None))


class TextReader(nn.Module):
    """Reads a line of any width (Shi et al. 2017, CRNN)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3, 1, 1),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3, 1, 1),
            nn.BatchNorm2d(6),
            nn.MaxPool2d((2, 2), (2, 1), (0, 1)),
            nn.Conv2d(6, 6, 2),
        )
        self.recurrent, self.letters = nn.LSTM(6, 4, bidirectional=True), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.recurrent(self.features(x).squeeze(2).permute(2, 0, 1))
        steps, batch, channels = y.size()
        return self.letters(y.view(steps * batch, channels)).view(steps, batch, -1)


class Unnamed(Body):
    def forward(self, _: Tensor) -> Tensor:
        return self.body(_)


def in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return Unnamed().eval()


LINE = torch.rand(4, 1, 8, 30)


@pytest.mark.parametrize(
    ("make", "example", "dynamic", "size"),
    [
        (Normalised, X, (0, 2, 3), (2, 3, 12, 17)),
        (TextLine, X, (0, 2, 3), (2, 3, 12, 17)),
        (Unnamed, X, (0, 2, 3), (2, 3, 12, 17)),
        (in_inference_mode, X, (0, 2, 3), (2, 3, 12, 17)),
        (TextReader, LINE, (0, 3), (2, 1, 8, 52)),
    ],
)
def test_all_formats_give_the_answers_of_the_network_at_other_sizes(make, example, dynamic, size, tmp_path):
    network = make().eval()
    certify(network, example, tmp_path, dynamic=dynamic, formats=FORMATS)
    other = torch.rand(size)
    for format in FORMATS:
        received = load(tmp_path, format=format)(other.numpy())["output"]
        with torch.no_grad():
            np.testing.assert_allclose(received, network(other), rtol=1e-4, atol=1e-5)


def test_what_is_replaced_while_a_network_is_traced_is_put_back(tmp_path):
    certify(Normalised().eval(), X, tmp_path, formats="pt2")
    with pytest.raises(ValueError, match="std evaluated to zero"):
        transforms.Normalize([0.0] * 3, [0.0] * 3)(X)


def test_an_array_of_another_byte_order_is_a_valid_example(tmp_path):
    certify(Unnamed().eval(), X.numpy().astype(">f4"), tmp_path, formats="onnx")
    assert load(tmp_path).inputs == ("tensor",)


class OwnKernels(nn.Module):
    """Filters each sample with kernels of its own, with as many groups as samples."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = nn.Linear(5, 4 * 3 * 9)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        kernels = self.kernels(style).view(4 * len(x), 3, 3, 3)
        return F.conv2d(x.reshape(1, -1, *x.shape[2:]), kernels, groups=len(x)).unflatten(1, (len(x), 4))[0]


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 400, self.one, self.other, (x,))


@pytest.mark.parametrize(
    ("make", "example", "dynamic", "words"),
    [
        (OwnKernels, (X, torch.rand(4, 5)), None, r"model\.onnx was not written: .*dynamic axis; use dynamic=False"),
        (Branches, X, False, r"model\.torchscript was not written: TorchScript has no torch\.cond"),
    ],
)
def test_a_format_that_cannot_hold_a_network_says_why(make, example, dynamic, words, tmp_path):
    with pytest.warns(UserWarning, match=words):
        certify(make().eval(), example, tmp_path, dynamic=dynamic)


def test_wrong_values_are_reported_once(tmp_path, monkeypatch):
    from bnmodel.deploy.formats import WRITERS

    write = WRITERS["pt2"]

    def spoilt(program, metadata, path):
        with torch.no_grad():
            for weights in program.graph.state_dict().values():
                weights *= 1.1
        write(program, metadata, path)

    monkeypatch.setitem(WRITERS, "pt2", spoilt)
    with pytest.warns(UserWarning, match=r"model\.pt2 was not written: golden vectors: .*allowed$"):
        certify(Unnamed().eval(), X, tmp_path)
