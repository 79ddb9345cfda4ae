"""Fold a network's batch norms, write it as TorchScript, ONNX and torch.export, and certify that the files are right."""

from bnmodel.deploy.certificate import load, verify
from bnmodel.deploy.certification import certify
from bnmodel.deploy.errors import ExportError
from bnmodel.deploy.folding import fold
from bnmodel.deploy.onnx_inspection import Inspection, inspect

__all__ = ["ExportError", "Inspection", "certify", "fold", "inspect", "load", "verify"]
