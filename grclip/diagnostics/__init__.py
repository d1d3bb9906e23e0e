"""Is the modality gap the problem, and did closing it help: measures of vectors, of rankings, and of methods."""

from grclip.diagnostics.alpha import alpha_curve
from grclip.diagnostics.bias import ModalityBias, modality_bias
from grclip.diagnostics.calibration import CalibrationSize, calibration_size
from grclip.diagnostics.comparison import Comparison, compare
from grclip.diagnostics.curves import Curve
from grclip.diagnostics.gap import ModalityGap, PairGap, modality_gap
from grclip.diagnostics.replacement import replacement_curve

__all__ = [
    "CalibrationSize",
    "Comparison",
    "Curve",
    "ModalityBias",
    "ModalityGap",
    "PairGap",
    "alpha_curve",
    "calibration_size",
    "compare",
    "modality_bias",
    "modality_gap",
    "replacement_curve",
]
