"""Deviation of each exported file from the network in float32 and float64, on MNIST's 10,000 test digits.

python -m benchmarks.rounding --data-root DIR
"""

import copy
from pathlib import Path

import numpy as np

from benchmarks import data_root_option, write
from bnmodel import data, load_checkpoint
from bnmodel.deploy.loading import FORMATS, load_file
from export.bench import eager

FOLDER = Path("checkpoints/lecture")


def main() -> None:
    images = data.load_mnist(False, data_root_option(__doc__)).images.numpy()
    network = load_checkpoint(FOLDER).model
    batches = np.array_split(images, 100)
    single = np.concatenate([eager(network)(batch)[0] for batch in batches])
    exact_run = eager(copy.deepcopy(network).double())
    exact = np.concatenate([exact_run(batch.astype(np.float64))[0] for batch in batches])
    result = {"float32": {"from_float64": float(np.abs(single - exact).max()), "lowest": float(exact.min())}}
    for ending in FORMATS:
        run = load_file(FOLDER / f"digits.{ending}").run
        received = np.concatenate([run(batch)[0] for batch in batches])
        difference = np.abs(received - single)
        result[ending] = {
            "from_float32": float(difference.max()),
            "values_beyond_1e-5": int((difference > 1e-5).sum()),
            "from_float64": float(np.abs(received - exact).max()),
        }
    write("rounding", result)
    for name, numbers in result.items():
        print(name, numbers)


if __name__ == "__main__":
    main()
