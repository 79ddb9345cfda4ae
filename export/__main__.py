"""python -m export DIR | verify DIR | bench DIR | inspect FILE.onnx"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bnmodel import CheckpointError
from bnmodel.data import DataError, default_data_root
from bnmodel.deploy import inspect
from bnmodel.deploy.checks import Check
from bnmodel.deploy.errors import ExportError
from export import verification
from export.bench import bench, table, write_rows
from export.pipeline import export_checkpoint


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] == "inspect":
        return inspect_file(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Export a checkpoint and certify it.",
        epilog="An ONNX file of any origin: python -m export inspect FILE.onnx",
    )
    parser.add_argument("command", nargs="?", choices=("verify", "bench"), help="re-check or time the exported files")
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of best.pt and the exported files")
    default = default_data_root()
    parser.add_argument("--data-root", type=Path, default=default, help="folder with MNIST/raw, used if it exists")
    parser.add_argument("--canvas", type=_size, metavar="HxW", help="export sketch and numbers for one canvas size")
    parser.add_argument("--json", action="store_true", help="print the checks as a JSON object")
    options = parser.parse_args(arguments)
    try:
        if options.command == "bench":
            rows = bench(options.folder)
            write_rows(options.folder, rows)
            print(table(rows))
            return 0
        if options.command == "verify":
            checks = verification.verify(options.folder, options.data_root, verification.CANVASES)
        else:
            checks = export_checkpoint(options.folder, options.data_root, canvas=options.canvas)
    except (CheckpointError, DataError, ExportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return (report_json if options.json else report)(options.folder, checks)


def _size(text: str) -> tuple[int, int]:
    """280x280 → (280, 280)."""
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and 8 <= int(height) <= 4096 and 8 <= int(width) <= 4096):
        raise argparse.ArgumentTypeError(f"expected HxW with sides of 8 … 4096, such as 280x280, received {text}")
    return int(height), int(width)


def inspect_file(arguments: Sequence[str]) -> int:
    """Print the faults of an ONNX file; exit with 0 if it is sound, 1 if not, 2 if it cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m export inspect", description=inspect_file.__doc__)
    parser.add_argument("file", type=Path, metavar="FILE.onnx")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.add_argument("--fold", type=Path, metavar="OUT.onnx", help="write a copy with its batch norms folded")
    options = parser.parse_args(arguments)
    try:
        inspection = inspect(options.file, fold_to=options.fold)
    except (ExportError, OSError) as error:
        if options.json:
            print(json.dumps({"error": str(error), "findings": [], "batch_norms": 0}))
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(inspection.to_dict(), indent=1) if options.json else inspection)
    return 0 if inspection.sound else 1


def report(folder: Path, checks: list[Check]) -> int:
    """Print the checks, failed ones last; return 1 if there are any, else 0."""
    width = max(len(check.name) for check in checks)
    file_width = max(len(check.file) for check in checks)
    for check in sorted(checks, key=lambda check: not check.passed):
        mark = "passed" if check.passed else "FAILED"
        print(f"{mark}  {check.name:{width}}  {check.file:{file_width}}  {check.detail}")
    failed = sum(not check.passed for check in checks)
    print(f"\n{folder}: {len(checks)} checks, {failed} failed")
    return 1 if failed else 0


def report_json(folder: Path, checks: list[Check]) -> int:
    """Print the checks as JSON, with infinite numbers as null; return as `report`."""
    passed = all(check.passed for check in checks)
    found = [
        {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in one.items()}
        for one in map(asdict, checks)
    ]
    print(json.dumps({"folder": str(folder), "passed": passed, "checks": found}, indent=1))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
