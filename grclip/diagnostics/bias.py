"""What the gap does to a ranking: which kinds of documents fill the first ranks, and how well each kind is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap
from torch import Tensor

from grclip._validation import check_k, few
from grclip.diagnostics._search import (
    Judged,
    as_generator,
    averages,
    check_task,
    judged_only,
    kinds_in_order,
    scores_by_kind,
)
from grclip.diagnostics._tables import Row, Table
from grclip.items import SearchTask


@dataclass(frozen=True, eq=False, repr=False)
class ModalityBias(Table):
    """Which kinds of documents fill the top k; made by `modality_bias`.

    Attributes
    ----------
    k : int
        Ranks that count.
    kinds : tuple of str
        Kinds of documents in the corpus, those of few parts first.
    corpus_share, top_share : ndarray of shape (n_kinds,)
        Share of each kind in the corpus, and in the top k (mean over the queries), from 0 to 1.
    interval : ndarray of shape (n_kinds, 2)
        Bootstrap interval of ``top_share`` over queries; NaN, with a note, for a single query.
    per_query : ndarray of shape (n_queries, n_kinds)
        Share of each kind in the top k of each query; NaN for a query for which nothing was retrieved.
    relevant_share : ndarray of shape (n_kinds,)
        Share of each kind among the relevant documents of a query, mean over the queries; NaN without qrels.
    scores : list of dict
        Where qrels were given: NDCG, recall and reciprocal rank, over all ("all") and by kind of relevant document.
    notes : tuple of str
        What was left out, and why.

    Raises
    ------
    TypeError, ValueError
        As `modality_bias`.

    Examples
    --------
    >>> import numpy as np
    >>> from grclip import Items, SearchTask
    >>> from grclip.diagnostics import modality_bias
    >>> x, missing = np.eye(4), np.full((4, 4), np.nan)
    >>> corpus = Items({"text": np.vstack([x, missing]), "image": np.vstack([missing, x])})
    >>> task = SearchTask(Items({"query": x}), corpus)
    >>> bias = modality_bias(task, [[0, 1], [1, 2], [2, 3], [3, 4]], k=2)
    >>> bias.kinds, bias.corpus_share.tolist(), bias.top_share.tolist()
    (('text', 'image'), [0.5, 0.5], [0.875, 0.125])
    """

    k: int
    kinds: tuple[str, ...]
    corpus_share: NDArray[np.float64]
    top_share: NDArray[np.float64]
    interval: NDArray[np.float64]
    per_query: NDArray[np.float64]
    relevant_share: NDArray[np.float64]
    scores: list[dict[str, Any]]
    notes: tuple[str, ...]

    @property
    def rows(self) -> list[Row]:  # type: ignore[override]
        """One row a kind: its shares, and its scores where there are any."""
        by_kind = {row["kind"]: row for row in self.scores}
        return [
            {
                "kind": kind,
                "in corpus": float(self.corpus_share[i]),
                **({"in relevant": float(self.relevant_share[i])} if self.scores else {}),
                f"in top {self.k}": float(self.top_share[i]),
                "from": float(self.interval[i, 0]),
                "to": float(self.interval[i, 1]),
                **{name: by_kind[kind][name] for name in by_kind.get(kind, ()) if name not in ("kind", "note")},
            }
            for i, kind in enumerate(self.kinds)
        ]

    @property
    def _title(self) -> str:
        return f"Share of each kind in the top {self.k} of {len(self.per_query)} queries"


def modality_bias(
    task: SearchTask,
    ranking: ArrayLike | Tensor | Sequence[Sequence[int]],
    qrels: Judged | None = None,
    *,
    k: int = 10,
    confidence: float = 0.95,
    n_resamples: int = 999,
    random_state: Any = 0,
) -> ModalityBias:
    """Share of each kind of document in the top k against its share in the corpus, and how well each kind is found.

    Parameters
    ----------
    task : SearchTask
        Queries, and a corpus of Items, raw or encoded, whose kinds are counted.
    ranking : array-like of shape (n_queries, n_retrieved), int
        Document rows, best first, as `ExactRetriever.predict` returns them; -1 stands for no document.
    qrels : list of dict, default=None
        Grades by document row, ``{row: grade}`` for each query. With them, the result has scores by kind.
    k : int, default=10
        Ranks that count.
    confidence : float, default=0.95
        Coverage of the interval, between 0 and 1.
    n_resamples : int, default=999
        Bootstrap samples of the queries.
    random_state : int, RandomState instance or None, default=0
        Draws the bootstrap samples.

    Returns
    -------
    ModalityBias
        Shares from 0 to 1, with a percentile bootstrap interval over queries.

    Raises
    ------
    TypeError
        If task is no SearchTask of Items, or qrels is no list of dicts.
    ValueError
        If ranking has another number of lines than there are queries, fewer than k documents a line (and fewer than
        the corpus has), rows outside the corpus or a row twice, or if qrels mark nothing relevant.

    See Also
    --------
    compare : Scores of several methods, with tests of their differences.

    Notes
    -----
    In the scores of one kind, relevant documents of other kinds are taken out of the ranking first: a text that is
    rightly on top is no fault in the search for pictures. With several relevant documents a query, give a ranking
    deeper than k, so that others can take their places; `compare` does so by itself. Equal shares are what to expect
    of a search in which each kind is as often relevant as it is frequent; nothing makes them right for every query.

    Examples
    --------
    >>> import numpy as np
    >>> from grclip import Items, SearchTask
    >>> from grclip.diagnostics import modality_bias
    >>> x, missing = np.eye(4), np.full((4, 4), np.nan)
    >>> corpus = Items({"text": np.vstack([x, missing]), "image": np.vstack([missing, x])})
    >>> task = SearchTask(Items({"query": x}), corpus)
    >>> bias = modality_bias(task, [[0, 4], [1, 5], [2, 3], [3, 7]], [{4: 1}, {5: 1}, {6: 1}, {3: 1}], k=2)
    >>> [(row["kind"], row["n_queries"], round(row["recall"], 2)) for row in bias.scores]
    [('all', 4, 0.75), ('text', 1, 1.0), ('image', 3, 0.67)]
    """
    judged = check_task(task, qrels)
    check_k(k)
    kinds, found = kinds_in_order(task.corpus), task.corpus.kinds
    lines = _check_ranking(ranking, len(task), len(found), k)
    per_query = _shares(lines, found, kinds, k)
    empty = np.isnan(per_query).all(axis=1)
    if empty.all():
        raise ValueError("ranking holds no document for any query")
    left_out = few(np.flatnonzero(empty), "query", "queries")
    notes = [f"left out of the shares: {left_out} without a document"] if empty.any() else []
    known = per_query[~empty]
    interval = _interval(known, confidence, n_resamples, random_state)
    if len(known) < 2:
        notes.append("interval not measurable: a bootstrap over queries needs two of them")
    else:
        alike = [kind for kind, shares in zip(kinds, known.T, strict=True) if np.ptp(shares) == 0]
        notes += [f"{kind}: the share is the same for all queries, so the interval is a point" for kind in alike]
    scores: list[dict[str, Any]] = []
    relevant = np.full(len(kinds), np.nan)
    if judged is not None:
        relevant, unjudged = _relevant_share(judged, found, kinds)
        notes += unjudged + _too_shallow(judged, lines, found, k)
        by_kind = scores_by_kind(judged, lines, found, k)
        scores = [{"kind": kind, **averages(by_kind[kind], kind)} for kind in ("all", *kinds)]
        notes += [f"{row['kind']}: {row['note']}" for row in scores if row["note"]]
    share = np.array([(found == kind).mean() for kind in kinds])
    return ModalityBias(k, kinds, share, known.mean(axis=0), interval, per_query, relevant, scores, tuple(notes))


def _shares(
    lines: Sequence[Sequence[int]], of_documents: NDArray[np.str_], kinds: Sequence[str], k: int
) -> NDArray[np.float64]:
    """Share of each kind in the first k documents of each line, (n_lines, n_kinds); NaN for a line without any."""
    tops = [of_documents[[row for row in line[:k] if row >= 0 and of_documents[row]]] for line in lines]
    return np.array([[(top == kind).mean() if len(top) else np.nan for kind in kinds] for top in tops])


def _relevant_share(
    judged: Judged, of_documents: NDArray[np.str_], kinds: Sequence[str]
) -> tuple[NDArray[np.float64], list[str]]:
    """Share of each kind among the relevant documents of a query, mean over queries that have some."""
    queries, left_out = judged_only(judged)
    rows = [of_documents[[row for row, grade in judged[query].items() if grade > 0]] for query in queries]
    return np.array([[(found == kind).mean() for kind in kinds] for found in rows]).mean(axis=0), left_out


def _too_shallow(judged: Judged, lines: Sequence[Sequence[int]], of_documents: NDArray[np.str_], k: int) -> list[str]:
    """A note where scores by kind would need documents beyond the end of the ranking."""
    short = []
    for query, (line, grades) in enumerate(zip(lines, judged, strict=True)):
        relevant = {row for row, grade in grades.items() if grade > 0}
        if len(line) < len(of_documents) and len(set(of_documents[list(relevant)])) > 1:
            found = Counter(of_documents[[row for row in line if row in relevant]].tolist())
            taken = found.total() - min(found[kind] for kind in set(of_documents[list(relevant)]))
            short += [query] if len(line) - taken < k else []
    if not short:
        return []
    return [
        f"scores by kind may be too low for {few(short, 'query', 'queries')} with relevant documents of several kinds: "
        "their rankings end before rank k of what is left; retrieve more than k, or use compare"
    ]


def _check_ranking(ranking: Any, n_queries: int, n_documents: int, k: int) -> list[list[int]]:
    """The ranking as lists of document rows that are in the corpus and long enough."""
    if isinstance(ranking, Tensor):
        ranking = ranking.cpu().numpy()
    if not hasattr(ranking, "__iter__"):
        raise TypeError(f"ranking must hold a line of document rows for each query; got {ranking!r}")
    lines = [np.asarray(line) for line in ranking]
    if len(lines) != n_queries:
        raise ValueError(f"ranking has {len(lines)} lines, but there are {n_queries} queries; one line a query")
    for query, line in enumerate(lines):
        if line.ndim != 1 or (line.size and line.dtype.kind not in "iu"):
            raise ValueError(f"ranking[{query}] is {line!r}; expected document rows, best first")
        if len(line) < min(k, n_documents):
            raise ValueError(
                f"ranking[{query}] holds {len(line)} documents, but k is {k}: retrieve more, or fill up with -1"
            )
        if line.size and not -1 <= line.min() <= line.max() < n_documents:
            raise ValueError(
                f"ranking[{query}] holds document {line.max() if line.max() >= n_documents else line.min()}, but the "
                f"corpus has the rows 0 to {n_documents - 1} (-1 stands for no document)"
            )
        if len(np.unique(line[line >= 0])) < (line >= 0).sum():
            raise ValueError(f"ranking[{query}] holds a document twice: {line.tolist()}")
    return [line.tolist() for line in lines]


def _interval(
    shares: NDArray[np.float64], confidence: float, n_resamples: int, random_state: Any
) -> NDArray[np.float64]:
    """Percentile bootstrap interval of the mean share of each kind, (n_kinds, 2)."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1; got {confidence!r}")
    if check_k(n_resamples, name="n_resamples") < 2:
        raise ValueError("n_resamples must be at least 2: an interval has two ends")
    if len(shares) < 2:
        return np.full((shares.shape[1], 2), np.nan)
    found = bootstrap(
        (shares,),
        np.mean,
        axis=0,
        n_resamples=n_resamples,
        batch=max(1, 2**22 // shares.size),
        confidence_level=confidence,
        method="percentile",
        rng=as_generator(random_state),
    )
    return np.stack(found.confidence_interval, axis=1)
