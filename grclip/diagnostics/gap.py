"""How far apart the vectors of two roles lie, and how widely their similarities vary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from torch import Tensor

from grclip._kernels import Array, as_tensor, block_rows, norm_limits, sum_rows
from grclip._spread import MIN_PAIRS, relevant_pairs, sample_rows, take_float64
from grclip._validation import check_qrels, check_values, check_width, warn_zero_rows
from grclip.diagnostics._tables import Row, Table
from grclip.items import Items, SearchTask, parts_of

MIN_PROBE = 20
"""Rows of each role that a probe needs: half of them to learn from, half to be tried on."""

_TINY = 1e-9
"""Length below which a difference of unit vectors may be rounding alone, and has no direction to tell of."""

_NO_PAIRS = {
    "dict": "not measurable: rows of a dict are not paired; use Items, whose parts share rows",
    "qrels": "not measurable: give qrels, which say what belongs together",
    "none": "not measurable: no row has both parts",
}


@dataclass(frozen=True, eq=False)
class PairGap:
    """The gap between two roles; made by `modality_gap`.

    Attributes
    ----------
    roles : tuple of str
        The two roles.
    n_rows : tuple of int
        Rows of each that have a direction.
    distance : float
        Distance of the means of unit rows: the size of the gap [1]_, from 0 to 2.
    paired_cosine, unpaired_cosine : float
        Mean cosine of rows that belong together (parts of one document, or a query and what is relevant to it), and
        of all others.
    relative_gap : float
        Mean cosine distance of paired rows, over itself plus the mean cosine distance within the roles [2]_: from 0,
        where pairs fall together, to 1; 0.5 where a pair is as far apart as two rows of one role.
    separability : float
        Balanced accuracy of a logistic probe that tells the roles apart, on rows that it was not fitted on: 1 is two
        clusters, 0.5 is chance. It falls below 0.5 for rows from which their own means were removed: what one half of
        them is above its mean, the other half is below.
    spread : float
        Standard deviation of the similarities of unit rows that do not belong together.
    centred_spread : float
        The same after each role's mean is removed and rows are of unit length again: where it differs between kinds
        of documents, means alone leave the wider kind ahead.
    by_dimension : ndarray of shape (d,)
        Share of each dimension in the squared distance; adds up to 1.
    notes : dict of str to str
        Why a measure is NaN, by its name.

    Raises
    ------
    TypeError, ValueError
        As `modality_gap`.

    References
    ----------
    .. [1] Liang et al., "Mind the Gap: Understanding the Modality Gap in Multi-modal Contrastive Representation
       Learning", NeurIPS 2022, arXiv:2203.02053.
    .. [2] Schrodi et al., "Two Effects, One Trigger: On the Modality Gap, Object Bias, and Information Imbalance in
       Contrastive Vision-Language Models", ICLR 2025, arXiv:2404.07983.

    Examples
    --------
    >>> import numpy as np
    >>> from grclip import Items
    >>> from grclip.diagnostics import modality_gap
    >>> pair = modality_gap(Items({"text": np.eye(2), "image": -np.eye(2)}))["text", "image"]
    >>> round(pair.distance, 3), pair.paired_cosine, pair.by_dimension.tolist()
    (1.414, -1.0, [0.5, 0.5])
    >>> pair.notes["separability"]
    'not measurable: a probe needs 20 rows of each role; there are 2 and 2'
    """

    roles: tuple[str, str]
    n_rows: tuple[int, int]
    distance: float
    paired_cosine: float
    unpaired_cosine: float
    relative_gap: float
    separability: float
    spread: float
    centred_spread: float
    by_dimension: NDArray[np.float64]
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, repr=False)
class ModalityGap(Table):
    """The gap between every two roles; made by `modality_gap`.

    Attributes
    ----------
    pairs : dict of tuple of str to PairGap
        Every two roles, in the order in which they come. ``gap["text", "image"]`` takes them in either order.
    rows : list of dict
        The same as a table, without the shares by dimension.
    notes : tuple of str
        What is not measurable, and why.

    Raises
    ------
    KeyError
        For two roles that were not measured.

    Examples
    --------
    >>> import numpy as np
    >>> from grclip import Items
    >>> from grclip.diagnostics import modality_gap
    >>> rng = np.random.default_rng(0)
    >>> topics, gap = rng.normal(size=(100, 8)), 2 * rng.normal(size=8)
    >>> found = modality_gap(Items({"text": topics + gap, "image": topics - gap}))
    >>> list(found.pairs), round(found["image", "text"].distance, 2)
    ([('text', 'image')], 1.33)
    """

    pairs: Mapping[tuple[str, str], PairGap]

    def __getitem__(self, roles: tuple[str, str]) -> PairGap:
        """The gap between two roles, in either order."""
        if not isinstance(roles, tuple) or len(roles) != 2:
            raise KeyError(f'take two roles, e.g. gap["text", "image"]; got {roles!r}')
        first, second = roles
        if (second, first) in self.pairs:
            return self.pairs[second, first]
        if roles not in self.pairs:
            raise KeyError(f"no roles {first!r} and {second!r}; measured: {', '.join(map(str, self.pairs))}")
        return self.pairs[first, second]

    @property
    def rows(self) -> list[Row]:  # type: ignore[override]
        """One row a pair of roles."""
        shown = [f.name for f in fields(PairGap) if f.name not in ("roles", "n_rows", "by_dimension", "notes")]
        return [
            {"roles": " - ".join(pair.roles), **{name: getattr(pair, name) for name in shown}}
            for pair in self.pairs.values()
        ]

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        """What is not measurable, and why."""
        return tuple(
            f"{' - '.join(pair.roles)}: {name} {why}"
            for pair in self.pairs.values()
            for name, why in pair.notes.items()
        )

    @property
    def _title(self) -> str:
        return "Modality gap"


def modality_gap(X: Any, qrels: Any = None, *, random_state: Any = 0) -> ModalityGap:
    """Measure the gap between every two roles: how far apart their vectors lie, and how their similarities vary.

    Parameters
    ----------
    X : SearchTask of Items, Items, or dict of str to array of shape (n, d)
        Embeddings of at least two roles. Raw ones show the gap; what `ModalityGapRemover.transform` gives shows what
        is left of it.
    qrels : list of dict, default=None
        For a SearchTask: grades by document row, ``{row: grade}`` for each query. They say which document belongs to a
        query; without them, paired measures of queries are not measurable, and spreads take all pairs for unrelated.
    random_state : int, RandomState instance or None, default=0
        Draws the rows of probes and spreads: 2,000 of a role at most.

    Returns
    -------
    ModalityGap
        By pair of roles; prints as a table.

    Raises
    ------
    TypeError
        If X holds no embeddings, or qrels is no list of dicts or comes without a SearchTask.
    ValueError
        If there is one role only, if widths differ, or if a row is partly NaN or not finite.

    Warns
    -----
    UserWarning
        For rows of zeros, which have no direction and are left out.

    See Also
    --------
    modality_bias : What the gap does to a ranking.
    grclip.ModalityGapRemover : Closes it.

    Notes
    -----
    Rows are taken at unit length. Means and cosines come from all rows, in blocks, with sums in float64: NumPy arrays,
    memory-mapped files and tensors on any device are read where they are. Parts of one row of Items belong together;
    so do a query and the documents graded above 0.

    Examples
    --------
    >>> import numpy as np
    >>> from grclip import Items, ModalityGapRemover
    >>> from grclip.diagnostics import modality_gap
    >>> rng = np.random.default_rng(0)
    >>> topics, gap = rng.normal(size=(100, 8)), 2 * rng.normal(size=8)
    >>> documents = Items({"text": topics + gap, "image": topics - gap})
    >>> before = modality_gap(documents)["text", "image"]
    >>> after = modality_gap(ModalityGapRemover().fit_transform(documents))["text", "image"]
    >>> [(round(pair.distance, 2), pair.separability > 0.9) for pair in (before, after)]
    [(1.33, True), (0.12, False)]
    """
    parts, relations = parts_of(_with_roles(X)), _Relations(X, qrels)
    if len(parts) < 2:
        raise ValueError(
            f"a gap lies between two roles, but X has only {next(iter(parts))!r}; put the rows of both together, e.g. "
            "{'text': texts, 'image': images}"
        )
    check_width(None, parts, None)
    rng = check_random_state(random_state)
    columns = {role: _Column(role, part) for role, part in parts.items()}
    warn_zero_rows({f"role {role!r}": column.zero for role, column in columns.items()})
    samples = {role: sample_rows(column.usable, rng) for role, column in columns.items()}
    pairs = {
        (first, second): _measure(columns[first], columns[second], samples, relations, rng)
        for first, second in combinations(parts, 2)
    }
    return ModalityGap(pairs)


def _with_roles(X: Any) -> Any:
    """X, if its rows have roles."""
    if not isinstance(X, SearchTask | Items | Mapping):
        raise TypeError(
            f"X is {type(X).__name__}; expected a SearchTask of Items, Items, or a dict from roles to embeddings"
        )
    return X


class _Column:
    """The rows of a role: which have a direction, and the sum of these at unit length."""

    def __init__(self, role: str, part: Array) -> None:
        self.role, self.part = role, part
        self.total, norms = sum_rows(part, normalize=True)
        self.zero = check_values(f"role {role!r}", part, norms, allow_missing=True)
        usable = norms >= norm_limits(norms.dtype)[0]
        usable[torch.as_tensor(self.zero, device=usable.device)] = False
        self.usable = torch.nonzero(usable).flatten().cpu().numpy()

    @property
    def n(self) -> int:
        return len(self.usable)

    @property
    def mean(self) -> NDArray[np.float64]:
        return self.total / self.n

    @property
    def cosine_within(self) -> float:
        """Mean cosine of two different rows; a row alone is like itself."""
        return float((self.total @ self.total - self.n) / (self.n * (self.n - 1))) if self.n > 1 else 1.0

    def unit_rows(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        return _unit(take_float64(self.part, rows))


class _Relations:
    """Which rows of two roles belong together."""

    def __init__(self, X: Any, qrels: Any) -> None:
        if qrels is not None and not isinstance(X, SearchTask):
            raise TypeError(f"qrels are about a SearchTask; X is {type(X).__name__}")
        self.qrels = None if qrels is None else check_qrels(qrels, len(X), len(X.corpus))
        self.rows_are_shared = not isinstance(X, Mapping) or isinstance(X, Items)
        self.queries = frozenset(X.queries) if isinstance(X, SearchTask) else frozenset()

    def pairs(self, a: _Column, b: _Column) -> tuple[NDArray[np.intp], NDArray[np.intp]] | str:
        """Rows of a and of b that belong together, or why it is not known."""
        if not self.rows_are_shared:
            return _NO_PAIRS["dict"]
        if (a.role in self.queries) == (b.role in self.queries):
            both = np.intersect1d(a.usable, b.usable)
            return (both, both) if len(both) else _NO_PAIRS["none"]
        if self.qrels is None:
            return _NO_PAIRS["qrels"]
        judged = ((i, row) for i, query in enumerate(self.qrels) for row, grade in query.items() if grade > 0)
        pairs = np.array(list(judged), dtype=np.intp).reshape(-1, 2)
        pairs = pairs[np.isin(pairs[:, 0], a.usable) & np.isin(pairs[:, 1], b.usable)]
        return (pairs[:, 0], pairs[:, 1]) if len(pairs) else _NO_PAIRS["none"]


def _measure(
    a: _Column, b: _Column, samples: Mapping[str, NDArray[np.intp]], relations: _Relations, rng: np.random.RandomState
) -> PairGap:
    """All measures of two roles; what cannot be measured is told instead."""
    found: dict[str, Any] = {}
    if a.n and b.n:
        found["distance"] = float(np.linalg.norm(a.mean - b.mean))
        pairs = relations.pairs(a, b)
        found |= _cosines(a, b, pairs)
        rows = samples[a.role], samples[b.role]
        x, y = a.unit_rows(rows[0]), b.unit_rows(rows[1])
        together = _marked(*rows, pairs)
        found["separability"] = _separability(x, y, together, rng)
        found["spread"] = _spread(x, y, together)
        found["centred_spread"] = _spread(_unit(x - a.mean, _TINY), _unit(y - b.mean, _TINY), together)
        squares = (a.mean - b.mean) ** 2
        found["by_dimension"] = (
            squares / squares.sum() if found["distance"] > _TINY else "not measurable: the means do not differ"
        )
    else:
        empty = " and ".join(f"role {column.role!r}" for column in (a, b) if not column.n)
        names = [f.name for f in fields(PairGap) if f.name not in ("roles", "n_rows", "notes")]
        found = dict.fromkeys(names, f"not measurable: {empty} has no row with a direction")
    notes = {name: value for name, value in found.items() if isinstance(value, str)}
    if "by_dimension" in notes:
        found["by_dimension"] = np.full(a.part.shape[1], np.nan)
    values: dict[str, Any] = {name: np.nan if isinstance(value, str) else value for name, value in found.items()}
    return PairGap(roles=(a.role, b.role), n_rows=(a.n, b.n), **values, notes=notes)


def _cosines(a: _Column, b: _Column, pairs: tuple[NDArray[np.intp], NDArray[np.intp]] | str) -> dict[str, Any]:
    """Mean cosines of rows that belong together and of others, and their distance relative to that within a role."""
    total, n = float(a.total @ b.total), a.n * b.n
    if isinstance(pairs, str):
        return {"paired_cosine": pairs, "unpaired_cosine": total / n, "relative_gap": pairs}
    together = sum(_paired_cosines(a.part, b.part, *pairs))
    count = len(pairs[0])
    apart = max(0.0, 1 - together / count)
    within = 1 - (a.cosine_within + b.cosine_within) / 2
    return {
        "paired_cosine": together / count,
        "unpaired_cosine": (total - together) / (n - count) if n > count else "not measurable: all rows are paired",
        "relative_gap": apart / (apart + within) if apart + within > _TINY else "not measurable: all rows are alike",
    }


def _paired_cosines(a: Array, b: Array, i: NDArray[np.intp], j: NDArray[np.intp]) -> Iterator[float]:
    """Sums of the cosines of rows i of a with rows j of b, block by block."""
    for start in range(0, len(i), block_rows(a)):
        some = slice(start, start + block_rows(a))
        x = _taken(a, i[some])
        y = _taken(b, j[some]).to(x.device)
        cosines = (x * y).sum(dim=1) / torch.linalg.vector_norm(x, dim=1) / torch.linalg.vector_norm(y, dim=1)
        yield float(cosines.sum())


def _taken(part: Array, rows: NDArray[np.intp]) -> Tensor:
    """Rows in float64, where they are."""
    taken = part[torch.as_tensor(rows, device=part.device)] if isinstance(part, Tensor) else part[rows]
    return as_tensor(taken).double()


def _marked(
    rows: NDArray[np.intp], others: NDArray[np.intp], pairs: tuple[NDArray[np.intp], NDArray[np.intp]] | str
) -> NDArray[np.bool_]:
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
    x: NDArray[np.float64], y: NDArray[np.float64], together: NDArray[np.bool_], rng: np.random.RandomState
) -> float | str:
    """Balanced accuracy of a logistic probe, fitted on one half of the rows, on the other half."""
    if min(len(x), len(y)) < MIN_PROBE:
        return f"not measurable: a probe needs {MIN_PROBE} rows of each role; there are {len(x)} and {len(y)}"
    learn_x, learn_y = (rng.permutation(len(side)) < len(side) / 2 for side in (x, y))
    # A row and its partner go to one side: the probe would take what is like a learned row for its partner's role.
    learn_y = np.where(together.any(axis=0), learn_x[together.argmax(axis=0)], learn_y)
    rows, labels, learn = (
        np.concatenate([x, y]),
        np.repeat([0, 1], [len(x), len(y)]),
        np.concatenate([learn_x, learn_y]),
    )
    if len(np.unique(labels[learn])) < 2 or len(np.unique(labels[~learn])) < 2:
        return "not measurable: rows that belong together cannot be divided into two halves that have both roles"
    probe = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    probe.fit(rows[learn], labels[learn])
    return float(balanced_accuracy_score(labels[~learn], probe.predict(rows[~learn])))


def _unit(x: NDArray[np.float64], smallest: float = 0.0) -> NDArray[np.float64]:
    """Rows at unit length; rows that are not longer than `smallest` become zero."""
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, norms, out=np.zeros_like(x), where=norms > smallest)
