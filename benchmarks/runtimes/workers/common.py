"""Shared code of the workers: run the golden inputs, compare the outputs, and time calls against ONNX Runtime.

A worker runs in the environment of its runtime, which has only numpy and ONNX Runtime in addition.
`python run_NAME.py FOLDER STEM` prints one JSON object as its last line; it may write into the folder.
"""

import base64
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[np.ndarray], Sequence[np.ndarray]]
SECONDS = 2.0  # of timing per side
LINES = 4  # kept of an error


@dataclass(frozen=True)
class Job:
    """One file in one runtime."""

    folder: Path  # a copy, also for converted files
    stem: str
    inputs: list[np.ndarray]
    outputs: list[list[np.ndarray]]  # of the network, per case

    def file(self, ending: str) -> Path:
        return self.folder / f"{self.stem}.{ending}"


@dataclass(frozen=True)
class Loaded:
    """A file loaded in a runtime."""

    run: Run | None  # None if the file can only be converted on this machine
    version: str
    files: Sequence[Path]  # loaded files, for their size


def array(golden: dict[str, Any]) -> np.ndarray:
    if "base64" in golden:
        values = np.frombuffer(base64.b64decode(golden["base64"]), np.dtype(golden["type"]).newbyteorder("<"))
        values = values.astype(golden["type"])
    else:
        values = np.array(golden["data"], golden["type"])
    values = values.reshape(golden["shape"])
    return values / np.float32(golden["divide_by"]) if "divide_by" in golden else values


def job(folder: Path, stem: str) -> Job:
    cases = json.loads((folder / "golden.json").read_text())[stem]
    inputs = [array(case["input"]) for case in cases]
    return Job(folder, stem, inputs, [[array(output) for output in case["outputs"]] for case in cases])


def compared(work: Job, run: Run) -> dict[str, Any]:
    """The largest difference from the golden outputs, and the number of cases with another label."""
    largest, differing = 0.0, 0
    for given, expected in zip(work.inputs, work.outputs, strict=True):
        received = [np.array(output) for output in run(given)]
        shapes = [output.shape for output in expected]
        if [output.size for output in received] != [output.size for output in expected]:
            raise ValueError(f"outputs of shapes {[r.shape for r in received]}, not {shapes}")
        received = [output.reshape(shape) for output, shape in zip(received, shapes, strict=True)]
        for output, want in zip(received, expected, strict=True):
            difference = np.abs(output.astype(np.float64) - want.astype(np.float64)).max()
            largest = float(np.nan_to_num(np.maximum(largest, difference), nan=np.inf))
        differing += int(labels(work.stem, received) != labels(work.stem, expected))
    return {"cases": len(work.inputs), "difference": largest, "labels_differing": differing}


def labels(stem: str, outputs: Sequence[np.ndarray]) -> list[int]:
    """The most probable class of a digit, or of each digit of a number."""
    if stem != "numbers":
        return [int(outputs[0].argmax())]
    return [int(label) for label in outputs[2].argmax(axis=1)[: max(int(outputs[0]), 0)]]


def onnxruntime_run(file: Path) -> Run:
    """ONNX Runtime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda given: session.run(None, {name: given})


def names(file: Path) -> tuple[list[str], list[str]]:
    """Names of the inputs and of the outputs of an ONNX file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return [one.name for one in session.get_inputs()], [one.name for one in session.get_outputs()]


def timed(run: Run, other: Run, given: np.ndarray, seconds: float = SECONDS) -> tuple[float, float]:
    """Minimum seconds per call of each side, measured in turns."""
    best = [float("inf"), float("inf")]
    counts = [max(1, min(50, int(0.02 / _once(side, given)))) for side in (run, other)]
    end = time.perf_counter() + 2 * seconds
    rounds = 0
    while rounds < 3 or time.perf_counter() < end:
        for place, side in enumerate((run, other)):
            start = time.perf_counter()
            for _ in range(counts[place]):
                side(given)
            best[place] = min(best[place], (time.perf_counter() - start) / counts[place])
        rounds += 1
    return best[0], best[1]


def _once(run: Run, given: np.ndarray) -> float:
    run(given)
    start = time.perf_counter()
    run(given)
    return time.perf_counter() - start


def reason(error: BaseException) -> str:
    lines = [line.strip(" >") for line in str(error).partition("Stack backtrace")[0].splitlines()]
    lines = [line for line in lines if line and not line.startswith("Exception from")]
    return f"{type(error).__name__}: {' '.join(lines[:LINES]) or 'no message'}"[:400]


def measured(load: Callable[[Job], Loaded], work: Job) -> dict[str, Any]:
    onnx = work.file("onnx").read_bytes()
    loaded = load(work)
    work.file("onnx").write_bytes(onnx)  # converters may have simplified it
    found: dict[str, Any] = {"version": loaded.version, "bytes": sum(file.stat().st_size for file in loaded.files)}
    if loaded.run is None:
        return found
    found.update(compared(work, loaded.run))
    own, reference = timed(loaded.run, onnxruntime_run(work.file("onnx")), work.inputs[0])
    return {**found, "ms": 1e3 * own, "times_onnxruntime": own / reference}


def main(load: Callable[[Job], Loaded]) -> None:
    """Run a worker on the file given on the command line."""
    folder, stem = Path(sys.argv[1]), sys.argv[2]
    os.chdir(folder)  # converters leave files behind
    work = job(folder, stem)
    try:
        result = measured(load, work)
    except Exception as error:  # runtimes have no common base class of errors
        traceback.print_exc()
        result = {"reason": reason(error)}
    print("\n" + json.dumps(result), flush=True)
    os._exit(0)  # some runtimes crash while Python shuts down
