"""This project's export step: from a checkpoint to files that other apps load, with a certificate."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnmodel.deploy.certification import certify
    from bnmodel.deploy.errors import ExportError
    from export.pipeline import export_checkpoint
    from export.recogniser import Answer, Recognizer, available, load
    from export.verification import verify

_MODULES = {  # imported on first use, as in bnmodel.deploy
    "Answer": "export.recogniser",
    "ExportError": "bnmodel.deploy.errors",
    "Recognizer": "export.recogniser",
    "available": "export.recogniser",
    "certify": "bnmodel.deploy.certification",
    "export_checkpoint": "export.pipeline",
    "load": "export.recogniser",
    "verify": "export.verification",
}

__all__ = ["Answer", "ExportError", "Recognizer", "available", "certify", "export_checkpoint", "load", "verify"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
