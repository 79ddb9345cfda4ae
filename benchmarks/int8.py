"""Differences between an 8-bit ONNX file and the exported one on MNIST's test set.

python -m benchmarks.int8 --data-root DIR
"""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

from benchmarks import data_root_option, write
from bnmodel import data
from bnmodel.deploy.loading import load_file

SOURCE = Path("checkpoints/lecture/digits.onnx")


class Calibration(CalibrationDataReader):  # type: ignore[misc]
    """The shipped training sample, in batches of 50."""

    def __init__(self) -> None:
        images = data.load_sample(train=True).images.numpy()
        self.batches: Iterator[np.ndarray] = iter(np.array_split(images, 20))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch}


def main() -> None:
    test = data.load_mnist(False, data_root_option(__doc__))
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.int8.onnx"
        # 7-bit weights: with 8 bits, sums of two products overflow on processors without VNNI
        quantize_static(SOURCE, path, Calibration(), quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=True)
        quantized, size = load_file(path).run(test.images.numpy())[0], path.stat().st_size
    exact = load_file(SOURCE).run(test.images.numpy())[0]
    result = {
        "bytes": size,
        "labels_differing": int((exact.argmax(1) != quantized.argmax(1)).sum()),
        "accuracy": float((quantized.argmax(1) == test.labels.numpy()).mean()),
        "largest_difference": float(np.abs(exact - quantized).max()),
    }
    write("int8", result)
    print(result)


if __name__ == "__main__":
    main()
