"""MixBench, the paper's benchmark of mixed-modality search: four subsets in two editions."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grclip._columns import is_missing
from grclip._optional import optional_import
from grclip._validation import check_flag
from grclip.datasets._counts import check_published
from grclip.datasets._dataset import Dataset, described
from grclip.datasets._files import check_keys, counted, id_of, read_qrels, read_records, rows_of, text_of
from grclip.datasets._hub import by_hand, hub_folder
from grclip.datasets._places import Media, check_files, folder_at, is_pointer, pointer_error
from grclip.items import Items, SearchTask

REPOSITORIES = {2025: "mixed-modality-search/MixBench25", 2026: "mixed-modality-search/MixBench2026"}
REVISIONS = {2025: "88e3916036ea0bdb205f4da885d6e947a565c1a0", 2026: "17a9e705b2346b118a63f163f10e47325f9e9ecc"}

PUBLISHED = {"MSCOCO": (984, 984), "Google_WIT": (1000, 4421), "VisualNews": (981, 981), "OVEN": (1000, 1000)}
"""Queries and documents of each subset; each query has one relevant document."""

KINDS = {
    "MSCOCO": {"text": 328, "image": 328, "text+image": 328},
    "Google_WIT": {"text": 1473, "image": 1473, "text+image": 1475},
    "VisualNews": {"text": 327, "image": 327, "text+image": 327},
    "OVEN": {"text": 333, "image": 333, "text+image": 334},
}
"""Documents of each kind in the mixed corpus of 2025."""

CORPORA = {"mixed": "mixed_corpus", "full": "corpus"}
QRELS = ("query_id", "corpus_id", "score")
LICENCE = "MIT, as its publishers say; texts and pictures keep the licences of the datasets that they come from"
ROLES = {"query_id": ("query", "query_image"), "corpus_id": ("text", "image")}
"""Text and picture of the two sides, by the name of their ids."""

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
        (Parquet, pictures inside, some gigabytes in memory; the mixed corpus alone). The judgements are those of
        MixBench25 in both.
    corpus : {"mixed", "full"}, default="mixed"
        The corpus in which documents are texts, pictures or both, in equal parts, as it was published, or the one in
        which all have both; edition 2026 has the mixed one alone.
    check_counts : bool, default=True
        Whether other counts than those published are an error: of queries, documents and judgements, of queries without
        a text (in OVEN also a picture), and in edition 2025 of documents of each kind. False takes data of your own in
        this layout.

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
        If an argument has no such value, edition 2026 is asked for its full corpus, or the hub has no such revision; if
        a line is malformed, an id or a key comes twice, a key is a known one but for capitals, a judgement is of an
        unknown id or has no score of at least 0, a query has no relevant document, a row has neither text nor picture,
        a path leaves the folder, or the counts are not those published.

    See Also
    --------
    write_mixbench : Write a task in this layout.
    paper_split : The split of the paper's own code, which is not the mixed corpus that was published.

    Notes
    -----
    The folder of a subset holds ``queries.jsonl`` (``query_id``, ``text``, ``image``), ``corpus.jsonl`` and
    ``mixed_corpus.jsonl`` (``corpus_id``, ``text``, ``image``), where what is absent is null, empty or left out,
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
    check_arguments(subset, edition, corpus)
    check_flag("check_counts", check_counts)
    if root is not None and revision is not None:
        raise ValueError(f"revision={revision!r} is of the hub, and not used with a root; leave one of them out")
    commit = REVISIONS[edition] if revision is None else revision
    names = [f"{name}{SUFFIXES[edition]}" for name in ("queries", CORPORA[corpus])]
    home = _download(subset, commit, edition, names) if root is None else folder_at(root)
    way_out = _way_out(root, edition, check_counts)
    folder = _complete(home, subset, edition, names, way_out)
    media = Media(folder, "image", way_out)
    read = _read_lines if edition == 2025 else _read_parquet
    queries, query_rows = _side(folder / names[0], "query_id", read(folder / names[0], "query_id", media))
    documents, rows = _side(folder / names[1], "corpus_id", read(folder / names[1], "corpus_id", media))
    media.check()
    task = SearchTask(queries, documents)
    if check_counts:  # before the judgements, which are not at fault where a row is lacking
        _check_counts(folder, subset, task, _kinds(subset, edition, corpus))
    qrels = read_qrels(_qrels(folder, subset, edition), QRELS, query_rows, rows)
    if check_counts:
        check_published(folder, subset, {"judgements": (sum(map(len, qrels)), [len(task)])})
    name = f"MixBench {edition}, {subset}, {corpus} corpus"
    place = f"revision {commit}" if root is None else f"read from {folder}"
    source = f"https://huggingface.co/datasets/{REPOSITORIES[edition]}, {place}"
    return Dataset(task, qrels, described(name, source, LICENCE, task, list(query_rows), list(rows)))


def check_arguments(subset: str, edition: int, corpus: str = "mixed") -> None:
    """A subset, an edition and a corpus that were published."""
    for name, value, known in (
        ("subset", subset, list(PUBLISHED)),
        ("edition", edition, list(REPOSITORIES)),
        ("corpus", corpus, list(CORPORA)),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}; got {value!r}")
    if (edition, corpus) == (2026, "full"):
        raise ValueError("corpus='full' was not published in edition 2026; take edition=2025, or corpus='mixed'")


def _download(subset: str, commit: str, edition: int, names: Sequence[str]) -> Path:
    """The folder of the subsets from the hub, or from its cache, with the files of one of them."""
    more = ["qrels/qrels.tsv", "images/*"] if edition == 2025 else []
    return hub_folder(REPOSITORIES[edition], commit, [f"{subset}/{name}" for name in (*names, *more)])


def _complete(root: Path, subset: str, edition: int, names: Sequence[str], way_out: str | None) -> Path:
    """The folder of a subset, if its files are there."""
    folder, other = root / subset, next(each for each in SUFFIXES if each != edition)
    files = [folder / name for name in (*names, *(["qrels/qrels.tsv"] if edition == 2025 else []))]
    reason = None
    if (folder / f"queries{SUFFIXES[other]}").is_file() and not (folder / names[0]).is_file():
        reason = f"that folder holds the other edition: edition={other}"
    elif not folder.is_dir() and (root / names[0]).is_file():
        reason = f"root is the folder that holds {subset}, not that one itself"
    elif not folder.is_dir():
        reason = _elsewhere(root, subset)
    check_files(files, way_out, reason)
    return folder


def _elsewhere(root: Path, subset: str) -> str | None:
    """Where the folder of a subset is under another name, or one level deeper."""
    for place in root.glob("*"):
        if place.name.casefold() == subset.casefold() and place.is_dir():
            return f"there is {place}: rename it to {subset}"
    deeper = next((place for place in root.glob(f"*/{subset}") if place.is_dir()), None)
    return None if deeper is None else f"there is {deeper}: give root={str(deeper.parent)!r}"


def _way_out(root: Any, edition: int, published: bool) -> str | None:
    """What to do when files are missing; None where they are the user's own."""
    if root is None:
        return "the download was not finished: load it again while connected, and it goes on where it stopped"
    if not published:
        return None
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
        check_keys(record, (key, "text", "image"), where)
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


def _kinds(subset: str, edition: int, corpus: str) -> Mapping[str, int]:
    """Documents of each kind as published, where that is known."""
    if corpus == "full":
        return {"text": 0, "image": 0, "text+image": PUBLISHED[subset][1]}
    return KINDS[subset] if edition == 2025 else {}


def _check_counts(folder: Path, subset: str, task: SearchTask, kinds: Mapping[str, int]) -> None:
    """The counts of rows are those published: those of parts tell of keys that were not read."""
    n_queries, n_documents = PUBLISHED[subset]
    counts = {
        "queries": (len(task), [n_queries]),
        "documents": (len(task.corpus), [n_documents]),
    }
    for role in ROLES["query_id"] if subset == "OVEN" else ROLES["query_id"][:1]:
        lacking = int(np.count_nonzero(is_missing(task.queries[role]))) if role in task.queries else len(task)
        counts[f"queries without {role!r}"] = lacking, [0]
    found = Counter(task.corpus.kinds.tolist())
    counts |= {f"documents of the kind {kind!r}": (found[kind], [n]) for kind, n in kinds.items()}
    check_published(folder, subset, counts)
