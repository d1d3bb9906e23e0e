"""What is measured for a report: scores, shares, the gap, and the cases to show."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from grclip._columns import is_raw
from grclip._report.cases import (
    TOP,
    Card,
    Case,
    Column,
    Gallery,
    cards_of,
    choose,
    first_ranks,
    group_queries,
    make_case,
)
from grclip.diagnostics import (
    Comparison,
    ModalityBias,
    ModalityGap,
    compare,
    modality_bias,
    modality_gap,
)
from grclip.diagnostics._search import as_generator, judged_only, search
from grclip.items import Items, SearchTask

DEEPEST, MOST_RANKS = 1000, 5_000_000
"""Ranks of a query among which its relevant document is looked for, and those of all queries together."""


@dataclass(frozen=True)
class Search:
    """What is reported on: the task, and the methods that search it."""

    task: SearchTask
    qrels: Sequence[Mapping[int, float]]
    methods: Mapping[str, Any]
    queries: Items | None
    documents: Items | None
    calibration: tuple[SearchTask, Any] | None
    k: int
    random_state: Any

    @property
    def modalities(self) -> Mapping[str, str]:
        """Modalities that the methods were told, of roles that are not known by name."""
        told = (_attribute(method, "modalities") for method in self.methods.values())
        return next((modalities for modalities in told if modalities), {})

    @property
    def remover(self) -> tuple[str, int] | None:
        """The last method that has learned means, and the place of its step that has."""
        return self._last_with("means_")

    @property
    def spreads(self) -> tuple[str, Mapping[frozenset[str], float]] | None:
        """The last method that puts kinds on one scale, and the spreads of sets of roles that it has learned."""
        found = self._last_with("spread_")
        return None if found is None else (found[0], self.methods[found[0]].steps[found[1]][1].spread_)

    def _last_with(self, attribute: str) -> tuple[str, int] | None:
        """The last method with a step that has learned something, and the place of its first such step."""
        for name in reversed(list(self.methods)):
            for place, (_, step) in enumerate(getattr(self.methods[name], "steps", [])):
                if hasattr(step, attribute):
                    return name, place
        return None

    @property
    def calibrated_on(self) -> NDArray[np.intp]:
        """The queries whose vectors are those of a query of the calibration."""
        if self.calibration is None:
            return np.empty(0, dtype=np.intp)
        known = set(_fingerprints(self.calibration[0].queries))
        return np.flatnonzero([row in known for row in _fingerprints(self.task.queries)])

    def sampled(self, n: int, judged: NDArray[np.intp]) -> Search:
        """The same search by at most n of the judged queries, at random."""
        if len(judged) <= n:
            return self
        rows = np.sort(as_generator(self.random_state).permutation(judged)[:n])
        return replace(self, task=self.task[rows], qrels=[self.qrels[row] for row in rows.tolist()], queries=None)


def _fingerprints(items: Any) -> list[frozenset[tuple[str, int]]]:
    """For each row a number for each of its vectors, the same for the same vector in any precision that holds it."""
    parts = {} if not isinstance(items, Items) else {role: x for role, x in items.items() if not is_raw(x)}
    hosted = {role: x.detach().cpu().double().numpy() if isinstance(x, Tensor) else x for role, x in parts.items()}
    return [
        frozenset((role, hash((x[row].astype(float) + 0.0).tobytes())) for role, x in hosted.items())
        for row in range(len(items) if hosted else 0)
    ]


@dataclass(frozen=True)
class Numbers:
    """All that is measured for the tables."""

    comparison: Comparison
    biases: Mapping[str, ModalityBias]
    gap: ModalityGap
    gap_after: ModalityGap | None
    """What is left of the gap where a method has removed means."""
    judged: NDArray[np.intp]

    def row(self, method: str, kind: str = "all") -> Mapping[str, Any]:
        """The scores of a method for one kind of relevant document."""
        return next(row for row in self.comparison.rows if row["method"] == method and row["kind"] == kind)


@dataclass(frozen=True)
class Studies:
    """The cases, what is shown in them, and how many there are of each group among all queries."""

    cases: Sequence[Case]
    totals: Mapping[str, int]
    queries: Mapping[int, Card]
    documents: Mapping[int, Card]
    gallery: Gallery
    depth: int


def gather(asked: Search) -> Numbers:
    """Everything for the tables."""
    comparison = compare(asked.task, asked.qrels, asked.methods, k=asked.k, random_state=asked.random_state)
    biases = {
        name: modality_bias(asked.task, rows, asked.qrels, k=asked.k, random_state=asked.random_state)
        for name, rows in comparison.rankings.items()
    }
    gap = modality_gap(asked.task, asked.qrels, random_state=asked.random_state)
    after = _gap_after(asked)
    return Numbers(comparison, biases, gap, after, judged_only(asked.qrels)[0])


def _gap_after(asked: Search) -> ModalityGap | None:
    """The gap that is left when the last method that has learned means has removed them."""
    if asked.remover is None:
        return None
    name, place = asked.remover
    removed = asked.methods[name][: place + 1].transform(asked.task)
    if not isinstance(removed, SearchTask) or not isinstance(removed.queries, Items):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rows of zeros: those of the task have been warned of
        return modality_gap(removed, asked.qrels, random_state=asked.random_state)


def study(asked: Search, numbers: Numbers, n_cases: int) -> Studies:
    """Case studies by the first and the last method."""
    names = list(dict.fromkeys((next(iter(asked.methods)), list(asked.methods)[-1])))
    depth = min(max(MOST_RANKS // len(asked.task), asked.k, TOP), DEEPEST, len(asked.task.corpus))
    found = {name: search(asked.methods[name], asked.task, depth) for name in names}
    groups = group_queries([first_ranks(asked.qrels, rows) for _, rows in found.values()], numbers.judged)
    kinds = asked.task.corpus.kinds
    cases = [
        make_case(query, group, found, asked.qrels[query], kinds)
        for group, queries in choose(groups, n_cases).items()
        for query in queries
    ]
    gallery, modalities = Gallery(), asked.modalities
    shown = sorted({hit.row for case in cases for column in case.columns for hit in _hits(column)})
    documents = cards_of(asked.documents, asked.task.corpus, shown, "Document", modalities, gallery)
    queried = [case.query for case in cases]
    queries = cards_of(asked.queries, asked.task.queries, queried, "Query", modalities, gallery)
    totals = {name: len(queries_of) for name, queries_of in groups.items()}
    return Studies(cases, totals, queries, documents, gallery, depth)


def _hits(column: Column) -> list[Any]:
    """The documents that a column shows."""
    return [*column.hits, *([column.later] if column.later else [])]


def _attribute(method: Any, name: str) -> Any:
    """What the first step of a pipeline that has it knows."""
    steps = [step for _, step in getattr(method, "steps", [])]
    return next((value for step in steps if (value := getattr(step, name, None)) is not None), None)
