"""All benchmarks, one after the other, each in a process of its own; then the README's tables."""

import subprocess
import sys

COMMANDS = (
    "benchmarks.drawing",
    "benchmarks.pictures",
    "benchmarks.recogniser",
    "benchmarks.rounding",
    "benchmarks.int8",
    "benchmarks.batchnorm",
    "benchmarks.augmentation",
    "benchmarks.race",
    "benchmarks.training",
    "export bench checkpoints/lecture",
    "export bench checkpoints/robust",
    "benchmarks.app",
    "benchmarks.faults",
    "benchmarks.diagnosis",
    "benchmarks.load",
    "benchmarks.fuzzing",
    "benchmarks.space",
    "benchmarks.readme",
)

for command in COMMANDS:
    print(f"== python -m {command}", flush=True)
    subprocess.run([sys.executable, "-m", *command.split()], check=True)
