"""Variation of the test accuracy of `robust` over seeds: the shipped network and refits with other seeds.

python -m benchmarks.seeds [--seeds N …] [--model FOLDER] [--out DIR] [--data-root DIR]

The two refits take hours, so this is not part of `make bench`. A finished one in `--out` is not repeated; it may come
from another machine.
"""

import argparse
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import write
from bnmodel import data
from bnmodel.nn.models import Network
from bnmodel.training import refit
from bnmodel.training.allocator import keep_freed_memory
from bnmodel.training.checkpoint import load_checkpoint
from bnmodel.training.evaluation import evaluate

SEEDS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="default: %(default)s")
    parser.add_argument("--model", type=Path, default=Path("checkpoints/robust"), help="the shipped one")
    parser.add_argument("--out", type=Path, default=Path("build"), help="holds robust-1, robust-2, … (default: build)")
    parser.add_argument("--data-root", type=Path, default=data.default_data_root())
    options = parser.parse_args()
    keep_freed_memory()
    train, test = (data.load_mnist(part, options.data_root) for part in (True, False))
    shipped = load_checkpoint(options.model)
    networks = {
        seed: finished(options.out / f"robust-{seed}", shipped.recipe | {"seed": seed})
        or refit(options.model, train, options.out / f"robust-{seed}", seed=seed, resume=True)
        for seed in options.seeds
        if seed != shipped.recipe["seed"]
    }
    networks[shipped.recipe["seed"]] = shipped.model
    # the test digits are used for nothing else
    accuracy = {str(seed): evaluate(network, test)[1] for seed, network in sorted(networks.items())}
    write("seeds", {"test_accuracy": accuracy, "mean": mean(accuracy.values())})
    print(f"robust, test accuracy by seed {accuracy}, mean {mean(accuracy.values()):.4f}")


def finished(folder: Path, recipe: dict[str, Any]) -> Network | None:
    """The network in `folder`, if its refit with this recipe is finished."""
    if not (folder / "best.pt").exists():
        return None
    refitted = load_checkpoint(folder)
    return refitted.model if refitted.recipe == recipe and "refitted_on" in refitted.results else None


if __name__ == "__main__":
    main()
