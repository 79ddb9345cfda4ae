"""Load an exported file of any format as a function from arrays to arrays. No checkpoint or model code is needed."""

import json
import os
import re
import threading
import typing
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from bnmodel.deploy.errors import ExportError, first_line, not_installed

FORMATS = ("torchscript", "onnx", "pt2")
METADATA = "metadata.json"  # its name inside a file
LARGE = 1_000_000  # bytes of all inputs
LOADING = threading.Lock()  # torch.export.load is not thread-safe
Run = Callable[..., list[np.ndarray]]


@dataclass(frozen=True)
class ExportedFile:
    """One loaded file: a function from arrays to arrays, and its metadata."""

    run: Run  # one array per input → one array per output
    metadata: dict[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...] | None  # None if the format does not name them
    list_operators: Callable[[], Iterable[str]]

    @cached_property
    def operators(self) -> frozenset[str]:
        """Names of the operators in its graph, as the format spells them."""
        return frozenset(self.list_operators())


@contextmanager
def on_cpu() -> Iterator[None]:
    """Without the caller's autocast and default device."""
    device = torch.device("cpu") if torch.get_default_device().type != "cpu" else nullcontext()
    with device, torch.autocast("cpu", enabled=False):
        yield


def load_file(path: Path, threads: int | None = None, lean: bool = False, optimised: bool = True) -> ExportedFile:
    """Load one exported file; its suffix gives the format.

    Args:
        threads: of ONNX Runtime; the other formats use torch's global setting.
        lean: for a server. ONNX Runtime keeps no memory after a LARGE input, and runs at most one call of this file per
            core at a time.
        optimised: whether ONNX Runtime optimises the graph, which takes half of the loading time and speeds up
            convolutions of a batch.

    Raises:
        ExportError: the file is missing, damaged, or not of the format that its suffix says.
    """
    if not path.is_file():
        raise ExportError(f"{path}: no such file; export it again")
    if path.suffix[1:] not in FORMATS:
        raise ExportError(f"{path}: expected a file ending in {', '.join(FORMATS)}")
    try:
        if path.suffix == ".onnx":
            return _load_onnx(path, threads, lean, optimised)
        with on_cpu():
            return _load_pt2(path) if path.suffix == ".pt2" else _load_torchscript(path)
    except ModuleNotFoundError as error:
        raise ExportError(f"{path}: {not_installed(error.name)}") from error
    except Exception as error:  # runtimes have no common base class of errors
        if missing := re.search(r"Could not find an implementation for (\w+)", str(error)):
            raise ExportError(
                f"{path}: ONNX Runtime cannot run it, since it has no {missing[1]} for the types of its inputs; "
                "convert the network with network.float()"
            ) from error
        raise ExportError(
            f"{path}: damaged, or not what its name says ({first_line(error)}); export it again"
        ) from error


def _load_torchscript(path: Path) -> ExportedFile:
    from bnmodel.deploy.formats import torchscript  # slow to import

    extra = {METADATA: ""}
    with torchscript():
        module = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
        names = tuple(argument.name for argument in module.forward.schema.arguments[1:])
    metadata = json.loads(extra[METADATA])

    def operators() -> Iterable[str]:
        return (node.kind() for node in module.inlined_graph.nodes())

    return ExportedFile(_run_torch(module, metadata), metadata, names, None, operators)


def _load_pt2(path: Path) -> ExportedFile:
    import torch.export  # slow to import

    from bnmodel.deploy.tracing import quiet

    extra = {METADATA: ""}
    with LOADING, quiet(), _field_types_remembered():
        program = torch.export.load(str(path), extra_files=extra)
    names = tuple(str(name) for name in program.graph_signature.user_inputs)
    metadata = json.loads(extra[METADATA])

    def operators() -> Iterable[str]:
        return (str(node.target) for node in program.graph.nodes if node.op == "call_function")

    return ExportedFile(_run_torch(program.module(), metadata), metadata, names, None, operators)


@contextmanager
def _field_types_remembered() -> Iterator[None]:
    """Let torch.export.load look up the types of a class's fields once, rather than for every object of the class.

    That is a third of the time that a graph of thousands of nodes takes to load.
    """
    from torch._export.serde import serialize

    found: dict[Any, dict[str, Any]] = {}

    def get_type_hints(owner: Any, **options: Any) -> dict[str, Any]:
        if owner not in found:
            found[owner] = typing.get_type_hints(owner, **options)
        return found[owner]

    remembering: Any = SimpleNamespace(**{**vars(typing), "get_type_hints": get_type_hints})
    serialize.typing = remembering
    try:
        yield
    finally:
        serialize.typing = typing


def _cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load_onnx(path: Path, threads: int | None, lean: bool, optimised: bool) -> ExportedFile:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised as well
    options.intra_op_num_threads = threads or 0
    shrinking = onnxruntime.RunOptions()
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if lean:
        options.enable_mem_reuse = False  # takes more memory in graphs of thousands of small nodes, and is slower
        shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    # each call that runs at the same time has memory of its own
    turns = threading.BoundedSemaphore(_cores()) if lean else nullcontext()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = tuple(one.name for one in session.get_inputs())
    metadata = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
    outputs = tuple(output.name for output in session.get_outputs())

    def run(*arrays: np.ndarray) -> list[np.ndarray]:
        large = sum(array.nbytes for array in arrays) > LARGE
        with turns:
            results = session.run(None, dict(zip(names, arrays, strict=True)), shrinking if large else None)
        return [np.asarray(result) for result in results]

    def operators() -> Iterable[str]:
        import onnx

        return (node.op_type for node in onnx.load(path).graph.node)

    return ExportedFile(run, metadata, names, outputs, operators)


def _run_torch(module: Callable[..., Any], metadata: dict[str, Any]) -> Run:
    narrow = {index for index, one in enumerate(metadata.get("inputs", [])) if one["type"] == "bfloat16"}

    def run(*arrays: np.ndarray) -> list[np.ndarray]:
        tensors = [torch.from_numpy(np.asarray(array, order="C")) for array in arrays]
        with torch.inference_mode(), on_cpu():
            outputs = module(*(tensor.bfloat16() if i in narrow else tensor for i, tensor in enumerate(tensors)))
        return [as_array(tensor) for tensor in (outputs if isinstance(outputs, (tuple, list)) else (outputs,))]

    return run


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """As a numpy array; bfloat16 becomes float32."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().cpu().numpy()


@dataclass(frozen=True)
class Predictor:
    """A certified file as a function. Safe to share between threads.

    Attributes:
        name: of the model.
        inputs, outputs: names of the input and output arrays, in order.
        metadata: stored in the file.
    """

    name: str
    format: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    metadata: dict[str, Any] = field(repr=False)
    run: Run = field(repr=False)

    def __call__(self, *arrays: np.ndarray, **named: np.ndarray) -> dict[str, np.ndarray]:
        """Arrays or tensors, by position or by the input's name → output name → array.

        Raises:
            ValueError: a wrong number of inputs, or a wrong name, type or shape.
        """
        if len(arrays) > len(self.inputs) or set(named) - set(self.inputs[len(arrays) :]):
            received = [*(["one array"] * len(arrays)), *named]
            raise ValueError(f"{self.name}: expected {', '.join(self.inputs)}, received {', '.join(received)}")
        given = {**dict(zip(self.inputs, arrays, strict=False)), **named}
        missing = [name for name in self.inputs if name not in given]
        if missing:
            raise ValueError(f"{self.name}: expected {', '.join(self.inputs)}, received none for {', '.join(missing)}")
        values = [given[name] for name in self.inputs]
        chosen = [as_array(value) if isinstance(value, torch.Tensor) else np.asarray(value) for value in values]
        sizes: dict[str, int] = {}
        for array, described in zip(chosen, self.metadata["inputs"], strict=True):
            _require_fit(array, described, sizes)
        return dict(zip(self.outputs, self.run(*chosen), strict=True))


def _require_fit(array: np.ndarray, described: dict[str, Any], sizes: dict[str, int]) -> None:
    """sizes: name of each dynamic axis of earlier inputs → its size."""
    kind, shape = described["type"].replace("bfloat16", "float32"), described["shape"]
    fits = array.ndim == len(shape) and all(
        isinstance(size, str) or size == received for size, received in zip(shape, array.shape, strict=True)
    )
    if str(array.dtype) != kind or not fits:
        expected = f"{kind} ({', '.join(map(str, shape))})"
        remedy = f"; pass array.astype(numpy.{kind})" if fits and array.dtype.kind in "fiub" else ""
        raise ValueError(f"{described['name']}: expected {expected}, received {array.dtype} {array.shape}{remedy}")
    for size, received in zip(shape, array.shape, strict=True):
        if isinstance(size, str) and sizes.setdefault(size, received) != received:
            raise ValueError(f"{described['name']}: expected {size} = {sizes[size]}, as before, received {received}")
