"""What `grclip report` reports on: drawn scenes, or the documents of a folder with judged queries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from grclip._folder import asked_by_texts, calibrate, read_folder
from grclip._validation import warn
from grclip.datasets import make_scenes, mix_kinds
from grclip.encoders import toy_encoder
from grclip.fusion import MultimodalFuser
from grclip.gap import ModalityGapRemover
from grclip.items import Items, SearchTask
from grclip.search import ExactRetriever

METHODS = ("raw", "means removed", "means removed, one scale")
N_CALIBRATION = 600


@dataclass(frozen=True)
class Judged:
    """The arguments of a report."""

    task: SearchTask
    qrels: list[dict[int, int]]
    methods: Mapping[str, Pipeline]
    items: SearchTask
    calibration: tuple[SearchTask, list[dict[int, int]]]


def scenes(n: int = 1000, random_state: int = 0, encoder: Any = None) -> Judged:
    """Drawn scenes, encoded, in a corpus of texts, pictures and both; calibrated on 600 others."""
    drawn, _ = make_scenes(n + N_CALIBRATION, random_state=random_state)
    items = SearchTask(drawn.queries[:n], mix_kinds(drawn.corpus[:n], random_state=random_state))
    encoder = toy_encoder() if encoder is None else encoder
    others = encoder.transform(SearchTask(drawn.queries[n:], drawn.corpus[n:]))
    calibration = others, [{i: 1} for i in range(N_CALIBRATION)]
    pipelines = (
        Pipeline([("fuse", MultimodalFuser())]),
        Pipeline([("degap", ModalityGapRemover()), ("fuse", MultimodalFuser())]),
        Pipeline([("degap", ModalityGapRemover()), ("fuse", MultimodalFuser(equalize=True))]),
    )
    task, qrels = encoder.transform(items), [{i: 1} for i in range(n)]
    fitted = {
        name: with_search(method.fit(*calibration), task) for name, method in zip(METHODS, pipelines, strict=True)
    }
    return Judged(task, qrels, fitted, items, calibration)


def judged_folder(folder: Path, judgements: Path, encoder: Any, calibrator: ModalityGapRemover | None = None) -> Judged:
    """The pictures and texts of a folder, and the queries of a file, calibrated as `grclip search` does."""
    documents, paths = read_folder(folder)
    queries, relevant = _read_judgements(judgements)
    encoded = encoder.transform(SearchTask(Items({"query": queries}), documents))
    readable = np.flatnonzero(encoded.corpus.kinds != "")
    if not len(readable):
        raise ValueError(f"none of the {len(documents)} documents of {folder} could be read")
    row_of = {path.relative_to(folder).as_posix(): row for row, found in enumerate(readable) for path in paths[found]}
    qrels = _rows_of(relevant, row_of, folder, judgements)
    task = SearchTask(encoded.queries, encoded.corpus[readable])
    methods = {
        "raw": with_search(Pipeline([("fuse", MultimodalFuser())]).fit(task), task),
        "calibrated": with_search(calibrate(task.corpus, calibrator), task),
    }
    items = SearchTask(Items({"query": queries}), documents[readable])
    return Judged(task, qrels, methods, items, asked_by_texts(task.corpus))


def with_search(fitted: Pipeline, task: SearchTask, k: int = 10) -> Pipeline:
    """A fitted pipeline up to fused vectors, and the search of a corpus after it."""
    fused = fitted.transform(task)
    return Pipeline([*fitted.steps, ("search", ExactRetriever(min(k, len(task.corpus))).fit(fused))])


def _read_judgements(path: Path) -> tuple[list[str], list[list[str]]]:
    """Queries, and the paths that are relevant to each, from lines of JSON."""
    queries, relevant = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            query, paths = found["query"], found["relevant"]
            valid = isinstance(query, str) and query.strip() and isinstance(paths, list)
        except (ValueError, KeyError, TypeError):
            valid = False
        if not valid or not all(isinstance(each, str) for each in paths):
            raise ValueError(
                f'{path}, line {number}: expected {{"query": "a red bicycle", "relevant": ["bike.jpg"]}}; got {line!r}'
            )
        queries.append(query)
        relevant.append(paths)
    if not queries:
        raise ValueError(f'{path} holds no query; a line is {{"query": "a red bicycle", "relevant": ["bike.jpg"]}}')
    return queries, relevant


def _rows_of(
    relevant: list[list[str]], row_of: Mapping[str, int], folder: Path, judgements: Path
) -> list[dict[int, int]]:
    """Grades by document row; a path without a file is an error, a file that is no document a warning."""
    named = {path for paths in relevant for path in paths}
    outside = sorted(path for path in named if Path(path).is_absolute() or ".." in Path(path).parts)
    if outside:
        raise ValueError(f"{judgements} names paths that leave the folder: {', '.join(outside[:5])}")
    gone = sorted(path for path in named if not (folder / path).is_file())
    if gone:
        raise FileNotFoundError(
            f"{judgements} names {len(gone)} files that are not in {folder}: {', '.join(gone[:5])}"
            f"{', ...' if len(gone) > 5 else ''}"
        )
    unread = sorted(path for path in named if path not in row_of)
    if unread:
        warn(f"{judgements}: no documents, or unreadable: {', '.join(unread[:5])}{', ...' if len(unread) > 5 else ''}")
    qrels = [{row_of[path]: 1 for path in paths if path in row_of} for paths in relevant]
    if not any(qrels):
        raise ValueError(f"{judgements}: its {len(qrels)} queries mark no document relevant that could be read")
    return qrels
