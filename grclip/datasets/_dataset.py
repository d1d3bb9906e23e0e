"""What every loader returns: a task of raw parts, its judgements, and a few words on where it comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from grclip.items import SearchTask

Qrels = list[dict[int, float]]


@dataclass(frozen=True)
class Description:
    """Where a dataset comes from, and how large it is.

    Attributes
    ----------
    name : str
        What the dataset is called, with the part of it that was loaded.
    source : str
        Where it was published, with the revision, and what it was read from.
    licence : str
        Its licence, as far as its publishers say.
    n_queries, n_documents : int
        Rows of the two sides.
    kinds : dict of str to int
        Documents of each kind: ``{"text": 328, "image": 328, "text+image": 328}``.
    query_ids, document_ids : tuple of str
        Ids by row, as published; numbers as text. Not shown in the repr.

    Examples
    --------
    >>> import tempfile
    >>> from grclip.datasets import load_mixbench, make_scenes, write_mixbench
    >>> with tempfile.TemporaryDirectory() as root:
    ...     write_mixbench(*make_scenes(3, random_state=0), root, "OVEN")
    ...     description = load_mixbench("OVEN", root, check_counts=False).description
    >>> description.name, description.n_documents, description.document_ids
    ('MixBench 2025, OVEN, mixed corpus', 3, ('d0', 'd1', 'd2'))
    """

    name: str
    source: str
    licence: str
    n_queries: int
    n_documents: int
    kinds: Mapping[str, int]
    query_ids: tuple[str, ...] = field(repr=False)
    document_ids: tuple[str, ...] = field(repr=False)


class Dataset(NamedTuple):
    """A search task as published: ``task, qrels, description = load_mixbench("MSCOCO")``.

    Attributes
    ----------
    task : SearchTask
        Queries and corpus, as Items of raw parts: texts, and paths or files of everything else.
    qrels : list of dict
        Grades by document row, ``{row: grade}`` for each query.
    description : Description
        Name, source, licence, counts and ids.

    Examples
    --------
    >>> import tempfile
    >>> from grclip.datasets import load_mixbench, make_scenes, write_mixbench
    >>> with tempfile.TemporaryDirectory() as root:
    ...     write_mixbench(*make_scenes(3, random_state=0), root, "MSCOCO")
    ...     task, qrels, description = load_mixbench("MSCOCO", root, check_counts=False)
    >>> qrels
    [{0: 1}, {1: 1}, {2: 1}]
    """

    task: SearchTask
    qrels: Qrels
    description: Description


def described(
    name: str, source: str, licence: str, task: SearchTask, query_ids: Sequence[str], document_ids: Sequence[str]
) -> Description:
    """The description of a task."""
    kinds = dict(Counter(task.corpus.kinds.tolist()))
    sizes = len(task.queries), len(task.corpus)
    return Description(name, source, licence, *sizes, kinds, tuple(query_ids), tuple(document_ids))
