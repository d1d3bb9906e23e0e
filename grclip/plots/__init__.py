"""Pictures of the modality gap, and of what closing it does: matplotlib displays in scikit-learn's convention."""

from grclip.plots.calibration import CalibrationSizeDisplay
from grclip.plots.curves import AlphaCurveDisplay, ReplacementCurveDisplay
from grclip.plots.embedding import EmbeddingDisplay
from grclip.plots.share import TopKShareDisplay
from grclip.plots.similarity import SimilarityHistogramDisplay

__all__ = [
    "AlphaCurveDisplay",
    "CalibrationSizeDisplay",
    "EmbeddingDisplay",
    "ReplacementCurveDisplay",
    "SimilarityHistogramDisplay",
    "TopKShareDisplay",
]
