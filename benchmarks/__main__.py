"""Runs all benchmarks, each in its own process, and then writes the tables of the README and the docs.

python -m benchmarks [--resume]

Takes hours on two cores. `--resume` skips those that an interrupted run has finished.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from bnmodel.io import atomic_write

COMMANDS = (
    "benchmarks.drawing",
    "benchmarks.pictures",
    "benchmarks.recogniser",
    "benchmarks.int8",
    "benchmarks.accuracy",
    "benchmarks.batchnorm",
    "benchmarks.augmentation",
    "benchmarks.race",
    "benchmarks.training",
    "export bench checkpoints/lecture",
    "export bench checkpoints/robust",
    "benchmarks.app",
    "benchmarks.faults",
    "benchmarks.diagnosis",
    "benchmarks.networks",
    "benchmarks.load",
    "benchmarks.fuzzing",
    "benchmarks.space",
    "benchmarks.runtimes",
    "benchmarks.readme",
)
FINISHED = Path("build/benchmarks.txt")  # the finished commands of the last run, one per line
BUSY = 0.5  # load average above which times are unreliable


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--resume", action="store_true", help="skip what an interrupted run has finished")
    options = parser.parse_args()
    finished = FINISHED.read_text().splitlines() if options.resume and FINISHED.exists() else []
    if hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > BUSY:
        print(f"Expected an idle machine, received a load average of {load:.1f}; end other programs.", file=sys.stderr)
    failed = []
    for command in COMMANDS:
        if command in finished:
            continue
        print(f"== python -m {command}", flush=True)
        if subprocess.run([sys.executable, "-m", *command.split()], check=False).returncode:
            failed.append(command)
            continue
        finished.append(command)
        FINISHED.parent.mkdir(exist_ok=True)
        with atomic_write(FINISHED) as temporary:
            temporary.write_text("\n".join(finished) + "\n")
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}. Their tables are those of an earlier run.")
    FINISHED.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
