"""Batch normalisation: the layer, networks with it, their training, diagnosis and deployment.

Public names are imported on first use, so that importing the package is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "1.0.0"

if TYPE_CHECKING:
    from bnmodel.data.datasets import DataError, Digits
    from bnmodel.data.preprocessing import Sketch, SketchClassifier
    from bnmodel.diagnosis.checkup import diagnose
    from bnmodel.diagnosis.recalibration import recalibrate
    from bnmodel.diagnosis.watching import watch
    from bnmodel.nn.batchnorm import CustomBatchNorm, batch_norm
    from bnmodel.nn.models import (
        RobustCNN,
        RobustCNNConfig,
        SimpleCNN,
        SimpleCNNConfig,
        SimpleMLP,
        SimpleMLPConfig,
    )
    from bnmodel.training.checkpoint import Checkpoint, CheckpointError, load_checkpoint
    from bnmodel.training.fitting import fit
    from bnmodel.training.recipes import RECIPES, Recipe
    from bnmodel.training.trainer import TrainingError

# the names above; tests/test_packaging.py compares the lists
_MODULES = {
    "Checkpoint": "bnmodel.training.checkpoint",
    "CheckpointError": "bnmodel.training.checkpoint",
    "CustomBatchNorm": "bnmodel.nn.batchnorm",
    "DataError": "bnmodel.data.datasets",
    "Digits": "bnmodel.data.datasets",
    "RECIPES": "bnmodel.training.recipes",
    "Recipe": "bnmodel.training.recipes",
    "RobustCNN": "bnmodel.nn.models",
    "RobustCNNConfig": "bnmodel.nn.models",
    "SimpleCNN": "bnmodel.nn.models",
    "SimpleCNNConfig": "bnmodel.nn.models",
    "SimpleMLP": "bnmodel.nn.models",
    "SimpleMLPConfig": "bnmodel.nn.models",
    "Sketch": "bnmodel.data.preprocessing",
    "SketchClassifier": "bnmodel.data.preprocessing",
    "TrainingError": "bnmodel.training.trainer",
    "batch_norm": "bnmodel.nn.batchnorm",
    "diagnose": "bnmodel.diagnosis.checkup",
    "fit": "bnmodel.training.fitting",
    "load_checkpoint": "bnmodel.training.checkpoint",
    "recalibrate": "bnmodel.diagnosis.recalibration",
    "watch": "bnmodel.diagnosis.watching",
}

__all__ = [
    "RECIPES",
    "Checkpoint",
    "CheckpointError",
    "CustomBatchNorm",
    "DataError",
    "Digits",
    "Recipe",
    "RobustCNN",
    "RobustCNNConfig",
    "SimpleCNN",
    "SimpleCNNConfig",
    "SimpleMLP",
    "SimpleMLPConfig",
    "Sketch",
    "SketchClassifier",
    "TrainingError",
    "__version__",
    "batch_norm",
    "diagnose",
    "fit",
    "load_checkpoint",
    "recalibrate",
    "watch",
]


def __getattr__(name: str) -> Any:
    """Load the module that defines a public name (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
