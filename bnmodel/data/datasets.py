"""Datasets as tensors: MNIST, scikit-learn's digits (offline), and the MNIST sample shipped with the package."""

import hashlib
import os
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bnmodel.io import atomic_write

DATASETS = ("mnist", "digits", "sample")
SAMPLE_FILE = Path(__file__).with_name("mnist_sample.npz")
SAMPLE_PER_CLASS = 100

# name → (size in bytes, SHA-256) of the published files, uncompressed
MNIST_FILES = {
    "train-images-idx3-ubyte": (47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "train-labels-idx1-ubyte": (60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte": (7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte": (10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}


class DataError(Exception):
    """A data file is missing, damaged or not the expected one; the message names the remedy."""


@dataclass(frozen=True)
class Digits:
    """images: float32 (N, 1, 28, 28) in [0, 1], ink bright. labels: int64 (N,) in 0 … 9."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> "Digits":
        return Digits(self.images[index], self.labels[index])

    def to(self, device: torch.device | str) -> "Digits":
        return Digits(self.images.to(device), self.labels.to(device))


def default_data_root() -> Path:
    """`BNMODEL_DATA`, or `data` in the working directory."""
    return Path(os.environ.get("BNMODEL_DATA") or "data")


def load(dataset: str, train: bool, root: Path | str | None = None) -> Digits:
    """The training or the test part of "mnist", "digits" (1,500 and 297) or "sample" (1,000 and 1,000)."""
    if dataset == "mnist":
        return load_mnist(train, root)
    if dataset == "digits":
        return load_offline_digits(train)
    if dataset == "sample":
        return load_sample(train)
    raise ValueError(f"dataset: expected one of {', '.join(DATASETS)}, received {dataset!r}")


def load_mnist(train: bool, root: Path | str | None = None, download: bool = True) -> Digits:
    """The 60,000 training or 10,000 test digits from `root`/MNIST/raw, downloaded by torchvision if missing.

    Raises:
        DataError: the files are damaged, or missing and cannot be downloaded.
    """
    from torchvision.datasets import MNIST  # slow to import

    root = Path(root) if root is not None else default_data_root()
    folder = root / "MNIST" / "raw"
    if not all((folder / name).exists() for name in MNIST_FILES):
        try:
            MNIST(str(root), download=download)
        except (RuntimeError, OSError) as error:
            failed = f" and could not be downloaded ({error})" if download else ""
            raise DataError(
                f"MNIST is not in {folder}{failed}. Put {', '.join(MNIST_FILES)} there, also as .gz, or name the "
                f"folder that contains MNIST/raw with --data-root or BNMODEL_DATA."
            ) from error
    prefix = "train" if train else "t10k"
    for name, (size, sha256) in MNIST_FILES.items():
        if name.startswith(prefix):
            _check_file(folder / name, size, sha256)
    mnist = MNIST(str(root), train=train, download=False)
    return _from_uint8(mnist.data.numpy(), mnist.targets.numpy())


def load_offline_digits(train: bool) -> Digits:
    """scikit-learn's 1,797 digits, resized from 8×8 to MNIST's 20×20 box in 28×28: 1,500 for training, 297 for test."""
    from sklearn.datasets import load_digits  # slow to import
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)  # (1797, 64) in 0 … 16
    train_index, test_index = train_test_split(np.arange(len(labels)), test_size=297, random_state=42, stratify=labels)
    index = train_index if train else test_index
    small = torch.from_numpy(images[index]).float().view(-1, 1, 8, 8) / 16
    box = F.interpolate(small, size=(20, 20), mode="bilinear", align_corners=False)
    return Digits(F.pad(box, (4, 4, 4, 4)), torch.from_numpy(labels[index]).long())


@lru_cache
def load_sample(train: bool, file: Path = SAMPLE_FILE) -> Digits:
    """The shipped 1,000 digits of MNIST's training or test set, 100 per class; cached.

    Raises:
        DataError: the file is missing or damaged.
    """
    part = "train" if train else "test"
    try:
        with np.load(file, allow_pickle=False) as arrays:
            images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        if images.dtype != np.uint8 or images.shape[1:] != (28, 28) or images.shape[:1] != labels.shape:
            raise ValueError(f"images of {images.dtype} {images.shape}, labels {labels.shape}")
        if labels.dtype != np.uint8 or labels.max(initial=0) > 9:
            raise ValueError("labels outside 0 … 9")
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise DataError(
            f"{file}: expected the MNIST sample, received a missing or damaged file ({error}); restore it from the "
            f"repository, or recreate it: python -m bnmodel sample --data-root DIR"
        ) from error
    return _from_uint8(images, labels)


def write_sample(root: Path | str | None = None, file: Path = SAMPLE_FILE) -> None:
    """Create the shipped sample from MNIST: the first 100 digits per class of each part, in their original order."""
    arrays = {}
    for part, train in (("train", True), ("test", False)):
        digits = load_mnist(train, root)
        of_each = [torch.nonzero(digits.labels == label)[:SAMPLE_PER_CLASS, 0] for label in range(10)]
        chosen = torch.cat(of_each).sort().values
        arrays[f"{part}_images"] = (digits.images[chosen, 0] * 255).round().byte().numpy()
        arrays[f"{part}_labels"] = digits.labels[chosen].byte().numpy()
    with atomic_write(file) as temporary, temporary.open("wb") as opened:  # given a path, NumPy would append .npz
        np.savez_compressed(opened, **arrays)  # type: ignore[arg-type]
    load_sample.cache_clear()


def split(digits: Digits) -> tuple[Digits, Digits]:
    """The lecture's fixed split into 80% training and 20% validation digits."""
    from sklearn.model_selection import train_test_split

    train, validation = train_test_split(np.arange(len(digits)), test_size=0.2, random_state=42)
    return digits[torch.from_numpy(train)], digits[torch.from_numpy(validation)]


def _from_uint8(images: np.ndarray, labels: np.ndarray) -> Digits:
    """uint8 (N, 28, 28) and (N,) → Digits."""
    return Digits(torch.from_numpy(images).float().div_(255).unsqueeze(1), torch.from_numpy(labels).long())


def _check_file(path: Path, size: int, sha256: str) -> None:
    remedy = "Delete it to download it again, or replace it with the published file."
    received = path.stat().st_size
    if received != size:
        raise DataError(f"{path}: expected {size:,} bytes, received {received:,}: truncated, or another file. {remedy}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise DataError(f"{path}: expected the contents of MNIST, received others (SHA-256 differs). {remedy}")
