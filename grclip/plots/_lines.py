"""Curves of the diagnostics as lines with bands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from grclip.diagnostics import Curve
from grclip.diagnostics.replacement import PUSHED_DOWN
from grclip.plots._canvas import style
from grclip.plots._palette import Look, Theme, looks_of_methods

CONFIDENCE = 0.95

_ON_TOP = 0.45  # of the width of a line, for one that may lie on it


def check_curve(curve: Any, parameter: str, maker: str) -> Curve:
    """A curve along the parameter that a display is about."""
    if not isinstance(curve, Curve):
        raise TypeError(f"curve must be the Curve that {maker} returns; got {type(curve).__name__}")
    if curve.parameter != parameter:
        raise ValueError(f"curve runs along {curve.parameter!r}, not {parameter!r}; pass what {maker} returns")
    return curve


def looks_of_curve(curve: Curve, theme: Theme) -> dict[str, Look]:
    """The look of each method; a simulated curve is dashed, in the colour of the method that it simulates.

    Its gaps have the colour of the background, and show on the line of the method where the two are one.
    """
    simulated = {name: name.removesuffix(PUSHED_DOWN) for name in curve.scores if name.endswith(PUSHED_DOWN)}
    looks = looks_of_methods([name for name in curve.scores if simulated.get(name) not in curve.scores], theme)
    dashed = {
        name: replace(looks[of], dash=(0, (4, 2.5)), marker="d", gap=theme.background)
        for name, of in simulated.items()
        if of in looks
    }
    return {name: (looks | dashed)[name] for name in curve.scores}


def draw_lines(
    ax: Any, curve: Curve, looks: Mapping[str, Look], line_kw: Mapping[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A line a name, and a band where the mean has an interval. A value that is missing leaves a hole."""
    lines, bands = {}, {}
    for name, look in looks.items():
        place = list(looks).index(name if look.gap is None else name.removesuffix(PUSHED_DOWN))
        wider = max(0, 3 - place)  # so that a line shows on both sides of one that covers it
        sizes = {"linewidth": 1.5 + 0.6 * wider, "markersize": 4.5 + 1.4 * wider}
        shape = {"color": look.colour, "marker": look.marker, "linestyle": look.dash, "label": name}
        (lines[name],) = ax.plot(curve.values, curve.mean(name), **style(shape | sizes, line_kw))
        if look.gap is not None:
            _lay_on_top(lines[name], look.gap)
        low, high = curve.interval(name, CONFIDENCE).T
        bands[name] = ax.fill_between(curve.values, low, high, color=lines[name].get_color(), alpha=0.15, linewidth=0)
    return lines, bands


def _lay_on_top(line: Any, gap: str) -> None:
    """Draw a line narrow, with gaps and markers of another colour, so that one of its own colour shows below it."""
    line.set(gapcolor=gap, markerfacecolor=gap, zorder=line.get_zorder() + 0.1)
    line.set(linewidth=_ON_TOP * line.get_linewidth(), markersize=0.6 * line.get_markersize())


def score_label(curve: Curve) -> str:
    """The axis of a score, with its range."""
    return f"{curve.metric} (0 to 1)"
