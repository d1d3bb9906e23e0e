"""How far apart the vectors of two roles lie, and how widely their similarities vary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import combinations
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
from torch import Tensor

from grclip._kernels import Array, as_tensor, block_rows
from grclip._spread import MIN_PAIRS, relevant_pairs, sample_rows
from grclip._validation import check_width, warn_zero_rows
from grclip.diagnostics._roles import Column, Relations, unit
from grclip.diagnostics._search import as_generator
from grclip.diagnostics._tables import Row, Table
from grclip.items import Items, SearchTask, parts_of

MIN_PROBE = 20
"""Rows of each role that a probe needs: half of them to learn from, half to be tried on."""

_TINY = 1e-9
"""Length below which a difference of unit vectors may be rounding alone, and has no direction to tell of."""


@dataclass(frozen=True, eq=False)
class PairGap:
    """The gap between two roles; made by `modality_gap`.

    Attributes
    ----------
    roles : tuple of str
        The two roles.
    n_rows : tuple of int
        Rows of each that have a direction.
    n_paired : int
        Pairs of rows that belong together: parts of one document, or a query and what is relevant to it. None where
        that is not known; separability and spreads then take all rows for unrelated.
    distance : float
        Distance of the means of unit rows: the size of the gap [1]_, from 0 to 2.
    distance_by_chance : float
        What two samples of so many rows would have if there were no gap. A distance near it is none.
    paired_cosine, unpaired_cosine : float
        Mean cosine of rows that belong together (parts of one document, or a query and what is relevant to it), and
        of all others.
    relative_gap : float
        Mean cosine distance of paired rows, over itself plus the mean cosine distance within the roles [2]_: from 0,
        where pairs fall together, to 1; 0.5 where a pair is as far apart as two rows of one role. Real CLIP models have
        .59 to .74 between texts and images, and .41 after their means are removed.
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
    half_in : int
        How many dimensions hold half of the squared distance; None where by_dimension is not measurable.
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
    n_paired: int | None
    distance: float
    distance_by_chance: float
    paired_cosine: float
    unpaired_cosine: float
    relative_gap: float
    separability: float
    spread: float
    centred_spread: float
    by_dimension: NDArray[np.float64] = field(repr=False)
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def half_in(self) -> int | None:
        """How many dimensions hold half of the squared distance."""
        largest = np.sort(self.by_dimension)[::-1].cumsum()
        return None if np.isnan(largest).any() else int((largest < 0.5).sum()) + 1


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
        shown = [
            f.name for f in fields(PairGap) if f.name not in ("roles", "n_rows", "n_paired", "by_dimension", "notes")
        ]
        return [
            {
                "roles": " - ".join(pair.roles),
                "rows": " - ".join(map(str, pair.n_rows)),
                **{name.removeprefix("distance_"): getattr(pair, name) for name in (*shown, "half_in")},
            }
            for pair in self.pairs.values()
        ]

    @property
    def _hidden(self) -> tuple[str, ...]:
        return ("half_in",)

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        """What is not measurable, or has to be known, and why; a line for each reason."""
        reasons: dict[tuple[str, str], list[str]] = {}
        for pair in self.pairs.values():
            for name, why in pair.notes.items():
                reasons.setdefault((" - ".join(pair.roles), why), []).append(name)
        unknown = [" - ".join(pair.roles) for pair in self.pairs.values() if pair.n_paired is None]
        return (
            *(f"{roles}: {', '.join(names)} {why}" for (roles, why), names in reasons.items()),
            *(f"{roles}: separability and spreads take all rows for unrelated" for roles in unknown),
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
    parts, relations = parts_of(_with_roles(X)), Relations(X, qrels)
    if len(parts) < 2:
        raise ValueError(
            f"a gap lies between two roles, but X has only {next(iter(parts))!r}; put the rows of both together, e.g. "
            "{'text': texts, 'image': images}"
        )
    check_width(None, parts, None)
    rng = as_generator(random_state)
    columns = {role: Column(role, part) for role, part in parts.items()}
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


def _measure(
    a: Column, b: Column, samples: Mapping[str, NDArray[np.intp]], relations: Relations, rng: np.random.Generator
) -> PairGap:
    """All measures of two roles; what cannot be measured is told instead."""
    names = [f.name for f in fields(PairGap) if f.name not in ("roles", "n_rows", "n_paired", "notes")]
    if a.n and b.n:
        found = _measures(a, b, samples, relations, rng)
    else:
        empty = " and ".join(f"role {column.role!r}" for column in (a, b) if not column.n)
        found = dict.fromkeys(names, f"not measurable: {empty} has no row with a direction")
    notes = {name: value for name, value in found.items() if isinstance(value, str)}
    values: dict[str, Any] = {name: np.nan if name in notes else found[name] for name in names}
    if "by_dimension" in notes:
        values["by_dimension"] = np.full(a.part.shape[1], np.nan)
    pairs = relations.pairs(a, b)
    known = 0 if isinstance(pairs, str) else len(pairs[0])
    n_paired = None if relations.are_unknown(a, b) else known
    return PairGap(roles=(a.role, b.role), n_rows=(a.n, b.n), n_paired=n_paired, **values, notes=notes)


def _measures(
    a: Column, b: Column, samples: Mapping[str, NDArray[np.intp]], relations: Relations, rng: np.random.Generator
) -> dict[str, Any]:
    """Each measure of two roles that have rows, or why there is none."""
    pairs = relations.pairs(a, b)
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


def _cosines(a: Column, b: Column, pairs: tuple[NDArray[np.intp], NDArray[np.intp]] | str) -> dict[str, Any]:
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
