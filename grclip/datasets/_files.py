"""Files of datasets: lines of JSON, tables, ids, judgements, and paths that stay in their folder.

Everything that a file gets wrong is told with the file and the line; nothing is skipped.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

POINTER = b"version https://git-lfs.github.com/spec/"
"""What a file begins with that Git LFS has left in place of another."""

POINTER_SIZES = range(120, 1025)
"""How many bytes such a file may have: two lines, a checksum and a size at least."""

CUT = "; the file ends here: was its download or copy interrupted?"


def read_text(path: Path) -> str:
    """A text file of a dataset; an error where it is absent, no UTF-8, or stands for a file not yet downloaded."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist") from None
    if content.startswith(POINTER):
        raise pointer_error(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        cut = CUT if error.reason == "unexpected end of data" else ""
        raise ValueError(f"{path}, line {line}: no UTF-8 text ({error.reason}){cut}") from None


def is_pointer(path: str | Path) -> bool:
    """Whether a file stands for one that Git LFS has not fetched; only one of such a size is opened to see."""
    if os.path.getsize(path) not in POINTER_SIZES:
        return False
    with open(path, "rb") as file:
        return file.read(len(POINTER)) == POINTER


def pointer_error(path: Path) -> ValueError:
    """What to say of such a file."""
    return ValueError(f"{path} is a Git LFS pointer, not the file itself; fetch it with: git lfs pull")


def check_files(files: Iterable[Path], way_out: str) -> None:
    """Files that are absent are an error that names them, and a packed copy where there is one."""
    lacking = [file for file in files if not file.is_file()]
    packed = [Path(f"{file}.gz") for file in lacking if Path(f"{file}.gz").is_file()]
    if lacking:
        hint = f"unpack it: gunzip {' '.join(map(str, packed))}" if packed else way_out
        raise FileNotFoundError(f"{' and '.join(map(str, lacking))}: no such file; {hint}")


def check_name(argument: str, name: str) -> None:
    """A name of a file, not of a path."""
    if not isinstance(name, str) or not name.strip() or name.startswith(".") or Path(name).name != name:
        raise ValueError(f"{argument} must be the name of a file, without folders; got {name!r}")


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file of JSON lines, each with its place; blank lines are passed over."""
    lines = read_text(path).split("\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield f"{path}, line {number}", _record(f"{path}, line {number}", line, last=number == len(lines))


def _record(where: str, line: str, *, last: bool) -> dict[str, Any]:
    try:
        record = json.loads(line, object_pairs_hook=_object)
    except KeyError as error:
        raise ValueError(f"{where}: the key {error.args[0]!r} comes twice in one object; keep one of them") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: no valid JSON ({error}){CUT if last else ''}: {_shown(line)}") from None
    if not isinstance(record, dict):
        raise ValueError(f"{where}: expected a JSON object; got {_shown(line)}")
    return record


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, which by itself would keep the last of the values that have one key."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise KeyError(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return found


def check_keys(record: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """A key that is a known one but for capitals and blanks is an error; others are not read."""
    for key in record:
        meant = key.strip().casefold()
        if key not in known and meant in known:
            raise ValueError(f"{where}: the key {key!r} would not be read; write it {meant!r}")


def read_table(path: Path, columns: Sequence[str], delimiter: str = ",") -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a table with a header, each with its place; the columns may come in any order, with others."""
    text = io.StringIO(read_text(path), newline="")
    if delimiter == ",":
        reader = csv.reader(text, strict=True)
    else:
        reader = csv.reader(text, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    try:
        header = next(reader, [])
        lacking = [name for name in columns if name not in header]
        if lacking:
            raise ValueError(
                f"{path}, line 1: expected a header with {', '.join(map(repr, columns))}; got {_shown(str(header))}"
            )
        for row in reader:
            if len(row) < 2 and not "".join(row).strip():
                continue  # a blank line
            if len(row) != len(header):
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(row)} columns, but the header has {len(header)}"
                )
            yield f"{path}, line {reader.line_num}", dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None


def value_of(record: Mapping[str, Any], key: str, where: str) -> Any:
    """A value that a record must have."""
    if key not in record:
        raise ValueError(f"{where}: no {key!r}; it has {', '.join(map(repr, record)) or 'nothing'}")
    return record[key]


def id_of(record: Mapping[str, Any], key: str, where: str) -> str:
    """An id as text: 7 and "7" are one."""
    value = value_of(record, key, where)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise ValueError(f"{where}: {key!r} must be a string or a whole number; got {value!r}")
    return str(value).strip()


def text_of(record: Mapping[str, Any], key: str, where: str) -> str | None:
    """A text, or None of one that is absent, null or blank."""
    value = record.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{where}: {key!r} must be a string or null; got {_shown(repr(value))}")
    return value if value and value.strip() else None


def rows_of(ids: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Rows by id, of ids with their places; an id that comes twice is an error."""
    rows: dict[str, int] = {}
    for row, (where, name) in enumerate(ids):
        if rows.setdefault(name, row) != row:
            raise ValueError(f"{where}: the id {name!r} is there already, at {ids[rows[name]][0]}")
    return rows


def read_qrels(
    path: Path,
    columns: tuple[str, str, str],
    query_rows: Mapping[str, int],
    document_rows: Mapping[str, int],
) -> list[dict[int, float]]:
    """Grades by document row for each query, of a table of query id, document id and score."""
    qrels: list[dict[int, float]] = [{} for _ in query_rows]
    for where, row in read_table(path, columns, "\t"):
        query, document, score = (row[name].strip() for name in columns)
        for name, known, side in ((query, query_rows, "query"), (document, document_rows, "document")):
            if name not in known:
                raise ValueError(f"{where}: there is no {side} of the id {name!r}")
        judged, grade = qrels[query_rows[query]], _grade(score, where)
        if judged.setdefault(document_rows[document], grade) != grade:
            raise ValueError(f"{where}: {query!r} and {document!r} are judged twice, and differently")
    unanswered = [name for name, row in query_rows.items() if not any(qrels[row].values())]
    if unanswered:
        raise ValueError(
            f"{path} has no relevant document (score above 0) for {counted(unanswered, 'query', 'queries')}"
        )
    return qrels


def _grade(score: str, where: str) -> float:
    try:
        grade = math.nan if "_" in score else float(score)  # Python would read 1_0 as 10
    except ValueError:
        grade = math.nan
    if not 0 <= grade < math.inf:
        raise ValueError(f"{where}: the score is {score!r}; expected a number of at least 0")
    return int(grade) if grade.is_integer() else grade


def counted(names: Sequence[str], one: str, many: str) -> str:
    """How many there are, and the first of them."""
    return f"{len(names)} {one if len(names) == 1 else many}: {_first(list(map(repr, names)))}"


class Media:
    """The files that a dataset refers to: each is in the folder, and whole."""

    def __init__(self, folder: Path, what: str, way_out: str) -> None:
        self.folder, self.what, self.way_out = folder, what, way_out
        self._homes = [folder.resolve(), *_hub_blobs(folder)]
        self._inside: dict[str, bool] = {}
        self._states: dict[str, str] = {}

    def path(self, name: Any, where: str, under: str = "") -> str:
        """The path of a file from its name, which is relative to the folder, or to one under it that it may begin with.

        Whether the file is there is noted; `check` tells of all of them at once.
        """
        given = PureWindowsPath(name if isinstance(name, str) else "")  # it knows both slashes, and drives
        parts = given.parts[1:] if given.parts[:1] == (under,) else given.parts
        if not parts or re.search("[\0\ud800-\udfff]", name):
            raise ValueError(f"{where}: expected the path of a file; got {_shown(repr(name))}")
        path = os.path.join(self.folder, under, *parts)
        if given.anchor or ".." in parts or not self._stays(path):
            raise ValueError(f"{where}: {name!r} leaves the folder {self.folder}; such a path is not followed")
        if path not in self._states:
            self._states[path] = _state(path)
        return path

    def _stays(self, path: str) -> bool:
        """Whether no link leads out of the folder; files of the hub's cache are links into its blobs."""
        parent = os.path.dirname(path)
        if parent not in self._inside:
            self._inside[parent] = self._is_home(parent)
        return self._inside[parent] and (not os.path.islink(path) or self._is_home(path))

    def _is_home(self, path: str) -> bool:
        return any(Path(os.path.realpath(path)).is_relative_to(home) for home in self._homes)

    def check(self) -> None:
        """Files that are missing, or not whole, are an error that counts and names them."""
        many = f"of the {len(self._states)} {self.what} files that {self.folder} refers to"
        for state, error, way_out in (
            ("missing", FileNotFoundError, self.way_out),
            ("empty", ValueError, f"remove them, and {self.way_out}"),
            ("Git LFS pointers", ValueError, "fetch them with: git lfs pull"),
        ):
            names = [os.path.relpath(path, self.folder) for path, found in self._states.items() if found == state]
            if names:
                raise error(f"{len(names)} {many} are {state}: {_first(names)}; {way_out}")


def _state(path: str) -> str:
    """Whether a file is there, and whole as far as can be told without reading it."""
    if not os.path.isfile(path):
        return "missing"
    if not os.path.getsize(path):
        return "empty"
    return "Git LFS pointers" if is_pointer(path) else "whole"


def _hub_blobs(folder: Path) -> list[Path]:
    """Where the hub's cache keeps the files of a folder in a snapshot: blobs of the dataset, and shared ones."""
    resolved = folder.resolve()
    homes = [place.parent.parent for place in (resolved, *resolved.parents) if place.parent.name == "snapshots"]
    blobs = [place / "blobs" for home in homes if home.name.startswith("datasets--") for place in (home, home.parent)]
    return [place.resolve() for place in blobs]


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _shown(text: str) -> str:
    return text[:80] + (" ..." if len(text) > 80 else "")
