"""What ranking metrics count: what a ranking found of the most that there is, and which metric a scorer takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grclip._validation import check_k, few

Qrels = Sequence[Mapping[int, float]]

GAINS: dict[str, Callable[[NDArray], NDArray]] = {
    "exponential": lambda grades: np.exp2(grades) - 1,
    "linear": lambda grades: grades,
}
EMPTY = ("raise", "skip", "zero")

_LARGEST_GRADE = {"exponential": 1000, "linear": 1e300}  # sums of gains must fit a float64


def _best_gain(qrels: Qrels, k: int, gain: str = "exponential") -> NDArray[np.float64]:
    """Discounted gain of the k highest grades of each query."""
    best = [sorted(judged.values(), reverse=True)[:k] for judged in qrels]
    if max((line[0] for line in best if line), default=0) > _LARGEST_GRADE[gain]:
        raise ValueError(f"a grade above {_LARGEST_GRADE[gain]:g} is too large for gain={gain!r}; use smaller grades")
    return _gain(padded(best), gain)


def _gain(grades: NDArray[np.float64], gain: str = "exponential") -> NDArray[np.float64]:
    """Discounted gain of each line; equal ones have equal gains, whatever is beside them and however many zeros follow.

    A quicker sum than one in order of ranks depends on their number, and the best ranking would not always score 1.
    """
    gains = GAINS[gain](grades) * (1 / np.log2(np.arange(2, grades.shape[-1] + 2)))
    return np.cumsum(gains, axis=-1, out=gains)[..., -1]


def _n_relevant(qrels: Qrels, k: int) -> NDArray[np.float64]:
    return np.array([sum(grade > 0 for grade in judged.values()) for judged in qrels], dtype=np.float64)


def _n_found(grades: NDArray[np.float64]) -> NDArray[np.float64]:
    return (grades > 0).sum(axis=-1, dtype=np.float64)


def _any_relevant(qrels: Qrels, k: int) -> NDArray[np.float64]:
    return np.array([any(grade > 0 for grade in judged.values()) for judged in qrels], dtype=np.float64)


def _inverse_rank(grades: NDArray[np.float64]) -> NDArray[np.float64]:
    found = grades > 0
    return found.any(axis=-1) / (np.argmax(found, axis=-1) + 1)


_COUNTS: dict[str, tuple[Callable[..., NDArray[np.float64]], Callable[..., NDArray[np.float64]]]] = {
    "ndcg": (_best_gain, _gain),
    "recall": (_n_relevant, _n_found),
    "reciprocal_rank": (_any_relevant, _inverse_rank),
}
"""By metric: the most that each query can have, and what grades of ranked documents have of it."""

METRICS = tuple(_COUNTS)


class Measure:
    """A metric with its options: what a scorer averages over queries."""

    def __init__(self, metric: str, k: int, options: Mapping[str, Any]) -> None:
        self.metric, self.k, self.options = metric, k, dict(options)

    @property
    def empty(self) -> str:
        """What a query without relevant documents is."""
        return self.options.get("empty", "raise")

    def most(self, qrels: Qrels) -> NDArray[np.float64]:
        """The most that each query can have, (n_queries,); 0 without relevant documents."""
        return _COUNTS[self.metric][0](qrels, self.k, **self._gain())

    def scores(self, grades: NDArray[np.float64], most: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores of lines of grades (..., k), best rank first."""
        return _COUNTS[self.metric][1](grades, **self._gain()) / np.where(most > 0, most, 1)

    def _gain(self) -> dict[str, str]:
        return {name: value for name, value in self.options.items() if name == "gain"}

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"retrieval_scorer({self.metric!r}, k={self.k}{options})"


def check_measure(metric: Any, k: Any, options: Mapping[str, Any], name: str = "metric") -> tuple[str, int]:
    """The metric and k, if they and the options are known."""
    check_choice(name, metric, METRICS)
    known = {"empty": EMPTY, "gain": tuple(GAINS)} if metric == "ndcg" else {"empty": EMPTY}
    for option, value in options.items():
        if option not in known:
            raise ValueError(f"{metric!r} has no option {option!r}; it has {', '.join(map(repr, known))}")
        check_choice(option, value, known[option])
    return metric, check_k(k)


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """A value that is none of the choices is an error."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def padded(lines: Sequence[Sequence[float]], fill: float = 0, dtype: type = np.float64) -> NDArray:
    """Lines of unequal length as an array, filled up to at least one column."""
    lengths = np.array([len(line) for line in lines])
    array = np.full((len(lines), max(1, lengths.max())), fill, dtype=dtype)
    array[np.arange(array.shape[1]) < lengths[:, None]] = list(chain.from_iterable(lines))
    return array


def average(
    scores: NDArray[np.float64], no_relevant: NDArray[np.bool_], *, per_query: bool, empty: str
) -> float | NDArray[np.float64]:
    """Scores, or their mean, with queries that have no relevant document treated as `empty` says."""
    check_choice("empty", empty, EMPTY)
    if empty == "raise" and no_relevant.any():
        refuse_empty(np.flatnonzero(no_relevant))
    if empty == "skip":
        if no_relevant.all():
            raise ValueError("no query has a relevant document: there is nothing to average")
        scores = np.where(no_relevant, np.nan, scores)
    return scores if per_query else float(np.nanmean(scores))


def refuse_empty(queries: NDArray[np.intp]) -> None:
    """Queries without relevant documents, where nothing was said of such, are an error."""
    raise ValueError(
        f"no document is relevant (graded above 0) for {few(queries, 'query', 'queries')}; "
        "say empty='skip' to leave such queries out, empty='zero' to count them as 0; in a search over parameters by "
        "scoring=retrieval_scorer('ndcg', k=10, empty='skip')"
    )
