"""Text retrieval in the layout of BEIR, with SciFact and NFCorpus from the hub."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from grclip._validation import check_flag
from grclip.datasets._counts import check_published
from grclip.datasets._dataset import Dataset, described
from grclip.datasets._files import (
    check_keys,
    counted,
    id_of,
    read_qrels,
    read_records,
    read_table,
    read_text,
    rows_of,
    text_of,
)
from grclip.datasets._hub import by_hand, hub_folder
from grclip.datasets._places import check_files, check_name, folder_at
from grclip.datasets._writing import check_task, full_text, new_folder, splits_of, write_qrels, write_records
from grclip.items import Items, SearchTask

QRELS = ("query-id", "corpus-id", "score")
UNKNOWN = "that of the dataset in this folder; see its publishers"


class _Published(NamedTuple):
    title: str
    revision: str
    licence: str
    n_documents: int
    n_queries: Mapping[str, int]
    n_judged: int


PUBLISHED = {
    "scifact": _Published(
        "SciFact",
        "0228b52cf27578f30900b9e5271d331663a030d7",
        "CC BY-NC 2.0, as its publishers say",
        5183,
        {"train": 809, "test": 300},
        339,
    ),
    "nfcorpus": _Published(
        "NFCorpus",
        "ec0fa4fe99da2ff19ca1214b7966684033a58814",
        "free for academic use, as its publishers say; other uses are up to NutritionFacts.org",
        3633,
        {"train": 2590, "dev": 324, "test": 323},
        12334,
    ),
}
"""Datasets of the hub: their documents, the queries of each split, and the judgements of the split test."""

ZIPS = "https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets"


def load_beir(
    folder: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    split: str = "test",
    revision: str | None = None,
    check_counts: bool = True,
) -> Dataset:
    """Load a dataset in the layout of BEIR: text queries, and documents of a title and a text.

    Parameters
    ----------
    folder : path-like, default=None
        Folder of the dataset. Give this or a name.
    name : {"scifact", "nfcorpus"}, default=None
        Dataset to download from the Hugging Face hub, or to take from the hub's cache.
    split : str, default="test"
        Which judgements to read: ``qrels/test.tsv``.
    revision : str, default=None
        Commit, branch or tag on the hub; None takes the commit whose counts are known. Not used with a folder.
    check_counts : bool, default=True
        Whether SciFact and NFCorpus, by name or in a folder that is called so (``scifact``, ``nfcorpus``, in capitals
        or not), must have the counts published. False takes data of your own in a folder of such a name.

    Returns
    -------
    Dataset
        ``task`` with queries in the role ``"query"`` and documents in ``"text"`` (str): title and text joined by a
        blank, or the one that there is; ``qrels``; ``description``.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ModuleNotFoundError
        If the extra ``datasets`` is needed and not installed.
    OSError
        If the hub is out of reach and the dataset is not on this machine.
    TypeError
        If check_counts is neither True nor False.
    ValueError
        If an argument has no such value, the hub no such revision or the folder no such split; if a line is malformed,
        an id or a key comes twice, a key is a known one but for capitals, a judgement is of an unknown id or has no
        score of at least 0, a judged query has no relevant document or no text, a document has neither title nor text,
        or the counts are not those published.

    See Also
    --------
    write_beir : Write a task in this layout.

    Notes
    -----
    The folder holds ``corpus.jsonl`` (``_id``, ``title``, ``text``), ``queries.jsonl`` (``_id``, ``text``) and
    ``qrels/{split}.tsv`` (tabs; header ``query-id``, ``corpus-id``, ``score``). The file of queries is that of all
    splits: queries that the split does not judge are left out, and ``description.source`` says how many. By hand,
    SciFact and NFCorpus are ``scifact.zip`` and ``nfcorpus.zip`` under
    https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets. The paper uses their split ``test``: 300 queries
    and 5,183 documents, 323 and 3,633. Checked are the documents, the queries of the splits that were published, and
    the judgements of ``test`` (339 and 12,334).

    References
    ----------
    Thakur et al., BEIR: A Heterogeneous Benchmark for Zero-shot Evaluation of Information Retrieval Models,
    arXiv:2104.08663.

    Examples
    --------
    >>> import tempfile
    >>> from grclip import Items, SearchTask
    >>> from grclip.datasets import load_beir, write_beir
    >>> task = SearchTask(Items({"query": ["red"]}), Items({"text": ["a red bicycle", "the sea"]}))
    >>> with tempfile.TemporaryDirectory() as root:  # name="scifact" downloads what was published
    ...     write_beir(task, [{0: 1}], f"{root}/small")
    ...     task, qrels, description = load_beir(f"{root}/small")
    >>> task.corpus
    Items(n=2, text=2)
    >>> qrels, description.n_queries
    ([{0: 1}], 1)
    """
    check_flag("check_counts", check_counts)
    place = _place(folder, name, revision)
    way_out = _way_out(folder, name)
    check_files([place / "corpus.jsonl", place / "queries.jsonl"], way_out)
    judged = _judgements(place, split, way_out)
    texts, rows = _documents(place / "corpus.jsonl")
    queries, left_out = _queries(place / "queries.jsonl", judged)
    published = PUBLISHED.get(name or place.absolute().name.lower()) if check_counts else None
    if published:  # before the judgements, which are not at fault where a document is lacking
        check_published(place, published.title, {"documents": (len(texts), [published.n_documents])})
    qrels = read_qrels(judged, QRELS, {each: row for row, each in enumerate(queries)}, rows)
    task = SearchTask(Items({"query": list(queries.values())}), Items({"text": texts}))
    if published:
        _check_judged(published, place, split, qrels)
    known = None if name is None else PUBLISHED[name]
    title = f"{known.title if known else place.absolute().name} (BEIR), split {split}"
    source = f"{_source(place, name, revision)}; queries of other splits left out: {left_out}"
    return Dataset(
        task, qrels, described(title, source, known.licence if known else UNKNOWN, task, list(queries), list(rows))
    )


def _place(folder: Any, name: str | None, revision: str | None) -> Path:
    """The folder of the dataset, from the hub where it is given by name."""
    if (folder is None) == (name is None):
        raise ValueError(
            f"give either a folder or a name ({', '.join(map(repr, PUBLISHED))}); got folder={folder!r}, name={name!r}"
        )
    if name is None:
        if revision is not None:
            raise ValueError(f"revision={revision!r} is of the hub, and not used with a folder; leave one of them out")
        return folder_at(folder)
    if name not in PUBLISHED:
        raise ValueError(f"name must be one of {', '.join(map(repr, PUBLISHED))}; got {name!r}; or give a folder")
    return hub_folder(f"mteb/{name}", _commit(name, revision), ["corpus.jsonl", "queries.jsonl", "qrels/*.tsv"])


def _commit(name: str, revision: str | None) -> str:
    return PUBLISHED[name].revision if revision is None else revision


def _way_out(folder: Any, name: str | None) -> str:
    """What to do when files are missing."""
    if name is not None:
        again = "the download was not finished: load it again while connected, and it goes on where it stopped"
        return f"{again}; or {by_hand(f'mteb/{name}', PUBLISHED[name].revision)}"
    return (
        f"unpack a dataset of BEIR, e.g. {ZIPS}/scifact.zip or {ZIPS}/nfcorpus.zip, so that {folder} holds "
        "corpus.jsonl, queries.jsonl and qrels, or give name='scifact' to download it"
    )


def _source(place: Path, name: str | None, revision: str | None) -> str:
    if name is None:
        return f"read from {place}"
    return f"https://huggingface.co/datasets/mteb/{name}, revision {_commit(name, revision)}"


def _judgements(place: Path, split: str, way_out: str) -> Path:
    """The judgements of a split, if it is one that is there."""
    check_name("split", split)
    path, there = place / "qrels" / f"{split}.tsv", sorted(path.stem for path in (place / "qrels").glob("*.tsv"))
    if there == ["qrels"] and "query_id" in read_text(place / "qrels" / "qrels.tsv").split("\n", 1)[0]:
        subset, home = place.absolute().name, str(place.absolute().parent)
        raise ValueError(
            f"{place} has the layout of MixBench, not that of BEIR: load it with load_mixbench({subset!r}, {home!r})"
        )
    if there and split not in there and not Path(f"{path}.gz").is_file():
        raise ValueError(f"split must be one of {', '.join(map(repr, there))}, which {place} holds; got {split!r}")
    check_files([path], way_out)
    return path


def _documents(path: Path) -> tuple[list[str], dict[str, int]]:
    """Texts of the documents, and rows by id."""
    places, texts = [], []
    for where, record in read_records(path):
        check_keys(record, ("_id", "title", "text"), where)
        parts = [text_of(record, "title", where), text_of(record, "text", where)]
        places.append((where, id_of(record, "_id", where)))
        texts.append(" ".join(part for part in parts if part is not None))
    if not places:
        raise ValueError(f"{path} is empty: there is no document in it")
    rows = rows_of(places)
    empty = [each for each, text in zip(rows, texts, strict=True) if not text]
    if empty:
        raise ValueError(f"{path}: neither a title nor a text in {counted(empty, 'document', 'documents')}")
    return texts, rows


def _queries(path: Path, judged: Path) -> tuple[dict[str, str], int]:
    """Texts by id of the queries that a split judges, and how many it does not."""
    wanted = {row[QRELS[0]].strip() for _, row in read_table(judged, QRELS, "\t")}
    if not wanted:
        raise ValueError(f"{judged} is empty: there is no judgement in it")
    places, texts = [], []
    for where, record in read_records(path):
        check_keys(record, ("_id", "text"), where)
        places.append((where, id_of(record, "_id", where)))
        texts.append(text_of(record, "text", where))
    found = dict(zip(rows_of(places), texts, strict=True))
    silent = [each for each, text in found.items() if text is None and each in wanted]
    if silent:
        raise ValueError(f"{path}: no text in {counted(silent, 'judged query', 'judged queries')}")
    kept = {each: text for each, text in found.items() if text is not None and each in wanted}
    if not kept:
        raise ValueError(f"{judged} judges none of the {len(found)} queries of {path}: are they of one dataset?")
    return kept, len(found) - len(kept)


def _check_judged(known: _Published, place: Path, split: str, qrels: Sequence[Mapping[int, float]]) -> None:
    """The queries and judgements of a known dataset are as many as published."""
    counts = {}
    if split in known.n_queries:
        counts[f"queries of the split {split!r}"] = len(qrels), [known.n_queries[split]]
    if split == "test":
        counts["judgements"] = sum(map(len, qrels)), [known.n_judged]
    check_published(place, known.title, counts)


def write_beir(
    task: SearchTask,
    qrels: Sequence[Mapping[int, float]],
    folder: str | os.PathLike[str],
    split: str | Sequence[str] = "test",
) -> None:
    """Write a task of texts in the layout of BEIR, from which `load_beir` reads it.

    Parameters
    ----------
    task : SearchTask
        Queries in the role ``"query"`` and documents in ``"text"``: str, none of them blank.
    qrels : list of dict
        Grades by document row for each query, at least one of them above 0.
    folder : path-like
        Folder to make.
    split : str or sequence of str, default="test"
        Name of the split, or of the split of each query: of its file of judgements.

    Raises
    ------
    FileExistsError
        If the folder is there already.
    TypeError
        If a part is no str.
    ValueError
        If a role is another one, a text is blank, a query has no relevant document, lengths differ, or a split is no
        name of a file.

    See Also
    --------
    load_beir : Read it back; with ``check_counts=False`` from a folder called ``scifact`` or ``nfcorpus``.

    Notes
    -----
    Documents are written without a title. Queries get the ids q0, q1, ..., documents d0, d1, ...

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from grclip import Items, SearchTask
    >>> from grclip.datasets import write_beir
    >>> task = SearchTask(Items({"query": ["red"]}), Items({"text": ["a red bicycle", "the sea"]}))
    >>> with tempfile.TemporaryDirectory() as root:
    ...     write_beir(task, [{0: 1}], f"{root}/small")
    ...     sorted(path.name for path in Path(root, "small").iterdir())
    ['corpus.jsonl', 'qrels', 'queries.jsonl']
    """
    check_task(task, qrels, ["query"], ["text"])
    splits = splits_of(split, len(task), lambda name: check_name("split", name))
    unanswered = [f"q{row}" for row, judged in enumerate(qrels) if not any(judged.values())]
    if unanswered:
        raise ValueError(f"qrels have no relevant document for {counted(unanswered, 'query', 'queries')}")
    with new_folder(Path(folder)) as place:
        documents = [full_text(task.corpus, "text", row) for row in range(len(task.corpus))]
        queries = [full_text(task.queries, "query", row) for row in range(len(task))]
        write_records(
            place / "corpus.jsonl",
            [{"_id": f"d{row}", "title": "", "text": text} for row, text in enumerate(documents)],
        )
        write_records(place / "queries.jsonl", [{"_id": f"q{row}", "text": text} for row, text in enumerate(queries)])
        for each in dict.fromkeys(splits):
            judged = [line if other == each else {} for line, other in zip(qrels, splits, strict=True)]
            write_qrels(place / "qrels" / f"{each}.tsv", QRELS, judged)
