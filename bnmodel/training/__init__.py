"""Training with early stopping, checkpoints and evaluation."""

from bnmodel.training.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from bnmodel.training.fitting import calibrate, fit, refit, train_from_scratch
from bnmodel.training.recipes import RECIPES, Recipe
from bnmodel.training.trainer import Training, TrainingError

__all__ = [
    "RECIPES",
    "Checkpoint",
    "CheckpointError",
    "Recipe",
    "Training",
    "TrainingError",
    "calibrate",
    "fit",
    "load_checkpoint",
    "refit",
    "train_from_scratch",
]
