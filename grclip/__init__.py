"""Mixed-modality search with CLIP-family embeddings: close the modality gap, fuse, search, score."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from grclip import metrics
from grclip.fusion import MultimodalFuser, MultimodalFuserCV
from grclip.gap import ModalityGapRemover
from grclip.items import Items, SearchTask
from grclip.pipelines import encoder_fingerprint, load_pipeline, pipeline_fingerprint, save_pipeline
from grclip.search import ExactRetriever

if TYPE_CHECKING:
    from grclip import datasets, diagnostics, plots
    from grclip._report import report

__version__ = "0.1.0"

__all__ = [
    "ExactRetriever",
    "Items",
    "ModalityGapRemover",
    "MultimodalFuser",
    "MultimodalFuserCV",
    "SearchTask",
    "__version__",
    "datasets",
    "diagnostics",
    "encoder_fingerprint",
    "load_pipeline",
    "metrics",
    "pipeline_fingerprint",
    "plots",
    "report",
    "save_pipeline",
]


def __getattr__(name: str) -> Any:
    """Load at first use what a search does not need, and what imports half of SciPy."""
    if name == "report":
        return import_module("grclip._report").report
    if name in ("datasets", "diagnostics", "plots"):
        return import_module(f"grclip.{name}")
    raise AttributeError(f"module 'grclip' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
