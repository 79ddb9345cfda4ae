"""Freeze a batch-norm network, write it as TorchScript, ONNX and torch.export, and prove that the files are right."""

from export.certificate import verify
from export.freeze import ExportError, freeze
from export.package import certify, export_checkpoint
from export.runtime import Answer, Recognizer, available, load

__all__ = [
    "Answer",
    "ExportError",
    "Recognizer",
    "available",
    "certify",
    "export_checkpoint",
    "freeze",
    "load",
    "verify",
]
