"""Uses an installed bnmodel outside the clone: the layer, the shipped data, and an export.

Run by tests/test_packaging.py and by `make wheel-check`:  python installed_use.py FOLDER
"""

import sys
from pathlib import Path

import torch

import bnmodel
from bnmodel.data import load_sample
from bnmodel.deploy import certify, verify
from bnmodel.experiments import convergence_sweep


def main(folder: Path) -> None:
    clone = Path(__file__).resolve().parent.parent
    assert clone / "bnmodel" not in Path(bnmodel.__file__).resolve().parents, f"imported from the clone: {clone}"

    x = torch.randn(64, 10, 12, 12)
    torch.testing.assert_close(bnmodel.CustomBatchNorm(10)(x), torch.nn.BatchNorm2d(10)(x))
    assert len(load_sample(train=True)) == 1000
    assert convergence_sweep.read().steps > 0

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()).eval()
    certify(network, example=torch.rand(4, 3, 16, 16), folder=folder, name="mine")
    assert all(check.passed for check in verify(folder))
    print(f"bnmodel {bnmodel.__version__} in {Path(bnmodel.__file__).parent} works")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
