"""Search of a folder: its pictures and texts as documents, calibrated on themselves or by means from a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from grclip._calibrator import Calibrator, fuser_like
from grclip._columns import is_missing
from grclip._validation import check_k, warn
from grclip.fusion import MultimodalFuser
from grclip.gap import ModalityGapRemover
from grclip.items import Items, SearchTask
from grclip.search import ExactRetriever

PICTURES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
TEXTS = frozenset({".md", ".rst", ".text", ".txt"})

READ = 20_000
"""Bytes of a text file that are read."""

ENOUGH = 5
"""Texts, and pictures, that a mean is worth taking of; on real photos five a role do most of the work."""


@dataclass(frozen=True)
class Hit:
    """A document that was found."""

    score: float
    kind: str
    paths: tuple[Path, ...]
    text: str | None
    picture: Path | None


def read_folder(folder: Path) -> tuple[Items, list[tuple[Path, ...]]]:
    """The documents of a folder and its subfolders, and their files: a picture and a text of one name are one."""
    found: dict[Path, dict[str, Path]] = {}
    for path in sorted(_files(folder)):
        role = "image" if path.suffix.lower() in PICTURES else "text" if path.suffix.lower() in TEXTS else None
        if role:
            name = path.with_suffix("")
            found.setdefault(path if role in found.get(name, {}) else name, {})[role] = path
    if not found:
        raise FileNotFoundError(
            f"{folder} holds no picture ({' '.join(sorted(PICTURES))}) and no text ({' '.join(sorted(TEXTS))})"
        )
    texts = [_read_text(parts["text"]) if "text" in parts else None for parts in found.values()]
    empty = [str(p["text"]) for p, text in zip(found.values(), texts, strict=True) if "text" in p and text is None]
    if empty:
        many = "1 text file is" if len(empty) == 1 else f"{len(empty)} text files are"
        warn(f"{many} empty or unreadable, and left out: {', '.join(empty[:5])}{', ...' if len(empty) > 5 else ''}")
    items = Items({"text": texts, "image": [parts.get("image") for parts in found.values()]})
    return items, [tuple(parts.values()) for parts in found.values()]


def _files(folder: Path) -> Iterator[Path]:
    """Files of a folder and its subfolders, without hidden ones, pipes, and links to nowhere."""
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder")
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (path for name in names if not name.startswith(".") and (path := Path(place, name)).is_file())


def _read_text(path: Path) -> str | None:
    """The beginning of a text file, of which models read a few hundred words; None of one without words."""
    try:
        with open(path, "rb") as file:
            content = file.read(READ)
    except OSError:
        return None
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = content.decode("utf-16" if wide else "utf-8-sig", errors="replace")
    return text if text.strip() else None


def search_folder(
    folder: Path, words: str, encoder: Any, *, k: int = 10, calibrator: Calibrator | None = None
) -> list[Hit]:
    """The k documents of a folder that answer the words best, with their similarities or, calibrated, their scores."""
    check_k(k)
    documents, paths = read_folder(folder)
    encoded = encoder.transform(SearchTask(Items({"query": [words]}), documents))
    readable = np.flatnonzero(encoded.corpus.kinds != "")
    if not len(readable):
        raise ValueError(f"none of the {len(documents)} documents of {folder} could be read")
    task = SearchTask(encoded.queries, encoded.corpus[readable])
    fused = calibrate(task.corpus, calibrator).transform(task)
    scores, rows = ExactRetriever(k=min(k, len(readable))).fit(fused).kneighbors(fused.queries)
    found = readable[rows[0]]
    return [
        Hit(float(score), str(kind), paths[row], text, picture)
        for score, kind, row, text, picture in zip(
            scores[0],
            task.corpus.kinds[rows[0]],
            found,
            documents["text"][found],
            documents["image"][found],
            strict=True,
        )
    ]


def calibrate(corpus: Items, calibrator: Calibrator | None) -> Pipeline:
    """A fitted pipeline up to fused vectors, of what a file holds, and of the folder itself what it does not hold.

    A folder has no queries to learn from, so its texts stand in for them, in the mean and in the spreads. A folder of
    one kind has no gap to close.
    """
    counts = {role: int((~is_missing(corpus[role])).sum()) for role in corpus}
    enough = min(counts.values()) >= ENOUGH
    steps: list[tuple[str, Any]] = []
    if calibrator is not None:
        calibrator.check_means([role for role, n in counts.items() if n])
        steps = [("degap", calibrator.remover)]
        if calibrator.scales(corpus):
            return Pipeline([*steps, ("fuse", calibrator.fuser)])
    elif enough:
        steps = [("degap", ModalityGapRemover().fit(*asked_by_texts(corpus)))]
    elif all(counts.values()):
        warn(
            f"{counts['text']} texts and {counts['image']} pictures are too few to calibrate on ({ENOUGH} of each are "
            "needed): these are raw similarities, and texts come first; --calibrator takes means learned elsewhere"
        )
    centred = steps[0][1].transform(corpus) if steps else corpus
    fuser = fuser_like(calibrator, corpus.roles)
    return Pipeline([*steps, ("fuse", _fitted(fuser, centred, equalize=bool(steps) and enough))])


def _fitted(fuser: MultimodalFuser, corpus: Items, *, equalize: bool) -> MultimodalFuser:
    """A fuser, fitted; without scales where the documents are too much alike to measure any."""
    if equalize:
        try:
            return clone(fuser).set_params(equalize=True).fit(*asked_by_texts(corpus))
        except ValueError as error:
            warn(f"kinds of documents are not put on one scale: {error}")
    return fuser.fit(corpus)


def asked_by_texts(corpus: Items) -> tuple[SearchTask, list[dict[int, int]]]:
    """A task whose queries are the texts of the corpus, each after its own document."""
    told = np.flatnonzero(~is_missing(corpus["text"]))
    queries = Items({"query": corpus["text"][told]}, encoder=corpus.encoder)
    return SearchTask(queries, corpus), [{int(row): 1} for row in told]
