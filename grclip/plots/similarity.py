"""SimilarityHistogramDisplay: how similar queries are to documents, by kind of both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grclip._validation import check_k
from grclip.plots._canvas import canvas, check_drawing, sample_line
from grclip.plots._order import check_order
from grclip.plots._pairs import Pair, Values, by_pair, check_fuses, sampled_pairs
from grclip.plots._palette import Look, Theme, looks_of_pairs

_LINE = 0.08  # height of a line of ticks, as a share of that of the histograms
_TICKS = 1000  # more of them on a line are drawn as every second, third, ... by rank

UNITS = ("dot product of unit vectors", "spreads above unrelated")


class SimilarityHistogramDisplay:
    """Histograms of the similarities of queries to documents, by pair of kinds: whether all lie on one scale.

    Where they do not, unrelated documents of one kind (histograms) score higher than relevant ones of another (ticks
    below), and no ranking by similarity can be right. Make one with `from_estimator` or `from_predictions`.

    Parameters
    ----------
    edges : ndarray of shape (n_bins + 1,)
        Limits of the bins.
    unrelated : dict of (str, str) to ndarray of shape (n_bins,)
        By kind of query and of document: share of the unrelated pairs in each bin, from 0 to 1.
    relevant : dict of (str, str) to ndarray of shape (n_pairs,), default=None
        By kind of query and of document: similarities of the relevant pairs.
    unit : str, default="dot product"
        What similarities are measured in.

    Attributes
    ----------
    ax_ : matplotlib Axes
        What was drawn on.
    figure_ : matplotlib Figure
        The figure that holds it.
    unrelated_ : dict of (str, str) to matplotlib StepPatch
        Outlines of the histograms.
    relevant_ : dict of (str, str) to matplotlib Line2D
        A tick for each relevant pair; where there are over 1,000, for some evenly spaced by rank.
    medians_ : dict of (str, str) to matplotlib Line2D
        A marker at the median of the relevant pairs.

    Raises
    ------
    ModuleNotFoundError
        From the methods, where matplotlib is not installed.

    See Also
    --------
    grclip.MultimodalFuser : Puts all kinds on one scale with ``equalize=True``.

    Notes
    -----
    The height of a bin is a share of the unrelated pairs of that kind, so that rare kinds compare with frequent ones.
    Similarities that are not finite (of rows of zeros) are left out.

    Examples
    --------
    >>> from grclip.plots import SimilarityHistogramDisplay
    >>> display = SimilarityHistogramDisplay.from_predictions(
    ...     [[0.9, 0.3, 0.2], [0.6, 0.1, 0.2]], ["query", "query"], ["text", "image", "image"], bins=8)
    >>> list(display.unrelated)
    [('query', 'text'), ('query', 'image')]
    >>> display.unrelated["query", "text"].tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.5]
    """

    def __init__(
        self,
        edges: NDArray[np.float64],
        unrelated: Mapping[Pair, NDArray[np.float64]],
        relevant: Mapping[Pair, NDArray[np.floating]] | None = None,
        *,
        unit: str = "dot product",
    ) -> None:
        self.edges = edges
        self.unrelated = unrelated
        self.relevant = relevant
        self.unit = unit

    @classmethod
    def from_estimator(
        cls,
        pipeline: Any,
        task: Any,
        qrels: Any = None,
        *,
        max_rows: int = 2000,
        random_state: Any = 0,
        bins: int = 50,
        unit: str | None = None,
        ax: Any = None,
        theme: str = "light",
        name: str | None = None,
    ) -> Self:
        """Draw the similarities that a pipeline ranks by.

        Parameters
        ----------
        pipeline : Pipeline
            Fitted; fuses, and ends in `ExactRetriever`.
        task : SearchTask
            Encoded queries and documents.
        qrels : list of dict, default=None
            Grades by document row, ``{row: grade}`` for each query. Without them all pairs count as unrelated.
        max_rows : int, default=2000
            Queries and documents of each kind that are compared at most, at random.
        random_state : int, RandomState instance or None, default=0
            Draws them.
        bins : int, default=50
            Number of bins, the same for all kinds.
        unit : str, default=None
            What similarities are measured in; None asks the pipeline whether it puts kinds on one scale.
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a figure.
        theme : {"light", "dark"}, default="light"
            Colours of background and text.
        name : str, default=None
            Title; None for a short one.

        Returns
        -------
        SimilarityHistogramDisplay
            As drawn.

        Raises
        ------
        TypeError
            If task is no SearchTask of Items, or pipeline does not fuse.
        ValueError
            If qrels do not fit the task, or bins or max_rows is below 1.
        sklearn.exceptions.NotFittedError
            If pipeline is not fitted.
        """
        check_drawing(ax, theme, "SimilarityHistogramDisplay")
        check_order(pipeline, "pipeline, task, qrels", "a Pipeline that fuses and ends in ExactRetriever")
        fuses = check_fuses(pipeline, task)
        pairs = sampled_pairs(fuses, task, qrels, check_k(max_rows, name="max_rows"), random_state)
        display = cls._counted(*pairs, bins, _unit_of(pipeline) if unit is None else unit)
        return display.plot(ax=ax, theme=theme, name=name)

    @classmethod
    def from_predictions(
        cls,
        similarities: ArrayLike,
        query_kinds: ArrayLike,
        document_kinds: ArrayLike,
        relevant: ArrayLike | None = None,
        *,
        bins: int = 50,
        unit: str = "dot product",
        ax: Any = None,
        theme: str = "light",
        name: str | None = None,
    ) -> Self:
        """Draw given similarities.

        Parameters
        ----------
        similarities : array-like of shape (n_queries, n_documents)
            Similarity of each query to each document.
        query_kinds : array-like of shape (n_queries,), str
            Kind of each query, as `Items.kinds` has it.
        document_kinds : array-like of shape (n_documents,), str
            Kind of each document.
        relevant : array-like of shape (n_queries, n_documents), bool, default=None
            Which documents are relevant to which query. Without it all pairs count as unrelated.
        bins : int, default=50
            Number of bins, the same for all kinds.
        unit : str, default="dot product"
            What similarities are measured in.
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a figure.
        theme : {"light", "dark"}, default="light"
            Colours of background and text.
        name : str, default=None
            Title; None for a short one.

        Returns
        -------
        SimilarityHistogramDisplay
            As drawn.

        Raises
        ------
        TypeError
            If relevant is not boolean.
        ValueError
            If shapes do not fit, no similarity is finite, or bins is below 1.
        """
        values, kinds, mask = _checked(similarities, (query_kinds, document_kinds), relevant)
        return cls._counted(*by_pair(values, kinds[0], kinds[1], mask), bins, unit).plot(ax=ax, theme=theme, name=name)

    @classmethod
    def _counted(cls, unrelated: Values, relevant: Values, bins: Any, unit: str) -> Self:
        """The display of similarities by pair of kinds, counted in common bins."""
        bins = check_k(bins, name="bins")
        every = [*unrelated.values(), *relevant.values()]
        if not every:
            raise ValueError("no similarity is finite: there is nothing to draw")
        edges = np.histogram_bin_edges([limit(x) for x in every for limit in (np.min, np.max)], bins)
        shares = {pair: np.histogram(x, edges)[0] / len(x) for pair, x in unrelated.items()}
        return cls(edges, shares, relevant, unit=unit)

    def plot(self, *, ax: Any = None, theme: str = "light", name: str | None = None) -> Self:
        """Draw the histograms.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a figure.
        theme : {"light", "dark"}, default="light"
            Colours of background and text.
        name : str, default=None
            Title; None for a short one.

        Returns
        -------
        SimilarityHistogramDisplay
            This instance, with ``ax_``, ``figure_``, ``unrelated_``, ``relevant_`` and ``medians_``.

        Raises
        ------
        ModuleNotFoundError
            Without matplotlib.
        TypeError
            If ax is no Axes.
        ValueError
            If theme is unknown.
        """
        relevant = self.relevant or {}
        with canvas(ax, theme, "SimilarityHistogramDisplay") as drawn:
            self.ax_, self.figure_ = drawn.axes[0], drawn.figure
            looks = looks_of_pairs(dict.fromkeys([*self.unrelated, *relevant]), drawn.theme)
            self.unrelated_ = {pair: self._stairs(shares, looks[pair]) for pair, shares in self.unrelated.items()}
            self._draw_relevant(relevant, looks, drawn.theme.text)
            self.ax_.set(xlabel=f"similarity ({self.unit})", ylabel="share of unrelated pairs (% a bin)")
            self.ax_.set_title("Similarity to queries, by kind" if name is None else name)
            drawn.legend(self._legend(looks, drawn.theme), columns=2)
        return self

    def _stairs(self, shares: NDArray[np.float64], look: Look) -> Any:
        """One histogram, filled and outlined, from the first to the last bin that holds anything."""
        held = np.flatnonzero(shares)
        first, last = held[0], held[-1] + 1
        values, edges = 100 * shares[first:last], self.edges[first : last + 1]
        self.ax_.stairs(values, edges, fill=True, color=look.colour, alpha=0.2)
        return self.ax_.stairs(values, edges, color=look.colour, linestyle=look.dash, linewidth=1.8)

    def _draw_relevant(self, relevant: Mapping[Pair, NDArray], looks: Mapping[Pair, Look], edge: str) -> None:
        """A line of ticks for each pair of kinds, below the histograms, with a marker at the median."""
        top = 105 * max((shares.max() for shares in self.unrelated.values()), default=1)
        self.relevant_, self.medians_ = {}, {}
        for place, pair in enumerate([pair for pair in looks if pair in relevant], start=1):
            values, height = np.sort(relevant[pair]), -_LINE * place * top
            shown = values[:: len(values) // _TICKS + 1]
            ticks = {"marker": "|", "linestyle": "", "markersize": 10, "alpha": 0.4}
            middle = {"marker": looks[pair].marker, "markersize": 9, "markeredgecolor": edge, "linestyle": ""}
            heights, colour = np.full(len(shown), height), looks[pair].colour
            (self.relevant_[pair],) = self.ax_.plot(shown, heights, color=colour, **ticks)
            (self.medians_[pair],) = self.ax_.plot([np.median(values)], [height], color=colour, **middle)
        self.ax_.set_ylim(-_LINE * (len(relevant) + 0.6) * top if relevant else 0, top)
        self.ax_.set_yticks([tick for tick in self.ax_.get_yticks() if 0 <= tick <= top])

    def _legend(self, looks: Mapping[Pair, Look], theme: Theme) -> list[Any]:
        """A line for each pair of kinds, and what ticks mean where there are any."""
        handles = [sample_line(look, " - ".join(pair)) for pair, look in looks.items()]
        if self.relevant_:
            tick = Look(theme.text, "|", "", "")
            handles.append(sample_line(tick, "relevant pairs, median marked", markersize=11))
        return handles


def _unit_of(pipeline: Any) -> str:
    """What a pipeline measures similarities in: a step that learned spreads divides by them."""
    steps = [step for _, step in getattr(pipeline, "best_estimator_", pipeline).steps]
    return UNITS[any(hasattr(step, "spread_") for step in steps)]


def _checked(similarities: Any, kinds: Any, relevant: Any) -> Any:
    """Similarities, kinds of both sides and the mask, of shapes that fit."""
    values = np.asarray(similarities, dtype=float)
    if values.ndim != 2:
        raise ValueError(f"similarities has shape {values.shape}; expected (n_queries, n_documents)")
    named = [np.asarray(side, dtype=str) for side in kinds]
    for name, side, n in zip(("query_kinds", "document_kinds"), named, values.shape, strict=True):
        if side.shape != (n,):
            raise ValueError(f"{name} has shape {side.shape}; expected ({n},), as similarities is {values.shape}")
    mask = None if relevant is None else np.asarray(relevant)
    if mask is not None and mask.dtype != bool:
        raise TypeError(f"relevant has dtype {mask.dtype}; expected a boolean array of the shape of similarities")
    if mask is not None and mask.shape != values.shape:
        raise ValueError(f"relevant has shape {mask.shape}; expected that of similarities, {values.shape}")
    return values, named, mask
