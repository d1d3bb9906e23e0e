"""Texts drawn as pages: the screenshots of a text collection, which a search then finds as pictures."""

from __future__ import annotations

import hashlib
import io
import os
import re
import secrets
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from math import isqrt
from numbers import Integral
from pathlib import Path
from typing import Any
from unicodedata import normalize

from grclip._columns import is_raw
from grclip._optional import optional_import
from grclip._validation import few, warn
from grclip.datasets._layout import Face, Page, compose, margin_of
from grclip.datasets._places import folder_at
from grclip.items import MODALITIES, Items

EDITION = 1
"""Part of the names of files: one higher whenever the same text gets another page."""

SHARES = (16, 19, 22, 26, 31, 36, 43, 51)
"""Side of the page over size of the font, from the largest font to the smallest."""

SMALLEST = 8
"""Pixels of the smallest font; letters of fewer are not told apart."""

CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")
"""Control characters other than white space: they have no shape."""

INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Characters without ink that steer shaping, direction or breaks: Unicode's default ignorables."""

SHAPED = re.compile(
    "[\u0590-\u0dff\u0f00-\u109f\u1780-\u18af\ufb1d-\ufdff\ufe70-\ufefe\U00010800-\U00011fff\U0001e800-\U0001efff]"
)
"""Scripts that run from right to left, or whose letters change with their neighbours."""

PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
"""The last bytes of every PNG file."""


def render_screenshots(
    items: Items,
    *,
    role: str = "text",
    into: str = "screenshot",
    size: int = 512,
    font: str | os.PathLike[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Items:
    """Draw texts as pages: the same content as a picture, for the paper's screenshot experiment (its section 3.1).

    A page is square, black on white. The font shrinks through eight sizes, from 1/16 to 1/51 of the page, until the
    text fits; a page that even the smallest overflows grows, so no text is cut.

    Parameters
    ----------
    items : Items
        Documents (or queries) with raw texts.
    role : str, default="text"
        The role of the texts.
    into : str, default="screenshot"
        The role of the pages, a new one whose modality is image.
    size : int, default=512
        Width and height of a page in pixels, at least 64. A text that overflows it gets a larger page.
    font : str or path-like, default=None
        A font file (.ttf, .otf, .ttc) that has the scripts of the texts. None is Pillow's own, which has ASCII and
        little else: accents and Greek letters need a file, e.g. DejaVuSans.ttf, which comes with matplotlib, in
        ``matplotlib.get_data_path()``.
    folder : str or path-like, default=None
        Where pages are written as PNG files, made if it is not there. None keeps the pages in memory: 5,000 of
        512 x 512 take 1.3 GB.

    Returns
    -------
    Items
        The same rows, roles and encoder, and the role `into`: PIL images of mode L, or paths (str) where `folder` is
        given. A missing text has a missing page.

    Raises
    ------
    TypeError
        If items are no Items, if the role holds vectors or values that are no texts, or `role`, `into` or `font` are
        of another type.
    KeyError
        If there is no such role.
    ValueError
        If `into` is there already or is the name of another modality, if size is no whole number of at least 64, if
        the font file is no font, if a text is empty or blank (a blank page says nothing; None is a missing text), is
        no valid Unicode, needs a page of more than ``PIL.Image.MAX_IMAGE_PIXELS``, or is in a script that needs Pillow
        with libraqm where it is without.
    FileNotFoundError
        If there is no such font file.
    NotADirectoryError
        If folder is a file.
    ModuleNotFoundError
        If Pillow is not installed.

    Warns
    -----
    UserWarning
        If the font has no glyph for some characters, which are then drawn as boxes.

    See Also
    --------
    replace_parts : Each document keeps its text or its page, at random.

    Notes
    -----
    Each line of a text begins a line of the page; several blank lines are one; other white space is one space. Lines
    break at spaces, in scripts without spaces between characters, and within a word only where it is wider than the
    page; never within a character and its marks. Texts are brought to Unicode's form NFC, and control characters left
    out. A line of Hebrew or Arabic is set from the right; each line of the page is ordered by itself.

    One text gives one page, to the byte, with one version of Pillow and its libraries. Names of files are digests of
    the text and of all that decides its page, so a second call draws only what is not there yet.

    References
    ----------
    Li et al., Closing the Modality Gap for Mixed Modality Search, arXiv:2507.19054, section 3.1 and appendix E.

    Examples
    --------
    >>> from grclip import Items
    >>> from grclip.datasets import render_screenshots, replace_parts
    >>> documents = Items({"text": ["Statins lower the risk of stroke.", "Vitamin D and bone density."]})
    >>> drawn = render_screenshots(documents, size=224)
    >>> drawn
    Items(n=2, text=2, screenshot=2)
    >>> drawn["screenshot"][0].size
    (224, 224)
    >>> replace_parts(drawn, 0.5, random_state=1).kinds.tolist()
    ['screenshot', 'text']
    """
    texts = _texts(items, role, into)
    image = optional_import("PIL.Image", "datasets", "drawing texts")
    largest = isqrt(image.MAX_IMAGE_PIXELS) if image.MAX_IMAGE_PIXELS else None
    _check_size(size, largest)
    faces, settings = _faces(font, int(size))
    told = {row: _paragraphs(text, faces[0].shaped) for row, text in enumerate(texts) if text is not None}
    _check_paragraphs(told, role, faces[0])
    target = None if folder is None else _folder(folder)
    pages: list[Any] = [None] * len(texts)
    for row, paragraphs in told.items():
        path = None if target is None else target / f"{_digest(settings, int(size), paragraphs)}.png"
        if path is not None and _is_complete(path):
            pages[row] = str(path)
            continue
        page = compose(paragraphs, int(size), faces, largest)
        if page is None:
            raise ValueError(
                f"role {role!r}, row {row}: {len(texts[row]):,} characters in {len(paragraphs):,} lines need a page of "
                f"more than PIL.Image.MAX_IMAGE_PIXELS ({image.MAX_IMAGE_PIXELS:,}); divide the text"
            )
        pages[row] = _draw(page) if path is None else _write(_draw(page), path)
    return Items({**items, into: pages}, encoder=items.encoder)


def _texts(items: Any, role: Any, into: Any) -> Any:
    """The column of texts, if it can be drawn and there is room for the pages."""
    if not isinstance(items, Items):
        raise TypeError(f"items is {type(items).__name__}; expected Items, e.g. task.corpus")
    for name, value in (("role", role), ("into", into)):
        if not isinstance(value, str) or not value:
            raise TypeError(f"{name} must be the name of a role, a non-empty str; got {value!r}")
    texts = items[role]
    if into in items:
        raise ValueError(f"into={into!r}: these Items have that role already; give the pages another one")
    modality = MODALITIES.get(into.removeprefix("query_"), "image")
    if modality != "image":
        raise ValueError(f"into={into!r}: a role of that name has the modality {modality}, but pages are images")
    if not is_raw(texts):
        raise TypeError(f"role {role!r} holds vectors; draw texts before they are encoded")
    others = [row for row, text in enumerate(texts) if not (text is None or isinstance(text, str))]
    if others:
        kind = type(texts[others[0]]).__name__
        raise TypeError(f"role {role!r} holds {kind} in {few(others)}; expected texts (str), or None where missing")
    halves = [row for row, text in enumerate(texts) if text and not text.isascii() and _has_half(text)]
    if halves:
        raise ValueError(f"role {role!r} holds half a surrogate pair, which is no character, in {few(halves)}")
    return texts


def _has_half(text: str) -> bool:
    """Whether a text holds half a surrogate pair."""
    return any("\ud800" <= char <= "\udfff" for char in set(text))


def _check_size(size: Any, largest: int | None) -> None:
    """A side of a page is a whole number, large enough for letters and no larger than Pillow opens."""
    if not isinstance(size, Integral) or isinstance(size, bool) or int(size) < 64:
        raise ValueError(f"size must be a whole number of pixels, at least 64; got {size!r}")
    if largest is not None and int(size) > largest:
        raise ValueError(
            f"size={size} is too large: a square of PIL.Image.MAX_IMAGE_PIXELS has a side of {largest} pixels"
        )


def _faces(font: Any, size: int) -> tuple[list[Face], str]:
    """The font from the largest size to the smallest, and a digest of all that decides how it looks."""
    fonts, features = (
        optional_import(f"PIL.{name}", "datasets", "drawing texts") for name in ("ImageFont", "features")
    )
    content = None if font is None else _font_file(font)
    engine = fonts.Layout.RAQM if features.check("raqm") else fonts.Layout.BASIC
    pixels = dict.fromkeys(max(size // share, SMALLEST) for share in SHARES)
    try:
        loaded = [
            fonts.load_default(px).font_variant(layout_engine=engine)
            if content is None
            else fonts.truetype(io.BytesIO(content), px, layout_engine=engine)
            for px in pixels
        ]
    except OSError as error:
        raise ValueError(f"font {os.fspath(font)!r} is no font that Pillow can scale: {error}") from error
    shaped = engine is fonts.Layout.RAQM
    versions = [features.version(name) for name in ("pil", "freetype2", "raqm", "harfbuzz", "fribidi")]
    settings = repr((EDITION, shaped, versions, content and hashlib.sha256(content).hexdigest()))
    return [Face(f, sum(f.getmetrics()), shaped, lru_cache(100_000)(f.getlength)) for f in loaded], settings


def _font_file(font: Any) -> bytes:
    """The content of a font file."""
    if not isinstance(font, str | os.PathLike):
        raise TypeError(f"font must be the path of a .ttf, .otf or .ttc file, or None; got {type(font).__name__}")
    if not os.path.isfile(font):
        raise FileNotFoundError(f"font {os.fspath(font)!r}: there is no such file")
    return Path(font).read_bytes()


def _paragraphs(text: str, shaped: bool) -> list[str]:
    """The lines of a text with single spaces, in NFC, without control characters and with single blank lines."""
    text = CONTROLS.sub("", normalize("NFC", text))
    lines = [" ".join(line.split()) for line in (text if shaped else INVISIBLE.sub("", text)).strip().splitlines()]
    return [line for before, line in pairwise(["", *lines]) if line or before]


def _check_paragraphs(told: dict[int, list[str]], role: str, face: Face) -> None:
    """Blank texts, and scripts that cannot be drawn, are errors; characters that the font lacks are a warning."""
    blank = [row for row, lines in told.items() if not INVISIBLE.sub("", "".join(lines)).strip()]
    if blank:
        raise ValueError(
            f"role {role!r} has empty or blank texts in {few(blank)}, and a blank page says nothing; leave these rows "
            "out, or make them None, a missing text"
        )
    shaped = [] if face.shaped else [row for row, lines in told.items() if any(map(SHAPED.search, lines))]
    if shaped:
        raise ValueError(
            f"role {role!r} has texts in a script that runs from right to left or joins its letters in {few(shaped)}; "
            "Pillow draws it right only with libraqm, which PIL.features.check('raqm') does not find: install "
            "Pillow's wheel, and libfribidi"
        )
    characters = set().union(*(line for lines in told.values() for line in lines))
    absent = _absent(characters, face.font)
    if absent:
        rows = [row for row, lines in told.items() if any(not absent.keys().isdisjoint(line) for line in lines)]
        shown = ", ".join(f"{char!r} (U+{ord(char):04X})" for char in list(absent)[:5])
        warn(
            f"the font {face.font.getname()[0]!r} has no glyph for {len(absent)} of the characters of role {role!r}, "
            f"{shown}{', ...' if len(absent) > 5 else ''}: boxes stand for them on the pages of {few(rows)}; "
            "give font= a file that has them"
        )


def _absent(characters: set[str], font: Any) -> dict[str, None]:
    """Characters that look like one that no font has, in order."""
    box = _look(font, "\U0010ffff")
    return dict.fromkeys(c for c in sorted(characters) if c != " " and not INVISIBLE.match(c) and _look(font, c) == box)


def _look(font: Any, char: str) -> tuple[Any, bytes]:
    mask = font.getmask(char)
    return mask.size, bytes(mask)


def _draw(page: Page) -> Any:
    """The picture of a page."""
    image, pens = (optional_import(f"PIL.{name}", "datasets", "drawing texts") for name in ("Image", "ImageDraw"))
    picture = image.new("L", (page.side, page.side), 255)
    pen, margin = pens.Draw(picture), margin_of(page.side)
    for i, (text, direction) in enumerate(page.lines):
        x, anchor = (margin, "la") if direction == "ltr" else (page.side - margin, "ra")
        options = page.face.options(direction)
        pen.text((x, margin + i * page.face.leading), text, fill=0, font=page.face.font, anchor=anchor, **options)
    return picture


def _folder(folder: Any) -> Path:
    """The folder for the pages, made if it is not there."""
    path = folder_at(folder)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"folder {str(path)!r} is a file; pages are written to a folder")
    path.mkdir(parents=True, exist_ok=True)
    return path


def _digest(settings: str, size: int, paragraphs: Sequence[str]) -> str:
    """A name for a page that no other page has."""
    return hashlib.sha256(f"{settings} {size}\n".encode() + "\n".join(paragraphs).encode()).hexdigest()[:40]


def _is_complete(path: Path) -> bool:
    """Whether a page is there to its last byte."""
    return path.is_file() and path.read_bytes().endswith(PNG_END)


def _write(picture: Any, path: Path) -> str:
    """Write a page under another name, give it its own when it is complete, and return that."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        picture.save(partial, "PNG", compress_level=1)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return str(path)
