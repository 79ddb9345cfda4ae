"""The check-up: what is wrong with the batch norms of a network, and what recalibrating them gives."""

from bnmodel.diagnosis.checkup import diagnose
from bnmodel.diagnosis.report import LayerRecord, Report

__all__ = ["LayerRecord", "Report", "diagnose"]
