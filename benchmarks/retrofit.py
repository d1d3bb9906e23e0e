"""How many raw candidates calibrated re-ranking needs: ``python -m benchmarks.retrofit``.

Reads the folder that GRCLIP_REAL_DATA names. An index holds raw vectors of texts, images and documents of both, which
captions ask for among drawn ones (`benchmarks._large`). Each kind is searched apart, exactly, with raw or with
calibrated queries, and all candidates are ranked by `grclip.retrofit.retrofit_search`. Printed are NDCG@10, and the
share of the ten documents that an index of calibrated vectors would find, by the number of candidates a kind.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._large import Large, fitted, overlap, run, unit
from grclip import ExactRetriever, SearchTask
from grclip.metrics import ndcg_score
from grclip.retrofit import retrofit_search, retrofit_terms

CANDIDATES = (1, 3, 10, 30, 100, 300, 1000, 3000)
METHODS = ("means removed", "one scale")


def raw_searches(task: SearchTask) -> dict[str, Callable[[Any, int], Any]]:
    """A search of the raw vectors of each kind; a document of two parts is found by the sum of its products."""
    kinds = task.corpus.kinds
    return {str(kind): _search(task, np.flatnonzero(kinds == kind), str(kind)) for kind in np.unique(kinds)}


def _search(task: SearchTask, rows: NDArray[np.intp], kind: str) -> Callable[[Any, int], Any]:
    parts = {role: unit(np.asarray(task.corpus[role][rows])) for role in kind.split("+")}

    def search(vectors: Any, n: int) -> Any:
        products = {role: vectors @ part.T for role, part in parts.items()}
        total = sum(products.values())
        found = np.argpartition(-total, n - 1, axis=1)[:, :n]
        taken = {role: np.take_along_axis(x, found, axis=1) for role, x in products.items()}
        return taken if len(taken) > 1 else next(iter(taken.values())), rows[found]

    return search


def measure(search: Large, method: str) -> list[dict[str, Any]]:
    """NDCG@10 and overlap with the exact ten, by what is asked with and the number of candidates."""
    pipeline, task = fitted(method, search), search.task
    calibrated = pipeline.transform(task)
    exact = np.asarray(ExactRetriever().fit(calibrated).predict(calibrated))
    terms, indexes = retrofit_terms(pipeline, task.corpus), raw_searches(task)
    place = {"corpus": search.name, "method": method}
    rows = [{**place, "asked": "exact", "candidates": None, "ndcg": _ndcg(search, exact), "overlap": 1.0}]
    for asked in ("raw", "calibrated"):
        for n in (*CANDIDATES, len(task.corpus)):
            _, found = retrofit_search(indexes, pipeline, task.queries, terms, candidates=n, asked=asked)
            figures = {"ndcg": _ndcg(search, found), "overlap": overlap(exact, np.asarray(found))}
            rows.append({**place, "asked": asked, "candidates": n, **figures})
    return rows


def _ndcg(search: Large, found: Any) -> float:
    return float(ndcg_score(search.qrels, found, k=10))


def print_tables(rows: Sequence[dict[str, Any]]) -> None:
    """A table for each corpus and method: a line for NDCG@10 and for overlap, by what is asked with."""
    for corpus, method in dict.fromkeys((row["corpus"], row["method"]) for row in rows):
        own = [row for row in rows if (row["corpus"], row["method"]) == (corpus, method)]
        counts = list(dict.fromkeys(row["candidates"] for row in own[1:]))
        print(f"\n{corpus}, {method}: NDCG@10 of exact search {own[0]['ndcg']:.3f}\n")
        print(f"| candidates a kind | {' | '.join(map(str, counts[:-1]))} | all |\n|---|{'---:|' * len(counts)}")
        for asked in ("raw", "calibrated"):
            for name in ("ndcg", "overlap"):
                cells = [f"{row[name]:.3f}" for row in own if row["asked"] == asked]
                print(f"| {asked} queries, {name} | {' | '.join(cells)} |")


def main(argv: Sequence[str] = ()) -> int:
    return run(argv, __doc__, METHODS, measure, print_tables)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
