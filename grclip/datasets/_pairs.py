"""Tasks of pairs: each query asks for the document in its row, as with clips and pictures that have captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from grclip._columns import is_missing
from grclip._validation import few
from grclip.datasets._writing import check_task, full_text
from grclip.items import Items


def pairs(n: int) -> list[dict[int, float]]:
    """The judgements of n pairs."""
    return [{row: 1} for row in range(n)]


def check_pairs(task: Any, qrels: Any, queries: Sequence[str], documents: Sequence[str]) -> None:
    """A task of raw parts, all of them there, in which each query asks for the document in its row."""
    check_task(task, qrels, queries, documents)
    for side, roles, name in ((task.queries, queries, "queries"), (task.corpus, documents, "documents")):
        for role in roles:
            if role not in side:
                raise ValueError(f"{name} of this layout have the role {role!r}; got {', '.join(map(repr, side))}")
            lacking = np.flatnonzero(is_missing(side[role]))
            if len(lacking):
                raise ValueError(f"role {role!r}: this layout needs a part in every row; none in {few(lacking)}")
    if len(task) != len(task.corpus):
        raise ValueError(
            f"this layout has as many documents as queries; got {len(task.corpus)} documents and {len(task)} queries"
        )
    others = [row for row, judged in enumerate(qrels) if {d: grade for d, grade in judged.items() if grade} != {row: 1}]
    if others:
        raise ValueError(
            "in this layout each query asks for the document in its row, qrels[i] == {i: 1}; qrels say otherwise in "
            f"{few(others)}"
        )


def one_line(items: Items, role: str, row: int) -> str:
    """The text of a row, which is to stand in a line."""
    text = full_text(items, role, row)
    if text != text.strip() or "\n" in text or "\r" in text:
        raise ValueError(
            f"role {role!r}, row {row}: a caption is one line without blanks around it; got {text[:80]!r}: join its "
            "lines with ' '.join(text.split())"
        )
    return text
