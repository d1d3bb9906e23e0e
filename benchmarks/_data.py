"""The data of a reproduction, as they lie on disk, encoded by a model, and some rows of them.

They lie in one folder, ``--root``:

- ``MSCOCO``, ``Google_WIT``, ``OVEN``, ``VisualNews``: the subsets of MixBench25 as published;
- ``train/MSCOCO`` and so on: queries and documents of the training splits, in the same layout
  (`grclip.datasets.write_mixbench` writes it); means are taken from these;
- ``nfcorpus``, ``scifact``: in BEIR's layout; training queries of the former go into the mean of queries.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks._embeddings import encoded
from benchmarks._models import encoder_of
from grclip import SearchTask
from grclip.datasets import Dataset, load_beir, load_mixbench
from grclip.encoders import release_models

Qrels = Sequence[Mapping[int, float]]

TRAIN = "train"


@dataclass(frozen=True)
class Judged:
    """An encoded task with its judgements, and what it is called."""

    name: str
    task: SearchTask
    qrels: Qrels

    @property
    def asked(self) -> str:
        """The kind of its queries."""
        return " and ".join(np.unique(self.task.queries.kinds))


class Data:
    """The data of one model, encoded when they are first asked for."""

    def __init__(self, model: str, arguments: argparse.Namespace) -> None:
        release_models()
        options = {"device": arguments.device, "batch_size": arguments.batch_size}
        given = {name: value for name, value in options.items() if value is not None}
        self.model, self.arguments = model, arguments
        self.encoder = encoder_of(model, arguments.checkpoint, **given)
        self._known: dict[str, Judged | Exception] = {}

    @property
    def is_joint(self) -> bool:
        """Whether the model reads a document's text and picture together."""
        return bool(getattr(self.encoder, "joint", False))

    def subset(self, subset: str, corpus: str = "mixed") -> Judged:
        """A subset of MixBench."""
        root, check = self.arguments.root, not self.arguments.unpublished
        name = subset if corpus == "mixed" else f"{subset} ({corpus})"
        return self.made(name, lambda: load_mixbench(subset, root, corpus=corpus, check_counts=check))

    def training(self, subset: str, n_queries: int, n_documents: int) -> Judged:
        """Rows of a training split; read jointly they are those of the mixed corpus, a third of them of each role."""
        root, corpus = self.arguments.root / TRAIN, "mixed" if self.is_joint else "full"
        n = 3 * n_documents if self.is_joint else n_documents
        return self.made(
            f"{TRAIN}/{subset}",
            lambda: sampled(load_mixbench(subset, root, corpus=corpus, check_counts=False), n_queries, n),
        )

    def made(self, name: str, make: Callable[[], Dataset]) -> Judged:
        """What is made of published data, encoded; what could not be had is not looked for again."""
        if name not in self._known:
            try:
                found = make()
                task = encoded(self.encoder, found.task, self.arguments.cache)
                self._known[name] = Judged(name, task, found.qrels)
            except (OSError, ValueError, ModuleNotFoundError) as error:
                self._known[name] = error
        known = self._known[name]
        if isinstance(known, Exception):
            raise known
        return known


def beir_dataset(arguments: argparse.Namespace, name: str, split: str = "test") -> Dataset:
    """A dataset of BEIR as published: from its folder where that is there, else from the hub."""
    folder = Path(arguments.root or "") / name
    if arguments.root is None or not folder.is_dir():
        return load_beir(name=name, split=split)
    return load_beir(folder, split=split, check_counts=not arguments.unpublished)


def sampled(dataset: Dataset, n_queries: int, n_documents: int) -> Dataset:
    """Some rows of a dataset, at random but always the same, with the judgements that remain."""
    rng = np.random.default_rng(0)
    sizes = (len(dataset.task), n_queries), (len(dataset.task.corpus), n_documents)
    return rows_of(dataset, *(np.sort(rng.permutation(size)[:n]) for size, n in sizes))


def rows_of(dataset: Dataset, asked: NDArray[np.intp], kept: NDArray[np.intp]) -> Dataset:
    """These queries and documents of a dataset, with the judgements that remain."""
    task, qrels, description = dataset
    place = {int(row): i for i, row in enumerate(kept)}
    judged = [{place[row]: grade for row, grade in qrels[query].items() if row in place} for query in asked]
    return Dataset(SearchTask(task.queries[asked], task.corpus[kept]), judged, description)
