"""Tasks written as subsets of MixBench, in both editions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grclip._optional import optional_import
from grclip._validation import few
from grclip.datasets._writing import (
    check_side,
    check_task,
    file_at,
    new_folder,
    text_at,
    write_file,
    write_qrels,
    write_records,
)
from grclip.datasets.mixbench import QRELS, ROLES, check_arguments
from grclip.datasets.mixing import has_both, mix_kinds
from grclip.items import Items, SearchTask

KEYS = {"queries": "query_id", "corpus": "corpus_id", "mixed_corpus": "corpus_id"}
LETTERS = {"query_id": "q", "corpus_id": "d"}


def write_mixbench(
    task: SearchTask,
    qrels: Sequence[Mapping[int, float]],
    root: str | os.PathLike[str],
    subset: str,
    *,
    mixed: Items | None = None,
    edition: int = 2025,
) -> None:
    """Write a task as a subset in the layout of MixBench, from which `load_mixbench` reads it.

    Parameters
    ----------
    task : SearchTask
        Queries in the roles ``"query"`` and ``"query_image"`` (or one of them) and documents in ``"text"`` and
        ``"image"``: str, and PIL images, paths or BytesIO. Pictures of PIL are written as PNG.
    qrels : list of dict
        Grades by document row for each query, at least one of them above 0.
    root : path-like
        Folder in which the folder of the subset is made.
    subset : {"MSCOCO", "Google_WIT", "VisualNews", "OVEN"}
        Name of the subset whose place it takes.
    mixed : Items, default=None
        The mixed corpus: the rows of ``task.corpus``, some without a text or picture. None mixes the three kinds in
        equal parts, or, where documents lack a part already, takes the corpus as it is.
    edition : {2025, 2026}, default=2025
        Layout to write. That of 2026 has no full corpus, and gets the judgements of the other one along.

    Raises
    ------
    FileExistsError
        If the folder of the subset is there already.
    FileNotFoundError
        If a picture is not there.
    TypeError
        If a part is of another type, or a side holds vectors.
    ValueError
        If a role is another one, lengths differ, an argument has no such value, a row has neither text nor picture, a
        text is blank, a query has no relevant document, or a picture cannot be written or is not that of the corpus.

    See Also
    --------
    load_mixbench : Read it back, with ``check_counts=False``.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from grclip.datasets import make_scenes, write_mixbench
    >>> with tempfile.TemporaryDirectory() as root:
    ...     write_mixbench(*make_scenes(3, random_state=0), root, "MSCOCO")
    ...     sorted(path.name for path in (Path(root) / "MSCOCO").iterdir())
    ['corpus.jsonl', 'images', 'mixed_corpus.jsonl', 'qrels', 'queries.jsonl']
    """
    check_arguments(subset, edition)
    check_task(task, qrels, *ROLES.values())
    if mixed is None:
        mixed = mix_kinds(task.corpus, random_state=0) if has_both(task.corpus).all() else task.corpus
    sides = {"queries": task.queries, "corpus": task.corpus, "mixed_corpus": mixed}
    _check_sides(sides, qrels)
    write = _write_lines if edition == 2025 else _write_parquet
    with new_folder(Path(root) / subset) as folder:
        for name in KEYS if edition == 2025 else ("queries", "mixed_corpus"):
            write(folder, name, KEYS[name], sides[name])
        write_qrels(folder / "qrels" / "qrels.tsv", QRELS, qrels)


def _check_sides(sides: Mapping[str, Any], qrels: Sequence[Mapping[int, float]]) -> None:
    """What would be refused, or come back otherwise, when it is read."""
    mixed = sides["mixed_corpus"]
    if not isinstance(mixed, Items):
        raise TypeError(f"mixed is {type(mixed).__name__}; expected Items, e.g. of mix_kinds")
    check_side(mixed, ROLES["corpus_id"], "documents")
    if len(mixed) != len(sides["corpus"]):
        raise ValueError(f"mixed has {len(mixed)} rows, but the corpus has {len(sides['corpus'])}")
    for name, side in sides.items():
        texts = side.get(ROLES[KEYS[name]][0], [])
        blank = [row for row, text in enumerate(texts) if isinstance(text, str) and not text.strip()]
        if blank:
            raise ValueError(f"{name}: {few(blank)} have a blank text, which this layout takes for none; use None")
        empty = np.flatnonzero(side.kinds == "")
        if len(empty):
            raise ValueError(f"{name}: {few(empty)} have neither a text nor a picture")
    unanswered = [query for query, judged in enumerate(qrels) if not any(judged.values())]
    if unanswered:
        raise ValueError(f"qrels have no relevant document for {few(unanswered, 'query', 'queries')}")


def _write_lines(folder: Path, name: str, key: str, side: Items) -> None:
    records = []
    for row in range(len(side)):
        text, file = text_at(side, ROLES[key][0], row), file_at(side, ROLES[key][1], row)
        image = None if file is None else f"images/{LETTERS[key]}{row}{file[1]}"
        if file is not None and image is not None:
            if (folder / image).exists() and (folder / image).read_bytes() != file[0]:
                raise ValueError(f"mixed, row {row}: the picture is not that of the corpus")
            write_file(folder / image, file[0])
        records.append({key: f"{LETTERS[key]}{row}", "text": text, "image": image})
    write_records(folder / f"{name}.jsonl", records)


def _write_parquet(folder: Path, name: str, key: str, side: Items) -> None:
    arrow = optional_import("pyarrow", "datasets", "writing MixBench 2026")
    parquet = optional_import("pyarrow.parquet", "datasets", "writing MixBench 2026")
    files = [file_at(side, ROLES[key][1], row) for row in range(len(side))]
    columns = {
        "id": [f"{LETTERS[key]}{row}" for row in range(len(side))],
        "text": [text_at(side, ROLES[key][0], row) for row in range(len(side))],
        "image": [None if file is None else {"bytes": file[0], "path": None} for file in files],
    }
    image = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    schema = arrow.schema([("id", arrow.string()), ("text", arrow.string()), ("image", image)])
    parquet.write_table(arrow.table(columns, schema=schema), folder / f"{name}.parquet")
