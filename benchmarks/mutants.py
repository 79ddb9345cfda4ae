"""Mutation test: break a file in many ways, one at a time, and list the changes that its tests do not detect.

    python -m benchmarks.mutants bnmodel/training/history.py tests/training/test_early_stopping.py --sample 40

cosmic-ray makes the changes in a copy of the tracked files, in build/mutants.
"""

import argparse
import json
import random
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult

from benchmarks import ROOT

COPY = ROOT / "build/mutants"
CONFIG = """[cosmic-ray]
module-path = {file}
timeout = {timeout:.0f}
excluded-modules = []
test-command = {command}

[cosmic-ray.distributor]
name = "local"
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="file to break")
    parser.add_argument("tests", nargs="+", help="tests that should fail")
    parser.add_argument("--sample", type=int, default=40, help="number of mutants, drawn at random (default: 40)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    parser.add_argument("--timeout", type=float, default=300, help="seconds per mutant (default: 300)")
    options = parser.parse_args()

    _copy_tracked_files()
    tests = [sys.executable, "-m", "pytest", "-x", "-q", *options.tests]
    command = json.dumps(shlex.join(tests))
    config = CONFIG.format(file=json.dumps(str(options.file)), timeout=options.timeout, command=command)
    (COPY / "mutants.toml").write_text(config)
    subprocess.run(tests, cwd=COPY, check=True)  # they must pass without a mutant
    _cosmic_ray("init", "mutants.toml", "mutants.sqlite")
    with use_db(str(COPY / "mutants.sqlite"), WorkDB.Mode.open) as database:
        _keep_sample(database, options.sample, options.seed)
    _cosmic_ray("exec", "mutants.toml", "mutants.sqlite")
    with use_db(str(COPY / "mutants.sqlite"), WorkDB.Mode.open) as database:
        results = [result for _, result in database.results if result.worker_outcome is not WorkerOutcome.SKIPPED]
    survivors = [result for result in results if result.test_outcome is TestOutcome.SURVIVED]
    for result in survivors:
        print(result.diff, end="\n\n")
    print(f"{options.file}: {len(results)} mutants, {len(survivors)} survived")
    return 1 if survivors else 0


def _copy_tracked_files() -> None:
    shutil.rmtree(COPY, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (COPY / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, COPY / name)


def _cosmic_ray(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "cosmic_ray.cli", *arguments], cwd=COPY, check=True)


def _keep_sample(database: WorkDB, sample: int, seed: int) -> None:
    """Skip all mutants but a random sample."""
    jobs = [item.job_id for item in database.pending_work_items]
    kept = set(random.Random(seed).sample(jobs, min(sample, len(jobs))))
    database.set_multiple_results(
        [job for job in jobs if job not in kept], WorkResult(worker_outcome=WorkerOutcome.SKIPPED)
    )


if __name__ == "__main__":
    sys.exit(main())
