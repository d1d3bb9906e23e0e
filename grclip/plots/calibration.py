"""CalibrationSizeDisplay: how many calibration rows are enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from grclip.diagnostics import CalibrationSize, Curve, calibration_size
from grclip.plots._canvas import Canvas, canvas, check_drawing, sample_line
from grclip.plots._lines import draw_lines, looks_of_curve, score_label
from grclip.plots._order import check_order
from grclip.plots._palette import looks_of_kinds

_DIGIT, _SPACE = 0.045, 0.05  # of the width of a panel


class CalibrationSizeDisplay:
    """How many calibration rows are enough: scores by method, and errors of the means by role, against their number.

    Make one with `from_estimator` or `from_predictions`.

    Parameters
    ----------
    result : CalibrationSize
        As `grclip.diagnostics.calibration_size` returns it.

    Attributes
    ----------
    ax_ : ndarray of 2 matplotlib Axes
        What was drawn on: scores on the left, errors on the right.
    figure_ : matplotlib Figure
        The figure that holds them.
    lines_ : dict of str to matplotlib Line2D
        Mean scores by method.
    error_lines_ : dict of str to matplotlib Line2D
        Mean errors by role; the legend tells up to how many rows one is measurable, where it ends early.
    expected_lines_ : dict of str to matplotlib Line2D
        Expected errors by role, dotted.

    Raises
    ------
    ModuleNotFoundError
        From the methods, where matplotlib is not installed.

    See Also
    --------
    grclip.diagnostics.calibration_size : The numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from grclip.diagnostics import CalibrationSize, Curve
    >>> from grclip.plots import CalibrationSizeDisplay
    >>> n = np.array([10, 100])
    >>> scores = Curve("n", n, {"means removed": np.array([[0.5, 0.6], [0.7, 0.7]])}, "NDCG@10", "random subsets")
    >>> errors = Curve("n", n, {"text": np.array([[0.2, 0.3], [0.1, 0.1]])}, "error", "random subsets")
    >>> display = CalibrationSizeDisplay.from_predictions(CalibrationSize(scores, errors, {"text": 0.9 / np.sqrt(n)}))
    >>> display.ax_[1].get_xscale()
    'log'
    """

    def __init__(self, result: CalibrationSize) -> None:
        self.result = result

    @classmethod
    def from_estimator(
        cls,
        methods: Any,
        task: Any,
        qrels: Any,
        calibration: Any,
        *,
        ax: Any = None,
        theme: str = "light",
        line_kw: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """Measure both curves, and draw them.

        Parameters
        ----------
        methods : pipeline, or dict of str to pipeline
            Pipelines that end in `ExactRetriever`; clones are fitted on each subset.
        task : SearchTask
            Encoded queries and documents to measure on.
        qrels : list of dict
            Grades by document row, ``{row: grade}`` for each query.
        calibration : tuple of SearchTask and list of dict
            Task and qrels that subsets are drawn from.
        ax : sequence of 2 matplotlib Axes, default=None
            Axes to draw on; None makes a figure.
        theme : {"light", "dark"}, default="light"
            Colours of background and text.
        line_kw : dict, default=None
            Options of matplotlib's ``plot``.
        **options
            Further arguments of `grclip.diagnostics.calibration_size`: ``sizes``, ``k``, ``n_repeats``, ...

        Returns
        -------
        CalibrationSizeDisplay
            As drawn.

        Raises
        ------
        TypeError, ValueError
            As `grclip.diagnostics.calibration_size` and `plot`.
        """
        check_drawing(ax, theme, "CalibrationSizeDisplay", panels=2)
        check_order(methods, "methods, task, qrels, calibration")
        result = calibration_size(task, qrels, methods, calibration, **options)
        return cls(result).plot(ax=ax, theme=theme, line_kw=line_kw)

    @classmethod
    def from_predictions(
        cls,
        result: CalibrationSize,
        *,
        ax: Any = None,
        theme: str = "light",
        line_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Draw curves that were measured.

        Parameters
        ----------
        result : CalibrationSize
            As `grclip.diagnostics.calibration_size` returns it.
        ax : sequence of 2 matplotlib Axes, default=None
            Axes to draw on; None makes a figure.
        theme : {"light", "dark"}, default="light"
            Colours of background and text.
        line_kw : dict, default=None
            Options of matplotlib's ``plot``.

        Returns
        -------
        CalibrationSizeDisplay
            As drawn.

        Raises
        ------
        TypeError
            If result is no CalibrationSize.
        ValueError
            If theme is unknown, or ax are not two.
        """
        if not isinstance(result, CalibrationSize):
            raise TypeError(
                f"result must be the CalibrationSize that calibration_size returns; got {type(result).__name__}"
            )
        return cls(result).plot(ax=ax, theme=theme, line_kw=line_kw)

    def plot(self, *, ax: Any = None, theme: str = "light", line_kw: Mapping[str, Any] | None = None) -> Self:
        """Draw both curves.

        Parameters
        ----------
        ax : sequence of 2 matplotlib Axes, default=None
            Axes to draw on; None makes a figure.
        theme : {"light", "dark"}, default="light"
            Colours of background and text.
        line_kw : dict, default=None
            Options of matplotlib's ``plot``.

        Returns
        -------
        CalibrationSizeDisplay
            This instance, with ``ax_``, ``figure_``, ``lines_``, ``error_lines_`` and ``expected_lines_``.

        Raises
        ------
        ModuleNotFoundError
            Without matplotlib.
        TypeError
            If ax are no Axes.
        ValueError
            If theme is unknown, or ax are not two.
        """
        with canvas(ax, theme, "CalibrationSizeDisplay", panels=2) as drawn:
            self.ax_, self.figure_ = np.array(drawn.axes, dtype=object), drawn.figure
            for panel in drawn.axes:
                panel.set(xlabel="calibration rows (log scale)", xscale="log")
                panel.minorticks_off()
                panel.set_xticks(*_ticks(self.result.scores.values))
            self._draw_scores(drawn, line_kw)
            self._draw_errors(drawn, line_kw)
        return self

    def _draw_scores(self, drawn: Canvas, line_kw: Mapping[str, Any] | None) -> None:
        """The left panel."""
        ax, curve = drawn.axes[0], self.result.scores
        self.lines_, _ = draw_lines(ax, curve, looks_of_curve(curve, drawn.theme), line_kw)
        ax.set(title="Score of the search", ylabel=score_label(curve))
        drawn.panel_legend(0, list(self.lines_.values()))

    def _draw_errors(self, drawn: Canvas, line_kw: Mapping[str, Any] | None) -> None:
        """The right panel."""
        ax, curve = drawn.axes[1], self.result.errors
        looks = looks_of_kinds(curve.scores, drawn.theme)
        self.error_lines_, _ = draw_lines(ax, curve, looks, line_kw)
        self.expected_lines_ = {}
        for role, expected in self.result.expected.items():
            (self.expected_lines_[role],) = ax.plot(curve.values, expected, ":", color=looks[role].colour)
        ax.set(title="Error of the means", ylabel="distance (of unit vectors)", ylim=(0, None))
        told = {role: _told(role, curve) for role in curve.scores}
        for role, line in self.error_lines_.items():
            line.set_label(told[role])
        dotted = sample_line(looks_of_kinds(["query"], drawn.theme)["query"], "expected", linestyle=":", marker="")
        columns = 2 if list(told) == list(told.values()) else 1
        drawn.panel_legend(1, [*self.error_lines_.values(), dotted], columns=columns)


def _told(role: str, curve: Curve) -> str:
    """A role for the legend, with the number of rows up to which its error is measurable if it is not all along."""
    measured = curve.values[~np.isnan(curve.mean(role))]
    if len(measured) == len(curve.values):
        return role
    return f"{role} (measurable to {measured[-1]:,})" if len(measured) else f"{role} (not measurable)"


def _ticks(sizes: NDArray[np.integer]) -> tuple[list[int], list[str]]:
    """Sizes whose numbers do not run into each other on a log axis, and the numbers; both ends before all others."""
    numbers = sorted({int(size) for size in sizes})
    kept: list[int] = []
    for size in dict.fromkeys([numbers[-1], numbers[0], *numbers]):
        letters = [(len(f"{size:,}{other:,}") / 2, abs(np.log(size / other))) for other in kept]
        if all(gap >= (_DIGIT * n + _SPACE) * np.log(numbers[-1] / numbers[0]) for n, gap in letters):
            kept.append(size)
    return sorted(kept), [f"{size:,}" for size in sorted(kept)]
