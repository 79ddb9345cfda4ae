"""Fold a network's batch norms, write TorchScript, ONNX and torch.export files, and certify that they are right.

Public names are imported on first use, since the app needs none of the modules that write files.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bnmodel.deploy.errors import not_installed

if TYPE_CHECKING:
    from bnmodel.deploy.certificate import load, verify
    from bnmodel.deploy.certification import certify
    from bnmodel.deploy.errors import ExportError
    from bnmodel.deploy.folding import fold
    from bnmodel.deploy.onnx_inspection import Inspection, inspect

_MODULES = {
    "ExportError": "errors",
    "Inspection": "onnx_inspection",
    "certify": "certification",
    "fold": "folding",
    "inspect": "onnx_inspection",
    "load": "certificate",
    "verify": "certificate",
}

__all__ = ["ExportError", "Inspection", "certify", "fold", "inspect", "load", "verify"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(not_installed(error.name), name=error.name) from error
