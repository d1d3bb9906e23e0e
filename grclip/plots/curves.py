"""ReplacementCurveDisplay and AlphaCurveDisplay: a score along the share without text, and along alpha."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np

from grclip.diagnostics import Curve, alpha_curve, replacement_curve
from grclip.plots._canvas import canvas, check_drawing
from grclip.plots._lines import check_curve, draw_lines, looks_of_curve, score_label
from grclip.plots._order import check_order
from grclip.plots._palette import Theme

_FLAT = 0.0005  # of a score, below which no three places differ


class CurveDisplay(ABC):
    """What the displays of a score along a parameter share."""

    parameter: str
    """What the curve runs along, as `Curve` names it."""

    def __init__(self, curve: Curve) -> None:
        self.curve = curve

    @classmethod
    def from_estimator(
        cls,
        methods: Any,
        task: Any,
        qrels: Any,
        *,
        ax: Any = None,
        theme: str = "light",
        name: str | None = None,
        line_kw: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """Measure the curve, and draw it.

        Parameters
        ----------
        methods : pipeline, or dict of str to pipeline
            Pipelines that end in `ExactRetriever`: fitted ones for the curve over replaced texts; for that over alpha,
            clones are fitted.
        task : SearchTask
            Encoded queries, and documents of which some have a text and a part of another modality.
        qrels : list of dict
            Grades by document row, ``{row: grade}`` for each query.
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a figure.
        theme : {"light", "dark"}, default="light"
            Colours of background and text.
        name : str, default=None
            Title; None for a short one.
        line_kw : dict, default=None
            Options of matplotlib's ``plot``.
        **options
            Further arguments of the function of `grclip.diagnostics` that measures: ``metric``, ``k``, ``p``,
            ``alphas``, ...

        Returns
        -------
        CurveDisplay
            The display of the class, as drawn.

        Raises
        ------
        TypeError, ValueError
            As the function that measures, and `plot`.
        """
        check_drawing(ax, theme, cls.__name__)
        check_order(methods, "methods, task, qrels")
        curve = _MEASURES[cls.parameter](task, qrels, methods, **options)
        return cls(curve).plot(ax=ax, theme=theme, name=name, line_kw=line_kw)

    @classmethod
    def from_predictions(
        cls,
        curve: Curve,
        *,
        ax: Any = None,
        theme: str = "light",
        name: str | None = None,
        line_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Draw a curve that was measured.

        Parameters
        ----------
        curve : Curve
            As `grclip.diagnostics.replacement_curve` or `grclip.diagnostics.alpha_curve` returns it.
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a figure.
        theme : {"light", "dark"}, default="light"
            Colours of background and text.
        name : str, default=None
            Title; None for a short one.
        line_kw : dict, default=None
            Options of matplotlib's ``plot``.

        Returns
        -------
        CurveDisplay
            The display of the class, as drawn.

        Raises
        ------
        TypeError
            If curve is no Curve.
        ValueError
            If curve runs along another parameter, or theme is unknown.
        """
        curve = check_curve(curve, cls.parameter, _MEASURES[cls.parameter].__name__)
        return cls(curve).plot(ax=ax, theme=theme, name=name, line_kw=line_kw)

    def plot(
        self,
        *,
        ax: Any = None,
        theme: str = "light",
        name: str | None = None,
        line_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a figure.
        theme : {"light", "dark"}, default="light"
            Colours of background and text.
        name : str, default=None
            Title; None for a short one.
        line_kw : dict, default=None
            Options of matplotlib's ``plot``.

        Returns
        -------
        CurveDisplay
            This instance, with ``ax_``, ``figure_``, ``lines_`` and ``bands_``.

        Raises
        ------
        ModuleNotFoundError
            Without matplotlib.
        TypeError
            If ax is no Axes.
        ValueError
            If theme is unknown.
        """
        with canvas(ax, theme, type(self).__name__) as drawn:
            self.ax_, self.figure_ = drawn.axes[0], drawn.figure
            looks = looks_of_curve(self.curve, drawn.theme)
            self.lines_, self.bands_ = draw_lines(self.ax_, self.curve, looks, line_kw)
            self.ax_.set(ylabel=score_label(self.curve))
            self._finish(drawn.theme, name)
            drawn.legend(list(self.lines_.values()), columns=2)
        return self

    @abstractmethod
    def _finish(self, theme: Theme, name: str | None) -> None:
        """Label the parameter and the axes, and draw what one of the displays has alone."""


_MEASURES: Mapping[str, Callable[..., Curve]] = {"p": replacement_curve, "alpha": alpha_curve}


class ReplacementCurveDisplay(CurveDisplay):
    """The U-curve: how well a search does as texts in the corpus are replaced by images, or by what else there is.

    A search that treats all kinds alike is a level line between its two ends; with a modality gap the line sags where
    kinds are mixed. Make one with `from_estimator` or `from_predictions`.

    Parameters
    ----------
    curve : Curve
        As `grclip.diagnostics.replacement_curve` returns it.

    Attributes
    ----------
    ax_ : matplotlib Axes
        What was drawn on.
    figure_ : matplotlib Figure
        The figure that holds it.
    lines_ : dict of str to matplotlib Line2D
        Means over random corpora, by method; the simulation of a search that ranks by modality first is narrow and
        dashed, and can be seen on the line of its method where the two are one.
    bands_ : dict of str to matplotlib PolyCollection
        Their 95 % intervals.

    Raises
    ------
    ModuleNotFoundError
        From the methods, where matplotlib is not installed.

    See Also
    --------
    grclip.diagnostics.replacement_curve : The numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from grclip.diagnostics import Curve
    >>> from grclip.plots import ReplacementCurveDisplay
    >>> scores = {"raw": np.array([[0.9, 0.8], [0.3, 0.5], [0.8, 0.8]])}
    >>> curve = Curve("p", np.array([0.0, 0.5, 1.0]), scores, "NDCG@10", "random corpora")
    >>> display = ReplacementCurveDisplay.from_predictions(curve)
    >>> display.lines_["raw"].get_ydata().round(2).tolist()
    [0.85, 0.4, 0.8]
    """

    parameter = "p"

    def _finish(self, theme: Theme, name: str | None) -> None:
        self.ax_.set(xlabel="share of documents without text, p (0 to 1)", ylim=(0, 1.02))
        self.ax_.set_title("Score as texts are replaced" if name is None else name)


class AlphaCurveDisplay(CurveDisplay):
    """How well a search does along alpha, the weight of the text in documents that also have another part.

    The best alpha of each method is marked by a ring, where it makes a difference. Make one with `from_estimator` or
    `from_predictions`.

    Parameters
    ----------
    curve : Curve
        As `grclip.diagnostics.alpha_curve` returns it.

    Attributes
    ----------
    ax_ : matplotlib Axes
        What was drawn on.
    figure_ : matplotlib Figure
        The figure that holds it.
    lines_ : dict of str to matplotlib Line2D
        Means over queries, by method.
    bands_ : dict of str to matplotlib PolyCollection
        Their 95 % intervals.
    best_ : dict of str to float
        The alpha of the highest mean of each method, the lower one of equals; none of a method whose means differ by
        less than 0.0005.

    Raises
    ------
    ModuleNotFoundError
        From the methods, where matplotlib is not installed.

    See Also
    --------
    grclip.diagnostics.alpha_curve : The numbers, and why the best of them is not an honest figure.

    Examples
    --------
    >>> import numpy as np
    >>> from grclip.diagnostics import Curve
    >>> from grclip.plots import AlphaCurveDisplay
    >>> scores = {"raw": np.array([[0.6, 0.4], [0.9, 0.7], [0.5, 0.5]])}
    >>> curve = Curve("alpha", np.array([0.0, 0.5, 1.0]), scores, "NDCG@10", "queries")
    >>> AlphaCurveDisplay.from_predictions(curve).best_
    {'raw': 0.5}
    """

    parameter = "alpha"

    def _finish(self, theme: Theme, name: str | None) -> None:
        self.best_ = {method: best for method in self.lines_ if (best := self._mark_best(method, theme)) is not None}
        self.ax_.set_xlabel("weight of the text, alpha (0: other part alone, 1: text alone)")
        self.ax_.set_title("Score by weight of the text" if name is None else name)

    def _mark_best(self, name: str, theme: Theme) -> float | None:
        """Ring the highest mean of a method, and say in the legend where it is; nothing where no mean is known."""
        mean = self.curve.mean(name)
        if np.isnan(mean).all():
            return None
        if np.nanmax(mean) - np.nanmin(mean) < _FLAT:
            self.lines_[name].set_label(f"{name} (no difference)")
            return None
        best = int(np.nanargmax(mean))
        alpha = float(self.curve.values[best])
        self.ax_.plot(alpha, mean[best], "o", markersize=16, markerfacecolor="none", markeredgecolor=theme.text)
        self.lines_[name].set_label(f"{name} (best: {alpha:g})")
        return alpha
