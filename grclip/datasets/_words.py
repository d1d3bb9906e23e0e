"""Where a line of a text may end: at spaces, in scripts without them between characters, and never inside one.

By Unicode's properties, and as a reader sees it: marks, joined emoji and the letters of a syllable are one character.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from unicodedata import bidirectional, category, combining

SPACELESS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef"
    "\U0001f300-\U0001faff\U00020000-\U0003fffd]"
)
"""Scripts without spaces between words (Chinese, Japanese, Thai, Khmer, ...) and pictograms."""

CLUSTER = re.compile("[\U0001f1e6-\U0001f1ff]{2}|.", re.DOTALL)
"""The two letters of a flag, or one character."""

EXTENDING = re.compile("[\u0e33\u0eb3\u200c\u200d\u1160-\u11ff\ud7b0-\ud7fb\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]")
"""What belongs to the character before it though it is no mark: vowels of Thai and Korean, joiners, skin tones."""

INITIAL = re.compile("[\u1100-\u115f\ua960-\ua97c]")
"""Initial consonants of Korean, several of which may begin one syllable."""

LEADING = re.compile("[\u0e40-\u0e44\u0ec0-\u0ec4]")
"""Vowels of Thai and Lao that are written before their consonant."""


def pieces_of(text: str) -> Iterator[tuple[int, int]]:
    """Where the pieces of a paragraph begin and end: words, or characters where there are no spaces."""
    for word in re.finditer("[^ ]+", text):
        if SPACELESS.search(word[0]):
            clusters = clusters_of(text, *word.span())
            breaks = [b for (a, _), (b, _) in pairwise(clusters) if _may_break(text[a], text[b])]
            yield from pairwise([word.start(), *breaks, word.end()])
        else:
            yield word.span()


def _may_break(before: str, after: str) -> bool:
    """Whether a line may end between two characters: not before closing punctuation, nor after an opening bracket."""
    if category(after) in ("Pe", "Pf", "Po", "Lm") or category(before) in ("Ps", "Pi") or LEADING.match(before):
        return False
    return bool(SPACELESS.match(before) or SPACELESS.match(after))


def clusters_of(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Where the grapheme clusters of a word begin and end: what a reader takes for one character."""
    found = [match.start() for match in CLUSTER.finditer(text, start, end)]
    starts = [i for i in found if i == start or not _is_joined(text[i - 1], text[i])]
    return list(pairwise([*starts, end]))


def _is_joined(before: str, char: str) -> bool:
    """Whether a character belongs to the one before: marks, joined emoji, parts of an Indic or a Korean syllable."""
    if category(char)[0] == "M" or EXTENDING.match(char) or before == "\u200d":
        return True
    virama = combining(before) == 9 and category(char)[0] == "L"
    return virama or bool(INITIAL.match(before) and INITIAL.match(char))


def direction_of(text: str) -> str:
    """The direction of a paragraph, that of its first letter."""
    kinds = (bidirectional(char) for char in text)
    return "rtl" if next((kind for kind in kinds if kind in ("L", "R", "AL")), "L") != "L" else "ltr"
