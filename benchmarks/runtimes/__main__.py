"""Run the shipped files in other runtimes: difference from the golden vectors, latency and size, or the error.

python -m benchmarks.runtimes [--only NAME …] [--checkpoints NAME …] [--stems NAME …] [--lock]
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks import CHECKPOINTS, RESULTS, ROOT, write
from benchmarks.runtimes.environments import BUILD, RUNTIMES, Runtime, lock, prepare
from benchmarks.runtimes.table import STEMS, right

CANVAS = "280x280"  # size of the files for runtimes without dynamic shapes
SECONDS = 900  # limit for one file in one runtime, with conversion and compilation
PATH = re.compile(r"(?:/[\w.@+-]+)+/([\w.@+-]+)")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runtimes", description=__doc__.splitlines()[0])
    names = [runtime.name for runtime in RUNTIMES]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--checkpoints", nargs="+", default=["lecture", "robust"], metavar="NAME")
    parser.add_argument("--stems", nargs="+", default=list(STEMS), choices=STEMS, metavar="NAME")
    parser.add_argument("--lock", action="store_true", help="only resolve the packages again and write the lock files")
    options = parser.parse_args(arguments)
    for runtime in [one for one in RUNTIMES if one.name in options.only]:
        if options.lock:
            lock(runtime)
            continue
        found: dict[str, Any] = {}
        for checkpoint in options.checkpoints:
            for stem in options.stems:
                found.setdefault(checkpoint, {})[stem] = answer = attempt(runtime, checkpoint, stem)
                print(runtime.name, checkpoint, stem, json.dumps(answer), flush=True)
        store(runtime, found)


def store(runtime: Runtime, found: dict[str, Any]) -> None:
    """Add the results of one runtime to the earlier ones."""
    path = RESULTS / "runtimes.json"
    before = json.loads(path.read_text())["runtimes"] if path.exists() else {}
    entry = before.setdefault(runtime.name, {})
    for checkpoint, stems in found.items():
        entry.setdefault(checkpoint, {}).update(stems)
    write("runtimes", {"runtimes": {one.name: before[one.name] for one in RUNTIMES if one.name in before}})


def attempt(runtime: Runtime, checkpoint: str, stem: str) -> dict[str, Any]:
    """Measure the shipped file or, if it does not run, the one with a fixed canvas."""
    try:
        prepare(runtime)
    except (RuntimeError, OSError) as error:
        return {"reason": _without_paths(f"not installed: {error}")[:400]}
    answer = measured(runtime, CHECKPOINTS / checkpoint, stem)
    if stem == "digits" or right(answer):
        return answer
    try:
        folder = fixed(checkpoint)
    except RuntimeError as error:
        return {**answer, "fixed_reason": str(error)}
    second = measured(runtime, folder, stem)
    if right(second):
        return {**second, "canvas": CANVAS, "dynamic_reason": answer.get("reason", "other answers")}
    return {**answer, "fixed_reason": second.get("reason", "other answers")}


def fixed(checkpoint: str) -> Path:
    """The folder of the checkpoint's files for one canvas size, exported again if the shipped ones have changed.

    Raises:
        RuntimeError: the export failed.
    """
    folder, shipped = BUILD / "fixed" / checkpoint, CHECKPOINTS / checkpoint
    state = sha256((shipped / "best.pt").read_bytes() + (shipped / "sketch.onnx").read_bytes()).hexdigest()
    done = folder / "made_for"
    if not done.exists() or done.read_text() != state:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(shipped / "best.pt", folder)
        command = [sys.executable, "-m", "export", str(folder), "--canvas", CANVAS]
        exported = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if exported.returncode:
            raise RuntimeError(_without_paths(f"export --canvas {CANVAS}: {exported.stderr[-300:]}"))
        done.write_text(state)
    return folder


def measured(runtime: Runtime, folder: Path, stem: str) -> dict[str, Any]:
    """Run one worker on one core; for JavaScript, also Python's ONNX Runtime for comparison."""
    answer = _worker(runtime, folder, stem)
    if runtime.javascript and "ms" in answer:
        reference = RUNTIMES[0]
        prepare(reference)
        times = [_worker(reference, folder, stem)["ms"]]
        again = _worker(runtime, folder, stem)
        times.append(_worker(reference, folder, stem)["ms"])
        answer["ms"] = min(answer["ms"], again.get("ms", answer["ms"]))
        answer["times_onnxruntime"] = answer["ms"] / min(times)
    return answer


def _worker(runtime: Runtime, folder: Path, stem: str) -> dict[str, Any]:
    scratch = BUILD / "scratch" / f"{runtime.name}-{folder.parent.name}-{folder.name}-{stem}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    for ending in ("onnx", "pt2", "torchscript"):  # copies, since some converters overwrite their input
        if (folder / f"{stem}.{ending}").exists():
            shutil.copy(folder / f"{stem}.{ending}", scratch)
    shutil.copy(folder / "golden.json", scratch)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": str(scratch / "cache")}
    environment["PATH"] = os.pathsep.join([str(runtime.folder / "bin"), environment["PATH"]])
    try:
        done = subprocess.run(
            [*runtime.command(), str(scratch), stem],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            env=environment,
            preexec_fn=_on_one_core,
        )
    except subprocess.TimeoutExpired:
        return {"reason": f"no answer within {SECONDS} s"}
    (scratch / "log").write_text(done.stdout + done.stderr)
    try:
        answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        ended = f"killed by signal {-done.returncode}" if done.returncode < 0 else f"exit {done.returncode}"
        answer = {"reason": f"{ended}: {lines[-1] if lines else 'no message'}"[:400]}
    return {key: _without_paths(value) if isinstance(value, str) else value for key, value in answer.items()}


def _on_one_core() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def _without_paths(text: str) -> str:
    """Replace paths of this machine by file names."""
    return PATH.sub(r"\1", text)


if __name__ == "__main__":
    main()
