"""The measures of the gap between two roles, each a number or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import bmat, csr_array
from scipy.sparse.csgraph import connected_components
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from grclip._columns import take_rows
from grclip._kernels import Array, as_tensor, block_rows
from grclip._spread import MIN_PAIRS, relevant_pairs
from grclip.diagnostics._roles import Column, Pairs, unit

MIN_PROBE = 20
"""Rows of each role that a probe needs: half of them to learn from, half to be tried on."""

_TINY = 1e-9
"""Length below which a difference of unit vectors may be rounding alone, and has no direction to tell of."""


def measures(
    a: Column, b: Column, samples: Mapping[str, NDArray[np.intp]], pairs: Pairs | str, rng: np.random.Generator
) -> dict[str, Any]:
    """Each measure of two roles that have rows, or why there is none; `pairs` of rows belong together, if known."""
    rows = samples[a.role], samples[b.role]
    x, y, together = a.unit_rows(rows[0]), b.unit_rows(rows[1]), _marked(*rows, pairs)
    squares = (a.mean - b.mean) ** 2
    distance = float(squares.sum() ** 0.5)
    return {
        "distance": distance,
        "distance_by_chance": sum(max(0.0, 1 - float(c.mean @ c.mean)) / c.n for c in (a, b)) ** 0.5,
        **_cosines(a, b, pairs),
        "separability": _separability(x, y, together, rng),
        "spread": _spread(x, y, together),
        "centred_spread": _spread(unit(x - a.mean, _TINY), unit(y - b.mean, _TINY), together),
        "by_dimension": squares / squares.sum() if distance > _TINY else "not measurable: the means do not differ",
    }


def _cosines(a: Column, b: Column, pairs: Pairs | str) -> dict[str, Any]:
    """Mean cosines of rows that belong together and of others, and their distance relative to that within a role."""
    total, n = float(a.total @ b.total), a.n * b.n
    if isinstance(pairs, str):
        return {"paired_cosine": pairs, "unpaired_cosine": total / n, "relative_gap": pairs}
    together = sum(_paired_cosines(a.part, b.part, *pairs))
    count = len(pairs[0])
    apart = max(0.0, 1 - together / count)
    within = 1 - (a.cosine_within + b.cosine_within) / 2 if min(a.n, b.n) > 1 else np.nan
    relative: float | str = apart / (apart + within) if apart + within > _TINY else "not measurable: all rows are alike"
    if np.isnan(within):
        relative = "not measurable: a distance within a role needs two rows of each"
    return {
        "paired_cosine": together / count,
        "unpaired_cosine": (total - together) / (n - count) if n > count else "not measurable: all rows are paired",
        "relative_gap": relative,
    }


def _paired_cosines(a: Array, b: Array, i: NDArray[np.intp], j: NDArray[np.intp]) -> Iterator[float]:
    """Sums of the cosines of rows i of a with rows j of b, block by block."""
    for start in range(0, len(i), block_rows(a)):
        some = slice(start, start + block_rows(a))
        x = as_tensor(take_rows(a, i[some])).double()
        y = as_tensor(take_rows(b, j[some])).double().to(x.device)
        cosines = (x * y).sum(dim=1) / torch.linalg.vector_norm(x, dim=1) / torch.linalg.vector_norm(y, dim=1)
        yield float(cosines.sum())


def _marked(rows: NDArray[np.intp], others: NDArray[np.intp], pairs: Pairs | str) -> NDArray[np.bool_]:
    """Which of the pairs of sampled rows belong together, (n_rows, n_others)."""
    if isinstance(pairs, str):
        return np.zeros((len(rows), len(others)), dtype=bool)
    related: dict[int, dict[int, int]] = {row: {} for row in rows.tolist()}
    for i, j in zip(*(side.tolist() for side in pairs), strict=True):
        if i in related:
            related[i][j] = 1
    return relevant_pairs(related, rows, others)


def _spread(x: NDArray[np.float64], y: NDArray[np.float64], together: NDArray[np.bool_]) -> float | str:
    """Standard deviation of the similarities of rows that have a direction and do not belong together."""
    similarities = (x @ y.T)[~together & np.outer(x.any(axis=1), y.any(axis=1))]
    if similarities.size < MIN_PAIRS:
        return f"not measurable: a spread needs {MIN_PAIRS} unrelated pairs; there are {similarities.size}"
    return float(similarities.std())


def _separability(
    x: NDArray[np.float64], y: NDArray[np.float64], together: NDArray[np.bool_], rng: np.random.Generator
) -> float | str:
    """Balanced accuracy of a logistic probe, fitted on one half of the rows, on the other half."""
    if min(len(x), len(y)) < MIN_PROBE:
        return f"not measurable: a probe needs {MIN_PROBE} rows of each role; there are {len(x)} and {len(y)}"
    # A row and its partners go to one half: the probe would take what is like a learned row for its partner's role.
    edges = bmat([[None, csr_array(together)], [csr_array(together.T), None]])
    n_groups, group = connected_components(edges, directed=False)
    learn = (rng.permutation(n_groups) < n_groups / 2)[group]
    rows, labels = np.concatenate([x, y]), np.repeat([0, 1], [len(x), len(y)])
    if len(np.unique(labels[learn])) < 2 or len(np.unique(labels[~learn])) < 2:
        return "not measurable: rows that belong together cannot be divided into two halves that have both roles"
    probe = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    probe.fit(rows[learn], labels[learn])
    return float(balanced_accuracy_score(labels[~learn], probe.predict(rows[~learn])))
