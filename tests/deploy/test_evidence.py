"""The evidence of a certificate: an example for which a wrong file gives the same answers is not enough."""

import math
import warnings

import numpy as np
import pytest
import torch
from norm_helpers import Body, X
from torch import Tensor, nn

from bnmodel.deploy import ExportError, certification, certify, checks, golden
from bnmodel.deploy.folding import fold_graph


class Plain(Body):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Logarithm(Plain):
    """Accepts no negative values."""

    def forward(self, x: Tensor) -> Tensor:
        return self.body((x + 1e-3).log())


@pytest.mark.parametrize(
    ("make", "value", "dynamic"),
    [(Plain, 0.0, None), (Plain, 0.0, False), (Plain, 1.0, None), (Logarithm, 255.0, None)],
)
def test_a_constant_example_shows_a_wrong_fold(make, value, dynamic, tmp_path, monkeypatch):
    def wrong(captured):
        folded = fold_graph(captured)
        for weights in captured.graph.state_dict().values():
            if weights.dim() == 4:
                weights += torch.tensor([1.0, -2.0, 1.0])  # a sum of 0: no change for constant inputs
        return folded

    certify(make().eval(), torch.full_like(X, value), tmp_path, dynamic=dynamic, formats="onnx")
    monkeypatch.setattr(certification, "fold_graph", wrong)
    with pytest.raises(ExportError, match="golden vectors"):
        certify(make().eval(), torch.full_like(X, value), tmp_path, dynamic=dynamic, formats="onnx")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_example_without_finite_outputs_is_refused(value, tmp_path):
    with pytest.raises(ExportError, match="output output: no finite value for this example"):
        certify(Plain().eval(), torch.full_like(X, value), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_large_outputs_are_compared_in_small_batches():
    few, many = torch.zeros(1, 16).numpy(), torch.zeros(1, 3, 256, 256).numpy()
    assert checks.batches(golden.Golden([[few]], [[few]])) == [1, 2, 7, 64, 257]
    assert checks.batches(golden.Golden([[few]], [[many]])) == [1, 2]


class Regions(Body):
    """Averages over boxes, given as (image, x0, y0, x1, y1); an image that is no index raises."""

    def forward(self, x: Tensor, boxes: Tensor) -> Tensor:
        from torchvision.ops import roi_align

        return roi_align(self.body(x), boxes, 2)


def test_a_mixture_of_samples_that_the_network_does_not_take_is_left_out(tmp_path):
    boxes = torch.tensor([[number, 1, 1, 5 + number, 6] for number in range(4)], dtype=torch.float32)
    with pytest.warns(UserWarning, match="batch size is fixed at 4"):
        certify(Regions().eval(), (X, boxes), tmp_path, formats="pt2")


def test_golden_vectors_hold_infinities_and_the_largest_numbers_without_a_warning(tmp_path):
    values = torch.tensor([3e38, math.inf, -math.inf, math.nan, 0.5]).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        golden.write(tmp_path / "golden.json", {"model": golden.Golden([[values]], [[values]])})
    np.testing.assert_array_equal(golden.read(tmp_path / "golden.json")["model"].inputs[0][0], values)


def test_a_failed_check_has_the_runtimes_message_without_the_place_in_its_source():
    def check() -> checks.Result:
        raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : Status Message: /src/onnxruntime/a.h:5 Bad shape")

    assert checks.held("shapes", "a.onnx", check).detail == "Bad shape"
