"""How much of the robust network's accuracy is luck: the same refit from three seeds, on MNIST's test digits.

python -m benchmarks.seeds CHOSEN [--out DIR] [--data-root DIR]

CHOSEN is what `python -m bnmodel train --recipe robust --out CHOSEN` left. About 40 minutes a seed on one core, so it
is no part of `make bench`; a refit that `--out` has already is not repeated.
"""

import argparse
from pathlib import Path
from statistics import mean

from benchmarks import write
from bnmodel import data
from bnmodel.allocator import keep_freed_memory
from bnmodel.evaluation import evaluate
from bnmodel.training import refit

SEEDS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chosen", type=Path)
    parser.add_argument("--out", type=Path, default=Path("build"), help="holds robust-0, robust-1, … (default: build)")
    parser.add_argument("--data-root", type=Path, default=data.default_data_root())
    options = parser.parse_args()
    keep_freed_memory()
    train, test = (data.load_mnist(part, options.data_root) for part in (True, False))
    networks = {
        seed: refit(options.chosen, train, options.out / f"robust-{seed}", seed=seed, resume=True) for seed in SEEDS
    }
    accuracy = {str(seed): evaluate(network, test)[1] for seed, network in networks.items()}  # the one look at them
    write("seeds", {"test_accuracy": accuracy, "mean": mean(accuracy.values())})
    print(f"robust, test accuracy by seed {accuracy}, mean {mean(accuracy.values()):.4f}")


if __name__ == "__main__":
    main()
