"""What the diagnostics of rankings share: methods, searches, kinds, and scores by kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from grclip._columns import is_missing
from grclip._validation import check_k, check_qrels, few
from grclip.items import Items, SearchTask
from grclip.metrics import ndcg_score, recall_score, reciprocal_rank_score

METRICS = {"ndcg": ndcg_score, "recall": recall_score, "reciprocal_rank": reciprocal_rank_score}
NAMES = {"ndcg": "NDCG", "recall": "Recall", "reciprocal_rank": "MRR"}
"""What the means of metrics are called."""

Judged = Sequence[Mapping[int, float]]


def check_methods(methods: Any, *, fitted: bool = True) -> dict[str, Any]:
    """Methods by name, each a (fitted) pipeline that ends in a retriever; a bare one is called 'pipeline'."""
    if isinstance(methods, list | tuple):
        raise TypeError(f"methods is a {type(methods).__name__}; give a pipeline, or a dict from names to pipelines")
    named = dict(methods) if isinstance(methods, Mapping) else {"pipeline": methods}
    if not named:
        raise ValueError("methods is empty; give a pipeline, or a dict from names to pipelines")
    for name, method in named.items():
        if not isinstance(name, str):
            raise TypeError(f"methods has the key {name!r}; names are strings")
        _check_method(f"methods[{name!r}]", method, fitted=fitted)
    return {name: _pipeline(method) for name, method in named.items()}


def _check_method(name: str, method: Any, *, fitted: bool) -> None:
    """That a method ends in a retriever, and is fitted or can be."""
    pipeline = _pipeline(method)
    if not hasattr(pipeline[-1] if isinstance(pipeline, Pipeline) else pipeline, "kneighbors"):
        raise TypeError(
            f"{name} is {type(method).__name__}, which does not end in a retriever; expected a pipeline whose last "
            "step is ExactRetriever()"
        )
    if not fitted:
        if isinstance(method, FrozenEstimator):
            raise TypeError(f"{name} is frozen, and would have to be fitted; pass the pipeline itself")
        if not isinstance(pipeline, Pipeline) or len(pipeline) < 2:
            raise TypeError(
                f"{name} is {pipeline!r}, which has no step to fit before the search; expected a pipeline, e.g. "
                "make_pipeline(MultimodalFuser(), ExactRetriever())"
            )
        return
    try:
        check_is_fitted(pipeline)
    except NotFittedError:
        raise NotFittedError(
            f"{name} is not fitted; fit it on a calibration task, or on the one it is tried on: pipeline.fit(task)"
        ) from None


def _pipeline(method: Any) -> Any:
    """The pipeline that a grid search has found, or looks for; else the method itself."""
    return getattr(method, "best_estimator_", getattr(method, "estimator", method))


def check_task(task: Any, qrels: Any = None) -> list[Mapping[int, float]] | None:
    """The qrels, where there are any, after checking that kinds of documents are known."""
    if not isinstance(task, SearchTask):
        raise TypeError(f"task must be a SearchTask; got {type(task).__name__}")
    if not isinstance(task.corpus, Items):
        raise TypeError("the corpus of task is an array, whose kinds are unknown; pass a task of Items, before fusing")
    if "all" in task.corpus:
        raise ValueError("a role of the corpus is called 'all', which stands for all kinds of documents; rename it")
    return None if qrels is None else check_qrels(qrels, len(task), len(task.corpus))


def check_judged(task: Any, qrels: Any) -> list[Mapping[int, float]]:
    """The qrels of a task, which has to have some."""
    check_task(task)
    return check_qrels(qrels, len(task), len(task.corpus))


def check_metric(metric: Any, k: Any) -> tuple[Callable[..., Any], str]:
    """A metric of the first k documents, and what it is called."""
    k = check_k(k)
    if callable(metric):
        name = getattr(metric, "__name__", type(metric).__name__)
        return partial(metric, k=k), f"{name.replace('_', ' ')}@{k}"
    if not isinstance(metric, str) or metric not in METRICS:
        raise ValueError(f"metric must be a function or one of {', '.join(map(repr, METRICS))}; got {metric!r}")
    return partial(METRICS[metric], k=k), f"{NAMES[metric]}@{k}"


def check_calibration(calibration: Any) -> tuple[SearchTask, list[Mapping[int, float]]]:
    """A task and its qrels to fit on."""
    if not isinstance(calibration, tuple) or len(calibration) != 2 or not isinstance(calibration[0], SearchTask):
        raise TypeError(f"calibration must be a pair (SearchTask, qrels); got {type(calibration).__name__}")
    task, qrels = calibration
    return task, check_qrels(qrels, len(task), len(task.corpus))


def as_generator(random_state: Any) -> np.random.Generator:
    """A generator, seeded in scikit-learn's way.

    Its numbers are not those of a RandomState of the same seed, with which the corpus may have been mixed: the first
    rows of one permutation would then be those of one kind.
    """
    return np.random.default_rng(check_random_state(random_state).randint(2**31 - 1))


def judged_only(qrels: Judged) -> tuple[NDArray[np.intp], list[str]]:
    """Queries that have a relevant document, and a note about those that have none."""
    has = np.array([any(grade > 0 for grade in judged.values()) for judged in qrels], dtype=bool)
    if not has.any():
        raise ValueError("qrels mark no document relevant (grade above 0) for any query: there is nothing to measure")
    without = np.flatnonzero(~has)
    left_out = f"left out: {few(without, 'query', 'queries')} without a relevant document"
    return np.flatnonzero(has), [left_out] if len(without) else []


def search(method: Any, task: SearchTask, k: int) -> tuple[NDArray[np.floating], NDArray[np.intp]]:
    """Similarities and rows of the k best documents of each query (fewer in a smaller corpus)."""
    k = min(k, len(task.corpus))
    if isinstance(method, Pipeline):
        fused = method[:-1].transform(task) if len(method) > 1 else task
        found = method[-1].kneighbors(fused, k=k)
    else:
        found = method.kneighbors(task, k=k)
    similarities, rows = (x.cpu().numpy() if isinstance(x, Tensor) else np.asarray(x) for x in found)
    return similarities, rows


def search_fitted_on(
    method: Pipeline, calibration: SearchTask, qrels: Any, task: SearchTask, k: int
) -> NDArray[np.intp]:
    """Rows of the k best documents by a clone of a pipeline whose steps before the search learn from other data."""
    fused = clone(method[:-1]).fit(calibration, qrels).transform(task)
    return search(clone(method[-1]).set_params(k=min(k, len(task.corpus))).fit(fused), fused, k)[1]


def presence(items: Items) -> NDArray[np.bool_]:
    """Which parts each row has, (n, n_roles)."""
    return np.stack([~is_missing(part) for part in items.values()], axis=1)


def kinds_in_order(corpus: Items) -> tuple[str, ...]:
    """The kinds that occur, those of few parts first, in the order of the roles."""
    found = sorted(np.unique(presence(corpus), axis=0), key=lambda kind: (kind.sum(), *~kind))
    return tuple("+".join(np.array(corpus.roles)[kind]) for kind in found if kind.any())


def scores_by_kind(
    qrels: Judged, lines: Sequence[Sequence[int]], kinds: NDArray[np.str_], k: int
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Each metric of each query, over all its relevant documents ('all') and over those of each kind, NaN without any.

    What is relevant and of another kind is taken out of the ranking first: a text that is rightly on top is no fault
    in the search for pictures.
    """
    relevant = [{row: grade for row, grade in judged.items() if grade > 0} for judged in qrels]
    found = {"all": _scores(relevant, lines, k)}
    for kind in sorted(set(kinds.tolist())):
        own = [{row: grade for row, grade in judged.items() if kinds[row] == kind} for judged in relevant]
        rest = [
            [row for row in line if row not in judged or row in mine]
            for line, judged, mine in zip(lines, relevant, own, strict=True)
        ]
        found[kind] = _scores(own, rest, k)
    return found


def _scores(qrels: Judged, lines: Sequence[Sequence[int]], k: int) -> dict[str, NDArray[np.float64]]:
    """Each metric of each query, NaN where no document is relevant."""
    if not any(qrels):
        return {name: np.full(len(qrels), np.nan) for name in METRICS}
    return {
        name: np.asarray(metric(qrels, lines, k=k, per_query=True, empty="skip")) for name, metric in METRICS.items()
    }


def averages(scores: Mapping[str, NDArray[np.float64]], kind: str) -> dict[str, Any]:
    """Number of queries and mean of each metric, or a note why there is none."""
    measured = ~np.isnan(scores["ndcg"])
    n = int(measured.sum())
    means = {name: float(values[measured].mean()) if n else np.nan for name, values in scores.items()}
    why = "" if n else f"not measurable: no query has a relevant document of kind {kind}"
    return {"n_queries": n, **means, "note": why}
