"""The rows of a role, and which rows of two roles belong together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from grclip._kernels import Array, norm_limits, sum_rows
from grclip._spread import take_float64
from grclip._validation import check_qrels, check_values
from grclip.items import Items, SearchTask

Pairs = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Rows of two roles that belong together."""

_NO_PAIRS = {
    "dict": "not measurable: rows of a dict are not paired; use Items, whose parts share rows",
    "qrels": "not measurable: give qrels, which say what belongs together",
    "none": "not measurable: no row has both parts",
    "marked": "not measurable: qrels mark no document with this part",
}


class Column:
    """The rows of a role: which have a direction, and the sum of these at unit length."""

    def __init__(self, role: str, part: Array) -> None:
        self.role, self.part = role, part
        self.total, norms = sum_rows(part, normalize=True)
        self.zero = check_values(f"role {role!r}", part, norms, allow_missing=True)
        usable = norms >= norm_limits(norms.dtype)[0]
        usable[torch.as_tensor(self.zero, device=usable.device)] = False
        self.usable = torch.nonzero(usable).flatten().cpu().numpy()

    @property
    def n(self) -> int:
        return len(self.usable)

    @property
    def mean(self) -> NDArray[np.float64]:
        return self.total / self.n

    @property
    def cosine_within(self) -> float:
        """Mean cosine of two different rows, of which there have to be two."""
        return float((self.total @ self.total - self.n) / (self.n * (self.n - 1)))

    def unit_rows(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        return unit(take_float64(self.part, rows))


class Relations:
    """Which rows of two roles belong together."""

    def __init__(self, X: Any, qrels: Any) -> None:
        if qrels is not None and not isinstance(X, SearchTask):
            raise TypeError(f"qrels are about a SearchTask; X is {type(X).__name__}")
        self.qrels = None if qrels is None else check_qrels(qrels, len(X), len(X.corpus))
        self.rows_are_shared = not isinstance(X, Mapping) or isinstance(X, Items)
        self.queries = frozenset(X.queries) if isinstance(X, SearchTask) else frozenset()

    def are_unknown(self, a: Column, b: Column) -> bool:
        """Whether nothing says what belongs together."""
        across = (a.role in self.queries) != (b.role in self.queries)
        return not self.rows_are_shared or (across and self.qrels is None)

    def pairs(self, a: Column, b: Column) -> Pairs | str:
        """Rows of a and of b that belong together, or why it is not known."""
        if not self.rows_are_shared:
            return _NO_PAIRS["dict"]
        if (a.role in self.queries) == (b.role in self.queries):
            both = np.intersect1d(a.usable, b.usable)
            return (both, both) if len(both) else _NO_PAIRS["none"]
        if self.qrels is None:
            return _NO_PAIRS["qrels"]
        judged = ((i, row) for i, query in enumerate(self.qrels) for row, grade in query.items() if grade > 0)
        pairs = np.array(list(judged), dtype=np.intp).reshape(-1, 2)
        pairs = pairs[np.isin(pairs[:, 0], a.usable) & np.isin(pairs[:, 1], b.usable)]
        return (pairs[:, 0], pairs[:, 1]) if len(pairs) else _NO_PAIRS["marked"]


def unit(x: NDArray[np.float64], smallest: float = 0.0) -> NDArray[np.float64]:
    """Rows at unit length; rows that are not longer than `smallest` become zero."""
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, norms, out=np.zeros_like(x), where=norms > smallest)
