"""Measurements, each a ratio against the alternative in the same run. `python -m benchmarks.NAME`."""

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch

from bnmodel.data import default_data_root
from bnmodel.io import atomic_write

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks/results"
CHECKPOINTS = ROOT / "checkpoints"


def data_root_option(description: str | None) -> Path:
    """The value of --data-root, for a benchmark without other options."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data-root", type=Path, default=default_data_root())
    return Path(parser.parse_args().data_root)


def processor() -> str:
    """The processor's name and the vector instructions that torch uses on it."""
    described = Path("/proc/cpuinfo")  # platform.processor() is empty on most Linux systems
    lines = described.read_text().splitlines() if described.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def write(name: str, content: dict[str, Any]) -> None:
    """Write benchmarks/results/NAME.json, with the machine and the versions."""
    machine = {
        "processor": processor(),
        "cpu_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    with atomic_write(RESULTS / f"{name}.json") as temporary:
        temporary.write_text(json.dumps({"machine": machine, **content}, indent=1) + "\n")
