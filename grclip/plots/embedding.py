"""EmbeddingDisplay: where the rows of each role lie, in two dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from grclip._validation import check_k
from grclip.plots._canvas import canvas, check_drawing, sample_line
from grclip.plots._palette import Look, looks_of_kinds
from grclip.plots._projection import check_method, embedded, project, sample, taken, transformed


class EmbeddingDisplay:
    """Rows of every role as points in the plane: with a gap, each role is a cluster of its own.

    Make one with `from_estimator` (before and after a transformer, side by side) or `from_predictions` (one panel).

    Parameters
    ----------
    points : sequence of dict of str to ndarray of shape (n, 2)
        Points by role, one dict a panel (1 or 2 panels).
    variance : sequence of (ndarray of shape (2,) or None), default=None
        Share of the variance along each axis, from 0 to 1, one a panel; None where axes have no such share (UMAP).
    names : sequence of str, default=None
        Titles of the panels.

    Attributes
    ----------
    ax_ : matplotlib Axes, or ndarray of 2 Axes
        What was drawn on.
    figure_ : matplotlib Figure
        The figure that holds them.
    scatters_ : list of dict of str to matplotlib PathCollection
        The points drawn, by panel and role.

    Raises
    ------
    ModuleNotFoundError
        From the methods, where matplotlib (or, with ``method="umap"``, umap-learn) is not installed.

    See Also
    --------
    SimilarityHistogramDisplay : What the gap does to similarities.
    grclip.ModalityGapRemover : The usual estimator to compare before and after.

    Notes
    -----
    Rows are scaled to unit length before they are projected, in both panels: searches compare directions. Each panel
    has a projection of its own, fitted on the rows of all roles together, so positions are not to be compared across
    panels; distances within a panel are on one scale in both directions.

    Examples
    --------
    >>> import numpy as np
    >>> from grclip import ModalityGapRemover
    >>> from grclip.plots import EmbeddingDisplay
    >>> rng = np.random.default_rng(0)
    >>> x = {"text": rng.normal(size=(50, 8)) + 2, "image": rng.normal(size=(40, 8)) - 2}
    >>> display = EmbeddingDisplay.from_estimator(ModalityGapRemover().fit(x), x)
    >>> [ax.get_title() for ax in display.ax_]
    ['Before', 'After']
    """

    def __init__(
        self,
        points: Sequence[Mapping[str, NDArray[np.float64]]],
        variance: Sequence[NDArray[np.float64] | None] | None = None,
        *,
        names: Sequence[str] | None = None,
    ) -> None:
        self.points = points
        self.variance = variance
        self.names = names

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        method: str = "pca",
        max_rows: int = 1000,
        random_state: Any = 0,
        ax: Any = None,
        theme: str = "light",
        names: Sequence[str] | None = ("Before", "After"),
        scatter_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Draw X, and X as the estimator transforms it, side by side.

        Parameters
        ----------
        estimator : ModalityGapRemover or Pipeline
            Fitted, and giving parts by role; of a Pipeline, the first step.
        X : SearchTask, Items, or dict of str to array of shape (n, d)
            Embeddings.
        method : {"pca", "umap"}, default="pca"
            Projection to two dimensions.
        max_rows : int, default=1000
            Rows of each role that are drawn at most, at random; the same ones in both panels.
        random_state : int, RandomState instance or None, default=0
            Draws the rows, and starts the projection.
        ax : sequence of 2 matplotlib Axes, default=None
            Axes to draw on; None makes a figure.
        theme : {"light", "dark"}, default="light"
            Colours of background and text.
        names : sequence of 2 str, default=("Before", "After")
            Titles of the panels.
        scatter_kw : dict, default=None
            Options of matplotlib's ``scatter``.

        Returns
        -------
        EmbeddingDisplay
            As drawn.

        Raises
        ------
        TypeError
            If X holds no embeddings by role, or the estimator does not give them.
        ValueError
            If X has fewer than two roles with rows, or an option is unknown.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        """
        check_drawing(ax, theme, "EmbeddingDisplay", panels=2)
        check_method(method)
        before = embedded(X)
        rows = sample(before, check_k(max_rows, name="max_rows"), random_state)
        small, places = taken(X, rows)  # what is drawn alone is transformed
        found = [
            project(parts, places, method, random_state) for parts in (embedded(small), transformed(estimator, small))
        ]
        points, variance = zip(*found, strict=True)
        return cls(points, variance, names=names).plot(ax=ax, theme=theme, scatter_kw=scatter_kw)

    @classmethod
    def from_predictions(
        cls,
        X: Any,
        *,
        method: str = "pca",
        max_rows: int = 1000,
        random_state: Any = 0,
        ax: Any = None,
        theme: str = "light",
        name: str | None = None,
        scatter_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Draw X in one panel.

        Parameters
        ----------
        X : SearchTask, Items, or dict of str to array of shape (n, d)
            Embeddings.
        method : {"pca", "umap"}, default="pca"
            Projection to two dimensions.
        max_rows : int, default=1000
            Rows of each role that are drawn at most, at random.
        random_state : int, RandomState instance or None, default=0
            Draws the rows, and starts the projection.
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a figure.
        theme : {"light", "dark"}, default="light"
            Colours of background and text.
        name : str, default=None
            Title; None for a short one.
        scatter_kw : dict, default=None
            Options of matplotlib's ``scatter``.

        Returns
        -------
        EmbeddingDisplay
            As drawn.

        Raises
        ------
        TypeError
            If X holds no embeddings by role.
        ValueError
            If X has fewer than two roles with rows, or an option is unknown.
        """
        check_drawing(ax, theme, "EmbeddingDisplay")
        check_method(method)
        parts = embedded(X)
        rows = sample(parts, check_k(max_rows, name="max_rows"), random_state)
        points, variance = project(parts, rows, method, random_state)
        display = cls([points], [variance], names=["Embeddings by role" if name is None else name])
        return display.plot(ax=ax, theme=theme, scatter_kw=scatter_kw)

    def plot(
        self,
        *,
        ax: Any = None,
        theme: str = "light",
        names: Sequence[str] | None = None,
        scatter_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Draw the points.

        Parameters
        ----------
        ax : matplotlib Axes, or sequence of 2 Axes, default=None
            Axes to draw on, as many as there are panels; None makes a figure.
        theme : {"light", "dark"}, default="light"
            Colours of background and text.
        names : sequence of str, default=None
            Titles of the panels; None takes those of the display.
        scatter_kw : dict, default=None
            Options of matplotlib's ``scatter``.

        Returns
        -------
        EmbeddingDisplay
            This instance, with ``ax_``, ``figure_`` and ``scatters_``.

        Raises
        ------
        ModuleNotFoundError
            Without matplotlib.
        TypeError
            If ax is no Axes.
        ValueError
            If theme is unknown, or ax or names are not as many as there are panels.
        """
        n = len(self.points)
        names = names or self.names or [""] * n
        variance = self.variance or [None] * n
        if len(names) != n:
            raise ValueError(f"names must be {n} titles, one a panel; got {names!r}")
        with canvas(ax, theme, "EmbeddingDisplay", panels=n) as drawn:
            looks = looks_of_kinds(dict.fromkeys(role for points in self.points for role in points), drawn.theme)
            self.scatters_ = []
            for panel, points, share, name in zip(drawn.axes, self.points, variance, names, strict=True):
                self.scatters_.append(_scatter(panel, points, looks, scatter_kw))
                _name_axes(panel, share, name)
            drawn.legend([sample_line(look, role, linestyle="") for role, look in looks.items()], columns=4)
        self.ax_ = np.array(drawn.axes, dtype=object) if n > 1 else drawn.axes[0]
        self.figure_ = drawn.axes[0].figure
        return self


def _scatter(ax: Any, points: Mapping[str, Any], looks: Mapping[str, Look], kw: Mapping[str, Any] | None) -> Any:
    """One collection of points a role."""
    drawn = {}
    for role, xy in points.items():
        look = looks[role]
        size = 24 if look.marker == "*" else 12  # stars are small for their size
        defaults = {"s": size, "alpha": 0.6, "linewidths": 0, "color": look.colour, "marker": look.marker}
        drawn[role] = ax.scatter(xy[:, 0], xy[:, 1], label=role, **(defaults | dict(kw or {})))
    return drawn


def _name_axes(ax: Any, share: NDArray[np.float64] | None, name: str) -> None:
    """Labels of both axes and the title; one scale in both directions."""
    for axis, place in ((ax.xaxis, 0), (ax.yaxis, 1)):
        unit = "no unit" if share is None else f"{_percent(share[place])} % of variance"
        axis.set_label_text(f"{'UMAP' if share is None else 'PC'} {place + 1} ({unit})")
    ax.locator_params(nbins=5)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_title(name)


def _percent(share: float) -> str:
    """A share in percent, with a decimal where there would be a bare 0."""
    return f"{100 * share:.0f}" if share >= 0.01 else f"{100 * share:.1f}"
