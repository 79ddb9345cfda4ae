"""Count the tests of killed processes, full disks, and damaged or swapped files.  python -m benchmarks.faults"""

import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from benchmarks import ROOT, write

TESTS = {"trainings": "training/test_surviving_kills.py", "files": "test_damaged.py"}


def main() -> None:
    result = {name: counted(ROOT / "tests" / file) for name, file in TESTS.items()}
    write("faults", result)
    print(result)


def counted(file: Path) -> dict[str, int]:
    """Number of tests in a file, and how many passed."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        done = subprocess.run([sys.executable, "-m", "pytest", str(file), f"--junitxml={report}"], cwd=ROOT)
        if done.returncode > 1:  # neither passed nor failed: no tests, or a usage error
            raise SystemExit(f"{file}: expected tests, received exit code {done.returncode} of pytest")
        suite = next(ElementTree.parse(report).iter("testsuite"))
    tests, *others = (int(suite.attrib[outcome]) for outcome in ("tests", "failures", "errors", "skipped"))
    return {"tests": tests, "passed": tests - sum(others)}


if __name__ == "__main__":
    main()
