"""What the choice of alpha costs against a grid search: ``python -m benchmarks.alpha_cv``.

`MultimodalFuserCV` and `GridSearchCV` over the same alphas and folds, on drawn embeddings without a gap: documents that
all have a text and an image, one of them relevant to each query. Both run by turns; the ratio is that of medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from grclip import ExactRetriever, Items, ModalityGapRemover, MultimodalFuser, MultimodalFuserCV, SearchTask
from grclip.metrics import retrieval_scorer


def draw(
    n_queries: int = 1000, n_documents: int = 5000, d: int = 512, seed: int = 0
) -> tuple[SearchTask, list[dict[int, int]]]:
    """Queries and documents about a topic each in float32, the gap removed; texts and images are equally noisy."""
    rng = np.random.default_rng(seed)
    topics = rng.normal(size=(n_documents, d))
    text, image = (topics + 3 * rng.normal(size=topics.shape) + 2 * rng.normal(size=d) for _ in range(2))
    query = topics[:n_queries] + 3 * rng.normal(size=(n_queries, d))
    sides = [{"query": query}, {"text": text, "image": image}]
    task = SearchTask(*(Items({role: x.astype(np.float32) for role, x in side.items()}) for side in sides))
    return ModalityGapRemover().fit_transform(task), [{row: 1} for row in range(n_queries)]


def seconds(search: Any, task: SearchTask, qrels: list[dict[int, int]]) -> float:
    """How long a fit takes."""
    start = time.perf_counter()
    search.fit(task, qrels)
    return time.perf_counter() - start


def against_grid_search(
    repeats: int = 5, n_alphas: int = 101, cv: int = 5, *, equalize: bool = False, **sizes: int
) -> dict[str, float]:
    """Median times of both in seconds, their ratio, the alphas that they choose, and how far scores are apart."""
    task, qrels = draw(**sizes)
    own = MultimodalFuserCV(n_alphas, cv=cv, equalize=equalize)
    grid = GridSearchCV(
        make_pipeline(MultimodalFuser(equalize=equalize), ExactRetriever(k=10)),
        {"multimodalfuser__alpha": np.linspace(0, 1, n_alphas)},
        scoring=retrieval_scorer("ndcg", k=10),
        cv=cv,
        error_score="raise",
    )
    times = [(seconds(own, task, qrels), seconds(grid, task, qrels)) for _ in range(repeats)]
    fast, slow = (statistics.median(column) for column in zip(*times, strict=True))
    difference = max(
        np.abs(own.cv_results_[name] - grid.cv_results_[name]).max()
        for name in own.cv_results_
        if name.endswith("_test_score") and not name.startswith("rank")
    )
    return {
        "seconds": fast,
        "grid_search_seconds": slow,
        "ratio": fast / slow,
        "alpha": own.alpha_,
        "grid_search_alpha": float(grid.best_params_["multimodalfuser__alpha"]),
        "score": own.best_score_,
        "largest_difference": float(difference),
    }


def main() -> None:
    """Print the measurement, without and with one scale for all kinds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each, by turns (default: 5)")
    parser.add_argument("--alphas", type=int, default=101, help="alphas from 0 to 1 (default: 101)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for equalize in (False, True):
        print(f"equalize={equalize}, {arguments.threads} threads")
        print(json.dumps(against_grid_search(arguments.repeats, arguments.alphas, equalize=equalize), indent=2))


if __name__ == "__main__":
    main()
