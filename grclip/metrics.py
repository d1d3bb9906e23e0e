"""Ranking metrics over graded relevance, and the scorer that scikit-learn's searches take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from grclip._measures import GAINS, Measure, Qrels, average, check_choice, check_measure, padded
from grclip._validation import check_k, check_qrels
from grclip.items import SearchTask

__all__ = ["ndcg_score", "recall_score", "reciprocal_rank_score", "retrieval_scorer"]


def ndcg_score(
    qrels: Qrels,
    ranking: ArrayLike | Tensor | Sequence[Sequence[int]],
    *,
    k: int = 10,
    gain: str = "exponential",
    per_query: bool = False,
    empty: str = "raise",
) -> float | NDArray[np.float64]:
    """Normalised discounted cumulative gain of the first k documents.

    Parameters
    ----------
    qrels : list of dict
        Grades by document row, ``{row: grade}`` for each query. Documents that are not named have grade 0.
    ranking : array-like of shape (n_queries, n_retrieved), int
        Document rows, best first. Lines may differ in length; -1 stands for no document.
    k : int, default=10
        Ranks that count. Fewer retrieved documents are scored as they are.
    gain : {"exponential", "linear"}, default="exponential"
        ``2**grade - 1`` as in the paper, or the grade itself as in trec_eval.
    per_query : bool, default=False
        Return one value per query instead of their mean.
    empty : {"raise", "skip", "zero"}, default="raise"
        What a query without relevant documents is: an error, left out of the mean (NaN per query), or 0.

    Returns
    -------
    float or ndarray of shape (n_queries,)
        From 0 to 1, best is 1.

    Raises
    ------
    TypeError
        If qrels is no list of dicts.
    ValueError
        If lengths differ, a document is ranked twice, a row or grade is negative, k is below 1, or a query has no
        relevant document and ``empty="raise"``.

    See Also
    --------
    recall_score : Share of the relevant documents that are found.
    reciprocal_rank_score : How soon the first one comes.

    Notes
    -----
    The ideal ranking is made of all documents in the query's qrels, retrieved or not: with three relevant documents
    and one of them found, at rank 1, NDCG@10 is 0.469.

    References
    ----------
    .. [1] Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002.

    Examples
    --------
    >>> from grclip.metrics import ndcg_score
    >>> round(ndcg_score([{0: 1, 5: 1, 6: 1}], [[0, 1, 2]], k=10), 3)
    0.469
    """
    check_choice("gain", gain, tuple(GAINS))
    return _score(Measure("ndcg", check_k(k), {"gain": gain}), qrels, ranking, per_query=per_query, empty=empty)


def recall_score(
    qrels: Qrels,
    ranking: ArrayLike | Tensor | Sequence[Sequence[int]],
    *,
    k: int = 10,
    per_query: bool = False,
    empty: str = "raise",
) -> float | NDArray[np.float64]:
    """Share of a query's relevant documents (grade above 0) that are among the first k.

    Parameters
    ----------
    qrels : list of dict
        Grades by document row, ``{row: grade}`` for each query.
    ranking : array-like of shape (n_queries, n_retrieved), int
        Document rows, best first. Lines may differ in length; -1 stands for no document.
    k : int, default=10
        Ranks that count.
    per_query : bool, default=False
        Return one value per query instead of their mean.
    empty : {"raise", "skip", "zero"}, default="raise"
        What a query without relevant documents is: an error, left out of the mean (NaN per query), or 0.

    Returns
    -------
    float or ndarray of shape (n_queries,)
        From 0 to 1, best is 1.

    Raises
    ------
    TypeError, ValueError
        As `ndcg_score`.

    Examples
    --------
    >>> from grclip.metrics import recall_score
    >>> recall_score([{0: 1, 5: 2}], [[5, 1, 2]], k=3)
    0.5
    """
    return _score(Measure("recall", check_k(k), {}), qrels, ranking, per_query=per_query, empty=empty)


def reciprocal_rank_score(
    qrels: Qrels,
    ranking: ArrayLike | Tensor | Sequence[Sequence[int]],
    *,
    k: int = 10,
    per_query: bool = False,
    empty: str = "raise",
) -> float | NDArray[np.float64]:
    """One over the rank of the first relevant document (grade above 0), 0 where none is among the first k.

    Parameters
    ----------
    qrels : list of dict
        Grades by document row, ``{row: grade}`` for each query.
    ranking : array-like of shape (n_queries, n_retrieved), int
        Document rows, best first. Lines may differ in length; -1 stands for no document.
    k : int, default=10
        Ranks that count.
    per_query : bool, default=False
        Return one value per query instead of their mean.
    empty : {"raise", "skip", "zero"}, default="raise"
        What a query without relevant documents is: an error, left out of the mean (NaN per query), or 0.

    Returns
    -------
    float or ndarray of shape (n_queries,)
        From 0 to 1, best is 1.

    Raises
    ------
    TypeError, ValueError
        As `ndcg_score`.

    Examples
    --------
    >>> from grclip.metrics import reciprocal_rank_score
    >>> reciprocal_rank_score([{7: 1}], [[3, 7, 1]])
    0.5
    """
    return _score(Measure("reciprocal_rank", check_k(k), {}), qrels, ranking, per_query=per_query, empty=empty)


_METRICS: dict[str, Callable[..., Any]] = {
    "ndcg": ndcg_score,
    "recall": recall_score,
    "reciprocal_rank": reciprocal_rank_score,
}


class _RetrievalScorer(Measure):
    """Score a fitted retrieval pipeline on a SearchTask; made by `retrieval_scorer`."""

    def __call__(self, estimator: Any, X: SearchTask, y: Any = None) -> float:
        """The mean of the metric over the queries of X."""
        if not isinstance(X, SearchTask):
            raise TypeError(f"X must be a SearchTask, whose corpus the qrels are about; got {type(X).__name__}")
        qrels = check_qrels(y, len(X), len(X.corpus))
        ranking = estimator.predict(X)
        width = len(ranking[0])
        if width < min(self.k, len(X.corpus)):
            raise ValueError(f"{self!r} needs {self.k} documents a query, but predict returned {width}; raise k there")
        return _METRICS[self.metric](qrels, ranking, k=self.k, **self.options)


def retrieval_scorer(metric: str = "ndcg", k: int = 10, **options: Any) -> _RetrievalScorer:
    """A scorer for `GridSearchCV`, `cross_val_score` and the like.

    Parameters
    ----------
    metric : {"ndcg", "recall", "reciprocal_rank"}, default="ndcg"
        What is averaged over the queries.
    k : int, default=10
        Ranks that count. The retriever must return at least as many, or the whole corpus.
    **options
        Further arguments of the metric: ``gain`` (ndcg alone) and ``empty``.

    Returns
    -------
    callable
        ``scorer(estimator, X, y) -> float`` for a SearchTask X and qrels y; larger is better.

    Raises
    ------
    ValueError
        If the metric or an option is unknown, or k is below 1.

    See Also
    --------
    ndcg_score : The default metric.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from grclip import ExactRetriever, Items, MultimodalFuser, SearchTask
    >>> from grclip.metrics import retrieval_scorer
    >>> x = np.eye(4)
    >>> task, qrels = SearchTask(Items({"query": x}), Items({"image": x})), [{i: 1} for i in range(4)]
    >>> pipeline = make_pipeline(MultimodalFuser(), ExactRetriever(k=2)).fit(task)
    >>> retrieval_scorer("ndcg", k=2)(pipeline, task, qrels)
    1.0
    """
    return _RetrievalScorer(*check_measure(metric, k, options), options)


def _score(measure: Measure, qrels: Qrels, ranking: Any, *, per_query: bool, empty: str) -> Any:
    """Values of a metric, or their mean."""
    qrels, grades = _grades(qrels, ranking, measure.k)
    most = measure.most(qrels)
    return average(measure.scores(grades, most), most == 0, per_query=per_query, empty=empty)


def _grades(qrels: Qrels, ranking: Any, k: int) -> tuple[list[Mapping[int, float]], NDArray[np.float64]]:
    """The qrels, checked, and the grades of the first k retrieved documents, 0 where there are none."""
    if isinstance(ranking, Tensor):
        ranking = ranking.cpu().numpy()
    elif hasattr(ranking, "to_numpy"):  # a table of pandas or its like: by position, whatever the labels
        ranking = ranking.to_numpy()
    if not hasattr(ranking, "__len__") or getattr(ranking, "ndim", 1) == 0:
        raise TypeError(f"ranking must hold a line of document rows for each query; got {ranking!r}")
    if isinstance(ranking, tuple) and len(ranking) == 2 and all(getattr(part, "ndim", 1) == 2 for part in ranking):
        raise TypeError("ranking is a pair of arrays, as kneighbors returns them; give the rows, which come second")
    if getattr(ranking, "ndim", 2) == 1 and ranking.dtype != object:
        raise ValueError(f"ranking has shape {ranking.shape}; expected a line of document rows for each query")
    qrels = check_qrels(qrels, len(ranking))
    if not qrels:
        raise ValueError("qrels and ranking are empty; expected at least one query")
    found = _first_rows(ranking, k)
    ordered = np.sort(found, axis=1)
    twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1)
    low = found.min(axis=1, initial=0) < -1
    for query in np.flatnonzero(twice | low)[:1].tolist():
        line = np.asarray(list(ranking)[query])[:k].tolist()
        if low[query]:
            raise ValueError(f"ranking[{query}] holds {min(line)}; expected document rows from 0, or -1 for none")
        raise ValueError(f"ranking[{query}] holds a document twice: {line}")
    grades = [judged.get(row, 0) for judged, line in zip(qrels, found.tolist(), strict=True) for row in line]
    return qrels, np.array(grades, dtype=np.float64).reshape(found.shape)


def _first_rows(ranking: Any, k: int) -> NDArray[np.intp]:
    """The first k rows of each line, (n_queries, k or fewer, at least 1), -1 where a line is shorter."""
    if not (isinstance(ranking, np.ndarray) and ranking.ndim == 2 and ranking.dtype.kind in "iu" and ranking.size):
        lines = [np.asarray(line) for line in ranking]
        for query, (line, rows) in enumerate(zip(ranking, lines, strict=True)):
            if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
                raise ValueError(f"ranking[{query}] is {line!r}; expected document rows, best first")
        ranking = padded([rows[:k].tolist() for rows in lines], fill=-1, dtype=np.intp)
    return ranking[:, :k].astype(np.intp)
