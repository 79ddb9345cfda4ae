"""Image files are read upright and with their whole range, on the command line as in the app."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bnmodel.data import load_sample
from bnmodel.experiments.catalogue import read_digit


@pytest.fixture
def drawing() -> np.ndarray:
    """A seven, dark on white, uint8 (140, 140)."""
    sample = load_sample(train=False)
    digit = sample.images[sample.labels == 7][0, 0].numpy()
    return np.uint8(255 - np.kron(digit, np.ones((5, 5))) * 255)


def test_a_turned_picture_is_read_upright(drawing: np.ndarray, tmp_path: Path) -> None:
    image = Image.fromarray(drawing)
    image.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[274] = 6  # shown after a quarter turn to the right
    image.rotate(90).save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(read_digit(tmp_path / "turned.png"), read_digit(tmp_path / "upright.png"))


def test_16_bits_per_pixel_are_read_like_8(drawing: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(drawing).save(tmp_path / "8.png")
    Image.fromarray(drawing.astype(np.uint16) * 257).save(tmp_path / "16.png")
    torch.testing.assert_close(read_digit(tmp_path / "16.png"), read_digit(tmp_path / "8.png"), atol=0.02, rtol=0)


def test_a_tiny_picture_is_refused_for_its_size(tmp_path: Path) -> None:
    Image.new("L", (5, 5)).save(tmp_path / "tiny.png")
    with pytest.raises(ValueError, match="sides of at least 8 pixels, received 5×5"):
        read_digit(tmp_path / "tiny.png")
