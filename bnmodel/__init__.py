"""Batch normalisation written out, and the digit recogniser that is trained with it."""

from bnmodel.batchnorm import CustomBatchNorm, batch_norm
from bnmodel.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from bnmodel.data import DataError, Digits
from bnmodel.models import SimpleCNN, SimpleCNNConfig, SimpleMLP, SimpleMLPConfig
from bnmodel.sketch import Sketch, SketchClassifier

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
