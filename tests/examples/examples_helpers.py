"""Run the examples and check the lines that they print."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
CHECKPOINT = ROOT / "checkpoints" / "lecture"
TOLERANCE = 1e-5
LINE = re.compile(r"(\w+)\.(\w+): (\d+) golden vectors, largest difference (\S+), labels differing (\d+)")


def run(*command: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=300)


def need(*tools: str) -> None:
    """Skip if a tool is absent; in CI, which must have all of them, fail."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing and os.environ.get("CI"):
        pytest.fail(f"{', '.join(missing)}: expected in CI, not installed")
    if missing:
        pytest.skip(f"{', '.join(missing)}: not installed")


def npm_install(folder: Path) -> None:
    """Install the example's npm packages into its node_modules, which git ignores, unless they are there."""
    done = folder / "node_modules" / ".package-lock.json"  # npm writes it last
    if done.exists() and done.stat().st_mtime > (folder / "package.json").stat().st_mtime:
        return
    need("npm")
    installed = run("npm", "--prefix", folder, "install")
    assert installed.returncode == 0, installed.stderr


def agreed(output: str) -> list[str]:
    """The printed files, each checked to have 20 golden vectors within the tolerance and no differing label."""
    found = LINE.findall(output)
    for _stem, _ending, cases, largest, differing in found:
        assert (int(cases), int(differing)) == (20, 0)
        assert 0 < float(largest) <= TOLERANCE
    return sorted(stem for stem, *_ in found)


def one_number_off(golden: dict[str, Any]) -> None:
    golden["sketch"][19]["outputs"][1]["data"][300] += 1e-4
