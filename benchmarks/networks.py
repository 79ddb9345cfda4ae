"""Run `certify` on networks of torchvision, timm and our own: how many are certified, how many batch norms are folded.

python -m benchmarks.networks [NAME …] [--jobs N] [--resume]

Inputs are small, weights random, and batch norms have random statistics. timm is optional. Each network runs in a
separate process; its files are compared with it in float64 on inputs that `certify` has not seen.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import RESULTS, markdown, write
from benchmarks.network_catalogue import catalogue, disturbed

TIMEOUT = 240  # seconds per network
MEMORY = 8 << 30  # bytes per network
FILE = RESULTS / "networks.json"


def one(name: str) -> dict[str, Any]:
    """Certify one network, and compare its files with it in float64 on other inputs."""
    from bnmodel.deploy import ExportError, certificate, certify
    from bnmodel.deploy.errors import first_line

    entry = catalogue()[name]
    torch.manual_seed(0)
    row: dict[str, Any] = {"name": name, "family": entry.family, "expected": entry.expected}
    network = disturbed(entry.make())
    network = network if name in ("train mode", "train root", "scripted") else network.eval()
    torch.manual_seed(1)
    given = entry.example()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            certify(network, given, scratch)
        except ExportError as error:
            return row | {"outcome": "refused", "reason": str(error), "seconds": time.perf_counter() - started}
        except Exception as error:
            return row | {"outcome": "crashed", "reason": f"{type(error).__name__}: {first_line(error)}"}
        row["seconds"] = time.perf_counter() - started
        model = certificate.models(Path(scratch))["model"]
        shares = _shares(network, given, Path(scratch), model)
    metadata = model.metadata
    return row | {
        "outcome": "certified" if max(shares.values()) <= 3 else "wrong",
        "folded": len(metadata["batch_norms_folded"]),
        "kept": len(metadata["batch_norms_not_folded"]),
        "why_kept": metadata["batch_norms_not_folded"],
        "batched": metadata["batched"],
        "not_written": model.not_written,
        "shares": shares,
    }


def _shares(network: nn.Module, given: Any, folder: Path, model: Any) -> dict[str, float]:
    """Format → largest difference on fresh inputs, relative to the certificate's tolerance."""
    from bnmodel.deploy import load
    from bnmodel.deploy.allowance import judge
    from bnmodel.deploy.loading import as_array
    from bnmodel.deploy.preflight import exportable
    from bnmodel.deploy.reference import Reference
    from bnmodel.deploy.signature import FlatNetwork, arguments

    network = exportable(network)
    found = arguments(network, given)
    torch.manual_seed(2)
    fresh = [
        (torch.rand_like(one) if one.is_floating_point() and float(one.min()) >= 0 else torch.randn_like(one))
        if one.is_floating_point()
        else one.flip(0)
        for one in found.tensors
    ]
    exact = Reference(FlatNetwork(network, found))(fresh)
    expected = [as_array(output.to(torch.float32) if output.dtype == torch.float64 else output) for output in exact]
    shares = {}
    for format in model.formats:
        answers = load(folder, "model", format)(*[as_array(one) for one in fresh])
        judged = [
            judge(yardstick, [answer.astype(want.dtype)], [want]).share
            for yardstick, answer, want in zip(model.yardsticks, answers.values(), expected, strict=True)
        ]
        shares[format] = round(max(judged), 3)
    return shares


# ---- all of them


def run(names: Sequence[str], jobs: int, done: Callable[[dict[str, Any]], None]) -> None:
    """Certify each network in a separate process, `jobs` at a time, and call `done` with each row."""

    def start(name: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "benchmarks.networks", "--one", name]
        try:
            found = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
            row: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
            return row
        except subprocess.TimeoutExpired:
            return _stopped(name, f"more than {TIMEOUT} s")
        except (IndexError, ValueError):
            return _stopped(name, (found.stderr.splitlines() or [f"exit code {found.returncode}"])[-1])

    with ThreadPoolExecutor(jobs) as threads:
        for row in threads.map(start, names):
            print(
                f"{row['name']:36} {row['outcome']:10} {row.get('folded', ''):>4} {row.get('kept', ''):>4}", flush=True
            )
            if row["outcome"] != "certified":
                print(f"    {row.get('reason', row.get('shares'))}", flush=True)
            done(row)


def _stopped(name: str, reason: str) -> dict[str, Any]:
    entry = catalogue()[name]
    return {"name": name, "family": entry.family, "expected": entry.expected, "outcome": "stopped", "reason": reason}


def is_expected(row: dict[str, Any]) -> bool:
    """Whether a network had its expected outcome, or was stopped at the limits of time or memory."""
    either = row["expected"] == "either" and row["outcome"] in ("certified", "refused")
    return either or row["outcome"] in (row["expected"], "stopped")


def summary(result: dict[str, Any]) -> str:
    """The table of a results file, and how much of the catalogue it covers."""
    rows = result["networks"]
    return f"{table(rows)}\n\n{len(rows)} of the {result['of']} networks of the catalogue were tried."


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Families, outcomes and batch norms as Markdown."""
    titles = ["networks", "tried", "certified", "refused", "wrong or crashed", "out of time or memory"]
    titles += ["batch norms folded", "kept"]
    cells = []
    for family in dict.fromkeys(row["family"] for row in rows):
        mine = [row for row in rows if row["family"] == family]
        outcomes = Counter(row["outcome"] for row in mine)
        folded, kept = (sum(row.get(key, 0) for row in mine) for key in ("folded", "kept"))
        bad = outcomes["wrong"] + outcomes["crashed"]
        counts = [len(mine), outcomes["certified"], outcomes["refused"], bad, outcomes["stopped"], folded, kept]
        cells.append([family, *(f"{count:,}" for count in counts)])
    return markdown.table(titles, cells)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of networks; default: all")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="keep earlier results and add the missing ones")
    options = parser.parse_args()
    if options.one:
        import resource  # POSIX only; the tables of the docs need this module on Windows, too

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))  # a network that is too large ends in an error
        print(json.dumps(one(options.one)))
        return 0
    known = list(catalogue())
    if unknown := set(options.names) - set(known):
        parser.error(f"expected names of networks in network_catalogue.py, received {', '.join(sorted(unknown))}")
    rows: dict[str, dict[str, Any]] = {}
    if options.resume and FILE.exists():
        rows = {row["name"]: row for row in json.loads(FILE.read_text())["networks"] if row["name"] in known}
    names = options.names or [name for name in known if name not in rows]

    def done(row: dict[str, Any]) -> None:
        rows[row["name"]] = row
        if options.resume or not options.names:
            write("networks", {"of": len(known), "networks": [rows[name] for name in known if name in rows]})

    run(names, options.jobs, done)
    print(table(list(rows.values())))
    return int(not all(map(is_expected, rows.values())))


if __name__ == "__main__":
    sys.exit(main())
