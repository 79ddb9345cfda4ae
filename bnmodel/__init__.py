"""Batch normalisation written out, and the digit recogniser that is trained with it."""

from bnmodel.data import DataError, Digits
from bnmodel.data.preprocessing import Sketch, SketchClassifier
from bnmodel.nn.batchnorm import CustomBatchNorm, batch_norm
from bnmodel.nn.models import SimpleCNN, SimpleCNNConfig, SimpleMLP, SimpleMLPConfig
from bnmodel.training.checkpoint import Checkpoint, CheckpointError, load_checkpoint

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "CustomBatchNorm",
    "DataError",
    "Digits",
    "SimpleCNN",
    "SimpleCNNConfig",
    "SimpleMLP",
    "SimpleMLPConfig",
    "Sketch",
    "SketchClassifier",
    "batch_norm",
    "load_checkpoint",
]
