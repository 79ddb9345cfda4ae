"""This project's export step: a checkpoint becomes files that other apps load, with a certificate."""

from bnmodel.deploy import ExportError, certify
from export.pipeline import export_checkpoint
from export.promises import verify
from export.recogniser import Answer, Recognizer, available, load

__all__ = ["Answer", "ExportError", "Recognizer", "available", "certify", "export_checkpoint", "load", "verify"]
