"""How many calibration rows are enough."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grclip._columns import take_rows
from grclip._kernels import Array, dtype_of, norm_limits, row_norms, sum_rows
from grclip._validation import check_k
from grclip.diagnostics._search import (
    Judged,
    as_generator,
    check_calibration,
    check_judged,
    check_methods,
    judged_only,
    search_fitted_on,
)
from grclip.diagnostics.curves import Curve
from grclip.items import SearchTask, parts_of
from grclip.metrics import ndcg_score

SIZES = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)


@dataclass(frozen=True, eq=False, repr=False)
class CalibrationSize:
    """What a calibration set of n rows is worth; made by `calibration_size`.

    Attributes
    ----------
    scores : Curve
        NDCG@k by method, for subsets of n queries and n documents.
    errors : Curve
        By role: the distance of the mean of n rows from the mean of all rows; NaN, with a note, from these on.
    expected : dict of str to ndarray of shape (n_points,)
        By role: what n independent rows give, ``sqrt((1 - |mean|**2) / n)``. The measured error falls below it as n
        nears the number of rows that the subsets are drawn from.

    Raises
    ------
    TypeError, ValueError
        As `calibration_size`.

    Examples
    --------
    >>> from grclip.diagnostics import CalibrationSize
    >>> [name for name in CalibrationSize.__dataclass_fields__]
    ['scores', 'errors', 'expected']
    """

    scores: Curve
    errors: Curve
    expected: Mapping[str, NDArray[np.float64]]

    def __repr__(self) -> str:
        return f"<CalibrationSize: {self.scores!r}, {self.errors!r}>"

    def __str__(self) -> str:
        return f"{self.scores}\n\n{self.errors}"

    def _repr_html_(self) -> str:
        return self.scores._repr_html_() + self.errors._repr_html_()


def calibration_size(
    task: SearchTask,
    qrels: Judged,
    methods: Any,
    calibration: tuple[SearchTask, Judged],
    sizes: ArrayLike | None = None,
    *,
    k: int = 10,
    n_repeats: int = 5,
    random_state: Any = 0,
) -> CalibrationSize:
    """NDCG@k and the error of the means against the number of calibration rows.

    Parameters
    ----------
    task : SearchTask
        Encoded queries and corpus to measure on.
    qrels : list of dict
        Grades by document row, ``{row: grade}`` for each query. Queries without a relevant document are left out.
    methods : pipeline, or dict of str to pipeline
        Pipelines that end in `ExactRetriever`. They are cloned, and fitted on each subset.
    calibration : tuple of SearchTask and list of dict
        Task and qrels that subsets are drawn from: n of its queries and n of its documents.
    sizes : array-like of shape (n_points,), default=None
        Numbers n of rows; None takes 5, 10, 20, 50, 100, ... and all there are.
    k : int, default=10
        Ranks that count.
    n_repeats : int, default=5
        Random subsets of each size.
    random_state : int, RandomState instance or None, default=0
        Draws the subsets.

    Returns
    -------
    CalibrationSize
        Two curves: scores by method, and errors of the means by role.

    Raises
    ------
    TypeError
        If task is no SearchTask of Items, calibration no pair of a task and its qrels, or a method does not end in a
        retriever.
    ValueError
        If a size is below 1 or above the number of queries or documents to draw from, or if qrels mark nothing
        relevant.

    See Also
    --------
    grclip.ModalityGapRemover : Whose means these are.

    Notes
    -----
    A subset on which a method cannot be fitted (a part that no document of it has, spreads without pairs) counts as
    not measurable, and a note says why; if that is so of all subsets, it is an error. Warnings about few rows are not
    repeated here: they are what is measured.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from grclip import ExactRetriever, Items, ModalityGapRemover, MultimodalFuser, SearchTask
    >>> from grclip.diagnostics import calibration_size
    >>> rng = np.random.default_rng(0)
    >>> topics, gap = rng.normal(size=(100, 16)), 2 * rng.normal(size=16)
    >>> task = SearchTask(Items({"query": topics + gap}), Items({"text": topics + gap, "image": topics - gap}))
    >>> qrels, pipeline = [{i: 1} for i in range(100)], make_pipeline(ModalityGapRemover(), MultimodalFuser(),
    ...                                                               ExactRetriever())
    >>> found = calibration_size(task, qrels, {"means removed": pipeline}, (task, qrels), [5, 20, 100])
    >>> found.errors.mean("image").round(2).tolist()
    [0.17, 0.08, nan]
    """
    judged, named = check_judged(task, qrels), check_methods(methods, fitted=False)
    check_k(k)
    check_k(n_repeats, name="n_repeats")
    drawn_from, drawn_qrels = check_calibration(calibration)
    largest = min(len(drawn_from), len(drawn_from.corpus))
    points = _check_sizes(sizes, largest)
    queries, notes = judged_only(judged)
    task, judged = task[queries], [judged[query] for query in queries]
    rng = as_generator(random_state)
    scores = {name: np.full((len(points), n_repeats), np.nan) for name in named}
    failed: dict[str, None] = {}
    errors_of: dict[str, ValueError] = {}
    for i, n in enumerate(points.tolist()):
        for repeat in range(n_repeats if n < largest else 1):  # all there are is one subset
            subset = _subset(drawn_from, drawn_qrels, n, rng)
            for name, method in named.items():
                try:
                    ranking = _ranking(method, *subset, task, k)
                except ValueError as error:
                    failed[f"{name}, n={n}, not measurable in a subset: {error}"] = None
                    errors_of[name] = error
                else:
                    scores[name][i, repeat] = ndcg_score(judged, ranking, k=k)
    for name, reason in errors_of.items():
        if np.isnan(scores[name]).all():  # the fault of the method or the data, not of small numbers
            raise reason
    errors, expected = _errors(parts_of(drawn_from), points, n_repeats, rng)
    return CalibrationSize(
        Curve("n", points, scores, f"NDCG@{k}", "random subsets", (*notes, *failed)), errors, expected
    )


def _check_sizes(sizes: ArrayLike | None, largest: int) -> NDArray[np.intp]:
    """Sizes in ascending order, none larger than what there is to draw from."""
    if sizes is None:
        return np.array([*(n for n in SIZES if n < largest), largest])
    points = [check_k(n, name="a size") for n in np.atleast_1d(np.asarray(sizes)).tolist()]
    if max(points, default=0) > largest or not points:
        raise ValueError(f"sizes are {points}; expected numbers from 1 to {largest}, as many as there are to draw from")
    return np.unique(points)


def _subset(task: SearchTask, qrels: Judged, n: int, rng: np.random.Generator) -> tuple[SearchTask, list]:
    """Some n queries and n documents, and the qrels that are about these."""
    queries, rows = (np.sort(rng.permutation(size)[:n]) for size in (len(task), len(task.corpus)))
    place = {row: i for i, row in enumerate(rows.tolist())}
    kept = [{place[row]: grade for row, grade in qrels[query].items() if row in place} for query in queries]
    return SearchTask(take_rows(task.queries, queries), take_rows(task.corpus, rows)), kept


def _ranking(method: Any, subset: SearchTask, qrels: Judged, task: SearchTask, k: int) -> NDArray[np.intp]:
    """What a method finds that was fitted on a subset, which is small on purpose."""
    with warnings.catch_warnings():
        for few_rows in ("too few documents to measure the spread", "rows of zeros"):  # a row that is its own mean
            warnings.filterwarnings("ignore", message=few_rows, category=UserWarning)
        return search_fitted_on(method, subset, qrels, task, k)


def _errors(
    parts: Mapping[str, Array], points: NDArray[np.intp], n_repeats: int, rng: np.random.Generator
) -> tuple[Curve, dict[str, NDArray[np.float64]]]:
    """By role, how far the mean of n rows is from that of all, and how far n independent rows would be."""
    errors, expected, notes = {}, {}, []
    for role, part in parts.items():
        usable = np.flatnonzero((row_norms(part) >= norm_limits(dtype_of(part))[0]).cpu().numpy())
        mean = sum_rows(part, normalize=True)[0] / max(1, len(usable))
        errors[role] = np.full((len(points), n_repeats), np.nan)
        expected[role] = (
            np.sqrt(max(0.0, 1 - float(mean @ mean)) / points) if len(usable) else np.full(len(points), np.nan)
        )
        for i, n in enumerate(points.tolist()):
            if n >= len(usable):
                few = f"the role has {len(usable)} rows" if n > len(usable) else "these are all rows"
                notes.append(f"{role}, n={n}, not measurable: {few}")
                continue
            for repeat in range(n_repeats):
                rows = np.sort(usable[rng.permutation(len(usable))[:n]])
                errors[role][i, repeat] = np.linalg.norm(sum_rows(take_rows(part, rows), normalize=True)[0] / n - mean)
    name = "distance to the mean of all rows"
    return Curve("n", points, errors, name, "random subsets", tuple(notes)), expected
