"""A sheet of search results as a picture: a line of cards for each ranking."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from grclip._optional import optional_import

ACROSS, CARD, MARGIN, CAPTION, HEADING = 5, 190, 14, 26, 34
INK, MUTED, PAPER, PANEL, RIGHT = "#1c2430", "#5b6675", "#ffffff", "#f1f3f6", "#117a3a"


@dataclass(frozen=True)
class Card:
    """One result: what it shows, and how it was found."""

    kind: str
    score: float
    text: str | None = None
    picture: Any = None
    relevant: bool = False


@dataclass(frozen=True)
class Ranking:
    """The results of one method for one query."""

    title: str
    cards: Sequence[Card] = field(default_factory=list)


def save_sheet(path: str | os.PathLike[str], sections: Sequence[tuple[str, Sequence[Ranking]]]) -> None:
    """Write a picture with a section for each query, and in it a line of cards for each ranking."""
    image, pen_of = (
        optional_import(f"PIL.{name}", "open-clip", "a sheet of results") for name in ("Image", "ImageDraw")
    )
    lines = CARD + CAPTION + MARGIN
    height = 2 * MARGIN + sum(
        HEADING + MARGIN + sum(HEADING + lines * -(-len(ranking.cards) // ACROSS) for ranking in rankings)
        for _, rankings in sections
    )
    sheet = image.new("RGB", (MARGIN + ACROSS * (CARD + MARGIN), height), PAPER)
    pen, y = pen_of.Draw(sheet), MARGIN
    for query, rankings in sections:
        pen.text((MARGIN, y), textwrap.shorten(query, 80, placeholder=" ..."), fill=INK, font=_font(24))
        y += HEADING
        for ranking in rankings:
            pen.text((MARGIN, y + 6), ranking.title, fill=MUTED, font=_font(16))
            y += HEADING
            for i, card in enumerate(ranking.cards):
                column, row = i % ACROSS, i // ACROSS
                _draw_card(sheet, pen, card, (MARGIN + column * (CARD + MARGIN), y + row * lines))
            y += lines * -(-len(ranking.cards) // ACROSS)
        y += MARGIN
    sheet.save(path)


def _draw_card(sheet: Any, pen: Any, card: Card, corner: tuple[int, int]) -> None:
    """A picture, a text, or a picture above its text; a green frame around the right one."""
    x, y = corner
    pen.rectangle((x, y, x + CARD - 1, y + CARD - 1), fill=PANEL)
    lines = 0 if card.text is None else 9 if card.picture is None else 3
    words = CARD if card.picture is None else 20 * lines
    if card.text is not None:
        wrapped = textwrap.wrap(card.text, 26, max_lines=lines, placeholder=" ...")
        pen.multiline_text((x + 8, y + CARD - words + 4), "\n".join(wrapped), fill=INK, font=_font(13), spacing=4)
    if card.picture is not None:
        height = CARD - words
        scale = min(CARD / card.picture.width, height / card.picture.height)
        size = [max(round(side * scale), 1) for side in card.picture.size]
        picture = card.picture.convert("RGB").resize(size)
        sheet.paste(picture, (x + (CARD - picture.width) // 2, y + (height - picture.height) // 2))
    if card.relevant:
        pen.rectangle((x - 4, y - 4, x + CARD + 3, y + CARD + 3), outline=RIGHT, width=4)
    caption = f"{card.score:.2f}  {card.kind}{', the right one' if card.relevant else ''}"
    pen.text((x, y + CARD + 6), caption, fill=RIGHT if card.relevant else MUTED, font=_font(14))


def _font(size: int) -> Any:
    return optional_import("PIL.ImageFont", "open-clip", "a sheet of results").load_default(size)
