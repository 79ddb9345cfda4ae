"""Count the tests of killed processes, full disks, damaged and swapped files.  python -m benchmarks.faults"""

import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from benchmarks import write

ROOT = Path(__file__).parent.parent
TESTS = {"trainings": "test_training_survives.py", "files": "test_damaged.py"}


def main() -> None:
    result = {name: counted(ROOT / "tests" / file) for name, file in TESTS.items()}
    write("faults", result)
    print(result)


def counted(file: Path) -> dict[str, int]:
    """Number of tests in a file, and how many passed."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        subprocess.run([sys.executable, "-m", "pytest", str(file), f"--junitxml={report}"], cwd=ROOT, check=False)
        suite = next(ElementTree.parse(report).iter("testsuite"))
    tests, failed = int(suite.attrib["tests"]), int(suite.attrib["failures"]) + int(suite.attrib["errors"])
    return {"tests": tests, "passed": tests - failed}


if __name__ == "__main__":
    main()
