"""Searches to report on: a folder of documents and a file of judged queries."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from grclip._calibrator import Calibrator, fuser_like
from grclip._columns import is_missing
from grclip._folder import ENOUGH, asked_by_texts, calibrate, read_folder
from grclip._validation import warn
from grclip.items import Items, SearchTask
from grclip.search import ExactRetriever

METHODS = ("raw", "means removed", "means removed, one scale")

_LINE = '{"query": "a red bicycle", "relevant": ["bike.jpg"]}'


@dataclass(frozen=True)
class Reported:
    """The arguments of a report."""

    task: SearchTask
    qrels: list[dict[int, int]]
    methods: Mapping[str, Pipeline]
    items: SearchTask
    calibration: tuple[SearchTask, list[dict[int, int]]] | None
    note: str


def with_search(fitted: Pipeline, task: SearchTask, k: int = 10) -> Pipeline:
    """A fitted pipeline up to fused vectors, and the search of a corpus after it."""
    fused = fitted.transform(task)
    return Pipeline([*fitted.steps, ("search", ExactRetriever(min(k, len(task.corpus))).fit(fused))])


def judged_folder(folder: Path, judgements: Path, encoder: Any, calibrator: Calibrator | None = None) -> Reported:
    """The pictures and texts of a folder, and the queries of a file, calibrated as `grclip search` does."""
    documents, paths = read_folder(folder)
    queries, relevant = _read_judgements(judgements)
    encoded = encoder.transform(SearchTask(Items({"query": queries}), documents))
    rows = np.flatnonzero((encoded.corpus.kinds != "") & _inside(folder, paths))
    if not len(rows):
        raise ValueError(f"none of the {len(documents)} documents of {folder} could be read")
    row_of = {path.relative_to(folder).as_posix(): row for row, found in enumerate(rows) for path in paths[found]}
    qrels = _rows_of(relevant, row_of, folder, judgements)
    task = SearchTask(encoded.queries, encoded.corpus[rows])
    methods, calibration, note = _methods(task, calibrator)
    return Reported(task, qrels, methods, SearchTask(Items({"query": queries}), documents[rows]), calibration, note)


def _methods(
    task: SearchTask, calibrator: Calibrator | None
) -> tuple[dict[str, Pipeline], tuple[SearchTask, list[dict[int, int]]] | None, str]:
    """The search as it is and calibrated, what it was calibrated on, and a sentence that says so."""
    raw = fuser_like(calibrator, task.corpus.roles)
    methods = {METHODS[0]: with_search(Pipeline([("fuse", raw)]).fit(task), task)}
    counts = {role: int((~is_missing(part)).sum()) for role, part in task.corpus.items()}
    if calibrator is None and min(counts.values()) < ENOUGH:
        found = " and ".join(f"{n} {'texts' if role == 'text' else 'pictures'}" for role, n in counts.items())
        return (
            methods,
            None,
            f"Nothing was calibrated: {found} in this folder are too few ({ENOUGH} of each are needed).",
        )
    calibrated = calibrate(task.corpus, calibrator)
    scaled = hasattr(calibrated["fuse"], "spread_")
    methods[METHODS[2 if scaled else 1]] = with_search(calibrated, task)
    return (
        methods,
        asked_by_texts(task.corpus) if counts["text"] else None,
        f"{_learned(calibrated, calibrator, len(task.corpus))}; the judgements were not used.",
    )


def _learned(calibrated: Pipeline, calibrator: Calibrator | None, n: int) -> str:
    """Where means and scales come from, in words."""
    folder = f"from the {n} documents of this folder, its texts standing in for queries"
    scaled = hasattr(calibrated["fuse"], "spread_")
    if calibrator is None:
        return f"Means{' and scales' if scaled else ''} come {folder}"
    if calibrated["fuse"] is calibrator.fuser:
        return "Means and scales come from a file"
    return f"Means come from a file{f', scales {folder}' if scaled else ''}"


def _inside(folder: Path, paths: Sequence[tuple[Path, ...]]) -> np.ndarray:
    """Which documents lie in the folder; links that lead out of it are left out, since a report is passed on."""
    home = folder.resolve()
    inside = np.array([all(path.resolve().is_relative_to(home) for path in found) for found in paths])
    if not inside.all():
        away = [str(path) for found, stays in zip(paths, inside, strict=True) if not stays for path in found]
        warn(f"left out, since links lead out of {folder}: {_some(away)}")
    return inside


def _read_judgements(path: Path) -> tuple[list[str], list[list[tuple[int, str]]]]:
    """Queries, and the paths that are relevant to each with the numbers of their lines, from lines of JSON."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text: {error.reason} at byte {error.start}") from None
    queries, relevant = [], []
    for number, line in enumerate(lines, 1):
        if line.strip():
            query, paths = _read_line(f"{path}, line {number}", line)
            queries.append(query)
            relevant.append([(number, each) for each in paths])
    if not queries:
        raise ValueError(f"{path} holds no query; a line is {_LINE}")
    return queries, relevant


def _read_line(where: str, line: str) -> tuple[str, list[str]]:
    try:
        found = json.loads(line)
        query, paths = found["query"], found["relevant"]
    except (ValueError, KeyError, TypeError, RecursionError):
        query, paths = None, None
    valid = isinstance(query, str) and query.strip() and isinstance(paths, list)
    if not valid or not all(isinstance(each, str) for each in paths):
        raise ValueError(f"{where}: expected {_LINE}; got {line[:80]!r}{' ...' if len(line) > 80 else ''}")
    return query, paths


def _rows_of(
    relevant: Sequence[Sequence[tuple[int, str]]], row_of: Mapping[str, int], folder: Path, judgements: Path
) -> list[dict[int, int]]:
    """Grades by document row; a path without a file is an error, a file that is no document a warning."""
    qrels, unread = [], []
    for line in relevant:
        names = [_in_folder(path, folder, f"{judgements}, line {number}", row_of) for number, path in line]
        qrels.append({row_of[name]: 1 for name in names if name in row_of})
        unread += [name for name in names if name not in row_of]
    if unread:
        warn(f"{judgements}: no documents, or unreadable: {_some(sorted(set(unread)))}")
    if not any(qrels):
        raise ValueError(f"{judgements}: its {len(qrels)} queries mark no document relevant that could be read")
    return qrels


def _in_folder(path: str, folder: Path, where: str, row_of: Mapping[str, int]) -> str:
    """A path as it is from the folder; an error where there is no such file in it."""
    given = Path(path)
    if given.is_absolute() and given.is_relative_to(folder.absolute()):
        path = given.relative_to(folder.absolute()).as_posix()
    name = posixpath.normpath(path)
    if name.startswith(("/", "../")) or name == "..":
        raise ValueError(f"{where}: {path!r} leaves the folder {folder}")
    if not (folder / name).is_file():
        alike = [known for known in row_of if PurePosixPath(known).name == PurePosixPath(name.replace("\\", "/")).name]
        hint = f"; did you mean {alike[0]!r}?" if alike else ""
        raise FileNotFoundError(f"{where}: {path!r} is not in {folder}{hint}")
    return name


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
