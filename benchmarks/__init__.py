"""Measurements, each a ratio against the alternative in the same run. `python -m benchmarks.NAME`."""

import json
import platform
from pathlib import Path
from typing import Any

import torch

from bnmodel.io import atomic_write

RESULTS = Path(__file__).with_name("results")


def write(name: str, content: dict[str, Any]) -> None:
    """benchmarks/results/NAME.json, with what it was measured on."""
    machine = {"cpu_threads": torch.get_num_threads(), "torch": torch.__version__, "python": platform.python_version()}
    with atomic_write(RESULTS / f"{name}.json") as temporary:
        temporary.write_text(json.dumps({"machine": machine, **content}, indent=1) + "\n")
