"""Freeze a batch-norm network, write it as TorchScript, ONNX and torch.export, and certify that the files are right."""

from bnmodel.deploy.certificate import verify
from bnmodel.deploy.certification import certify
from bnmodel.deploy.folding import ExportError, freeze

__all__ = ["ExportError", "certify", "freeze", "verify"]
