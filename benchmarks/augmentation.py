"""Cost of the augmentation, compared with torchvision's transforms and with a training step.

torchvision draws one random value per batch; for one per digit it must be called for each digit, as in a Dataset.
The transforms closest to `warp` are RandomAffine and ElasticTransform. Processor time on one thread.
"""

import torch
from torch import Generator
from torchvision.transforms import v2

from benchmarks import write
from benchmarks.batchnorm import compare, training_work
from bnmodel import data
from bnmodel.data.augmentation import augment, warp
from bnmodel.data.outliers import outliers
from bnmodel.nn.models import RobustCNN
from bnmodel.training.allocator import keep_freed_memory

BATCH = 128


def main() -> None:
    digits = data.load_sample(train=True)[torch.arange(BATCH)]
    generator = Generator().manual_seed(0)
    theirs = v2.Compose([v2.RandomAffine(9, (0.04, 0.04), (0.9, 1.1), 8), v2.ElasticTransform(alpha=20.0, sigma=4.0)])
    works = {
        "torchvision's affine and elastic warp, digit by digit": lambda: [theirs(image) for image in digits.images],
        "warp": lambda: warp(digits.images, generator),
        "augment: warp, pens, gaps, tone, European habits": lambda: augment(digits.images, digits.labels, generator),
        "outliers": lambda: outliers(digits.images, generator),
        "a training step of robust": training_work(RobustCNN(), BATCH, half=False),
    }
    times = compare(works)
    reference = times["a training step of robust"]["milliseconds"]
    result = {
        name: {
            "microseconds_per_digit": t["milliseconds"] * 1e3 / BATCH,
            "share_of_step": t["milliseconds"] / reference,
        }
        for name, t in times.items()
    }
    write("augmentation", {"works": result})
    for name, numbers in result.items():
        microseconds, share = numbers["microseconds_per_digit"], numbers["share_of_step"]
        print(f"{name:55s} {microseconds:8.1f} µs per digit, {share:.2f} of a step")


if __name__ == "__main__":
    torch.set_num_threads(1)
    keep_freed_memory()
    main()
