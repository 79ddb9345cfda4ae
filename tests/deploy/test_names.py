"""Names of inputs and outputs: any identifier, also one that an operator's result has in the exported graph."""

import numpy as np
import onnx
import pytest
import torch
from norm_helpers import Body, X
from torch import Tensor

from bnmodel.deploy import certify, load
from bnmodel.deploy.loading import FORMATS


class TwoOutputs(Body):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.relu(self.conv(x))
        return torch.relu(self.after(self.norm(y))) + y.mean((1, 2, 3), keepdim=True), y


@pytest.mark.parametrize(
    ("input", "outputs"),
    [("x", ("conv2d", "relu")), ("relu", ("mean", "add")), ("relu_1", ("conv2d_1", "conv2d")), ("val_0", ("a", "b"))],
)
def test_the_name_of_an_internal_value_is_a_valid_name(input, outputs, tmp_path):
    network = TwoOutputs().eval()
    certify(network, X, tmp_path, input=input, output=outputs, formats=FORMATS)
    for format in FORMATS:
        received = load(tmp_path, format=format)(**{input: X.numpy()})
        for name, expected in zip(outputs, network(X), strict=True):
            np.testing.assert_allclose(received[name], expected.detach(), rtol=1e-4, atol=1e-5)
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert [[one.name for one in ports] for ports in (graph.input, graph.output)] == [[input], list(outputs)]
