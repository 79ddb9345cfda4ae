"""One writer a format. Each file is whole by itself: the weights, and the metadata as JSON, are inside.

TorchScript is deprecated since PyTorch 2.10 and is not supported from Python 3.14 on; torch.export (.pt2) comes after
it. `torchscript()` is the one place where its warnings are silenced.
"""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from bnmodel.io import atomic_write

OPSET = 20
METADATA = "metadata.json"


@dataclass(frozen=True)
class Signature:
    """What goes in and what comes out of an exported file, by name."""

    input: str
    outputs: tuple[str, ...]
    example: Tensor
    dynamic: dict[int, Any]  # axis of the input → torch.export.Dim


DIGITS = Signature("images", ("log_probs",), torch.zeros(2, 1, 28, 28), {0: torch.export.Dim("N")})
SKETCH = Signature(
    "canvas",
    ("probabilities", "digit", "ink"),
    torch.zeros(64, 48, 4, dtype=torch.uint8),
    {0: torch.export.Dim("H", min=8, max=4096), 1: torch.export.Dim("W", min=8, max=4096)},
)


@contextmanager
def torchscript() -> Iterator[None]:
    """Silence TorchScript's deprecation, which users of the exported file can do nothing about."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=Warning)
        yield


def write_torchscript(module: nn.Module, signature: Signature, metadata: dict[str, Any], path: Path) -> None:
    buffer = io.BytesIO()  # saved to a path, the archive would carry the temporary file's name
    with torchscript():
        scripted = torch.jit.freeze(torch.jit.script(module.eval()))
        torch.jit.save(scripted, buffer, _extra_files={METADATA: json.dumps(metadata)})
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def write_onnx(module: nn.Module, signature: Signature, metadata: dict[str, Any], path: Path) -> None:
    with atomic_write(path) as temporary, _quiet():
        program = torch.onnx.export(
            module.eval(),
            (signature.example,),
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            dynamic_shapes=(signature.dynamic,),
            input_names=[signature.input],
            output_names=list(signature.outputs),
            verbose=False,
        )
        assert program is not None
        model = program.model_proto
        del model.graph.metadata_props[:]
        for node in model.graph.node:  # the exporter's notes on every node: stack traces with paths of this machine
            del node.metadata_props[:]
            node.doc_string = ""
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, {METADATA: json.dumps(metadata)})
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, temporary)


def write_pt2(module: nn.Module, signature: Signature, metadata: dict[str, Any], path: Path) -> None:
    buffer = io.BytesIO()
    with _quiet():
        program = torch.export.export(module.eval(), (signature.example,), dynamic_shapes=(signature.dynamic,))
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # paths of this machine
        torch.export.save(program, buffer, extra_files={METADATA: json.dumps(metadata)})
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


WRITERS: dict[str, Callable[[nn.Module, Signature, dict[str, Any], Path], None]] = {
    "torchscript": write_torchscript,
    "onnx": write_onnx,
    "pt2": write_pt2,
}
"""By file ending."""


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters report their progress through logging and warn of their own internals."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
