"""The layer, the initialisers and the networks."""

from bnmodel.nn.batchnorm import CustomBatchNorm, batch_norm
from bnmodel.nn.convert import convert_batchnorm
from bnmodel.nn.dropout import Dropout
from bnmodel.nn.init import INITIALIZERS, initialize
from bnmodel.nn.models import RobustCNN, RobustCNNConfig, SimpleCNN, SimpleCNNConfig, SimpleMLP, SimpleMLPConfig

__all__ = [
    "INITIALIZERS",
    "CustomBatchNorm",
    "Dropout",
    "RobustCNN",
    "RobustCNNConfig",
    "SimpleCNN",
    "SimpleCNNConfig",
    "SimpleMLP",
    "SimpleMLPConfig",
    "batch_norm",
    "convert_batchnorm",
    "initialize",
]
