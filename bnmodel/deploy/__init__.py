"""Fold a network's batch norms, write TorchScript, ONNX and torch.export files, and certify that they are right."""

from bnmodel.deploy.certificate import load, verify
from bnmodel.deploy.certification import certify
from bnmodel.deploy.errors import ExportError
from bnmodel.deploy.folding import fold
from bnmodel.deploy.onnx_inspection import Inspection, inspect

__all__ = ["ExportError", "Inspection", "certify", "fold", "inspect", "load", "verify"]
