"""MixBench, the paper's benchmark of mixed-modality search: four subsets in two editions, read and written."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grclip._optional import optional_import
from grclip._validation import check_flag, few
from grclip.datasets._dataset import Dataset, described
from grclip.datasets._files import (
    Media,
    counted,
    id_of,
    is_pointer,
    pointer_error,
    read_qrels,
    read_records,
    rows_of,
    text_of,
)
from grclip.datasets._hub import by_hand, hub_folder
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
from grclip.datasets.mixing import has_both, mix_kinds
from grclip.items import Items, SearchTask

REPOSITORIES = {2025: "mixed-modality-search/MixBench25", 2026: "mixed-modality-search/MixBench2026"}
REVISIONS = {2025: "88e3916036ea0bdb205f4da885d6e947a565c1a0", 2026: "17a9e705b2346b118a63f163f10e47325f9e9ecc"}

PUBLISHED = {"MSCOCO": (984, 984), "Google_WIT": (1000, 4421), "VisualNews": (981, 981), "OVEN": (1000, 1000)}
"""Queries and documents of each subset; each query has one relevant document."""

CORPORA = {"mixed": "mixed_corpus", "full": "corpus"}
QRELS = ("query_id", "corpus_id", "score")
LICENCE = "MIT, as its publishers say; texts and pictures keep the licences of the datasets that they come from"
ROLES = {"query_id": ("query", "query_image"), "corpus_id": ("text", "image")}
"""Text and picture of the two sides, by the name of their ids."""

KEYS = {"queries": "query_id", "corpus": "corpus_id", "mixed_corpus": "corpus_id"}
LETTERS = {"query_id": "q", "corpus_id": "d"}
SUFFIXES = {2025: ".jsonl", 2026: ".parquet"}

_Row = tuple[str, str, str | None, str | io.BytesIO | None]
"""Place, id, text and picture."""


def load_mixbench(
    subset: str,
    root: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    *,
    edition: int = 2025,
    corpus: str = "mixed",
    check_counts: bool = True,
) -> Dataset:
    """Load a subset of MixBench: queries, and a corpus of texts, pictures and documents that have both.

    Parameters
    ----------
    subset : {"MSCOCO", "Google_WIT", "VisualNews", "OVEN"}
        Queries of OVEN have a picture beside their text; those of the others are texts.
    root : path-like, default=None
        Folder with a folder for each subset, as published. None downloads the subset from the Hugging Face hub, or
        takes it from the hub's cache.
    revision : str, default=None
        Commit, branch or tag on the hub; None takes the commit whose counts are known. Not used with a root.
    edition : {2025, 2026}, default=2025
        MixBench25 (lines of JSON and files of pictures), with which the paper's figures were made, or MixBench2026
        (Parquet, pictures inside, some gigabytes in memory). The judgements are those of MixBench25 in both.
    corpus : {"mixed", "full"}, default="mixed"
        The corpus in which documents are texts, pictures or both, in equal parts, as it was published, or the one in
        which all have both.
    check_counts : bool, default=True
        Whether other counts than those published are an error. False takes data of your own in this layout.

    Returns
    -------
    Dataset
        ``task`` with queries in the roles ``"query"`` (str) and ``"query_image"`` and documents in ``"text"`` (str) and
        ``"image"``, a role being left out where no row has it; pictures are paths (str), or binary files in edition
        2026; ``qrels``; ``description``.

    Raises
    ------
    FileNotFoundError
        If a file is missing; missing pictures are counted and named, and no document is dropped for them.
    ModuleNotFoundError
        If the extra ``datasets`` is needed and not installed.
    OSError
        If the hub is out of reach and the subset is not on this machine, or a download stops.
    TypeError
        If check_counts is neither True nor False.
    ValueError
        If an argument has no such value or the hub no such revision; if a line is malformed, an id comes twice, a
        judgement is of an unknown id or has no score of at least 0, a query has no relevant document, a row has
        neither text nor picture, a path leaves the folder, or the counts are not those published.

    See Also
    --------
    write_mixbench : Write a task in this layout.
    paper_split : The split of the paper's own code, which is not the mixed corpus that was published.

    Notes
    -----
    The folder of a subset holds ``queries.jsonl`` (``query_id``, ``text``, ``image``), ``corpus.jsonl`` and
    ``mixed_corpus.jsonl`` (``corpus_id``, ``text``, ``image``), where what is absent is null or empty,
    ``qrels/qrels.tsv`` and ``images/``; in edition 2026 ``queries.parquet`` and ``mixed_corpus.parquet`` (``id``,
    ``text``, ``image``). No picture is opened, but files of the size of a Git LFS pointer (about 120 to 1,024 bytes) to
    see whether they are one. A download that was interrupted goes on with the files that are not there yet.

    The paper counts 4,423 documents in Google_WIT; 4,421 were published.

    References
    ----------
    Li et al., Closing the Modality Gap for Mixed Modality Search, arXiv:2507.19054, section 5.

    Examples
    --------
    >>> import tempfile
    >>> from grclip.datasets import load_mixbench, make_scenes, write_mixbench
    >>> with tempfile.TemporaryDirectory() as root:  # root=None downloads what was published
    ...     write_mixbench(*make_scenes(6, random_state=0), root, "MSCOCO")
    ...     task, qrels, description = load_mixbench("MSCOCO", root, check_counts=False)
    >>> task.queries
    Items(n=6, query=6)
    >>> sorted(description.kinds.items())
    [('image', 2), ('text', 2), ('text+image', 2)]
    """
    _check(subset, edition, corpus, root, revision)
    check_flag("check_counts", check_counts)
    commit = REVISIONS[edition] if revision is None else revision
    names = [f"{name}{SUFFIXES[edition]}" for name in ("queries", CORPORA[corpus])]
    home = _download(subset, commit, edition, names) if root is None else Path(root)
    way_out = _way_out(root, edition)
    folder = _complete(home, subset, edition, names, way_out)
    media = Media(folder, "image", way_out)
    read = _read_lines if edition == 2025 else _read_parquet
    queries, query_rows = _side(folder / names[0], "query_id", read(folder / names[0], "query_id", media))
    documents, rows = _side(folder / names[1], "corpus_id", read(folder / names[1], "corpus_id", media))
    media.check()
    qrels = read_qrels(_qrels(folder, subset, edition), QRELS, query_rows, rows)
    if check_counts:
        _check_counts(subset, folder, len(queries), len(documents), sum(map(len, qrels)))
    task = SearchTask(queries, documents)
    name = f"MixBench {edition}, {subset}, {corpus} corpus"
    place = f"revision {commit}" if root is None else f"read from {folder}"
    source = f"https://huggingface.co/datasets/{REPOSITORIES[edition]}, {place}"
    return Dataset(task, qrels, described(name, source, LICENCE, task, list(query_rows), list(rows)))


def _check(subset: str, edition: int, corpus: str, root: Any, revision: str | None) -> None:
    for name, value, known in (
        ("subset", subset, list(PUBLISHED)),
        ("edition", edition, list(REPOSITORIES)),
        ("corpus", corpus, list(CORPORA)),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}; got {value!r}")
    if root is not None and revision is not None:
        raise ValueError(f"revision={revision!r} is of the hub, and not used with a root; leave one of them out")


def _download(subset: str, commit: str, edition: int, names: Sequence[str]) -> Path:
    """The folder of the subsets from the hub, or from its cache, with the files of one of them."""
    more = ["qrels/qrels.tsv", "images/*"] if edition == 2025 else []
    return hub_folder(REPOSITORIES[edition], commit, [f"{subset}/{name}" for name in (*names, *more)])


def _complete(root: Path, subset: str, edition: int, names: Sequence[str], way_out: str) -> Path:
    """The folder of a subset, if its files are there."""
    folder, other = root / subset, next(each for each in SUFFIXES if each != edition)
    files = [folder / name for name in (*names, *(["qrels/qrels.tsv"] if edition == 2025 else []))]
    lacking = [file for file in files if not file.is_file()]
    if (folder / f"queries{SUFFIXES[other]}").is_file() and not (folder / names[0]).is_file():
        way_out = f"that folder holds the other edition: edition={other}"
    elif not folder.is_dir() and (root / names[0]).is_file():
        way_out = f"root is the folder that holds {subset}, not that one itself"
    if lacking:
        raise FileNotFoundError(f"{' and '.join(map(str, lacking))}: no such file; {way_out}")
    return folder


def _way_out(root: Any, edition: int) -> str:
    """What to do when files are missing."""
    if root is None:
        return "the download was not finished: load it again while connected, and it goes on where it stopped"
    return f"{by_hand(REPOSITORIES[edition], REVISIONS[edition])} as root, or leave root out to download it"


def _qrels(folder: Path, subset: str, edition: int) -> Path:
    """The judgements, which edition 2026 was published without: those of MixBench25 fit it."""
    path = folder / "qrels" / "qrels.tsv"
    if edition == 2025 or path.is_file():
        return path
    name = f"{subset}/qrels/qrels.tsv"
    why = f"{path}: no such file; the judgements are those of MixBench25"
    try:
        lent = hub_folder(REPOSITORIES[2025], REVISIONS[2025], [name]) / name
    except OSError as error:
        raise OSError(f"{why}, but {error}, or copy {name} of it to {path}") from error
    if not lent.is_file():
        raise FileNotFoundError(f"{why}, and its download was not finished: load it again while connected")
    return lent


def _read_lines(path: Path, key: str, media: Media) -> Iterator[_Row]:
    for where, record in read_records(path):
        image = text_of(record, "image", where)
        file = None if image is None else media.path(image, where, "images")
        yield where, id_of(record, key, where), text_of(record, "text", where), file


def _read_parquet(path: Path, key: str, media: Media) -> Iterator[_Row]:
    parquet = optional_import("pyarrow.parquet", "datasets", "reading MixBench 2026")
    if is_pointer(path):
        raise pointer_error(path)
    try:
        records = parquet.read_table(path, columns=["id", "text", "image"]).to_pylist()
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no whole Parquet file of id, text and image: {error}") from error
    for row, record in enumerate(records):
        where = f"{path}, row {row}"
        yield where, id_of(record, "id", where), text_of(record, "text", where), _file_of(record["image"], where)


def _file_of(image: Any, where: str) -> io.BytesIO | None:
    """The file of a picture that is stored in a table."""
    fields = image if isinstance(image, Mapping) else {"image": image}
    if all(value is None for value in fields.values()):
        return None
    content = fields.get("bytes")
    if not isinstance(content, bytes) or not content:
        raise ValueError(f"{where}: the image has no bytes")
    return io.BytesIO(content)


def _side(path: Path, key: str, rows: Iterable[_Row]) -> tuple[Items, dict[str, int]]:
    """Items of the texts and pictures of one side, and its rows by id."""
    places, texts, images = [], [], []
    for where, each, text, image in rows:
        places.append((where, each))
        texts.append(text)
        images.append(image)
    if not places:
        raise ValueError(f"{path} is empty: there is no row in it")
    known = rows_of(places)
    empty = [each for each, text, image in zip(known, texts, images, strict=True) if text is None and image is None]
    if empty:
        raise ValueError(f"{path}: neither a text nor an image in {counted(empty, 'row', 'rows')}")
    columns: dict[str, Sequence[Any]] = dict(zip(ROLES[key], (texts, images), strict=True))
    parts = {role: column for role, column in columns.items() if any(value is not None for value in column)}
    return Items(parts), known


def _check_counts(subset: str, folder: Path, n_queries: int, n_documents: int, n_judged: int) -> None:
    expected = PUBLISHED[subset]
    if (n_queries, n_documents) != expected or n_judged != n_queries:
        raise ValueError(
            f"{folder} holds {n_queries} queries, {n_documents} documents and {n_judged} judgements, but {subset} was "
            f"published with {expected[0]}, {expected[1]} and {expected[0]}: is the copy whole? check_counts=False "
            "takes other data in this layout"
        )


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
        Layout to write. That of 2026 gets the judgements of the other one along.

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
    _check(subset, edition, "mixed", None, None)
    check_task(task, qrels, *ROLES.values())
    if mixed is None:
        mixed = mix_kinds(task.corpus, random_state=0) if has_both(task.corpus).all() else task.corpus
    sides = {"queries": task.queries, "corpus": task.corpus, "mixed_corpus": mixed}
    _check_sides(sides, qrels)
    write = _write_lines if edition == 2025 else _write_parquet
    with new_folder(Path(root) / subset) as folder:
        for name, side in sides.items():
            write(folder, name, KEYS[name], side)
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
