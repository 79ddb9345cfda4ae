"""The check-up: what is wrong with the batch norms of a network, and what recalibrating them gives."""

from bnmodel.diagnosis.checkup import diagnose
from bnmodel.diagnosis.recalibration import recalibrate
from bnmodel.diagnosis.report import LayerRecord, Report
from bnmodel.diagnosis.watching import Watch, watch

__all__ = ["LayerRecord", "Report", "Watch", "diagnose", "recalibrate", "watch"]
