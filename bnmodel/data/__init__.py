"""Digits: the data sets, the preprocessing of drawings, and augmentation."""

from bnmodel.data.datasets import (
    DATASETS,
    MNIST_FILES,
    SAMPLE_FILE,
    DataError,
    Digits,
    default_data_root,
    load,
    load_mnist,
    load_offline_digits,
    load_sample,
    split,
    write_sample,
)
from bnmodel.data.preprocessing import Sketch, SketchClassifier

__all__ = [
    "DATASETS",
    "MNIST_FILES",
    "SAMPLE_FILE",
    "DataError",
    "Digits",
    "Sketch",
    "SketchClassifier",
    "default_data_root",
    "load",
    "load_mnist",
    "load_offline_digits",
    "load_sample",
    "split",
    "write_sample",
]
