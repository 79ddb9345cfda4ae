"""The data sets: shapes, ranges, the lecture's split and errors, without MNIST or a network."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import bnmodel.data.datasets
from bnmodel import DataError, Digits
from bnmodel.data import (
    load,
    load_offline_digits,
    load_sample,
    split,
)

pytestmark = pytest.mark.usefixtures("no_network")


def rows(digits: Digits) -> set[bytes]:
    return {image.numpy().tobytes() for image in digits.images}


# --- the offline digits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("train", "count"), [(True, 1500), (False, 297)])
def test_the_offline_digits_are_whole_tensors_of_mnists_shape_and_range(train: bool, count: int) -> None:
    digits = load_offline_digits(train)
    assert digits.images.shape == (count, 1, 28, 28)
    assert digits.labels.shape == (count,)
    assert (digits.images.dtype, digits.labels.dtype) == (torch.float32, torch.int64)
    assert (digits.images.min(), digits.images.max()) == (0, 1)
    assert set(digits.labels.tolist()) == set(range(10))
    assert len(digits) == count


@pytest.mark.parametrize("train", [True, False])
def test_the_offline_digits_lie_in_mnists_20_by_20_box_bright_on_dark(train: bool) -> None:
    images = load_offline_digits(train).images
    outside = F.pad(torch.zeros(20, 20, dtype=torch.bool), (4, 4, 4, 4), value=True)
    assert not images[:, :, outside].any()
    assert images.mean() < 0.3


def test_every_one_of_scikit_learns_digits_is_in_one_of_the_two_parts() -> None:
    train, test = load_offline_digits(True), load_offline_digits(False)
    assert torch.equal(
        torch.cat([train.labels, test.labels]).bincount(), torch.from_numpy(load_digits().target).bincount()
    )
    assert len(rows(train) | rows(test)) == 1797
    assert not rows(train) & rows(test)


def test_an_offline_digit_is_one_of_scikit_learns_enlarged_with_its_label() -> None:
    raw = load_digits()
    enlarged = [Image.fromarray(image.astype(np.float32)).resize((20, 20), Image.BILINEAR) for image in raw.images / 16]
    originals = torch.stack([torch.from_numpy(np.array(image)) for image in enlarged]).flatten(1)  # (1797, 400)
    digits = load_offline_digits(False)
    distance, nearest = torch.cdist(digits.images[:, 0, 4:24, 4:24].flatten(1), originals).min(dim=1)
    assert distance.max() < 1e-2  # 400 pixels, each of some rounding error
    assert digits.labels.tolist() == raw.target[nearest].tolist()


# --- the shipped sample ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", [True, False])
def test_the_shipped_sample_has_a_hundred_of_each_class_in_mnists_shape_and_range(train: bool) -> None:
    sample = load_sample(train)
    assert sample.images.shape == (1000, 1, 28, 28)
    assert (sample.images.dtype, sample.labels.dtype) == (torch.float32, torch.int64)
    assert (sample.images.min(), sample.images.max()) == (0, 1)
    assert sample.labels.bincount().tolist() == [100] * 10
    assert torch.equal((sample.images * 255).round() / 255, sample.images)  # bytes


def test_the_shipped_samples_of_training_and_test_set_share_no_digit() -> None:
    train, test = rows(load_sample(True)), rows(load_sample(False))
    assert len(train) == len(test) == 1000
    assert not train & test


def test_the_shipped_sample_takes_about_half_a_megabyte() -> None:
    assert bnmodel.data.datasets.SAMPLE_FILE.stat().st_size < 600_000


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: b"",
        lambda raw: b"not an archive",
        lambda raw: raw[:5000] + bytes(100) + raw[5100:],
    ],
    ids=["truncated", "empty", "other", "overwritten"],
)
def test_a_damaged_sample_is_refused_and_the_message_says_how_to_restore_it(damage, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "sample.npz"
    file.write_bytes(damage(bnmodel.data.datasets.SAMPLE_FILE.read_bytes()))
    with pytest.raises(DataError, match=r"sample\.npz.*python -m bnmodel sample"):
        load_sample(True, file), load_sample(False, file)


def test_a_missing_sample_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.npz.*python -m bnmodel sample"):
        load_sample(True, tmp_path / "absent.npz")


# --- the split and the rest ------------------------------------------------------------------------------------------


def numbered(count: int) -> Digits:
    """Digits with numbers in place of images, to see where each goes."""
    return Digits(torch.arange(count), torch.arange(count) % 10)


def test_the_lectures_split_of_60000_is_scikit_learns_with_random_state_42() -> None:
    train, validation = split(numbered(60_000))
    assert (len(train), len(validation)) == (48_000, 12_000)
    expected = train_test_split(list(range(60_000)), test_size=0.2, random_state=42)
    assert [train.images.tolist(), validation.images.tolist()] == expected
    # what scikit-learn does: numpy's permutation, the test part first
    permutation = np.random.RandomState(42).permutation(60_000)
    assert validation.images.tolist() == permutation[:12_000].tolist()


@pytest.mark.parametrize("count", [1500, 1000, 7])
def test_the_split_puts_every_digit_with_its_label_into_one_part(count: int) -> None:
    train, validation = split(numbered(count))
    assert sorted(train.images.tolist() + validation.images.tolist()) == list(range(count))
    assert len(validation) == -(-count // 5)  # a fifth, rounded up
    for part in (train, validation):
        assert torch.equal(part.labels, part.images % 10)


def test_the_split_is_always_the_same() -> None:
    np.random.seed(0)  # noqa: NPY002 - the global state must not matter
    first = split(numbered(100))[0].images
    np.random.seed(1)  # noqa: NPY002
    assert torch.equal(split(numbered(100))[0].images, first)


@pytest.mark.parametrize(
    ("dataset", "train", "count"), [("digits", True, 1500), ("digits", False, 297), ("sample", True, 1000)]
)
def test_a_data_set_is_loaded_by_name(dataset: str, train: bool, count: int) -> None:
    assert len(load(dataset, train)) == count


def test_an_unknown_data_set_is_refused_and_the_known_are_named() -> None:
    with pytest.raises(ValueError, match="expected one of mnist, digits, sample, received 'cifar'"):
        load("cifar", train=True)


def test_digits_are_indexed_and_moved_with_their_labels() -> None:
    digits = numbered(10)
    assert digits[2:4].images.tolist() == digits[2:4].labels.tolist() == [2, 3]
    chosen = digits[torch.tensor([7, 1])]
    assert chosen.images.tolist() == chosen.labels.tolist() == [7, 1]
    moved = digits.to("meta")
    assert (moved.images.device.type, moved.labels.device.type) == ("meta", "meta")
