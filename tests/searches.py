"""Searches to diagnose: pipelines, and a task whose documents have both parts."""

from reference import unit
from sklearn.pipeline import make_pipeline

from grclip import ExactRetriever, Items, ModalityGapRemover, MultimodalFuser, SearchTask


def raw(**options):
    return make_pipeline(MultimodalFuser(**options), ExactRetriever())


def centred(**options):
    return make_pipeline(ModalityGapRemover(), MultimodalFuser(**options), ExactRetriever())


def make_complete(rng, n=40, d=16, noise=1.0):
    """Queries and documents with both parts, and a wide gap."""
    topics = rng.normal(size=(n, d))
    query, text, image = (unit(topics + noise * rng.normal(size=(n, d)) + 3 * rng.normal(size=d)) for _ in range(3))
    return SearchTask(Items({"query": query}), Items({"text": text, "image": image})), [{i: 1} for i in range(n)]
