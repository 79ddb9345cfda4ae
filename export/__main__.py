"""python -m export DIR | verify DIR | bench DIR | inspect FILE.onnx"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bnmodel import CheckpointError
from bnmodel.data import DataError, default_data_root
from bnmodel.deploy.command import inspect_file, report
from bnmodel.deploy.errors import ExportError
from bnmodel.io import replace_unprintable
from export import verification
from export.bench import bench, table, write_rows
from export.pipeline import export_checkpoint

COMMANDS = ("verify", "bench")


def main(arguments: Sequence[str] | None = None) -> int:
    replace_unprintable()
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] == "inspect":
        return inspect_file(arguments[1:], "python -m export inspect")
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Export a checkpoint and certify it.",
        epilog="An ONNX file of any origin: python -m export inspect FILE.onnx",
    )
    parser.add_argument("command", nargs="?", choices=COMMANDS, help="re-check or time the exported files")
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of best.pt and the exported files")
    default = default_data_root()
    parser.add_argument("--data-root", type=Path, default=default, help="folder with MNIST/raw, used if it exists")
    parser.add_argument("--canvas", type=_size, metavar="HxW", help="export sketch and numbers for one canvas size")
    parser.add_argument("--json", action="store_true", help="print the checks as a JSON object")
    options = parser.parse_args(arguments)
    if options.command is None and str(options.folder) in COMMANDS and not options.folder.exists():
        parser.error(f"DIR: expected a folder, received none; run python -m export {options.folder} DIR")
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
    return report(options.folder, checks, options.json)


def _size(text: str) -> tuple[int, int]:
    """280x280 → (280, 280)."""
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and 8 <= int(height) <= 4096 and 8 <= int(width) <= 4096):
        raise argparse.ArgumentTypeError(f"expected HxW with sides of 8 … 4096, such as 280x280, received {text}")
    return int(height), int(width)


if __name__ == "__main__":
    sys.exit(main())
