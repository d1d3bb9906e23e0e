"""Layout of a page: which font holds a text, and where its lines end."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from math import isqrt
from typing import Any, NamedTuple

from grclip.datasets._words import clusters_of, direction_of, pieces_of


class Paragraph(NamedTuple):
    """A line of a text: the direction in which it runs (ltr or rtl), and its pieces, which no line break divides."""

    text: str
    direction: str
    pieces: list[tuple[int, int]]


class Strip(NamedTuple):
    """A paragraph on one endless line: where each of its pieces begins and ends, in pixels."""

    paragraph: Paragraph
    begins: list[float]
    ends: list[float]


class Page(NamedTuple):
    """What a page is drawn from: its lines, each with the direction of its paragraph."""

    side: int
    face: Face
    lines: list[tuple[str, str]]


@dataclass(frozen=True)
class Face:
    """A font at one size; length gives the width of a word in pixels, and remembers it."""

    font: Any
    leading: int
    shaped: bool
    length: Callable[[str], float]

    def options(self, direction: str) -> dict[str, str]:
        """The direction, for a font that can be told."""
        return {"direction": direction} if self.shaped else {}


def compose(lines: Sequence[str], size: int, faces: Sequence[Face], largest: int | None) -> Page | None:
    """The page of a text in the largest font that fits, or in the smallest on a larger page; None if none is enough."""
    paragraphs = [Paragraph(line, direction_of(line), list(pieces_of(line))) for line in lines]
    for face in faces:
        page = _lay_out(paragraphs, face, size)
        if page is not None:
            return page
    total = sum(face.length(p.text[start:end]) for p in paragraphs for start, end in p.pieces)
    size = max(size, isqrt(int(total * face.leading) * 10 // 11))  # without spaces and margins, so never too large
    while page is None and (largest is None or size < largest):
        size = min(size * 11 // 10, largest or size * 11 // 10)
        page = _lay_out(paragraphs, face, size)
    return page


def margin_of(side: int) -> int:
    """White at each edge of a page, in pixels."""
    return side // 32


def _lay_out(paragraphs: Sequence[Paragraph], face: Face, side: int) -> Page | None:
    """A page of a font and a side, or None where the text does not fit it."""
    room = side - 2 * margin_of(side)
    strips = [measure(paragraph, face, room) for paragraph in paragraphs]
    at_least = sum(strip.ends[-1] for strip in strips if strip.ends) / (room + face.length(" "))
    if at_least * face.leading > room:
        return None
    lines: list[tuple[str, str]] = []
    for strip in strips:
        for line, width in wrap(strip, face, room):
            lines.append((line, strip.paragraph.direction))
            if width > room or len(lines) * face.leading > room:
                return None
    return Page(side, face, lines)


def measure(paragraph: Paragraph, face: Face, room: float) -> Strip:
    """A paragraph on one line, where pieces wider than the room are divided into their clusters."""
    text, _, pieces = paragraph
    widths = [face.length(text[start:end]) for start, end in pieces]
    if max(widths, default=0.0) > room:
        divided = ([p] if width <= room else clusters_of(text, *p) for p, width in zip(pieces, widths, strict=True))
        pieces = list(chain.from_iterable(divided))
        widths = [face.length(text[start:end]) for start, end in pieces]
    space = face.length(" ")
    gaps = (space if before[1] < after[0] else 0.0 for before, after in pairwise(pieces))
    steps = (width + gap for width, gap in zip(widths, gaps, strict=False))
    begins = list(accumulate(steps, initial=0.0))[: len(pieces)]
    ends = [begin + width for begin, width in zip(begins, widths, strict=True)]
    return Strip(paragraph._replace(pieces=pieces), begins, ends)


def wrap(strip: Strip, face: Face, room: float) -> Iterator[tuple[str, float]]:
    """The lines of a paragraph and their widths; none is wider than the room, unless a single cluster is.

    Sums of widths tell where a line may end, in linear time. They neglect kerning and joined letters, so the line
    itself is measured too.
    """
    (text, direction, pieces), begins, ends = strip
    if not pieces:
        yield "", 0.0
    first = 0
    while first < len(pieces):
        last = max(bisect_right(ends, begins[first] + room) - 1, first)
        while True:
            line = text[pieces[first][0] : pieces[last][1]]
            width = face.font.getlength(line, **face.options(direction))
            if width <= room or last == first:
                break
            last -= 1
        yield line, width
        first = last + 1
