"""Export any network: freeze, write every format, measure, and only then put in place."""

import copy
import json
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from bnmodel.deploy import certificate, golden
from bnmodel.deploy.certificate import eager, exact
from bnmodel.deploy.checks import Check
from bnmodel.deploy.folding import ExportError, Frozen, freeze, named_norms
from bnmodel.deploy.formats import OPSET, WRITERS, Signature
from bnmodel.deploy.golden import Golden

NAMES = {"weight": "gamma", "bias": "beta"}  # of a norm's parameters, in the certificate


def certify(
    module: nn.Module,
    example: Tensor,
    folder: Path | str,
    name: str = "model",
    input: str = "input",
    output: str = "output",
    about: dict[str, Any] | None = None,
) -> list[Check]:
    """Export any network with `CustomBatchNorm` or torch's batch norms, with a certificate that `verify` re-checks.

    Args:
        module: takes one batch, gives one tensor. In train mode its eval copy is exported, and a warning says so.
        example: (N, …) float32 or uint8, N ≥ 2: typical inputs, which become the golden vectors.
        name, input, output: of the files and of what goes in and out; identifiers.
        about: what else to store inside the files, plain data: class names, preprocessing, licence.

    Raises:
        ExportError: as `export_checkpoint`.
    """
    if len(example) < 2:
        raise ValueError(f"example: expected at least 2 samples, received shape {list(example.shape)}")
    if module.training:
        warnings.warn(f"{type(module).__name__} is in train mode; its eval copy is exported", stacklevel=2)
    frozen = freeze(module, example)
    signature = Signature(input, (output,), example, {0: torch.export.Dim("N")})
    reference = copy.deepcopy(module).eval()
    shape = ["N", *example.shape[1:]]
    metadata = (about or {}) | {
        "what": type(module).__name__,
        "input": {"name": input, "batched": True, "type": str(example.dtype).split(".")[1], "shape": shape},
        "outputs": [{"name": output}],
        **describe_norms(module, frozen),
        "versions": versions(),
    }
    metadata = json.loads(json.dumps(metadata))
    vectors = {
        name: golden_vectors(reference, [example[i : i + 1].numpy() for i in range(min(len(example), golden.CASES))])
    }
    with staging(Path(folder)) as scratch:
        write_files(scratch, {name: frozen.module}, {name: signature}, {name: metadata}, vectors)
        measured = require_held(certificate.measure(scratch, {name: metadata}, None, ()))
        certificate.write(scratch, {name: metadata}, measured)
    return measured


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """A folder inside `target` in which everything is made; moved into place at the end, removed on any error."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=target) as name:
            folder = Path(name)
            yield folder
            for path in sorted(folder.iterdir(), key=lambda path: path.name == certificate.FILE):  # certificate last
                path.replace(target / path.name)
    except OSError as error:
        raise ExportError(f"{target}: cannot be written ({error}); free the disk or choose another folder") from error


def write_files(
    folder: Path,
    modules: dict[str, nn.Module],
    signatures: dict[str, Signature],
    models: certificate.Models,
    vectors: dict[str, Golden],
) -> None:
    for stem, module in modules.items():
        for ending, write in WRITERS.items():
            write(module, signatures[stem], models[stem], folder / f"{stem}.{ending}")
    golden.write(folder / golden.FILE, vectors)


def require_held(measured: list[Check]) -> list[Check]:
    broken = [f"  {check.promise}: {check.file}: {check.detail}" for check in measured if not check.passed]
    if broken:
        raise ExportError("nothing was exported, since these promises do not hold:\n" + "\n".join(broken))
    return measured


def golden_vectors(module: nn.Module, inputs: list[Any]) -> Golden:
    run = exact(module) if inputs[0].dtype == np.float32 else eager(module)
    return Golden(inputs, [run(array) for array in inputs])


def describe_norms(model: nn.Module, frozen: Frozen) -> dict[str, Any]:
    """What was folded stays readable: statistics, γ and β of every norm."""
    norms = {}
    for name, norm in named_norms(model).items():
        state = {NAMES.get(key, key): value.tolist() for key, value in norm.state_dict().items()}
        norms[name] = {"eps": norm.eps, "momentum": norm.momentum, **state}
    return {"batch_norms": norms, "batch_norms_not_folded": frozen.kept}


def versions() -> dict[str, Any]:
    return {
        "torch": torch.__version__.split("+")[0],
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "onnx_opset": OPSET,
    }
