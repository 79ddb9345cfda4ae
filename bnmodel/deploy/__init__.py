"""Freeze a batch-norm network, write it as TorchScript, ONNX and torch.export, and certify that the files are right."""

from bnmodel.deploy.certificate import verify
from bnmodel.deploy.certification import certify
from bnmodel.deploy.folding import ExportError, freeze
from bnmodel.deploy.onnx_inspection import Inspection, inspect

__all__ = ["ExportError", "Inspection", "certify", "freeze", "inspect", "verify"]
