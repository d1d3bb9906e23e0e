"""Exact top-k by dot product: a fast scan that keeps a few too many, and an exact order of what it kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from grclip._kernels import Array, as_tensor, compute_dtype, device_of, dtype_of, norm_limits, row_blocks

MARGIN = 16
"""Documents that the scan keeps beyond k."""

_QUERIES = 1024  # queries compared at once
_SCORES = 2**23  # numbers in a block of scores, 32 MB of float32
_PRODUCTS = 2**19  # numbers in a block of exact products
_PAIRS = 2**13  # pairs of a query and a document that are compared exactly at once

_INPUT_ROUNDING = {"tf32": 2.0**-9, "bf16": 2.0**-7}
"""Error of a float32 product relative to its factors where torch is told to round these first."""


def top_k(
    queries: Array,
    corpus: Array,
    k: int,
    *,
    zero_rows: Tensor,
    largest_norm: float,
    block_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Similarities (n_queries, k) and rows of the k largest dot products; ties go to the lower row, zero rows last.

    `zero_rows` of the corpus are in ascending order; `largest_norm` is the largest of its row norms.
    """
    q = as_tensor(queries).to(device_of(corpus), compute_dtype(dtype_of(queries), dtype_of(corpus)))
    q = q * (torch.linalg.vector_norm(q, dim=1, keepdim=True) >= norm_limits(q.dtype)[0])  # too short to measure: zero
    usable = corpus.shape[0] - len(zero_rows)
    best, kept = min(k, usable), min(k + MARGIN, usable)
    last = zero_rows[: k - best].expand(len(q), -1)
    if not best:
        return torch.full(last.shape, -torch.inf, dtype=q.dtype, device=q.device), last.contiguous()
    blocks = _Blocks(corpus, zero_rows, q.dtype, block_size)
    scores, rows = _scan(q, blocks, kept)
    similarities, rows = _order(_exact_rows(q, corpus, rows), rows, best)
    if kept < usable:
        # A document that the scan dropped scored at most scores[:, -1].
        error = _rounding_error(q) * torch.linalg.vector_norm(q, dim=1)
        unsettled = torch.nonzero(scores[:, -1] + error * largest_norm >= similarities[:, -1]).flatten()
        for some in unsettled.split(_QUERIES) if len(unsettled) else ():
            similarities[some], rows[some] = _rescan(q[some], blocks, similarities[some, -1], error[some], best)
    return torch.nn.functional.pad(similarities, (0, k - best), value=-torch.inf), torch.cat([rows, last], dim=1)


def _rounding_error(q: Tensor) -> float:
    """Bound on the error of a matrix product's dot products, relative to the product of both norms."""
    backend: Any = torch.backends.cuda if q.is_cuda else torch.backends.mkldnn
    rounding = _INPUT_ROUNDING.get(backend.matmul.fp32_precision, 0.0) if q.dtype == torch.float32 else 0.0
    return q.shape[1] * torch.finfo(q.dtype).eps + rounding


class _Blocks:
    """The corpus in blocks of rows."""

    def __init__(self, corpus: Array, zero_rows: Tensor, dtype: torch.dtype, block_size: int | None) -> None:
        self.corpus, self.zero_rows, self.dtype = corpus, zero_rows, dtype
        self.block_size = block_size or max(1, _SCORES // _QUERIES)

    def __iter__(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """First row of a block, its rows, and the places in it of zero rows."""
        for rows in row_blocks(self.corpus, self.block_size):
            inside = (self.zero_rows >= rows.start) & (self.zero_rows < rows.stop)
            yield rows.start, as_tensor(self.corpus[rows]).to(self.dtype), self.zero_rows[inside] - rows.start


def _scan(q: Tensor, blocks: _Blocks, kept: int) -> tuple[Tensor, Tensor]:
    """The `kept` largest scores of each query by matrix product, largest first, and their rows, (n_queries, kept)."""
    best = torch.empty((len(q), 0), dtype=q.dtype, device=q.device)
    best_rows = torch.empty((len(q), 0), dtype=torch.long, device=q.device)
    for start, block, zero in blocks:
        merged = []
        for queries in row_blocks(q, _QUERIES):
            scores = (q[queries] @ block.T).index_fill_(1, zero, -torch.inf)
            top, columns = scores.topk(min(kept, scores.shape[1]), dim=1)
            candidates = torch.cat([best[queries], top], dim=1)
            top, at = candidates.topk(min(kept, candidates.shape[1]), dim=1)
            merged.append((top, torch.cat([best_rows[queries], columns + start], dim=1).gather(1, at)))
        best, best_rows = (torch.cat(pieces) for pieces in zip(*merged, strict=True))
    return best, best_rows


def _rescan(q: Tensor, blocks: _Blocks, reached: Tensor, error: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The exact top k of each query among all documents that may be as similar as `reached`, the k-th best so far.

    `error`, times a norm, bounds the error of a query's scores.
    """
    best = torch.full((len(q), k), -torch.inf, dtype=q.dtype, device=q.device)
    best_rows = torch.zeros((len(q), k), dtype=torch.long, device=q.device)
    for start, block, zero in blocks:
        scores = (q @ block.T).index_fill_(1, zero, -torch.inf)
        threshold = reached - error * torch.linalg.vector_norm(block, dim=1).max()
        pairs = torch.nonzero(scores >= threshold[:, None])
        for some in pairs.split(max(1, min(_PAIRS, _PRODUCTS // q.shape[1]))):
            asked, columns = some.T
            exact = _exact(q[asked], block[columns])
            better = exact > best[asked, -1]  # rows come in ascending order: an equal one is too late
            if better.any():
                _enter(best, best_rows, asked[better], columns[better] + start, exact[better])
    return best, best_rows


def _enter(best: Tensor, best_rows: Tensor, asked: Tensor, rows: Tensor, exact: Tensor) -> None:
    """Enter the similarities of pairs into the best of each query, in place.

    Pairs are in the order of their queries, and of their rows within a query, which are above all rows entered before.
    """
    k = best.shape[1]
    lines, at = asked.unique_consecutive(return_inverse=True)
    place = torch.arange(len(at), device=best.device) - torch.searchsorted(at, at)
    found = torch.full((len(lines), int(place.max()) + 1), -torch.inf, dtype=best.dtype, device=best.device)
    found_rows = torch.zeros(found.shape, dtype=torch.long, device=best.device)
    found[at, place], found_rows[at, place] = exact, rows
    merged, order = torch.cat([best[lines], found], dim=1).sort(dim=1, descending=True, stable=True)
    best[lines] = merged[:, :k]
    best_rows[lines] = torch.cat([best_rows[lines], found_rows], dim=1).gather(1, order)[:, :k]


def _exact_rows(q: Tensor, corpus: Array, rows: Tensor) -> Tensor:
    """Exact dot products of each query with rows of its own, (n_queries, n_rows)."""
    out = torch.empty(rows.shape, dtype=q.dtype, device=q.device)
    for queries in row_blocks(q, max(1, _PRODUCTS // (rows.shape[1] * q.shape[1]))):
        wanted = rows[queries].flatten()
        found = as_tensor(corpus[wanted if isinstance(corpus, Tensor) else wanted.numpy()])
        out[queries] = _exact(q[queries, None], found.reshape(-1, rows.shape[1], q.shape[1]))
    return out


def _exact(a: Tensor, b: Tensor) -> Tensor:
    """Dot products along the last dimension, summed in float64 in an order that no other row has a part in."""
    return (a.double() * b.double()).sum(dim=-1).to(a.dtype)


def _order(similarities: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each line, largest first, equal ones by row."""
    rows, at = rows.sort(dim=1)
    similarities, best = similarities.gather(1, at).sort(dim=1, descending=True, stable=True)
    return similarities[:, :k].contiguous(), rows.gather(1, best)[:, :k].contiguous()
