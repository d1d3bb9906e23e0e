"""How far apart the vectors of two roles lie, and how widely their similarities vary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grclip._spread import sample_rows
from grclip._validation import check_width, warn_zero_rows
from grclip.diagnostics._measures import measures
from grclip.diagnostics._roles import Column, Relations
from grclip.diagnostics._search import as_generator
from grclip.diagnostics._tables import Row, Table
from grclip.items import Items, SearchTask, parts_of


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
    pairs = relations.pairs(a, b)
    if a.n and b.n:
        found = measures(a, b, samples, pairs, rng)
    else:
        empty = " and ".join(f"role {column.role!r}" for column in (a, b) if not column.n)
        found = dict.fromkeys(names, f"not measurable: {empty} has no row with a direction")
    notes = {name: value for name, value in found.items() if isinstance(value, str)}
    values: dict[str, Any] = {name: np.nan if name in notes else found[name] for name in names}
    if "by_dimension" in notes:
        values["by_dimension"] = np.full(a.part.shape[1], np.nan)
    known = 0 if isinstance(pairs, str) else len(pairs[0])
    n_paired = None if relations.are_unknown(a, b) else known
    return PairGap(roles=(a.role, b.role), n_rows=(a.n, b.n), n_paired=n_paired, **values, notes=notes)
