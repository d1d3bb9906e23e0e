"""Case studies of a report: which queries, what was found for them, and what that looks like."""

from __future__ import annotations

import base64
import io
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grclip._columns import is_missing
from grclip._optional import optional_import
from grclip.items import MODALITIES, Items

TOP = 5
"""Documents that a case shows, and the line that a fixed query has crossed."""

SHORT, LONG = 200, 1000
"""Characters of a text that are shown at once, and those that can be unfolded."""

SIDE, MOST = 128, 8_000
"""Longest side of a thumbnail in pixels, twice what it is shown at, and its largest size in bytes."""

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that Pillow decodes by itself; for EPS, say, it would start a program."""


@dataclass(frozen=True)
class Text:
    """A text in three pieces: what is shown, what can be unfolded, and how many characters are left out."""

    role: str
    start: str
    rest: str = ""
    n_left_out: int = 0


@dataclass(frozen=True)
class Picture:
    """A thumbnail by its name in the gallery, or None where the picture cannot be read."""

    label: str
    thumbnail: str | None
    file: str = ""
    """Name of the file that it came from, if it came from one."""


@dataclass(frozen=True)
class Card:
    """What can be shown of a query or a document."""

    name: str
    row: int
    texts: Sequence[Text] = ()
    pictures: Sequence[Picture] = ()
    files: Sequence[tuple[str, str]] = ()

    @property
    def is_blank(self) -> bool:
        """Whether nothing can be seen but its name."""
        texts = any((text.start + text.rest).strip() for text in self.texts)
        return not (texts or self.files or any(picture.thumbnail for picture in self.pictures))


@dataclass(frozen=True)
class Thumbnail:
    """A small picture as a data URI."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Hit:
    """A document at its rank."""

    rank: int
    row: int
    kind: str
    score: float
    relevant: bool


@dataclass(frozen=True)
class Column:
    """What one method found: the first documents, and the relevant one where it comes later or not at all."""

    method: str
    hits: Sequence[Hit]
    later: Hit | None
    rank: int | None


@dataclass(frozen=True)
class Case:
    """One query, and what each method found."""

    query: int
    group: str
    columns: Sequence[Column]


@dataclass
class Gallery:
    """Thumbnails by name, each distinct one once, and the pictures that cannot be read."""

    thumbnails: dict[str, Thumbnail] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)

    def add(self, value: Any, unnamed: str) -> Picture:
        """Take a picture in, whatever state it is in; one that comes from no file is called as said."""
        file = file_name(value)
        label = file or unnamed
        try:
            thumbnail = make_thumbnail(value)
        except Exception:  # decoders raise nearly anything for broken files
            self.unreadable.append(label)
            return Picture(label, None)
        name = self._names.setdefault(thumbnail.uri, f"t{len(self._names)}")
        self.thumbnails[name] = thumbnail
        return Picture(label, name, file)


def make_thumbnail(value: Any) -> Thumbnail:
    """A small JPEG of a PIL image, a path, a binary file or an array of pixels; PNG where that is smaller."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = optional_import("PIL.Image", "plots", "a report with pictures")
        warnings.simplefilter("error", image.DecompressionBombWarning)
        small = _small(value, image)
    content, kind = min((_as_jpeg(small), "jpeg"), (_encoded(small, "PNG", optimize=True), "png"), key=_size)
    return Thumbnail(f"data:image/{kind};base64,{base64.b64encode(content).decode()}", small.width, small.height)


def _small(value: Any, image: Any) -> Any:
    """An upright RGB copy of a picture that fits the side of a thumbnail."""
    if isinstance(value, np.ndarray):
        return _shrink(image.fromarray(value), image)
    if isinstance(value, image.Image):
        return _shrink(value, image)
    if not hasattr(value, "seek") and not os.path.isfile(value):  # of a pipe, reading would never end
        raise FileNotFoundError(value)
    image.init()
    with image.open(value, formats=[name for name in FORMATS if name in image.OPEN]) as opened:
        opened.draft("RGB", (2 * SIDE, 2 * SIDE))
        return _shrink(opened, image)


def _shrink(picture: Any, image: Any) -> Any:
    """A small copy, turned as its EXIF tag says, grey of 16 bits scaled to its range, transparency on white."""
    small = optional_import("PIL.ImageOps", "plots", "a report with pictures").exif_transpose(picture)
    if small.mode.startswith(("I", "F")):
        grey = np.asarray(small, np.float64)
        small = image.fromarray((255 * (grey - grey.min()) / max(np.ptp(grey), 1e-12)).astype(np.uint8))
    if small.has_transparency_data:
        layer = small.convert("RGBA")
        small = image.alpha_composite(image.new("RGBA", layer.size, "white"), layer)
    small = small.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    return small


def _size(encoded: tuple[bytes, str]) -> int:
    return len(encoded[0])


def _as_jpeg(picture: Any) -> bytes:
    """The best JPEG that is not too large."""
    for quality in (85, 60, 40):
        content = _encoded(picture, "JPEG", quality=quality, optimize=True)
        if len(content) <= MOST:
            return content
    return _encoded(picture, "JPEG", quality=15, optimize=True)


def _encoded(picture: Any, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def make_card(noun: str, row: int, parts: Mapping[str, Any], modalities: Mapping[str, str], gallery: Gallery) -> Card:
    """What the parts of a query or a document look like; a string is a path only in a role of another modality."""
    texts, pictures, files = [], [], []
    for role, value in parts.items():
        modality = modalities.get(role) or MODALITIES.get(role.removeprefix("query_"), "")
        if isinstance(value, str) and modality in ("", "text"):
            texts.append(shorten(value, role))
        elif modality in ("audio", "video") or (not modality and isinstance(value, os.PathLike)):
            files.append((role, file_name(value) or modality))
        else:
            pictures.append(gallery.add(value, f"{role} of {noun.lower()} {row}"))
    return Card(f"{noun} {row}", row, texts, pictures, files)


def file_name(value: Any) -> str:
    """The name of a file without its folders, or nothing for what is no path."""
    path = value if isinstance(value, str | os.PathLike) else getattr(value, "filename", "") or ""
    return shorten(re.split(r"[\\/]", os.fsdecode(path))[-1], "").start


def shorten(text: str, role: str) -> Text:
    """A text that a page can hold, cut after a word where it is long."""
    n_left_out = max(0, len(text) - LONG)
    text = text[:LONG]
    if len(text) <= SHORT:
        return Text(role, text)
    cut = max(text.rfind(" ", SHORT // 2, SHORT), text.rfind("\n", SHORT // 2, SHORT))
    cut = SHORT if cut < 0 else cut
    return Text(role, text[:cut], text[cut:], n_left_out)


def cards_of(
    items: Items | None,
    found_in: Items,
    rows: Sequence[int],
    noun: str,
    modalities: Mapping[str, str],
    gallery: Gallery,
) -> dict[int, Card]:
    """Cards of some rows; a part that was encoded as missing took no part in the search, and is not shown."""
    there = {role: ~is_missing(found_in[role]) for role in found_in}
    cards = {}
    for row in rows:
        parts = {role: part[row] for role, part in (items or {}).items() if there[role][row]}
        present = {role: value for role, value in parts.items() if value is not None}
        cards[row] = make_card(noun, row, present, modalities, gallery)
    return cards


def first_ranks(qrels: Sequence[Mapping[int, float]], rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Rank of the first relevant document of each query, from 1; one past the last where none was found."""
    ranks = np.full(len(rows), rows.shape[1] + 1)
    for query, judged in enumerate(qrels):
        right = np.isin(rows[query], [row for row, grade in judged.items() if grade > 0])
        if right.any():
            ranks[query] = right.argmax() + 1
    return ranks


def group_queries(ranks: Sequence[NDArray[np.intp]], queries: NDArray[np.intp]) -> dict[str, NDArray[np.intp]]:
    """Queries by what became of them, the largest changes of rank first; of one method, those it missed first."""
    before, after = ranks[0][queries], ranks[-1][queries]
    if len(ranks) == 1:
        order = np.argsort(-after, kind="stable")
        groups = {"missed": after > TOP, "found": after <= TOP}
    else:
        order = np.argsort(-np.abs(np.log(after / before)), kind="stable")
        fixed, broken = (before > TOP) & (after <= TOP), (before <= TOP) & (after > TOP)
        groups = {"fixed": fixed, "broken": broken, "unchanged": ~fixed & ~broken}
    return {name: queries[order[member[order]]] for name, member in groups.items()}


def choose(groups: Mapping[str, NDArray[np.intp]], n: int) -> dict[str, list[int]]:
    """The first queries of each group, n in all, as evenly as the groups allow."""
    turns = zip_longest(*([(name, int(query)) for query in queries] for name, queries in groups.items()))
    taken = [pair for turn in turns for pair in turn if pair is not None][:n]
    return {name: [query for group, query in taken if group == name] for name in groups}


def make_case(
    query: int,
    group: str,
    found: Mapping[str, tuple[NDArray[np.floating], NDArray[np.intp]]],
    judged: Mapping[int, float],
    kinds: NDArray[np.str_],
) -> Case:
    """One query with what each method found, of (similarities, rows) by method."""
    columns = []
    for method, (similarities, rows) in found.items():
        hits = [
            Hit(place + 1, int(row), str(kinds[row]), float(similarities[query, place]), judged.get(int(row), 0) > 0)
            for place, row in enumerate(rows[query])
        ]
        first = next((hit for hit in hits if hit.relevant), None)
        later = first if first and first.rank > TOP else None
        columns.append(Column(method, hits[:TOP], later, first.rank if first else None))
    return Case(query, group, columns)
