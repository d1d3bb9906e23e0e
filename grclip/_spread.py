"""The spread of each kind of document: how widely its similarities to unrelated queries vary."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from torch import Tensor

from grclip._fuse import Kind, fuse_parts, kind_weights, kinds_of, name_kinds
from grclip._kernels import Array, as_tensor, kind_codes, row_blocks, row_norms
from grclip._lines import Lines, powers_of, products
from grclip._validation import check_values, warn
from grclip.items import SearchTask, parts_of

SAMPLE = 2000
"""Queries, and documents of a kind, that a spread is measured on at most: four million pairs."""

MIN_PAIRS = 20
"""Pairs of a query and a document, of at least two documents, below which a kind's own spread is no measurement."""

MIN_SPREAD = 1e-4
"""Spread below which similarities of unit vectors are all the same, and half precision cannot hold its inverse."""

_ROWS = 256  # queries whose similarities are held at once: 4 MB

MAX_KINDS = 255
"""Kinds to measure at most: all the subsets of eight roles found together."""


def document_spreads(
    task: SearchTask, qrels: Any = None, *, random_state: Any = 0, quiet: bool = False, **options: Any
) -> tuple[dict[Kind, float], set[Kind]]:
    """Standard deviation of the similarities of unrelated queries and documents, by kind of document.

    The kinds are every set of roles found together in the corpus and every subset of it: a document that has a text
    and an image also tells how a text alone, and an image alone, would score. `options` are those of kind_weights.
    Returns the kinds of the queries too: to a picture, images are what texts are to a text. `quiet` leaves warnings
    unsaid.
    """
    query_parts, parts = parts_of(task.queries), parts_of(task.corpus)
    query_kinds, asked, samples = _draw(query_parts, parts, random_state)
    if len(query_kinds) > 1 and not quiet:
        warn(
            f"queries of several kinds ({name_kinds(query_kinds)}) have spreads of their own, and equalize=True "
            "averages them, which fits none: fit one pipeline for each kind of query"
        )
    queries, sums = _unit_rows(query_parts, asked, options), {}
    for kind, rows in samples.items():
        documents = _unit_rows({role: part for role, part in parts.items() if role in kind}, rows, options)
        usable = np.outer(queries.any(axis=1), documents.any(axis=1)) & ~relevant_pairs(qrels, asked, rows)
        sums[kind] = (len(rows), *_deviations(queries, documents, usable))
    return _settle(sums, quiet=quiet), query_kinds


def _deviations(
    queries: NDArray[np.float64], documents: NDArray[np.float64], usable: NDArray[np.bool_]
) -> tuple[int, float]:
    """How many pairs count, and the sum of the squared deviations of their similarities from the mean.

    One pass in blocks: deviations from a number near the mean, and then what the mean itself deviates from that.
    """
    n, near, total, squares = int(usable.sum()), None, 0.0, 0.0
    columns = torch.from_numpy(documents).T
    for rows in row_blocks(queries, _ROWS):
        products = torch.from_numpy(queries[rows]) @ columns  # in threads that a limit of torch reaches
        similarities = products.numpy()[usable[rows]]
        if near is None and similarities.size:
            near = float(similarities.mean())
        similarities -= near or 0.0
        total += float(similarities.sum())
        squares += float(np.square(similarities).sum())
    return n, max(0.0, squares - total**2 / max(n, 1))


def spreads_by_alpha(
    task: SearchTask,
    qrels: Any,
    alphas: NDArray[np.float64],
    *,
    random_state: Any = 0,
    modalities: Mapping[str, str] | None = None,
) -> list[dict[Kind, float]]:
    """What document_spreads finds for each alpha, without warnings.

    All come from moments of the similarities of queries with both ends of each document, but for alphas at which parts
    cancel.
    """
    query_parts, parts = parts_of(task.queries), parts_of(task.corpus)
    _, asked, samples = _draw(query_parts, parts, copy.deepcopy(random_state))
    queries = Lines({role: take_float64(part, asked) for role, part in query_parts.items()}, modalities)
    moments = {}
    for kind, rows in samples.items():
        documents = Lines({role: take_float64(parts[role], rows) for role in parts if role in kind}, modalities)
        moments[kind] = _moments(queries, documents, alphas, ~relevant_pairs(qrels, asked, rows))
    spreads = []
    for i, alpha in enumerate(alphas.tolist()):
        sums = {kind: (len(samples[kind]), n, float(squares[i])) for kind, (n, squares) in moments.items()}
        if np.isnan([squares for _, _, squares in sums.values()]).any():
            options: dict[str, Any] = {"alpha": alpha, "modalities": modalities, "quiet": True}
            spreads.append(document_spreads(task, qrels, random_state=copy.deepcopy(random_state), **options)[0])
        else:
            spreads.append(_settle(sums, quiet=True))
    return spreads


def _moments(
    queries: Lines, documents: Lines, alphas: NDArray[np.float64], unrelated: NDArray[np.bool_]
) -> tuple[int, NDArray[np.float64]]:
    """How many pairs count, and the sum of their squared deviations at each alpha; NaN where lengths are not known."""
    values, fixed = torch.as_tensor(alphas), queries.fixed(alphas.tolist())
    asked, found = _inverse_lengths(queries, values[:1] if fixed else values), _inverse_lengths(documents, values)
    used = torch.as_tensor(unrelated) & ~queries.zero[:, None] & ~documents.zero
    powers = powers_of(values, fixed=fixed)
    total = squares = torch.zeros(len(values), dtype=torch.float64)
    ends = documents.take(slice(None))
    for rows in row_blocks(unrelated, _ROWS):
        terms = [used[rows] * term for term in products(queries.take(rows), ends, fixed=fixed)]
        weights = asked[:, rows]
        for i, (power, term) in enumerate(zip(powers, terms, strict=True)):
            total = total + (found * power * (weights @ term)).sum(dim=1)
            for j in range(i + 1):
                both = (found**2 * power * powers[j] * (weights**2 @ (term * terms[j]))).sum(dim=1)
                squares = squares + both * (1 if i == j else 2)
    n = int(used.sum())
    return n, (squares - total**2 / max(n, 1)).clamp(min=0).numpy()


def _inverse_lengths(lines: Lines, alphas: Tensor) -> Tensor:
    """1 / length of each row at each alpha, (n_alphas, n); 0 for rows of zeros, NaN where it is not known."""
    norms, errors = lines.norms(alphas, slice(None))
    return torch.where(errors.isinf(), torch.nan, 1 / norms).masked_fill(lines.zero, 0)


def _draw(
    query_parts: Mapping[str, Array], parts: Mapping[str, Array], random_state: Any
) -> tuple[set[Kind], NDArray[np.intp], dict[Kind, NDArray[np.intp]]]:
    """The kinds of queries, and the rows that spreads are measured on: queries, and documents by kind."""
    rng = check_random_state(random_state)
    query_codes, codes = _codes(query_parts), _codes(parts)
    query_kinds = {kinds_of(tuple(query_parts))[code] for code in np.unique(query_codes).tolist() if code}
    asked, kinds = sample_rows(np.flatnonzero(query_codes), rng), kinds_of(tuple(parts))
    samples = {kinds[code]: sample_rows(np.flatnonzero(codes & code == code), rng) for code in _subsets(codes)}
    return query_kinds, asked, samples


def _settle(sums: Mapping[Kind, tuple[int, int, float]], *, quiet: bool = False) -> dict[Kind, float]:
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
    if scarce and not quiet:
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
