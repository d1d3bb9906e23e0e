"""The Axes that a display draws on: its own figure, or those of the caller, in the colours of a theme."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from grclip._optional import optional_import
from grclip.plots._palette import Look, Theme, check_theme

FIGSIZE = (6.0, 4.0)
"""Inches, at 100 dots an inch: 600 x 400 pixels."""

_DPI = 100
_SIZES = {"font.size": 11, "axes.titlesize": 12, "axes.labelsize": 11, "legend.fontsize": 10, "hatch.linewidth": 0.7}
_TICK_SIZE = 10
_BELOW_LABEL = 0.5  # inches from the Axes to a legend under their label


@dataclass(frozen=True)
class Canvas:
    """Axes to draw on, and the colours to draw with."""

    axes: Sequence[Any]
    theme: Theme
    own: bool
    """Whether the figure was made for this drawing, so that its margins are ours to use."""

    @property
    def figure(self) -> Any:
        """The figure of the Axes, or of the first panel."""
        return self.axes[0].figure

    def legend(self, handles: Sequence[Any], *, columns: int = 3) -> None:
        """A legend for all panels: below them where the figure is ours, else where it covers least of the last one."""
        if self.own:
            self.figure.legend(handles=handles, loc="outside lower center", ncols=columns, **self._legend_style)
        else:
            self.axes[-1].legend(handles=handles, loc="best", **self._legend_style)

    def panel_legend(self, panel: int, handles: Sequence[Any], *, columns: int = 1) -> None:
        """A legend for one panel: below it where the figure is ours, else where it covers least."""
        ax = self.axes[panel]
        if not self.own:
            ax.legend(handles=handles, loc="best", **self._legend_style)
            return
        transforms = optional_import("matplotlib.transforms", "plots", "a legend")
        down = transforms.ScaledTranslation(0, -_BELOW_LABEL, ax.figure.dpi_scale_trans)
        where = {"bbox_to_anchor": (0.5, 0), "bbox_transform": ax.transAxes + down, "borderaxespad": 0}
        ax.legend(handles=handles, loc="upper center", ncols=columns, **where, **self._legend_style)

    @property
    def _legend_style(self) -> dict[str, Any]:
        return {"frameon": False, "labelcolor": self.theme.text, "columnspacing": 1.5}


def check_drawing(ax: Any, theme: Any, feature: str, *, panels: int = 1) -> Theme:
    """The theme, where nothing stands in the way of drawing: to be asked before anything is measured."""
    optional_import("matplotlib", "plots", feature)
    if ax is not None:
        check_axes(ax, panels)
    return check_theme(theme)


@contextmanager
def canvas(ax: Any, theme: Any, feature: str, *, panels: int = 1) -> Iterator[Canvas]:
    """Axes to draw on, dressed for the theme when all is drawn; a figure that could not be drawn is closed again."""
    colours = check_drawing(ax, theme, feature, panels=panels)
    matplotlib = optional_import("matplotlib", "plots", feature)
    pyplot = optional_import("matplotlib.pyplot", "plots", feature)
    with matplotlib.rc_context({**_SIZES, "text.color": colours.text}):
        if ax is None:
            figure, made = pyplot.subplots(1, panels, figsize=FIGSIZE, dpi=_DPI, layout="constrained", squeeze=False)
        axes = list(made[0]) if ax is None else check_axes(ax, panels)
        try:
            yield Canvas(axes, colours, ax is None)
            for each in axes:
                _dress(each, colours)
                _plainly(each)
            if ax is None:
                figure.set_facecolor(colours.background)
        except BaseException:
            if ax is None:
                pyplot.close(figure)
            raise


def check_axes(ax: Any, panels: int) -> list[Any]:
    """As many Axes as there are panels."""
    given = [ax]
    if isinstance(ax, Sequence | np.ndarray):
        given = list(np.asarray(ax, dtype=object).ravel())
    wanted = "one Axes" if panels == 1 else f"a sequence of {panels} Axes, one a panel"
    for each in given:
        if not hasattr(each, "get_xlabel"):
            raise TypeError(f"ax must be {wanted}, of matplotlib; got {type(each).__name__}")
    if len(given) != panels:
        raise ValueError(f"ax must be {wanted}; got {len(given)}")
    return given


def _dress(ax: Any, theme: Theme) -> None:
    """Background, text and lines of the Axes in the colours of the theme."""
    ax.set_facecolor(theme.background)
    ax.tick_params(colors=theme.text, labelsize=_TICK_SIZE, which="both")
    ax.grid(visible=True, color=theme.grid, linewidth=0.8)
    ax.set_axisbelow(True)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.text)
    for label in (ax.xaxis.label, ax.yaxis.label, ax.title):
        label.set_color(theme.text)
        label.set_size(_SIZES["axes.titlesize" if label is ax.title else "axes.labelsize"])


def _plainly(ax: Any) -> None:
    """Names as they are: a dollar is no formula, and a control character, which would break an SVG, is a blank."""
    legends = [legend for legend in (ax.get_legend(), *ax.figure.legends) if legend is not None]
    names = [text for legend in legends for text in legend.get_texts()]
    for text in (ax.title, ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels(), *names):
        text.set_parse_math(False)
        shown = "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text.get_text())
        text.set_text(shown)


def sample_line(look: Look, label: str, **options: Any) -> Any:
    """A line for a legend, larger and clearer than what it stands for."""
    lines = optional_import("matplotlib.lines", "plots", "a legend")
    defaults = {"color": look.colour, "marker": look.marker, "markersize": 7, "linestyle": look.dash}
    return lines.Line2D([], [], label=label, **{**defaults, **options})


def style(defaults: Mapping[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Defaults of a line with what the caller wants otherwise, by long or short names (``linewidth``, ``lw``)."""
    cbook, lines = (optional_import(f"matplotlib.{name}", "plots", "a plot") for name in ("cbook", "lines"))
    return {**defaults, **cbook.normalize_kwargs(dict(given or {}), lines.Line2D)}
