"""The commands `bnmodel inspect FILE.onnx` and `bnmodel verify DIR`."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bnmodel.deploy.certificate import verify
from bnmodel.deploy.checks import Check
from bnmodel.deploy.errors import ExportError
from bnmodel.deploy.onnx_inspection import inspect
from bnmodel.io import without_infinities


def inspect_file(arguments: Sequence[str], prog: str = "bnmodel inspect") -> int:
    """Print the findings for an ONNX file; exit with 0 if it is sound, 1 if not, 2 if it cannot be read."""
    parser = argparse.ArgumentParser(prog=prog, description=inspect_file.__doc__)
    parser.add_argument("file", type=Path, metavar="FILE.onnx")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.add_argument("--fold", type=Path, metavar="OUT.onnx", help="write a copy with its batch norms folded")
    options = parser.parse_args(arguments)
    try:
        inspection = inspect(options.file, fold_to=options.fold)
    except (ExportError, OSError) as error:
        if options.fold is not None:  # the findings do not depend on whether it can be folded
            inspect_file([str(options.file), *(["--json"] if options.json else [])], prog)
        elif options.json:
            print(json.dumps({"error": str(error), "findings": [], "batch_norms": 0}))
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(inspection.to_dict(), indent=1) if options.json else inspection)
    return 0 if inspection.sound else 1


def verify_folder(arguments: Sequence[str]) -> int:
    """Repeat the checks of a certified folder; exit with 0 if all pass, 1 if not, 2 without a certificate."""
    parser = argparse.ArgumentParser(prog="bnmodel verify", description=verify_folder.__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder with certificate.json")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    options = parser.parse_args(arguments)
    try:
        checks = verify(options.folder)
    except (ExportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return report(options.folder, checks, options.json)


def report(folder: Path, checks: list[Check], as_json: bool = False) -> int:
    """Print the checks, failed ones last, or as JSON; return 1 if any failed, else 0."""
    failed = sum(not check.passed for check in checks)
    if as_json:
        content = {"folder": str(folder), "passed": not failed, "checks": [asdict(check) for check in checks]}
        print(json.dumps(without_infinities(content), indent=1))
        return 1 if failed else 0
    width = max(len(check.name) for check in checks)
    file_width = max(len(check.file) for check in checks)
    for check in sorted(checks, key=lambda check: not check.passed):
        mark = "passed" if check.passed else "FAILED"
        print(f"{mark}  {check.name:{width}}  {check.file:{file_width}}  {check.detail}")
    print(f"\n{folder}: {len(checks)} checks, {failed} failed")
    return 1 if failed else 0
