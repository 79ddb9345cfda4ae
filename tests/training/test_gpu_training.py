"""Training on a CUDA device: losses as on the CPU, resuming, and a model on the CPU at the end."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator
from training_helpers import QUICK

from bnmodel.data import Digits, load_sample
from bnmodel.data.augmentation import augment
from bnmodel.data.outliers import outliers
from bnmodel.nn.models import RobustCNNConfig, SimpleCNNConfig
from bnmodel.training import train_from_scratch
from bnmodel.training.evaluation import evaluate
from bnmodel.training.trainer import Training, new_network

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
PLAIN = replace(QUICK, epochs=2, learning_rate=0.01, momentum=0.0, model=SimpleCNNConfig(dropout=0.0))
ROBUST = replace(
    QUICK, epochs=3, learning_rate=0.02, averaging=1, schedule="one_cycle", keeps_last=True, augmented=0.5,
    outliers=0.125, model=RobustCNNConfig(channels=(8, 8, 8)),
)  # fmt: skip


def digits() -> tuple[Digits, Digits]:
    sample = load_sample(train=True)
    return sample[torch.arange(800)], sample[torch.arange(800, 1000)]


def test_the_same_losses_as_on_the_cpu_within_rounding() -> None:
    losses = []
    for device in ("cpu", "cuda"):
        model, history = train_from_scratch(PLAIN, *digits(), "sample", device=device, progress=False)
        assert next(model.parameters()).device.type == "cpu"
        losses.append([(epoch.train_loss, epoch.validation_loss) for epoch in history.epochs])
    torch.testing.assert_close(torch.tensor(losses[1]), torch.tensor(losses[0]), rtol=0.02, atol=2e-3)


def test_a_resumed_training_continues_with_the_same_random_numbers(tmp_path: Path) -> None:
    whole, _ = train_from_scratch(ROBUST, *digits(), "sample", tmp_path / "whole", device="cuda", progress=False)
    model, generator = new_network(ROBUST)
    training = Training(model, *digits(), ROBUST, "cuda", generator)
    next(training.epochs())
    (tmp_path / "part").mkdir()
    training.save(tmp_path / "part", "sample")
    resumed, _ = train_from_scratch(
        ROBUST, *digits(), "sample", tmp_path / "part", resume=True, device="cuda", progress=False
    )
    validation = digits()[1]
    assert evaluate(resumed, validation)[0] == pytest.approx(evaluate(whole, validation)[0], rel=0.05)


def test_augmented_digits_and_outliers_stay_on_the_device() -> None:
    sample, generator = digits()[0].to(torch.device("cuda")), Generator("cuda").manual_seed(0)
    for made in (augment(sample.images, sample.labels, generator), outliers(sample.images, generator)):
        assert made.device.type == "cuda"
        assert made.shape == sample.images.shape
        assert 0 <= float(made.min()) <= float(made.max()) <= 1
