"""MNIST's files, with tiny ones in their place: formats, downloads and damage, without a network."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

import bnmodel.data.datasets
from bnmodel import DataError
from bnmodel.data import MNIST_FILES, default_data_root, load, load_mnist, load_sample, write_sample

pytestmark = pytest.mark.usefixtures("no_network")
TRAIN_IMAGES = "train-images-idx3-ubyte"


def idx(array: np.ndarray) -> bytes:
    """The IDX format: two zero bytes, type 8 (unsigned byte), number of axes, their lengths, the values."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """40 training and 20 test digits, whose sizes and checksums are expected instead of MNIST's."""
    generator = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 40), ("t10k", 20)):
        arrays[f"{part}-images-idx3-ubyte"] = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = np.arange(count, dtype=np.uint8) % 10
    expected = {name: (len(idx(array)), hashlib.sha256(idx(array)).hexdigest()) for name, array in arrays.items()}
    assert list(expected) == list(MNIST_FILES)
    monkeypatch.setattr(bnmodel.data.datasets, "MNIST_FILES", expected)
    return arrays


def write(root: Path, arrays: dict[str, np.ndarray]) -> Path:
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        (folder / name).write_bytes(idx(array))
    return folder


@pytest.mark.parametrize(("train", "prefix"), [(True, "train"), (False, "t10k")])
def test_mnist_is_read_from_the_data_root_as_whole_tensors_in_0_to_1(
    train: bool, prefix: str, tiny: dict[str, np.ndarray], tmp_path: Path
) -> None:
    write(tmp_path, tiny)
    digits = load_mnist(train, tmp_path)
    expected = tiny[f"{prefix}-images-idx3-ubyte"] / 255
    assert digits.images.dtype == torch.float32
    np.testing.assert_allclose(digits.images.numpy(), expected[:, None], rtol=1e-6)
    assert digits.labels.dtype == torch.int64
    assert digits.labels.tolist() == tiny[f"{prefix}-labels-idx1-ubyte"].tolist()


def test_the_environment_variable_names_the_data_root(
    tiny: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, tiny)
    monkeypatch.setenv("BNMODEL_DATA", str(tmp_path))
    assert default_data_root() == tmp_path
    assert len(load("mnist", train=True)) == 40


@pytest.mark.parametrize("value", [None, ""])
def test_without_the_environment_variable_the_data_root_is_data(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BNMODEL_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("BNMODEL_DATA", value)
    assert default_data_root() == Path("data")


def test_compressed_files_are_unpacked_without_a_download(
    tiny: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    resources = []
    for name, array in tiny.items():
        packed = gzip.compress(idx(array))
        (folder / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    assert len(load_mnist(True, tmp_path)) == 40


@pytest.mark.parametrize("error", [RuntimeError, OSError])
@pytest.mark.parametrize("present", [False, True])
def test_missing_files_that_cannot_be_downloaded_are_named_with_a_remedy(
    present: bool, error: type[Exception], tiny: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if present:  # all but one
        (write(tmp_path, tiny) / TRAIN_IMAGES).unlink()

    def offline(*_: object, **__: object) -> None:
        raise error("no route to host")

    monkeypatch.setattr(torchvision.datasets, "MNIST", offline)
    with pytest.raises(DataError) as refusal:
        load_mnist(True, tmp_path)
    message = str(refusal.value)
    for part in (str(tmp_path / "MNIST" / "raw"), *MNIST_FILES, "no route to host", "--data-root", "BNMODEL_DATA"):
        assert part in message


def test_with_download_false_nothing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets.MNIST, "download", lambda self: pytest.fail("tried to download"))
    with pytest.raises(DataError, match="--data-root"):
        load_mnist(True, tmp_path, download=False)


@pytest.mark.parametrize("name", list(MNIST_FILES))
def test_a_truncated_file_is_refused_with_its_name_both_sizes_and_a_remedy(
    name: str, tiny: dict[str, np.ndarray], tmp_path: Path
) -> None:
    file = write(tmp_path, tiny) / name
    whole = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(DataError) as refusal:
        load_mnist(name.startswith("train"), tmp_path)
    for part in (str(file), f"expected {whole:,} bytes", f"received {whole - 7:,}", "Delete it to download it again"):
        assert part in str(refusal.value)


@pytest.mark.parametrize("name", list(MNIST_FILES))
def test_a_file_of_the_right_size_and_other_contents_is_refused(
    name: str, tiny: dict[str, np.ndarray], tmp_path: Path
) -> None:
    file = write(tmp_path, tiny) / name
    contents = bytearray(file.read_bytes())
    contents[-1] ^= 1
    file.write_bytes(contents)
    with pytest.raises(DataError) as refusal:
        load_mnist(name.startswith("train"), tmp_path)
    for part in (str(file), "expected the contents of MNIST, received others", "Delete it to download it again"):
        assert part in str(refusal.value)


def test_the_expected_sizes_are_those_of_60000_and_10000_digits() -> None:
    sizes = [size for size, _ in MNIST_FILES.values()]
    assert sizes == [16 + 60_000 * 28 * 28, 8 + 60_000, 16 + 10_000 * 28 * 28, 8 + 10_000]


def test_a_sample_is_made_of_the_first_digits_of_each_class(
    tiny: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, tiny)
    monkeypatch.setattr(bnmodel.data.datasets, "SAMPLE_PER_CLASS", 2)
    write_sample(tmp_path, tmp_path / "made")  # NumPy would append .npz
    (tmp_path / "made").rename(tmp_path / "made.npz")
    for train, whole in ((True, load_mnist(True, tmp_path)), (False, load_mnist(False, tmp_path))):
        made = load_sample(train, tmp_path / "made.npz")
        assert torch.equal(made.images, whole.images[:20])  # the tiny one counts 0 … 9, 0 … 9, …
        assert torch.equal(made.labels, whole.labels[:20])


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((3, 28, 28), np.float32), np.zeros(3, np.uint8)),
        (np.zeros((3, 20, 20), np.uint8), np.zeros(3, np.uint8)),
        (np.zeros((3, 28, 28), np.uint8), np.full(3, 11, np.uint8)),
        (np.zeros((3, 28, 28), np.uint8), np.zeros(2, np.uint8)),
    ],
)
def test_other_arrays_are_refused_as_a_sample(images: np.ndarray, labels: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "sample.npz", train_images=images, train_labels=labels)
    with pytest.raises(DataError, match="expected the MNIST sample"):
        load_sample(True, tmp_path / "sample.npz")
