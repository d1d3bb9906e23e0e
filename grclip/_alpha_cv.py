"""Cross-validated scores of many alphas, in the form of GridSearchCV's results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from grclip._alpha import Ranker
from grclip._fuse import kinds_of, name_kinds
from grclip._lines import Lines
from grclip._measures import Measure, Qrels, average, refuse_empty
from grclip._spread import spreads_by_alpha
from grclip.items import SearchTask, parts_of

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]


def cross_validate_alpha(
    task: SearchTask,
    qrels: Qrels,
    folds: Sequence[Fold],
    alphas: NDArray[np.float64],
    measure: Measure,
    *,
    modalities: Mapping[str, str] | None,
    equalize: bool,
    random_state: Any,
) -> dict[str, Any]:
    """Scores of each alpha on the test queries of each fold; `equalize` takes spreads of its training queries."""
    most = measure.most(qrels)
    _check_folds(folds, most == 0, measure)
    queries, corpus = (Lines(parts_of(side), modalities) for side in (task.queries, task.corpus))
    if equalize:
        lengths = [_lengths(task, qrels, queries, corpus, fold, alphas, random_state) for fold in folds]
        scores = [
            _scores(Ranker(queries, corpus, alphas, own), test, qrels, measure, most)
            for own, (_, test) in zip(lengths, folds, strict=True)
        ]
    else:
        plain = np.ones((corpus.n_kinds, len(alphas)))
        asked, places = np.unique(np.concatenate([test for _, test in folds]), return_inverse=True)
        together = _scores(Ranker(queries, corpus, alphas, plain), asked, qrels, measure, most)
        scores = [together[:, own] for own in np.split(places, np.cumsum([len(test) for _, test in folds])[:-1])]
    means = [
        [average(line, most[test] == 0, per_query=False, empty=measure.empty) for line in own]
        for own, (_, test) in zip(scores, folds, strict=True)
    ]
    return _results(alphas, np.array(means))


def _check_folds(folds: Sequence[Fold], no_relevant: NDArray[np.bool_], measure: Measure) -> None:
    """Folds whose score has no meaning are an error before anything is computed."""
    asked = np.unique(np.concatenate([test for _, test in folds]))
    if measure.empty == "raise" and no_relevant[asked].any():
        refuse_empty(asked[no_relevant[asked]])
    for i, (_, test) in enumerate(folds):
        if measure.empty == "skip" and no_relevant[test].all():
            raise ValueError(f"split {i} has no test query with a relevant document: there is nothing to average")


def _scores(
    ranker: Ranker, asked: NDArray[np.intp], qrels: Qrels, measure: Measure, most: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The measure for each alpha and query asked, (n_alphas, n_asked)."""
    k = min(measure.k, len(ranker.corpus))
    judged = [{int(row): float(grade) for row, grade in qrels[query].items() if grade > 0} for query in asked]
    relevant = [np.fromiter(grades, dtype=np.intp, count=len(grades)) for grades in judged]
    nothing = np.zeros((len(asked), 1))
    scores = np.repeat(measure.scores(nothing, most[asked])[None], len(ranker.alphas), axis=0)
    for places, documents, ranks in ranker.ranks(asked, relevant, k):
        found, line = np.unique(places, return_inverse=True)
        grades = np.zeros((len(ranker.alphas), len(found), k))
        pair, alpha = np.nonzero(ranks < k)
        own = np.array([judged[place][row] for place, row in zip(places.tolist(), documents.tolist(), strict=True)])
        grades[alpha, line[pair], ranks[pair, alpha]] = own[pair]
        scores[:, found] = measure.scores(grades, most[asked[found]])
    return scores


def _lengths(
    task: SearchTask,
    qrels: Qrels,
    queries: Lines,
    corpus: Lines,
    fold: Fold,
    alphas: NDArray[np.float64],
    random_state: Any,
) -> NDArray[np.float64]:
    """Lengths of documents of each kind, (n_kinds, n_alphas), by the training queries of a fold."""
    train, test = fold
    kinds = kinds_of(tuple(queries.parts))
    codes = queries.codes.cpu().numpy()
    known, asked = ({kinds[code] for code in codes[rows].tolist()} for rows in (train, test))
    if asked - known:
        raise ValueError(
            f"spreads were measured with queries of kind {name_kinds(known)} in a training split, and differ for kind "
            f"{name_kinds(asked - known)} of its test split: fit one pipeline for each kind of query"
        )
    trained = [qrels[query] for query in train]
    options = {"random_state": random_state, "modalities": corpus.modalities}
    spreads = spreads_by_alpha(task[train], trained, alphas, **options)
    lengths = np.full((corpus.n_kinds, len(alphas)), np.nan)
    for code, kind in enumerate(kinds_of(tuple(corpus.parts))):
        if kind in spreads[0]:
            lengths[code] = [1 / own[kind] for own in spreads]
    return lengths


def _results(alphas: NDArray[np.float64], splits: NDArray[np.float64]) -> dict[str, Any]:
    """Scores (n_splits, n_alphas) as GridSearchCV lists them."""
    means = splits.mean(axis=0)
    return {
        "param_alpha": np.ma.MaskedArray(alphas.copy(), mask=np.zeros(len(alphas), dtype=bool)),
        "params": [{"alpha": alpha} for alpha in alphas.tolist()],
        **{f"split{i}_test_score": split for i, split in enumerate(splits)},
        "mean_test_score": means,
        "std_test_score": splits.std(axis=0),
        "rank_test_score": rankdata(-means, method="min").astype(np.int32),
    }
