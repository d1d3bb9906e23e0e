"""The spread of each kind of document: how widely its similarities to unrelated queries vary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from torch import Tensor

from grclip._fuse import Kind, fuse_parts, kind_weights, kinds_of, name_kinds
from grclip._kernels import Array, as_tensor, kind_codes, row_norms
from grclip._validation import check_values, warn
from grclip.items import SearchTask, parts_of

SAMPLE = 2000
"""Queries, and documents of a kind, that a spread is measured on at most: four million pairs."""

MIN_PAIRS = 20
"""Pairs of a query and a document, of at least two documents, below which a kind's own spread is no measurement."""

MIN_SPREAD = 1e-4
"""Spread below which similarities of unit vectors are all the same, and half precision cannot hold its inverse."""

MAX_KINDS = 255
"""Kinds to measure at most: all the subsets of eight roles found together."""


def document_spreads(
    task: SearchTask, qrels: Any = None, *, random_state: Any = 0, **options: Any
) -> tuple[dict[Kind, float], set[Kind]]:
    """Standard deviation of the similarities of unrelated queries and documents, by kind of document.

    The kinds are every set of roles found together in the corpus and every subset of it: a document that has a text
    and an image also tells how a text alone, and an image alone, would score. `options` are those of kind_weights.
    Returns the kinds of the queries too: to a picture, images are what texts are to a text.
    """
    rng = check_random_state(random_state)
    query_parts, parts = parts_of(task.queries), parts_of(task.corpus)
    query_codes, codes = _codes(query_parts), _codes(parts)
    query_kinds = {kinds_of(tuple(query_parts))[code] for code in np.unique(query_codes).tolist() if code}
    if len(query_kinds) > 1:
        warn(
            f"queries of several kinds ({name_kinds(query_kinds)}) have spreads of their own, and equalize=True "
            "averages them, which fits none: fit one pipeline for each kind of query"
        )
    asked = sample_rows(np.flatnonzero(query_codes), rng)
    queries = _unit_rows(query_parts, asked, options)
    kinds, sums = kinds_of(tuple(parts)), {}
    for code in _subsets(codes):
        kind = kinds[code]
        rows = sample_rows(np.flatnonzero(codes & code == code), rng)
        documents = _unit_rows({role: part for role, part in parts.items() if role in kind}, rows, options)
        usable = np.outer(queries.any(axis=1), documents.any(axis=1)) & ~relevant_pairs(qrels, asked, rows)
        similarities = (queries @ documents.T)[usable]
        squares = float(similarities.var() * similarities.size) if similarities.size else 0.0
        sums[kind] = (len(rows), similarities.size, squares)
    return _settle(sums), query_kinds


def _settle(sums: Mapping[Kind, tuple[int, int, float]]) -> dict[Kind, float]:
    """Spreads from (documents, pairs, sum of squared deviations); the pooled one where there are too few."""
    pairs = sum(n for _, n, _ in sums.values())
    pooled = (sum(squares for _, _, squares in sums.values()) / max(pairs, 1)) ** 0.5
    if pooled < MIN_SPREAD:
        raise ValueError(
            "equalize=True found no unrelated pairs of a query and a document that differ in similarity: its standard "
            f"deviation is {pooled:.2g} in {pairs} pairs, below {MIN_SPREAD}; fit on more queries and documents"
        )
    spreads = {kind: (squares / max(n, 1)) ** 0.5 for kind, (_, n, squares) in sums.items()}
    scarce = [k for k, (rows, n, _) in sums.items() if rows < 2 or n < MIN_PAIRS or spreads[k] < MIN_SPREAD]
    if scarce:
        warn(
            f"too few documents to measure the spread of kind {name_kinds(scarce)} "
            f"(2 different documents and {MIN_PAIRS} unrelated pairs are needed): the pooled spread of all kinds is "
            "used. Fit on more documents of that kind"
        )
    return spreads | dict.fromkeys(scarce, pooled)


def _codes(parts: Mapping[str, Array]) -> NDArray[np.intp]:
    """The code of each row's kind, after every value has been checked."""
    norms = []
    for role, part in parts.items():
        norms.append(row_norms(part))
        check_values(f"role {role!r}", part, norms[-1], allow_missing=True)
    return kind_codes([norm.cpu() for norm in norms]).numpy()


def _subsets(codes: NDArray[np.intp]) -> list[int]:
    """Codes of every set of roles found together, and of every subset of it."""
    found = np.unique(codes).tolist()
    if max(code.bit_count() for code in found) > MAX_KINDS.bit_length():
        raise ValueError(
            f"equalize=True measures every subset of the roles that documents have, and some have "
            f"{max(code.bit_count() for code in found)}; at most {MAX_KINDS.bit_length()} can be measured: merge or "
            "leave out some roles"
        )
    return sorted({part for code in found for part in range(1, code + 1) if part & code == part})


def _unit_rows(parts: Mapping[str, Array], rows: NDArray[np.intp], options: Mapping[str, Any]) -> NDArray[np.float64]:
    """Some rows, fused and of unit length, in float64 NumPy."""
    taken = {role: take_float64(part, rows) for role, part in parts.items()}
    return np.asarray(fuse_parts(taken, kind_weights(tuple(parts), **options), np.ones(2 ** len(parts)), quiet=True))


def take_float64(part: Array, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    taken = part[torch.as_tensor(rows, device=part.device)] if isinstance(part, Tensor) else part[rows]
    return as_tensor(taken).double().cpu().numpy()


def sample_rows(rows: NDArray[np.intp], rng: np.random.RandomState | np.random.Generator) -> NDArray[np.intp]:
    return rows if len(rows) <= SAMPLE else np.sort(rng.choice(rows, SAMPLE, replace=False))


def relevant_pairs(qrels: Any, queries: NDArray[np.intp], documents: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which pairs are graded above 0, (n_queries, n_documents)."""
    marked = np.zeros((len(queries), len(documents)), dtype=bool)
    place = {row: column for column, row in enumerate(documents.tolist())}
    for i, query in enumerate(queries.tolist() if qrels is not None else ()):
        marked[i, [place[row] for row, grade in qrels[query].items() if grade > 0 and row in place]] = True
    return marked
