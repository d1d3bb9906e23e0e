"""What the modality gap does to approximate indexes: ``python -m benchmarks.ann``.

Reads the folder that GRCLIP_REAL_DATA names. Captions ask for images, and for texts, images and both, among drawn
documents (`benchmarks._large`), by three methods: raw vectors, means removed, one scale. Each is searched exactly and
in indexes of Faiss, and printed are, for each index and what its search may spend,

- recall@10: the share of the ten documents of largest inner product that the index finds too,
- NDCG@10 of the document that is asked for,
- compared: the share of the corpus that a query was compared with (for a graph, of distances computed).

A corpus of several kinds is also searched in an index for each kind, whose findings are merged by inner product.

For inverted lists it also says over how many lists the queries spread: those that hold half of the first probes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import real_clip
from benchmarks._large import Large, fitted, overlap, run
from grclip import ExactRetriever
from grclip._optional import optional_import
from grclip.metrics import ndcg_score
from grclip.scale.faiss import FaissRetriever

INDEXES: dict[str, tuple[str, tuple[int, ...]]] = {
    "IVF128,Flat": ("nprobe", (1, 2, 4, 8, 16, 32)),
    "IVF128,PQ128x4": ("nprobe", (8, 128)),
    "HNSW32": ("efSearch", (10, 16, 32, 64, 128, 256)),
}
"""Indexes, and what their searches may spend."""

BY_KIND = ("IVF43,Flat", "nprobe", (1, 2, 4, 8, 16))
"""The index of each kind, where each has one: a third of the lists of that of all."""


def measure(search: Large, method: str) -> list[dict[str, Any]]:
    """A row for exact search, and one for each index and what its search may spend."""
    task = fitted(method, search).transform(search.task)
    exact = np.asarray(ExactRetriever().fit(task).predict(task))
    place = {"corpus": search.name, "method": method}
    rows = [{**place, "index": "exact", "parameter": "", **scores(search, exact, exact), "compared": 1.0}]
    for index, (name, values) in INDEXES.items():
        start = time.perf_counter()
        retriever = FaissRetriever(index_factory=index, search_parameters={name: values[0]}).fit(task)
        seconds = time.perf_counter() - start
        spread = lists_of_half(retriever.index_, task.queries) if index.startswith("IVF") else None
        for value in values:
            _, found, compared = ask(retriever.set_params(search_parameters={name: value}), task.queries)
            figures = {**scores(search, exact, found), "compared": compared / len(task.corpus)}
            own = {"index": index, "parameter": f"{name}={value}", "fit_seconds": seconds, "lists_of_half": spread}
            rows.append({**place, **own, **figures})
    return rows


def measure_by_kind(search: Large, method: str) -> list[dict[str, Any]]:
    """A row for each number of lists, of indexes of one kind each; none for a corpus of one kind."""
    task, kinds = fitted(method, search).transform(search.task), search.task.corpus.kinds
    exact = np.asarray(ExactRetriever().fit(task).predict(task))
    places = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]
    index, name, values = BY_KIND
    retrievers = [FaissRetriever(index_factory=index).fit(task.corpus[own]) for own in places if len(places) > 1]
    rows = []
    for value in values if retrievers else ():
        parts, compared = [], 0.0
        for retriever, own in zip(retrievers, places, strict=True):
            similarities, found, n = ask(retriever.set_params(search_parameters={name: value}), task.queries)
            parts.append((similarities, np.where(found < 0, -1, own[found])))
            compared += n / len(kinds)
        similarities, found = (np.concatenate(columns, axis=1) for columns in zip(*parts, strict=True))
        best = np.take_along_axis(found, np.argsort(-similarities, axis=1, kind="stable")[:, :10], axis=1)
        about_index = {"index": f"{len(places)} x {index}", "parameter": f"{name}={value}", "compared": compared}
        rows.append({"corpus": search.name, "method": method, **about_index, **scores(search, exact, best)})
    return rows


def measure_all(search: Large, method: str) -> list[dict[str, Any]]:
    """All rows of a method: of indexes of all kinds, and of one for each."""
    return measure(search, method) + measure_by_kind(search, method)


def scores(search: Large, exact: NDArray, found: NDArray) -> dict[str, Any]:
    """Recall of the exact ten, NDCG@10 of all queries and by kind of the document asked for, and the kinds found."""
    values = np.asarray(ndcg_score(search.qrels, found, k=10, per_query=True))
    kinds = search.task.corpus.kinds
    wanted, given = kinds[[next(iter(judged)) for judged in search.qrels]], kinds[found[found >= 0]]
    by_kind = {str(kind): float(values[wanted == kind].mean()) for kind in np.unique(wanted)}
    shares = {str(kind): float((given == kind).mean()) for kind in np.unique(kinds)}
    overall = {"recall": overlap(exact, found), "ndcg": float(values.mean())}
    return {**overall, "ndcg_by_kind": by_kind, "kinds_found": shares}


def ask(retriever: FaissRetriever, queries: NDArray) -> tuple[NDArray, NDArray, float]:
    """Similarities and rows of what is found, and with how many documents a query was compared."""
    faiss = optional_import("faiss", "faiss", "benchmarks.ann")
    statistics = (faiss.cvar.indexIVF_stats, faiss.cvar.hnsw_stats)
    for each in statistics:
        each.reset()
    similarities, found = map(np.asarray, retriever.kneighbors(queries))
    return similarities, found, sum(each.ndis for each in statistics) / len(queries)


def lists_of_half(index: Any, queries: NDArray) -> int:
    """The number of lists that hold half of all queries, each in the list that it is nearest to."""
    faiss = optional_import("faiss", "faiss", "benchmarks.ann")
    _, first = faiss.extract_index_ivf(index).quantizer.search(np.ascontiguousarray(queries, np.float32), 1)
    counts = np.sort(np.unique(first, return_counts=True)[1])[::-1]
    return int(np.searchsorted(counts.cumsum(), len(queries) / 2) + 1)


def print_tables(rows: Sequence[dict[str, Any]]) -> None:
    """A table for each corpus: a line for each index and parameter, three columns for each method."""
    for corpus in dict.fromkeys(row["corpus"] for row in rows):
        own = [row for row in rows if row["corpus"] == corpus]
        methods = list(dict.fromkeys(row["method"] for row in own))
        heads = [f"{method}: recall | NDCG | compared" for method in methods]
        print(f"\n{corpus}\n\n| | {' | '.join(heads)} |\n|---|{'---:|' * 3 * len(methods)}")
        for index, parameter in dict.fromkeys((row["index"], row["parameter"]) for row in own):
            of = [row for row in own if (row["index"], row["parameter"]) == (index, parameter)]
            cells = [f"{row['recall']:.3f} | {row['ndcg']:.3f} | {row['compared']:.3f}" for row in of]
            print(f"| {index} {parameter} | {' | '.join(cells)} |")
        spread = {row["method"]: row["lists_of_half"] for row in own if row["index"] == "IVF128,Flat"}
        print(f"\nLists of IVF128,Flat that half of the queries are nearest to: {spread}")


def main(argv: Sequence[str] = ()) -> int:
    return run(argv, __doc__, real_clip.METHODS, measure_all, print_tables)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
