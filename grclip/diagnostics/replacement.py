"""The U-curve: how a search fares as texts in the corpus are replaced by what else the documents have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from grclip._validation import check_flag, check_k
from grclip.datasets.mixing import has_both, replace_parts
from grclip.diagnostics._search import (
    Judged,
    check_judged,
    check_methods,
    check_metric,
    judged_only,
    presence,
    search,
)
from grclip.diagnostics.curves import Curve, check_points
from grclip.items import Items, SearchTask, modalities_of

PUSHED_DOWN = ", pushed down"
"""What the name of a method ends in where its simulation is meant."""

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def replacement_curve(
    task: SearchTask,
    qrels: Judged,
    methods: Any,
    p: ArrayLike = SHARES,
    *,
    metric: Any = "ndcg",
    k: int = 10,
    n_repeats: int = 5,
    push_down: bool = True,
    modalities: Mapping[str, str] | None = None,
    random_state: Any = 0,
) -> Curve:
    """A score where documents keep one modality: their text, or, with probability p, what they have beside it.

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
    metric : {"ndcg", "recall", "reciprocal_rank"} or callable, default="ndcg"
        What is averaged over the queries; a function takes ``(qrels, ranking, k=..., per_query=...)`` as `ndcg_score`
        does.
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
        Mean of the metric over queries, with a repeat for each random corpus; the simulation as
        ``"{method}, pushed down"``.

    Raises
    ------
    TypeError
        If task is no SearchTask of Items, or a method does not end in a retriever.
    ValueError
        If a p is no probability, if the metric is unknown, if no document has both a text and something else, if a
        method is not fitted, or if qrels mark nothing relevant.

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
    score, label = check_metric(metric, k)
    check_k(n_repeats, name="n_repeats")
    check_flag("push_down", push_down)
    queries, notes = judged_only(judged)
    shares = check_points("p", p)
    task, judged = task[queries], [judged[query] for query in queries]
    seeds = check_random_state(random_state).randint(2**31 - 1, size=n_repeats)
    pushed = f"{next(iter(named))}{PUSHED_DOWN}"
    if push_down and pushed in named:
        raise ValueError(f"a method is called {pushed!r}, which is the name of the simulation; call it something else")
    notes += _kept(task.corpus, modalities)
    scores = {name: np.empty((len(shares), n_repeats)) for name in [*named, *([pushed] if push_down else [])]}
    for i, share in enumerate(shares.tolist()):
        drawn = seeds[:1] if share in (0, 1) else seeds  # at the ends all corpora are one
        for repeat, seed in enumerate(drawn.tolist()):
            corpus = replace_parts(task.corpus, share, seed, modalities=modalities, incomplete="keep")
            replaced = SearchTask(task.queries, corpus)
            for name, method in named.items():
                scores[name][i, repeat] = score(judged, search(method, replaced, k)[1])
            if push_down:
                ranking = _pushed_down(named[next(iter(named))], replaced, k, modalities)
                scores[pushed][i, repeat] = score(judged, ranking)
        for points in scores.values():
            points[i, len(drawn) :] = points[i, 0]
    return Curve("p", shares, scores, label, "random corpora", tuple(notes))


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


def _kept(corpus: Items, modalities: Mapping[str, str] | None) -> list[str]:
    """A note on documents that stay as they are, whatever p is."""
    both = int(has_both(corpus, modalities).sum())
    if both in (0, len(corpus)):
        return []
    return [
        f"{both} of {len(corpus)} documents have a text and something else; the others stay as they are for every p"
    ]


def _modalities(items: Items, modalities: Mapping[str, str] | None) -> list[frozenset[str]]:
    """The modalities that each row has a part of."""
    known = np.array(modalities_of(items.roles, modalities))
    kinds, of_rows = np.unique(presence(items), axis=0, return_inverse=True)
    sets = [frozenset(known[kind].tolist()) for kind in kinds]
    return [sets[i] for i in of_rows.ravel().tolist()]


def _groups(of_rows: Sequence[frozenset[str]]) -> Iterator[tuple[frozenset[str], NDArray[np.intp]]]:
    """Rows of one set of modalities each."""
    for found in dict.fromkeys(of_rows):
        yield found, np.array([i for i, row in enumerate(of_rows) if row == found])
