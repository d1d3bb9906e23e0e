"""Files of datasets: lines of JSON, tables, ids and judgements.

Everything that a file gets wrong is told with the file and the line; nothing is skipped.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from grclip.datasets._places import POINTER, first_of, pointer_error, shown

SEPARATORS = {"\t": "tabs", ",": "commas"}

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
        raise ValueError(
            f"{where}: no valid JSON ({error}){CUT if last else ''}: {shown(line)}{_whole(line)}"
        ) from None
    if not isinstance(record, dict):
        raise ValueError(f"{where}: expected a JSON object; got {shown(line)}{_whole(line)}")
    return record


def _whole(line: str) -> str:
    """What to say of a line that begins an array, or an object that goes on in the next one."""
    array_or_begin = line.lstrip().startswith("[") or line.strip() == "{"
    return "; the file must hold one JSON object a line, without an array around them" if array_or_begin else ""


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
            expected, likeness = ", ".join(map(repr, columns)), _likeness(delimiter.join(header), columns, delimiter)
            raise ValueError(
                f"{path}, line 1: expected a header with {expected}; got {shown(str(header))}: columns are separated "
                f"by {SEPARATORS[delimiter]}{likeness}"
            )
        for row in reader:
            if len(row) < 2 and not "".join(row).strip():
                continue  # a blank line
            if len(row) != len(header):
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(row)} columns, but the header has {len(header)}, "
                    f"separated by {SEPARATORS[delimiter]}"
                )
            yield f"{path}, line {reader.line_num}", dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None


def _likeness(line: str, columns: Sequence[str], delimiter: str) -> str:
    """What a line that is not the header looks like, where that is plain."""
    cells = re.split("[\t,; ]+", line.strip())
    plain = {cell.strip("'\"").casefold().replace("-", "_") for cell in cells}
    if all(name.replace("-", "_") in plain for name in columns):
        return "; write the names as expected" if delimiter in line else f"; here they are not: {shown(line)}"
    if delimiter == "\t" and len(cells) in (3, 4) and re.fullmatch("[0-9.]+", cells[-1]):
        four = "take the second column out, which is that of TREC, and " if len(cells) == 4 else ""
        return f"; this looks like a judgement: {four}put the header before the first line"
    return ""


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
        raise ValueError(f"{where}: {key!r} must be a string or null; got {shown(repr(value))}")
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
    return f"{len(names)} {one if len(names) == 1 else many}: {first_of(list(map(repr, names)))}"
