"""Similarities of queries to documents, sorted by kinds of both and by relevance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from grclip._validation import check_qrels
from grclip.diagnostics._search import as_generator, kinds_in_order
from grclip.items import Items, SearchTask

Pair = tuple[str, str]
Values = dict[Pair, NDArray[np.floating]]


def check_fuses(pipeline: Any, task: Any) -> Any:
    """The fitted pipeline that fuses, of a task whose kinds are known."""
    pipeline = getattr(pipeline, "best_estimator_", pipeline)
    if not isinstance(pipeline, Pipeline) or len(pipeline) < 2:
        raise TypeError(
            "pipeline must be a Pipeline that fuses and ends in ExactRetriever, e.g. make_pipeline(MultimodalFuser(), "
            f"ExactRetriever()); got {type(pipeline).__name__}"
        )
    if not isinstance(task, SearchTask) or not isinstance(task.queries, Items):
        raise TypeError(f"task must be a SearchTask of Items, whose kinds are known; got {type(task).__name__}")
    check_is_fitted(pipeline)
    return pipeline


def _fused_vectors(pipeline: Any, task: SearchTask) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """One vector for each query and each document, as the last step of the pipeline gets them."""
    fused = pipeline[:-1].transform(task)
    if not isinstance(fused, SearchTask) or isinstance(fused.queries, Items):
        raise TypeError(
            "the steps of pipeline before the last must fuse parts into one vector a row: MultimodalFuser()"
        )
    return _single(fused.queries), _single(fused.corpus)


def _single(x: Any) -> NDArray[np.float32]:
    """An array, or a tensor of any dtype on any device, in single precision: enough for a histogram."""
    return np.asarray(x.detach().cpu().float() if isinstance(x, Tensor) else x, dtype=np.float32)


def sample_by_kind(kinds: NDArray[np.str_], max_rows: int, random: Any) -> NDArray[np.intp]:
    """At most so many rows of each kind, in order."""
    rows = [random.permutation(np.flatnonzero(kinds == kind))[:max_rows] for kind in sorted(set(kinds.tolist()))]
    return np.sort(np.concatenate(rows))


def sampled_pairs(
    pipeline: Any, task: SearchTask, qrels: Any, max_rows: int, random_state: Any
) -> tuple[Values, Values]:
    """Similarities of sampled queries to unrelated documents, sampled too, and to all their relevant ones."""
    random, kinds = as_generator(random_state), (task.queries.kinds, task.corpus.kinds)
    queries, documents = (sample_by_kind(side, max_rows, random) for side in kinds)
    query, document = relevant_pairs(qrels, kinds, queries)
    rows = np.union1d(documents, document)  # what is drawn alone is transformed
    asked, told = _fused_vectors(pipeline, SearchTask(task.queries[queries], task.corpus[rows]))
    mask = np.zeros((len(queries), len(documents)), dtype=bool)
    drawn = np.isin(document, documents)
    mask[np.searchsorted(queries, query[drawn]), np.searchsorted(documents, document[drawn])] = True
    similarities = asked @ told[np.searchsorted(rows, documents)].T
    order = kinds_in_order(task.corpus)
    unrelated, _ = by_pair(similarities, kinds[0][queries], kinds[1][documents], mask, order)
    pairs = asked[np.searchsorted(queries, query)], told[np.searchsorted(rows, document)]
    return unrelated, _grouped(np.einsum("ij,ij->i", *pairs), kinds[0][query], kinds[1][document])


def relevant_pairs(
    qrels: Any, kinds: tuple[NDArray[np.str_], NDArray[np.str_]], queries: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of queries and documents that are relevant to each other, of some queries."""
    judged: Sequence[Mapping[int, float]] = [] if qrels is None else check_qrels(qrels, *map(len, kinds))
    pairs = [(q, row) for q in queries.tolist() if judged for row, grade in judged[q].items() if grade > 0]
    rows = np.array(pairs, dtype=np.intp).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


def by_pair(
    similarities: NDArray[np.floating],
    query_kinds: NDArray[np.str_],
    document_kinds: NDArray[np.str_],
    relevant: NDArray[np.bool_] | None,
    order: Sequence[str] | None = None,
) -> tuple[Values, Values]:
    """Similarities of unrelated and of relevant pairs, by pair of kinds, those of documents in order."""
    unrelated, related = {}, {}
    for query in sorted(set(query_kinds.tolist())):
        for document in order or _in_order(document_kinds):
            block = np.ix_(query_kinds == query, document_kinds == document)
            values = similarities[block]
            mask = np.zeros(values.shape, bool) if relevant is None else relevant[block]
            unrelated[query, document], related[query, document] = values[~mask], values[mask]
    return _measured(unrelated), _measured(related)


def _grouped(values: NDArray[np.floating], query_kinds: NDArray[np.str_], document_kinds: NDArray[np.str_]) -> Values:
    """One similarity a pair of rows, by pair of kinds."""
    pairs = dict.fromkeys(zip(query_kinds.tolist(), document_kinds.tolist(), strict=True))
    return _measured({pair: values[(query_kinds == pair[0]) & (document_kinds == pair[1])] for pair in pairs})


def _measured(values: Values) -> Values:
    """Finite similarities alone (rows of zeros have none), of the pairs that have any."""
    finite = {pair: x[np.isfinite(x)] for pair, x in values.items()}
    return {pair: x for pair, x in finite.items() if len(x)}


def _in_order(kinds: NDArray[np.str_]) -> list[str]:
    """Kinds of few parts first; text before image, as they are usually named."""
    return sorted(set(kinds.tolist()), key=lambda kind: (kind.count("+"), "text" not in kind.split("+"), kind))
