"""Mixed-modality search with CLIP-family embeddings: close the modality gap, fuse, search, score."""

from grclip import diagnostics, metrics
from grclip.fusion import MultimodalFuser
from grclip.gap import ModalityGapRemover
from grclip.items import Items, SearchTask
from grclip.search import ExactRetriever

__version__ = "0.1.0"

__all__ = [
    "ExactRetriever",
    "Items",
    "ModalityGapRemover",
    "MultimodalFuser",
    "SearchTask",
    "__version__",
    "diagnostics",
    "metrics",
]
