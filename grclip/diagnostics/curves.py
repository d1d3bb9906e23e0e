"""Curve: a score along a parameter, repeated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from grclip.diagnostics._tables import Row, Table


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


def check_points(name: str, values: ArrayLike) -> NDArray[np.float64]:
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
