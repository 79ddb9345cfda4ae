"""Run a script on an untrusted file in a process with limits on memory, time and threads."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Limits:
    """Resources that the process may use."""

    memory: int = 4 * 2**30  # bytes, beyond what its libraries take
    seconds: int = 120  # of processor time, and of wall time
    file_size: int = 2**31  # bytes, of any file it writes

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 0 or (name == "seconds" and value == 0):
                raise ValueError(f"{name}: expected a positive number, received {value}")


class LimitError(Exception):
    """The process was stopped at one of its limits, or crashed; the message says which."""


def run_limited(script: Path, request: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """Run `script` (a file or a folder with __main__.py) and return the last JSON object that it writes to its output.

    The script reads a JSON object with `request` and `limits` from its input and calls `apply_limits` of
    `onnx_worker/limits.py` once its libraries are loaded. Its environment holds no variables but PATH and the locale.

    Raises:
        LimitError: the process ran out of time or memory, or crashed, before it wrote one.
    """
    text = json.dumps({"request": request, "limits": asdict(limits)})
    kept = ("PATH", "LANG", "SYSTEMROOT", "LD_LIBRARY_PATH")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(script)],
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=limits.seconds + 10,  # for its libraries to load
            env=environment,
        )
    except subprocess.TimeoutExpired as stopped:
        output: bytes | str = stopped.stdout or ""
        answer = _last_object(output if isinstance(output, str) else output.decode(errors="replace"))
        if answer is not None:
            return answer
        raise LimitError(f"expected an analysis within {limits.seconds} s; it was stopped") from None
    answer = _last_object(done.stdout)
    if answer is not None:
        return answer
    if done.returncode == -24:  # SIGXCPU
        raise LimitError(f"expected an analysis within {limits.seconds} s of processor time; it was stopped")
    gigabytes = limits.memory / 2**30
    raise LimitError(
        f"the analysis ended with status {done.returncode}; "
        f"the file is damaged, or needs more than {gigabytes:.1f} GB of memory"
    )


def _last_object(output: str) -> dict[str, Any] | None:
    """The JSON object on the last line that holds one."""
    for line in reversed(output.splitlines()):
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        if isinstance(answer, dict):
            return answer
    return None
