"""Colours, markers and lines: a name looks the same in every plot, and none differ by colour alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

OKABE_ITO: Mapping[str, str] = MappingProxyType(
    {
        "orange": "#E69F00",
        "sky blue": "#56B4E9",
        "bluish green": "#009E73",
        "yellow": "#F0E442",
        "blue": "#0072B2",
        "vermillion": "#D55E00",
        "reddish purple": "#CC79A7",
    }
)
"""Okabe and Ito's colours, which people with any of the common colour blindnesses tell apart."""


@dataclass(frozen=True)
class Theme:
    """Colours of a page, and those to draw with on it: neutral, blue, orange, green and purple."""

    background: str
    text: str
    grid: str
    colours: tuple[str, ...]


def _theme(background: str, text: str, grid: str, blue: str, orange: str) -> Theme:
    """A theme with the one of two blues, and of two oranges, that stands out from its background."""
    names = (blue, orange, "bluish green", "reddish purple")
    return Theme(background, text, grid, (text, *(OKABE_ITO[name] for name in names)))


THEMES: Mapping[str, Theme] = MappingProxyType(
    {
        "light": _theme("#ffffff", "#1f2328", "#d8dee4", "blue", "vermillion"),
        "dark": _theme("#14181f", "#e6edf3", "#343b45", "sky blue", "orange"),
    }
)


@dataclass(frozen=True)
class Look:
    """How a role, kind or method is drawn."""

    colour: str
    marker: str
    dash: Any
    hatch: str
    gap: str | None = None
    """Colour between the dashes of a line that may lie on another of its own colour."""


_FIXED = {"query": 0, "text": 1, "image": 2, "text+image": 3, "image+text": 3, "both": 3}
_MARKERS = ("*", "o", "^", "s", "D", "v", "P", "X", "<", ">")
_DASHES: tuple[Any, ...] = ((0, (5, 1, 1, 1, 1, 1)), "-", (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (1, 1)))
_HATCHES = ("..", "", "///", "xx", "\\\\\\", "--", "++", "oo", "||", "**")
_METHODS = (0, 4, 3, 1, 2)  # colours of texts and images last: curves of roles may stand beside those of methods
_METHOD_MARKERS = ("o", "s", "D", "^", "v", "P", "X")


def _of(place: int, choices: Sequence[Any]) -> Any:
    """One of the choices, which begin again after the last."""
    return choices[place % len(choices)]


def looks_of_kinds(names: Iterable[str], theme: Theme) -> dict[str, Look]:
    """The look of each role or kind: fixed for the usual ones, and of what they leave free for any other."""
    return {name: _look(*slots, theme) for name, slots in _slots(names).items()}


def looks_of_pairs(pairs: Iterable[tuple[str, str]], theme: Theme) -> dict[tuple[str, str], Look]:
    """The look of each pair of kinds of query and document: that of the document, lines and markers by query too."""
    pairs = list(pairs)
    queries = list(dict.fromkeys(query for query, _ in pairs))
    slots = _slots(document for _, document in pairs)
    return {(q, d): _look(slots[d][0], slots[d][1] + 2 * queries.index(q), theme) for q, d in pairs}


def _slots(names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """For each role or kind, the numbers of its colour and of its other cues."""
    names = list(dict.fromkeys(names))
    taken = {_FIXED[name] for name in names if name in _FIXED}
    free = [slot for slot in (4, 3, 0, 2, 1) if slot not in taken] or [4]
    others = [name for name in names if name not in _FIXED]
    found = {name: (_of(place, free), 4 + place) for place, name in enumerate(others)}
    return {name: found[name] if name in found else (_FIXED[name], _FIXED[name]) for name in names}


def _look(colour: int, cue: int, theme: Theme) -> Look:
    """Colour by one place, everything else by another."""
    return Look(_of(colour, theme.colours), _of(cue, _MARKERS), _of(cue, _DASHES), _of(cue, _HATCHES))


def looks_of_methods(names: Iterable[str], theme: Theme) -> dict[str, Look]:
    """The look of each method, by its place."""
    return {
        name: Look(theme.colours[_of(place, _METHODS)], _of(place, _METHOD_MARKERS), "-", "")
        for place, name in enumerate(names)
    }


def check_theme(theme: Any) -> Theme:
    """The theme of a name."""
    if not isinstance(theme, str) or theme not in THEMES:
        raise ValueError(f"theme must be one of {', '.join(map(repr, THEMES))}; got {theme!r}")
    return THEMES[theme]
