"""Diagnose the batch norms of a network, recalibrate them, and watch them in training."""

from bnmodel.diagnosis.checkup import diagnose
from bnmodel.diagnosis.recalibration import recalibrate
from bnmodel.diagnosis.report import LayerRecord, Report
from bnmodel.diagnosis.watching import Watch, watch

__all__ = ["LayerRecord", "Report", "Watch", "diagnose", "recalibrate", "watch"]
