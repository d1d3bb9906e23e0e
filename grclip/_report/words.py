"""Numbers and kinds as a reader takes them, and text that any page can hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

NOTHING, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"

_INVISIBLE = (
    {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n\r"}
    | {0x7F: 0x2421}
    | dict.fromkeys([*range(0x80, 0xA0), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF], 0xFFFD)
)
"""Control characters by their pictures; what no page in UTF-8 can hold by a replacement character."""


def printable(value: Any) -> Any:
    """A value that a page can hold, whatever text it comes from."""
    return value.translate(_INVISIBLE) if type(value) is str else value


def kind_name(kind: str) -> str:
    return kind.replace("+", " + ")


def plural(kind: str) -> str:
    """Documents of a kind."""
    one = {"text": "texts", "image": "images", "audio": "sounds", "video": "videos"}
    return one.get(kind) or f"documents with {and_list(kind.split('+'))}"


def counted(n: int, one: str, several: str) -> str:
    """A number and what it counts."""
    return f"{n:,} {one if n == 1 else several}"


def and_list(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def in_percent(share: float) -> str:
    """A share in percent, with a decimal place where it is small; a dash where there is none."""
    if np.isnan(share):
        return NOTHING
    percent = 100 * float(share)
    return f"{percent:.0f} %" if percent >= 9.95 or percent == 0 else f"{percent:.1f} %"


def three_places(value: float) -> str:
    """Three places, with a true minus sign; a dash for what is not measurable."""
    return NOTHING if np.isnan(value) else f"{value:.3f}".replace("-", MINUS)


def score_text(value: float) -> str:
    return three_places(value) if np.isfinite(value) else "none"


def p_value(p: float | None) -> str:
    if p is None:
        return "reference"
    return "< 0.001" if p < 0.001 else "1" if p == 1 else f"{p:.3f}"
