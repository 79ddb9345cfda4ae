"""Cold start of a Space: fresh clone, empty environment, requirements, app.py.  python -m benchmarks.space

The time of the installation depends on the network.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

from benchmarks import ROOT, write
from benchmarks.running_app import free_port

STARTS = 3


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        clone, environment = Path(scratch) / "clone", Path(scratch) / "environment"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        python = environment / "bin" / "python"
        began = time.perf_counter()
        install = [str(python), "-m", "pip", "install", "-q", "-r", "requirements.txt"]
        subprocess.run(install, cwd=clone, check=True)
        installed = time.perf_counter() - began
        starts = [seconds_to_health(python, clone) for _ in range(STARTS)]
        size = sum(file.stat().st_size for file in environment.rglob("*") if file.is_file() and not file.is_symlink())
    result = {
        "install_s": round(installed),
        "environment_gb": round(size / 1e9, 1),
        "first_start_s": round(starts[0], 1),
        "later_starts_s": round(min(starts[1:]), 1),
    }
    write("space", result)
    print(result)


def seconds_to_health(python: Path, clone: Path) -> float:
    """Seconds from the command to an answer of /health."""
    port = free_port()
    environment = {**os.environ, "SPACE_ID": "somebody/something", "GRADIO_SERVER_PORT": str(port)}
    environment.pop("GRADIO_SERVER_NAME", None)
    began = time.perf_counter()
    app = subprocess.Popen([str(python), "app.py"], cwd=clone, env=environment, stdout=subprocess.DEVNULL)
    try:
        while app.poll() is None:
            try:
                urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                return time.perf_counter() - began
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"app.py ended with status {app.returncode} before it was healthy")
    finally:
        app.terminate()
        app.wait()


if __name__ == "__main__":
    main()
