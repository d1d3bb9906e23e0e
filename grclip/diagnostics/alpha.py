"""How a search fares along alpha, the weight of the text."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone

from grclip.diagnostics._search import (
    Judged,
    check_calibration,
    check_judged,
    check_methods,
    check_metric,
    judged_only,
    presence,
    search_fitted_on,
)
from grclip.diagnostics.curves import Curve, check_points
from grclip.items import SearchTask


def alpha_curve(
    task: SearchTask,
    qrels: Judged,
    methods: Any,
    alphas: ArrayLike | None = None,
    *,
    calibration: tuple[SearchTask, Judged] | None = None,
    metric: Any = "ndcg",
    k: int = 10,
) -> Curve:
    """A score over alpha, the weight of the text in a document that also has a picture.

    Parameters
    ----------
    task : SearchTask
        Encoded queries and corpus to measure on.
    qrels : list of dict
        Grades by document row, ``{row: grade}`` for each query. Queries without a relevant document are left out.
    methods : pipeline, or dict of str to pipeline
        Pipelines with a fuser, that end in `ExactRetriever`. They are cloned, and fitted for every alpha: spreads
        depend on it.
    alphas : array-like of shape (n_points,), default=None
        Weights from 0 to 1; None takes 0, 0.1, ..., 1.
    calibration : tuple of SearchTask and list of dict, default=None
        Task and qrels to fit on; None takes those that are measured on.
    metric : {"ndcg", "recall", "reciprocal_rank"} or callable, default="ndcg"
        What is averaged over the queries; a function takes ``(qrels, ranking, k=..., per_query=...)`` as `ndcg_score`
        does.
    k : int, default=10
        Ranks that count.

    Returns
    -------
    Curve
        The metric of each query; the interval is over queries.

    Raises
    ------
    TypeError
        If task is no SearchTask of Items, or a method does not end in a retriever.
    ValueError
        If a method has no parameter alpha, or several, if an alpha is none, if the metric is unknown, if no query and
        no document has two parts, or if qrels mark nothing relevant.

    See Also
    --------
    grclip.MultimodalFuser : Whose alpha this is.

    Notes
    -----
    The best alpha of a curve is chosen on the queries that it is measured on. For an honest figure choose it by
    `GridSearchCV`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from grclip import ExactRetriever, Items, MultimodalFuser, SearchTask
    >>> from grclip.diagnostics import alpha_curve
    >>> rng = np.random.default_rng(0)
    >>> topics = rng.normal(size=(40, 16))
    >>> noisy = {role: topics + noise * rng.normal(size=(40, 16)) for role, noise in (("text", 1.5), ("image", 2))}
    >>> task = SearchTask(Items({"query": topics}), Items(noisy))
    >>> pipeline = make_pipeline(MultimodalFuser(), ExactRetriever())
    >>> curve = alpha_curve(task, [{i: 1} for i in range(40)], {"raw": pipeline}, [0, 0.5, 1])
    >>> curve.mean("raw").round(2).tolist()
    [0.61, 0.87, 0.78]
    """
    judged, named = check_judged(task, qrels), check_methods(methods, fitted=False)
    score, label = check_metric(metric, k)
    fitted_on, fit_qrels = (task, qrels) if calibration is None else check_calibration(calibration)
    names = {name: _alpha_of(name, method) for name, method in named.items()}
    points = np.linspace(0, 1, 11).round(1) if alphas is None else check_points("alphas", alphas)
    if max(presence(side).sum(axis=1).max() for side in (task.queries, task.corpus)) < 2:
        raise ValueError("no query and no document has two parts, so alpha, which weighs them, changes nothing")
    queries, notes = judged_only(judged)
    if calibration is None:
        notes.append("fitted for each alpha on the task that is measured; calibration=(task, qrels) takes another")
    task, judged = task[queries], [judged[query] for query in queries]
    scores = {name: np.empty((len(points), len(queries))) for name in named}
    for name, method in named.items():
        for i, alpha in enumerate(points.tolist()):
            fixed = clone(method).set_params(**{names[name]: alpha})
            scores[name][i] = score(judged, search_fitted_on(fixed, fitted_on, fit_qrels, task, k), per_query=True)
    return Curve("alpha", points, scores, label, "queries", tuple(notes))


def _alpha_of(name: str, method: Any) -> str:
    """The one parameter of a method that is called alpha."""
    found = [parameter for parameter in method.get_params() if parameter.rpartition("__")[2] == "alpha"]
    if len(found) != 1:
        raise ValueError(
            f"methods[{name!r}] has {len(found)} parameters called alpha ({', '.join(found) or 'no fuser in it'}); "
            "expected a pipeline with one MultimodalFuser"
        )
    return found[0]
