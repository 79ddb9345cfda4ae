"""One environment per runtime under build/, from a lock file; none of it is a requirement of the project."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "runtimes"
LOCKS = HERE / "locks"


@dataclass(frozen=True)
class Runtime:
    """A runtime and the packages of its environment.

    Attributes:
        name: of the environment and of the lock file.
        title: as in the table.
        worker: `workers/run_WORKER.py`, or a JavaScript file.
        packages: Python packages, to which numpy and ONNX Runtime are added; or npm packages.
    """

    name: str
    title: str
    worker: str
    packages: tuple[str, ...]

    @property
    def javascript(self) -> bool:
        return self.worker.endswith(".mjs")

    @property
    def folder(self) -> Path:
        return BUILD / "environments" / self.name

    @property
    def lock(self) -> Path:
        return LOCKS / self.name / "package-lock.json" if self.javascript else LOCKS / f"{self.name}.txt"

    def command(self) -> list[str]:
        """The command line without the worker's own arguments."""
        if self.javascript:
            return ["node", str(HERE / "workers" / self.worker), str(self.folder), self.packages[0]]
        return [str(self.folder / "bin" / "python"), str(HERE / "workers" / f"run_{self.worker}.py")]


RUNTIMES = (
    Runtime("onnxruntime", "ONNX Runtime", "onnxruntime", ()),
    Runtime("node", "ONNX Runtime, Node", "run_javascript.mjs", ("onnxruntime-node",)),
    Runtime("web", "ONNX Runtime Web (wasm)", "run_javascript.mjs", ("onnxruntime-web",)),
    Runtime("opencv5", "OpenCV 5", "opencv", ("opencv-python-headless>=5",)),
    Runtime("opencv4", "OpenCV 4", "opencv", ("opencv-python-headless<5",)),
    Runtime("openvino", "OpenVINO", "openvino", ("openvino",)),
    Runtime("ncnn", "ncnn (pnnx)", "ncnn", ("ncnn", "pnnx")),
    Runtime("tflite", "LiteRT (TensorFlow Lite)", "tflite", ("ai-edge-litert", "litert-torch")),
    Runtime("mnn", "MNN", "mnn", ("MNN",)),
    Runtime("onnx2torch", "onnx2torch", "onnx2torch", ("onnx2torch", "torch", "torchvision")),
    Runtime("aotinductor", "AOTInductor", "aotinductor", ("torch", "setuptools")),
    Runtime("executorch", "ExecuTorch (XNNPACK)", "executorch", ("executorch", "torch")),
    Runtime("tract", "tract", "tract", ("tract",)),
    Runtime("coreml", "Core ML (conversion only)", "coreml", ("coremltools", "torch")),
    Runtime("tvm", "TVM", "tvm", ("apache-tvm", "onnx")),
)


def prepare(runtime: Runtime) -> None:
    """Create the environment of a runtime, unless it exists and was created from the same lock file."""
    done = runtime.folder / "lock"
    if done.exists() and done.read_bytes() == runtime.lock.read_bytes():
        return
    shutil.rmtree(runtime.folder, ignore_errors=True)
    if runtime.javascript:
        shutil.copytree(runtime.lock.parent, runtime.folder)
        _run("npm", "ci", "--ignore-scripts", "--prefix", str(runtime.folder))
    else:
        _install(runtime.folder, "--no-deps", "-r", str(runtime.lock))
    shutil.copy(runtime.lock, done)


def lock(runtime: Runtime) -> None:
    """Resolve a runtime's packages again and write its lock file."""
    shutil.rmtree(runtime.folder, ignore_errors=True)
    if runtime.javascript:
        runtime.folder.mkdir(parents=True)
        _run("npm", "install", "--ignore-scripts", "--prefix", str(runtime.folder), *runtime.packages)
        runtime.lock.parent.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(runtime.folder / name, runtime.lock.parent / name)
    else:
        _install(runtime.folder, *runtime.packages, "onnxruntime", "numpy")
        frozen = _run(*_pip(runtime.folder, "freeze"))
        runtime.lock.write_text(frozen)
    shutil.copy(runtime.lock, runtime.folder / "lock")


def _install(folder: Path, *packages: str) -> None:
    _run(sys.executable, "-m", "venv", str(folder))
    _run(*_pip(folder, "install", "--quiet"), *packages)


def _pip(folder: Path, command: str, *options: str) -> list[str]:
    """A command of uv, which shares files between environments (several hold torch), or of pip."""
    python = str(folder / "bin" / "python")
    uv = shutil.which("uv")
    return [uv, "pip", command, "--python", python, *options] if uv else [python, "-m", "pip", command, *options]


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout
