"""Datasets as files: a folder that is there whole or not at all, lines of JSON, tables, and pictures."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from grclip._validation import check_qrels
from grclip.datasets._places import folder_at
from grclip.items import Items, SearchTask


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which gets its name when that is done, and is gone if it fails."""
    folder = folder_at(folder)
    if os.path.lexists(folder):
        raise FileExistsError(f"{folder} is there already; nothing was written: remove it, or choose another place")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        draft.chmod(0o755)
        yield draft
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def check_task(task: Any, qrels: Any, queries: Sequence[str], documents: Sequence[str]) -> None:
    """A task of raw parts in these roles, or some of them, with judgements that fit it."""
    if not isinstance(task, SearchTask) or not isinstance(task.corpus, Items):
        raise TypeError(f"task is {type(task).__name__}; expected a SearchTask of Items, e.g. of make_scenes")
    check_qrels(qrels, len(task), len(task.corpus))
    check_side(task.queries, queries, "queries")
    check_side(task.corpus, documents, "documents")


def check_side(side: Items, known: Sequence[str], name: str) -> None:
    """Raw parts in these roles, or some of them."""
    for role, part in side.items():
        if role not in known:
            raise ValueError(f"role {role!r}: {name} of this layout have {' and '.join(map(repr, known))} only")
        if getattr(part, "dtype", None) != np.dtype(object):
            raise TypeError(f"role {role!r} holds vectors; a dataset is written from raw parts")


def text_at(items: Items, role: str, row: int) -> str | None:
    """The text of a row, None where there is none."""
    text = items[role][row] if role in items else None
    if text is not None and not isinstance(text, str):
        raise TypeError(f"role {role!r}, row {row}: expected a str; got {type(text).__name__}")
    try:
        (text or "").encode()
    except UnicodeEncodeError as error:  # half a surrogate pair
        raise ValueError(f"role {role!r}, row {row}: the text cannot be written as UTF-8 ({error.reason})") from error
    return text


def file_at(items: Items, role: str, row: int) -> tuple[bytes, str] | None:
    """The content of a row's file and the ending of its name, None where there is none: pictures become PNG."""
    value, where = items[role][row] if role in items else None, f"role {role!r}, row {row}"
    if value is None:
        return None
    if isinstance(value, str | os.PathLike):
        content, ending = Path(value).read_bytes(), Path(value).suffix
    elif isinstance(value, io.BytesIO):
        content, ending = value.getvalue(), ""
    elif hasattr(value, "save") and hasattr(value, "getexif"):
        content, ending = _png(value, where), ".png"
    else:
        raise TypeError(f"{where}: expected a PIL image, a path or a BytesIO; got {type(value).__name__}")
    if not content:
        raise ValueError(f"{where}: the file is empty")
    return content, ending


def _png(picture: Any, where: str) -> bytes:
    """A picture as PNG, with the tag that says which way up it is."""
    file = io.BytesIO()
    try:
        picture.save(file, format="PNG", exif=picture.getexif())
    except (OSError, ValueError) as error:
        raise ValueError(f"{where}: cannot be written as PNG ({error}); convert it, e.g. to RGB") from error
    return file.getvalue()


def write_file(path: Path, content: bytes) -> None:
    """A file, in a folder that is made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Lines of JSON."""
    write_file(path, "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in records).encode())


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], delimiter: str = ",") -> None:
    """A table with a header."""
    text = io.StringIO(newline="")
    if delimiter == ",":
        writer = csv.writer(text, lineterminator="\n")
    else:  # a cell that would need quotes is an error, for none are read
        writer = csv.writer(text, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None)
    writer.writerow(header)
    writer.writerows(rows)
    write_file(path, text.getvalue().encode())


def write_qrels(path: Path, columns: Sequence[str], qrels: Iterable[Mapping[int, float]]) -> None:
    """Judgements of the queries q0, q1, ... and the documents d0, d1, ..."""
    lines = [
        (f"q{query}", f"d{int(row)}", int(grade) if float(grade).is_integer() else float(grade))
        for query, judged in enumerate(qrels)
        for row, grade in judged.items()
    ]
    write_table(path, columns, lines, "\t")


def full_text(items: Items, role: str, row: int) -> str:
    """The text of a row that must have one."""
    text = text_at(items, role, row)
    if text is None or not text.strip():
        raise ValueError(f"role {role!r}, row {row}: this layout needs a text in every row; got {text!r}")
    return text


def required_file_at(items: Items, role: str, row: int) -> tuple[bytes, str]:
    """The content of the file of a row that must have one, and the ending of its name."""
    file = file_at(items, role, row)
    if file is None:
        raise ValueError(f"role {role!r}, row {row}: this layout needs a part in every row")
    return file


def splits_of(split: str | Sequence[str], n: int, check: Callable[[str], None]) -> list[str]:
    """The split of each of n queries: one for all, or one for each."""
    splits = [split] * n if isinstance(split, str) else list(split)
    if len(splits) != n:
        raise ValueError(f"split has {len(splits)} entries, but there are {n} queries; give one for each, or one name")
    for each in dict.fromkeys(splits):
        check(each)
    return splits
