"""A score along a parameter: the share of pictures in the corpus (the U-curve), and alpha."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student
from sklearn.base import clone
from sklearn.utils import check_random_state

from grclip._validation import check_flag, check_k, check_qrels
from grclip.datasets.mixing import has_both, replace_parts
from grclip.diagnostics._search import (
    Judged,
    check_judged,
    check_methods,
    judged_only,
    presence,
    search,
    search_fitted_on,
)
from grclip.diagnostics._tables import Row, Table
from grclip.items import Items, SearchTask, modalities_of
from grclip.metrics import ndcg_score

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


@dataclass(frozen=True, eq=False, repr=False)
class Curve(Table):
    """A score along a parameter, repeated; made by `replacement_curve`, `alpha_curve` and `calibration_size`.

    Attributes
    ----------
    parameter : str
        What varies: ``"p"``, ``"alpha"`` or ``"n"``.
    values : ndarray of shape (n_points,)
        Its values.
    scores : dict of str to ndarray of shape (n_points, n_repeats)
        What was measured, by name of the method (or role).
    metric : str
        What was measured, e.g. ``"NDCG@10"``.
    repeats : str
        What differs between the repeats: ``"random corpora"``, ``"queries"`` or ``"random subsets"``.
    notes : tuple of str
        What was left out, and why.

    Raises
    ------
    KeyError
        For a name that the curve does not have.

    Examples
    --------
    >>> import numpy as np
    >>> from grclip.diagnostics import Curve
    >>> curve = Curve("alpha", np.array([0.0, 1.0]), {"raw": np.array([[0.2, 0.4], [0.5, 0.7]])}, "NDCG@10", "queries")
    >>> curve.mean("raw").round(2).tolist()
    [0.3, 0.6]
    >>> print(curve)
    NDCG@10 along alpha: mean of 2 queries
    method    0.0    1.0
    raw     0.300  0.600
    """

    parameter: str
    values: NDArray[Any]
    scores: Mapping[str, NDArray[np.float64]]
    metric: str
    repeats: str
    notes: tuple[str, ...] = ()

    def mean(self, name: str) -> NDArray[np.float64]:
        """Mean over the repeats.

        Parameters
        ----------
        name : str
            A method of the curve.

        Returns
        -------
        ndarray of shape (n_points,)
            NaN where nothing could be measured, of which a note says why.

        Raises
        ------
        KeyError
            For a name that the curve does not have.
        """
        counts = (~np.isnan(self.scores[name])).sum(axis=1)
        sums = np.nansum(self.scores[name], axis=1)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    def interval(self, name: str, confidence: float = 0.95) -> NDArray[np.float64]:
        """Interval of the mean over the repeats, by Student's t.

        Parameters
        ----------
        name : str
            A method of the curve.
        confidence : float, default=0.95
            Coverage, between 0 and 1.

        Returns
        -------
        ndarray of shape (n_points, 2)
            Lower and upper end; NaN where there are fewer than two repeats. It tells how far the mean over repeats of
            this sort may be off, not how other queries would fare (unless these are what is repeated).

        Raises
        ------
        KeyError
            For a name that the curve does not have.
        ValueError
            If confidence does not lie between 0 and 1.
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must lie between 0 and 1; got {confidence!r}")
        scores, mean = self.scores[name], self.mean(name)
        counts = (~np.isnan(scores)).sum(axis=1)
        squares = np.nansum((scores - mean[:, None]) ** 2, axis=1)
        error = np.sqrt(squares / np.maximum(counts - 1, 1) / np.maximum(counts, 1))
        half = np.where(counts > 1, error * student.ppf((1 + confidence) / 2, np.maximum(counts - 1, 1)), np.nan)
        return np.stack([mean - half, mean + half], axis=1)

    @property
    def rows(self) -> list[Row]:  # type: ignore[override]
        """One row a method: its mean at each value."""
        means = {name: self.mean(name).tolist() for name in self.scores}
        columns = [str(value) for value in self.values.tolist()]
        return [{"method": name, **dict(zip(columns, mean, strict=True))} for name, mean in means.items()]

    @property
    def _title(self) -> str:
        n = next(iter(self.scores.values())).shape[1]
        return f"{self.metric} along {self.parameter}: mean of {n} {self.repeats}"


def replacement_curve(
    task: SearchTask,
    qrels: Judged,
    methods: Any,
    p: ArrayLike = SHARES,
    *,
    k: int = 10,
    n_repeats: int = 5,
    push_down: bool = True,
    modalities: Mapping[str, str] | None = None,
    random_state: Any = 0,
) -> Curve:
    """NDCG@k where documents keep one modality: their text, or, with probability p, what they have beside it.

    With raw CLIP vectors the curve is a U: pictures sink below unrelated texts, until all documents are pictures.

    Parameters
    ----------
    task : SearchTask
        Encoded queries, and a corpus in which documents have a text and a part of another modality. Documents of one
        modality stay as they are.
    qrels : list of dict
        Grades by document row, ``{row: grade}`` for each query. Queries without a relevant document are left out.
    methods : fitted pipeline, or dict of str to fitted pipeline
        Pipelines that end in `ExactRetriever`. Nothing is fitted again: calibrate on other data, or on this task.
    p : array-like of shape (n_points,), default=(0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
        Probabilities that a document loses its text.
    k : int, default=10
        Ranks that count.
    n_repeats : int, default=5
        Random corpora for each p. In one repeat a larger p changes more texts to pictures, and none back.
    push_down : bool, default=True
        Add the paper's simulation, for the first method: documents without a part of the query's modality come after
        all others, as if their similarities were zero; among themselves they keep their order.
    modalities : dict of str to str, default=None
        Modality of roles that are not known by name.
    random_state : int, RandomState instance or None, default=0
        Draws the corpora.

    Returns
    -------
    Curve
        Mean NDCG@k over queries, with a repeat for each random corpus; the simulation as ``"{method}, pushed down"``.

    Raises
    ------
    TypeError
        If task is no SearchTask of Items, or a method does not end in a retriever.
    ValueError
        If a p is no probability, if no document has both a text and something else, if a method is not fitted, or if
        qrels mark nothing relevant.

    See Also
    --------
    grclip.datasets.replace_parts : Makes the corpora.

    References
    ----------
    Li et al., Closing the Modality Gap for Mixed Modality Search, arXiv:2507.19054, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from grclip import ExactRetriever, Items, MultimodalFuser, SearchTask
    >>> from grclip.diagnostics import replacement_curve
    >>> rng = np.random.default_rng(0)
    >>> topics, gap = rng.normal(size=(40, 16)), 3 * rng.normal(size=16)
    >>> task = SearchTask(Items({"query": topics + gap}), Items({"text": topics + gap, "image": topics - gap}))
    >>> raw = make_pipeline(MultimodalFuser(), ExactRetriever()).fit(task)
    >>> curve = replacement_curve(task, [{i: 1} for i in range(40)], {"raw": raw}, [0, 0.5, 1], n_repeats=2)
    >>> {name: curve.mean(name).round(2).tolist() for name in curve.scores}
    {'raw': [1.0, 0.52, 0.82], 'raw, pushed down': [1.0, 0.52, 0.82]}
    """
    judged, named = check_judged(task, qrels), check_methods(methods)
    check_k(k)
    check_k(n_repeats, name="n_repeats")
    check_flag("push_down", push_down)
    queries, notes = judged_only(judged)
    shares = _check_points("p", p)
    task, judged = task[queries], [judged[query] for query in queries]
    seeds = check_random_state(random_state).randint(2**31 - 1, size=n_repeats)
    pushed = f"{next(iter(named))}, pushed down"
    if push_down and pushed in named:
        raise ValueError(f"a method is called {pushed!r}, which is the name of the simulation; call it something else")
    notes += _kept(task.corpus, modalities)
    scores = {name: np.empty((len(shares), n_repeats)) for name in [*named, *([pushed] if push_down else [])]}
    for i, share in enumerate(shares.tolist()):
        for repeat, seed in enumerate(seeds.tolist()):
            corpus = replace_parts(task.corpus, share, seed, modalities=modalities, incomplete="keep")
            replaced = SearchTask(task.queries, corpus)
            for name, method in named.items():
                scores[name][i, repeat] = ndcg_score(judged, search(method, replaced, k)[1], k=k)
            if push_down:
                ranking = _pushed_down(named[next(iter(named))], replaced, k, modalities)
                scores[pushed][i, repeat] = ndcg_score(judged, ranking, k=k)
    return Curve("p", shares, scores, f"NDCG@{k}", "random corpora", tuple(notes))


def _check_points(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """One number, or a line of some."""
    try:
        points = np.atleast_1d(np.asarray(values, dtype=float))
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {values!r}; expected numbers") from None
    if points.ndim != 1 or not points.size:
        raise ValueError(f"{name} has shape {points.shape}; expected at least one number, in one dimension")
    if len(np.unique(points)) < len(points):
        raise ValueError(f"{name} holds a number twice: {points.tolist()}")
    return points


def _pushed_down(method: Any, task: SearchTask, k: int, modalities: Mapping[str, str] | None) -> NDArray[np.intp]:
    """The k best documents of each query, those of another modality after all others."""
    ranking = np.empty((len(task), min(k, len(task.corpus))), dtype=np.intp)
    of_documents = _modalities(task.corpus, modalities)
    for asked, queries in _groups(_modalities(task.queries, modalities)):
        near = np.array([bool(asked & told) for told in of_documents])
        halves = []
        for rows in (np.flatnonzero(near), np.flatnonzero(~near)):
            if len(rows):
                found = search(method, SearchTask(task.queries[queries], task.corpus[rows]), k)[1]
                halves.append(rows[found])
        ranking[queries] = np.concatenate(halves, axis=1)[:, : ranking.shape[1]]
    return ranking


def _modalities(items: Items, modalities: Mapping[str, str] | None) -> list[frozenset[str]]:
    """The modalities that each row has a part of."""
    known = np.array(modalities_of(items.roles, modalities))
    kinds, of_rows = np.unique(presence(items), axis=0, return_inverse=True)
    sets = [frozenset(known[kind].tolist()) for kind in kinds]
    return [sets[i] for i in of_rows.ravel().tolist()]


def _kept(corpus: Items, modalities: Mapping[str, str] | None) -> list[str]:
    """A note on documents that stay as they are, whatever p is."""
    both = int(has_both(corpus, modalities).sum())
    if both in (0, len(corpus)):
        return []
    return [
        f"{both} of {len(corpus)} documents have a text and something else; the others stay as they are for every p"
    ]


def _groups(of_rows: Sequence[frozenset[str]]) -> Iterator[tuple[frozenset[str], NDArray[np.intp]]]:
    """Rows of one set of modalities each."""
    for found in dict.fromkeys(of_rows):
        yield found, np.array([i for i, row in enumerate(of_rows) if row == found])


def alpha_curve(
    task: SearchTask,
    qrels: Judged,
    methods: Any,
    alphas: ArrayLike | None = None,
    *,
    calibration: tuple[SearchTask, Judged] | None = None,
    k: int = 10,
) -> Curve:
    """NDCG@k over alpha, the weight of the text in a document that also has a picture.

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
    k : int, default=10
        Ranks that count.

    Returns
    -------
    Curve
        NDCG@k of each query; the interval is over queries.

    Raises
    ------
    TypeError
        If task is no SearchTask of Items, or a method does not end in a retriever.
    ValueError
        If a method has no parameter alpha, or several, if an alpha is none, if no query and no document has two
        parts, or if qrels mark nothing relevant.

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
    check_k(k)
    fitted_on, fit_qrels = (task, qrels) if calibration is None else check_calibration(calibration)
    names = {name: _alpha_of(name, method) for name, method in named.items()}
    points = np.linspace(0, 1, 11).round(1) if alphas is None else _check_points("alphas", alphas)
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
            scores[name][i] = ndcg_score(
                judged, search_fitted_on(fixed, fitted_on, fit_qrels, task, k), k=k, per_query=True
            )
    return Curve("alpha", points, scores, f"NDCG@{k}", "queries", tuple(notes))


def check_calibration(calibration: Any) -> tuple[SearchTask, list[Mapping[int, float]]]:
    """A task and its qrels to fit on."""
    if not isinstance(calibration, tuple) or len(calibration) != 2 or not isinstance(calibration[0], SearchTask):
        raise TypeError(f"calibration must be a pair (SearchTask, qrels); got {type(calibration).__name__}")
    task, qrels = calibration
    return task, check_qrels(qrels, len(task), len(task.corpus))


def _alpha_of(name: str, method: Any) -> str:
    """The one parameter of a method that is called alpha."""
    found = [parameter for parameter in method.get_params() if parameter.rpartition("__")[2] == "alpha"]
    if len(found) != 1:
        raise ValueError(
            f"methods[{name!r}] has {len(found)} parameters called alpha ({', '.join(found) or 'no fuser in it'}); "
            "expected a pipeline with one MultimodalFuser"
        )
    return found[0]
