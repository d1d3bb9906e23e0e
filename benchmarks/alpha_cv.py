"""What the choice of alpha costs against a grid search: ``python -m benchmarks.alpha_cv``.

`MultimodalFuserCV` and `GridSearchCV` over the same alphas and folds, on drawn embeddings without a gap: documents that
all have a text and an image, one of them relevant to each query. `benchmarks.speed` has the same rows; here the number
of alphas and of runs can be chosen, and `--data` makes documents harder to tell apart.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from benchmarks._speed import HEADER, Row, compare, row_of
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


Search = tuple[SearchTask, list[dict[int, int]]]


def _map(task: SearchTask, change: Callable[[Any], Any]) -> SearchTask:
    """A task with other arrays."""
    return SearchTask(*(Items({role: change(x) for role, x in side.items()}) for side in (task.queries, task.corpus)))


def _zeros(task: SearchTask, qrels: list[dict[int, int]]) -> Search:
    """One document in a hundred is nothing."""
    nothing = np.arange(len(task.corpus))[:, None] % 100 == 99
    return SearchTask(task.queries, Items({role: np.where(nothing, 0, x) for role, x in task.corpus.items()})), qrels


def _copies(task: SearchTask, qrels: list[dict[int, int]]) -> Search:
    """Documents are there five times."""
    rows = np.arange(len(task.corpus)) % max(len(task), len(task.corpus) // 5)
    return SearchTask(task.queries, task.corpus[rows]), qrels


def _many(task: SearchTask, qrels: list[dict[int, int]]) -> Search:
    """A hundred documents are relevant to each query, drawn but for one."""
    rng, n = np.random.default_rng(0), len(task.corpus)
    return task, [judged | dict.fromkeys(rng.choice(n, min(n, 100)).tolist(), 1) for judged in qrels]


def _pictures(task: SearchTask, qrels: list[dict[int, int]]) -> Search:
    """Queries have a picture beside the text: the text of another one."""
    asked = task.queries["query"]
    return SearchTask(Items({"query": asked, "query_image": np.roll(asked, 1, axis=0)}), task.corpus), qrels


DATA: dict[str, Callable[[SearchTask, list[dict[int, int]]], Search]] = {
    "plain": lambda task, qrels: (task, qrels),
    "float16": lambda task, qrels: (_map(task, lambda x: x.astype(np.float16)), qrels),
    "bfloat16": lambda task, qrels: (_map(task, lambda x: torch.tensor(x).bfloat16()), qrels),
    "zeros": _zeros,
    "copies": _copies,
    "many": _many,
    "pictures": _pictures,
}
"""What may be made of the drawn search."""


def against_grid_search(
    *, repeats: int = 3, n_alphas: int = 101, cv: int = 5, equalize: bool = False, data: str = "plain", **sizes: int
) -> Row:
    """Both in turn, which must choose the same alpha by scores that are the same up to rounding."""
    task, qrels = DATA[data](*draw(**sizes))
    own = MultimodalFuserCV(n_alphas, cv=cv, equalize=equalize)
    grid = GridSearchCV(
        make_pipeline(MultimodalFuser(equalize=equalize), ExactRetriever(k=10)),
        {"multimodalfuser__alpha": np.linspace(0, 1, n_alphas)},
        scoring=retrieval_scorer("ndcg", k=10),
        cv=cv,
        error_score="raise",
    )
    row = compare(
        "MultimodalFuserCV / GridSearchCV" + ", one scale" * equalize + f", {data}" * (data != "plain"),
        0.1,
        lambda: own.fit(task, qrels),
        lambda: grid.fit(task, qrels),
        repeats=repeats,
    )
    agree, note = agreement(own, grid)
    return replace(row, agree=agree, note=f"{note}; medians of {repeats}")


def agreement(own: MultimodalFuserCV, grid: GridSearchCV) -> tuple[bool, str]:
    """Whether both choose the same alpha and find the same scores up to rounding, and how far these are apart."""
    theirs = grid.best_params_["multimodalfuser__alpha"]
    difference = max(
        np.abs(scores - grid.cv_results_[name]).max()
        for name, scores in own.cv_results_.items()
        if name.endswith("_test_score") and not name.startswith("rank")
    )
    chosen = f"both choose alpha {theirs:g}" if own.alpha_ == theirs else f"alpha is {own.alpha_:g} and {theirs:g}"
    return bool(own.alpha_ == theirs and difference <= 1e-6), f"{chosen}, scores differ by {difference:.2g} at most"


def main() -> None:
    """Print the measurement, without and with one scale for all kinds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, by turns (default: 3)")
    parser.add_argument("--alphas", type=int, default=101, help="alphas from 0 to 1 (default: 101)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    parser.add_argument("--data", choices=DATA, default="plain", help="what is made of the search (default: plain)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(HEADER, flush=True)
    for equalize in (False, True):
        row = against_grid_search(
            repeats=arguments.repeats, n_alphas=arguments.alphas, equalize=equalize, data=arguments.data
        )
        print(row_of(row), flush=True)


if __name__ == "__main__":
    main()
