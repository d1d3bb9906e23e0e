"""Several methods on one task: metrics by kind of relevant document, and tests of their differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grclip._validation import check_k
from grclip.diagnostics._search import (
    METRICS,
    Judged,
    as_generator,
    averages,
    check_judged,
    check_methods,
    judged_only,
    kinds_in_order,
    scores_by_kind,
    search,
)
from grclip.diagnostics._tables import Row, Table
from grclip.items import SearchTask

_SIGNS = 2**22  # numbers in a block of random signs


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Table):
    """Metrics of several methods on one task; made by `compare`.

    Attributes
    ----------
    k : int
        Ranks that count.
    baseline : str
        The method that the others are tested against.
    methods : tuple of str
        Names, in the order given.
    kinds : tuple of str
        Kinds of documents in the corpus, those of few parts first.
    rows : list of dict
        One for each method and kind of relevant document ("all" first): ``method``, ``kind``, ``n_queries``, the means
        ``ndcg``, ``recall`` and ``reciprocal_rank`` (0 to 1), ``ndcg_p``, ``recall_p`` and ``reciprocal_rank_p`` (None
        for the baseline), and ``note``, which says why a row of NaN is not measurable.
    per_query : dict of str to dict of str to ndarray of shape (n_queries,)
        Each metric of each method, over all relevant documents; NaN for a query without any.
    rankings : dict of str to ndarray of shape (n_queries, k), int
        Document rows, best first; fewer columns where the corpus has fewer documents.
    similarities : dict of str to ndarray of shape (n_queries, k)
        The scores that they were ranked by.
    notes : tuple of str
        What was left out, and why.

    Raises
    ------
    TypeError, ValueError
        As `compare`.

    Examples
    --------
    >>> import numpy as np
    >>> from grclip import ExactRetriever, Items, MultimodalFuser, SearchTask
    >>> from grclip.diagnostics import compare
    >>> from sklearn.pipeline import make_pipeline
    >>> task = SearchTask(Items({"query": np.eye(3)}), Items({"image": np.eye(3)}))
    >>> pipeline = make_pipeline(MultimodalFuser(), ExactRetriever(k=2)).fit(task)
    >>> print(compare(task, [{0: 1}, {1: 1}, {0: 1}], {"raw": pipeline}, k=1))
    Metrics at 1 of 3 queries, by kind of relevant document; p-values against 'raw'
    method  kind   n_queries   ndcg  recall  reciprocal_rank  ndcg_p
    raw     all            3  0.667   0.667            0.667       -
    raw     image          3  0.667   0.667            0.667       -
    """

    k: int
    baseline: str
    methods: tuple[str, ...]
    kinds: tuple[str, ...]
    rows: list[Row]
    per_query: dict[str, dict[str, NDArray[np.float64]]]
    rankings: dict[str, NDArray[np.intp]]
    similarities: dict[str, NDArray[np.floating]]
    notes: tuple[str, ...]

    @property
    def _hidden(self) -> tuple[str, ...]:
        return "recall_p", "reciprocal_rank_p"

    @property
    def _title(self) -> str:
        n = len(next(iter(self.rankings.values())))
        return f"Metrics at {self.k} of {n} queries, by kind of relevant document; p-values against {self.baseline!r}"


def compare(
    task: SearchTask,
    qrels: Judged,
    methods: Mapping[str, Any],
    *,
    k: int = 10,
    baseline: str | None = None,
    n_resamples: int = 9999,
    random_state: Any = 0,
) -> Comparison:
    """NDCG, recall and reciprocal rank by method and kind of relevant document, with paired randomisation tests.

    Parameters
    ----------
    task : SearchTask
        What is searched: Items on both sides, as the methods take them.
    qrels : list of dict
        Grades by document row, ``{row: grade}`` for each query. Queries without a relevant document are left out, and
        a note says so.
    methods : dict of str to fitted pipeline
        Pipelines that end in `ExactRetriever`. Each searches the corpus of task, whatever it was fitted on.
    k : int, default=10
        Ranks that count.
    baseline : str, default=None
        The method that the others are tested against; None takes the first.
    n_resamples : int, default=9999
        Random assignments of signs. Where there are no more than these, all are taken, and p-values are exact.
    random_state : int, RandomState instance or None, default=0
        Draws the signs.

    Returns
    -------
    Comparison
        A table with a row for each method and kind, and what it was made from.

    Raises
    ------
    TypeError
        If task is no SearchTask of Items, or a method does not end in a retriever.
    ValueError
        If methods are empty or not fitted, baseline is none of them, or qrels mark nothing relevant.

    See Also
    --------
    modality_bias : Which kinds fill the first ranks.
    grclip.report : The comparison as a page, with pictures.

    Notes
    -----
    The test is two-sided [1]_: under the hypothesis that two methods are alike, the sign of each query's difference is
    random, and p is the share of sign assignments with a mean difference at least as large as the one seen. P-values
    are not corrected for the number of rows: with many methods and kinds, ask for smaller ones.

    In the scores of one kind, relevant documents of other kinds are taken out of the ranking first.

    References
    ----------
    .. [1] Smucker, Allan and Carterette, "A comparison of statistical significance tests for information retrieval
       evaluation", CIKM 2007.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from grclip import ExactRetriever, Items, ModalityGapRemover, MultimodalFuser, SearchTask
    >>> from grclip.diagnostics import compare
    >>> rng = np.random.default_rng(0)
    >>> topics, gap = rng.normal(size=(60, 16)), 2 * rng.normal(size=16)
    >>> text, image = topics + gap, topics - gap
    >>> text[::2], image[1::2] = np.nan, np.nan
    >>> task = SearchTask(Items({"query": topics + 0.3 * rng.normal(size=(60, 16)) + gap}),
    ...                   Items({"text": text, "image": image}))
    >>> qrels = [{i: 1} for i in range(60)]
    >>> methods = {"raw": make_pipeline(MultimodalFuser(), ExactRetriever()),
    ...            "means removed": make_pipeline(ModalityGapRemover(), MultimodalFuser(), ExactRetriever())}
    >>> result = compare(task, qrels, {name: method.fit(task) for name, method in methods.items()})
    >>> for row in result.rows:
    ...     print(row["method"], row["kind"], row["n_queries"], round(row["ndcg"], 2), row["ndcg_p"])
    raw all 60 0.5 None
    raw text 30 1.0 None
    raw image 30 0.0 None
    means removed all 60 1.0 0.0001
    means removed text 30 1.0 1.0
    means removed image 30 1.0 0.0001
    """
    judged = check_judged(task, qrels)
    named, k = check_methods(methods), check_k(k)
    baseline = next(iter(named)) if baseline is None else baseline
    if baseline not in named:
        raise ValueError(f"baseline {baseline!r} is none of the methods: {', '.join(map(repr, named))}")
    check_k(n_resamples, name="n_resamples")
    _, notes = judged_only(judged)
    found = {name: search(method, task, k) for name, method in named.items()}
    of_documents, kinds = task.corpus.kinds, kinds_in_order(task.corpus)
    scores = {
        name: scores_by_kind(judged, _deepened(named[name], task, judged, ranking, of_documents), of_documents, k)
        for name, (_, ranking) in found.items()
    }
    rng = as_generator(random_state)
    rows: list[Row] = []
    for name in named:
        for kind in ("all", *kinds):
            against = None if name == baseline else scores[baseline][kind]
            rows.append({"method": name, "kind": kind, **_row(scores[name][kind], against, kind, n_resamples, rng)})
    return Comparison(
        k=k,
        baseline=baseline,
        methods=tuple(named),
        kinds=kinds,
        rows=rows,
        per_query={metric: {name: scores[name]["all"][metric] for name in named} for metric in METRICS},
        rankings={name: ranking for name, (_, ranking) in found.items()},
        similarities={name: similarities for name, (similarities, _) in found.items()},
        notes=tuple(notes),
    )


def _deepened(
    method: Any, task: SearchTask, judged: Judged, ranking: NDArray[np.intp], kinds: NDArray[np.str_]
) -> list[list[int]]:
    """The ranking, deeper where scores by kind leave out relevant documents of other kinds."""
    lines = ranking.tolist()
    relevant = [[row for row, grade in query.items() if grade > 0] for query in judged]
    several = np.array([i for i, rows in enumerate(relevant) if len(set(kinds[rows])) > 1], dtype=np.intp)
    if len(several):
        depth = ranking.shape[1] + max(len(relevant[query]) for query in several)
        deeper = search(method, task[several], depth)[1].tolist()
        for query, line in zip(several.tolist(), deeper, strict=True):
            lines[query] = line
    return lines


def _row(
    scores: Mapping[str, NDArray[np.float64]],
    baseline: Mapping[str, NDArray[np.float64]] | None,
    kind: str,
    n_resamples: int,
    rng: np.random.Generator,
) -> Row:
    """The means of a method on a kind, and how likely such differences are by chance."""
    row = averages(scores, kind)
    note = row.pop("note")
    p_values: list[float | None] = [None] * len(METRICS)
    if baseline is not None and row["n_queries"]:
        measured = ~np.isnan(scores["ndcg"])
        differences = np.stack([(scores[metric] - baseline[metric])[measured] for metric in METRICS], axis=1)
        p_values = list(randomisation_test(differences, n_resamples, rng).tolist())
    return {**row, **{f"{metric}_p": p for metric, p in zip(METRICS, p_values, strict=True)}, "note": note}


def randomisation_test(
    differences: NDArray[np.float64], n_resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Two-sided p-values of paired differences (n, m): how often random signs make a sum as large, (m,)."""
    n, m = differences.shape
    seen = np.abs(differences.sum(axis=0)) - 1e-9 * np.abs(differences).sum(axis=0)  # equal sums, up to rounding
    if n < n_resamples.bit_length():  # 2**n assignments, all of which can be tried
        signs = 1.0 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
        return (np.abs(signs @ differences) >= seen).mean(axis=0)
    reached = np.ones(m)  # the assignment that was seen
    for start in range(0, n_resamples, max(1, _SIGNS // n)):
        size = min(max(1, _SIGNS // n), n_resamples - start)
        signs = 1.0 - 2 * rng.integers(0, 2, (size, n), dtype=np.int8)
        reached += (np.abs(signs @ differences) >= seen).sum(axis=0)
    return reached / (n_resamples + 1)
