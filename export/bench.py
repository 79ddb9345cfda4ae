"""Latency of the exported files and of the eager network, measured alternately."""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from bnmodel import load_checkpoint
from bnmodel.data import load_sample
from bnmodel.deploy.checks import torch_threads
from bnmodel.deploy.errors import ExportError
from bnmodel.deploy.loading import FORMATS, Run, load_file
from bnmodel.io import read_checked, write_checked
from bnmodel.nn.models import build

FILE = "bench.json"
BATCHES = (1, 64, 1024)
THREADS = (1, 2)
ROUNDS = 15
WITHOUT_NORM = "onnx, trained without batch norm"


def bench(folder: Path) -> list[dict[str, Any]]:
    """One row per number of threads, batch size and runtime: median latency in s, images per second, × eager."""
    from bnmodel.deploy.certification import certify  # slow to import

    network = load_checkpoint(folder).model
    images = load_sample(train=False).images.numpy()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        plain = build(replace(network.config, norm="none")).eval()
        certify(plain, torch.from_numpy(images[:8]), scratch, name="plain", formats="onnx")
        for threads in THREADS:
            with torch_threads(threads):
                runs = {"eager": eager(network)}
                runs |= {ending: load_file(folder / f"digits.{ending}", threads).run for ending in FORMATS}
                runs[WITHOUT_NORM] = load_file(Path(scratch) / "plain.onnx", threads).run
                for size in BATCHES:
                    batch = np.resize(images, (size, 1, 28, 28))
                    calls = {name: partial(run, batch) for name, run in runs.items()}
                    rows += _rows(threads, size, _times(calls))
    return rows


def eager(network: nn.Module) -> Run:
    """The network before export, as a function from arrays to arrays."""

    def run(array: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            return [network(torch.from_numpy(array)).numpy()]

    return run


def write_rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows to `folder`/bench.json, which the app and the README read."""
    write_checked(folder / FILE, {"torch": torch.__version__, "rows": rows})


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of `folder`/bench.json; empty if there is no such file.

    Raises:
        ExportError: the file is damaged, or was changed since it was written.
    """
    path = folder / FILE
    try:
        rows = read_checked(path)["rows"]
        return [{**row, "times_eager": float(row["times_eager"]), "batch": int(row["batch"])} for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{path}: damaged ({error!r}); measure again: python -m export bench {folder}") from error


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| threads | batch | runtime | latency | images/s | × eager |", "|---|---|---|---|---|---|"]
    for row in rows:
        latency = f"{row['latency_s'] * 1e3:.3f} ms"
        speed = f"{row['images_per_s']:,.0f} | {row['times_eager']:.1f}"
        lines.append(f"| {row['threads']} | {row['batch']} | {row['runtime']} | {latency} | {speed} |")
    return "\n".join(lines)


def _times(calls: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Median seconds per call over ROUNDS turns, in each of which every runtime runs for about 20 ms."""
    repeats = {}
    for name, call in calls.items():
        for _ in range(5):
            call()
        started = time.perf_counter()
        call()
        repeats[name] = max(1, int(0.02 / (time.perf_counter() - started)))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            started = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            seconds[name].append((time.perf_counter() - started) / repeats[name])
    return {name: median(values) for name, values in seconds.items()}


def _rows(threads: int, size: int, latencies: dict[str, float]) -> list[dict[str, Any]]:
    return [
        {
            "threads": threads,
            "batch": size,
            "runtime": name,
            "latency_s": seconds,
            "images_per_s": size / seconds,
            "times_eager": latencies["eager"] / seconds,
        }
        for name, seconds in latencies.items()
    ]
