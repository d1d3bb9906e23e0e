"""Exact top-k by dot product: a fast scan that keeps a few too many, and an exact order of what it kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from grclip._kernels import Array, as_tensor, compute_dtype, device_of, dtype_of, row_blocks

MARGIN = 16
"""Documents that the scan keeps beyond k."""

_QUERIES = 1024  # queries compared at once
_SCORES = 2**23  # numbers in a block of scores, 32 MB of float32
_PRODUCTS = 2**19  # numbers in a block of exact products

_INPUT_ROUNDING = {"tf32": 2.0**-10, "bf16": 2.0**-7}
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
    kept = min(k + MARGIN, corpus.shape[0])
    scores, rows = _scan(q, corpus, kept, zero_rows, block_size)
    similarities, ranked = _order(_exact_rows(q, corpus, rows).masked_fill_(scores.isneginf(), -torch.inf), rows, k)
    if kept == corpus.shape[0]:
        return similarities, ranked
    # A document that the scan dropped scored at most scores[:, -1]; twice the rounding error below the k-th score it
    # cannot be among the best k.
    threshold = scores[:, k - 1] - 2 * _rounding_error(q) * torch.linalg.vector_norm(q, dim=1) * largest_norm
    unsettled = torch.nonzero(scores[:, -1] >= threshold).flatten()
    if len(unsettled):
        found = _rescan(q[unsettled], corpus, k, threshold[unsettled], zero_rows, block_size)
        similarities[unsettled], ranked[unsettled] = found
    return similarities, ranked


def _rounding_error(q: Tensor) -> float:
    """Bound on the error of a matrix product's dot products, relative to the product of both norms."""
    backend: Any = torch.backends.cuda if q.is_cuda else torch.backends.mkldnn
    rounding = _INPUT_ROUNDING.get(backend.matmul.fp32_precision, 0.0) if q.dtype == torch.float32 else 0.0
    return q.shape[1] * torch.finfo(q.dtype).eps + rounding


def _blocks(
    corpus: Array, zero_rows: Tensor, dtype: torch.dtype, block_size: int | None
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """First row, transposed block, and the columns in it that are zero."""
    for rows in row_blocks(corpus, block_size or max(1, _SCORES // _QUERIES)):
        inside = (zero_rows >= rows.start) & (zero_rows < rows.stop)
        yield rows.start, as_tensor(corpus[rows]).to(dtype).T, zero_rows[inside] - rows.start


def _scan(q: Tensor, corpus: Array, kept: int, zero_rows: Tensor, block_size: int | None) -> tuple[Tensor, Tensor]:
    """The `kept` largest scores of each query by matrix product, and their rows, (n_queries, kept)."""
    best = torch.empty((len(q), 0), dtype=q.dtype, device=q.device)
    best_rows = torch.empty((len(q), 0), dtype=torch.long, device=q.device)
    for start, block, zero in _blocks(corpus, zero_rows, q.dtype, block_size):
        merged = []
        for queries in row_blocks(q, _QUERIES):
            scores = (q[queries] @ block).index_fill_(1, zero, -torch.inf)
            top, columns = scores.topk(min(kept, scores.shape[1]), dim=1)
            candidates = torch.cat([best[queries], top], dim=1)
            top, at = candidates.topk(min(kept, candidates.shape[1]), dim=1)
            merged.append((top, torch.cat([best_rows[queries], columns + start], dim=1).gather(1, at)))
        best, best_rows = (torch.cat(pieces) for pieces in zip(*merged, strict=True))
    return best, best_rows


def _rescan(
    q: Tensor, corpus: Array, k: int, threshold: Tensor, zero_rows: Tensor, block_size: int | None
) -> tuple[Tensor, Tensor]:
    """The exact top k of queries among all documents that score at least `threshold` by matrix product."""
    best = torch.empty((len(q), 0), dtype=q.dtype, device=q.device)
    best_rows = torch.empty((len(q), 0), dtype=torch.long, device=q.device)
    for start, block, zero in _blocks(corpus, zero_rows, q.dtype, block_size):
        scores = (q @ block).index_fill_(1, zero, -torch.inf)
        asked, columns = torch.nonzero(scores >= threshold[:, None], as_tuple=True)
        exact = torch.full_like(scores, -torch.inf)
        for chosen in torch.arange(len(asked), device=q.device).split(max(1, _PRODUCTS // q.shape[1])):
            pairs = asked[chosen], columns[chosen]
            exact[pairs] = _exact(q[pairs[0]], block.T[pairs[1]])
        exact.index_fill_(1, zero, -torch.inf)
        numbers = torch.arange(start, start + scores.shape[1], device=q.device).expand_as(scores)
        best, best_rows = _order(torch.cat([best, exact], dim=1), torch.cat([best_rows, numbers], dim=1), k)
    return best, best_rows


def _exact_rows(q: Tensor, corpus: Array, rows: Tensor) -> Tensor:
    """Exact dot products of each query with rows of its own, (n_queries, n_rows)."""
    out = torch.empty(rows.shape, dtype=q.dtype, device=q.device)
    for queries in row_blocks(q, max(1, _PRODUCTS // (rows.shape[1] * q.shape[1]))):
        wanted = rows[queries].flatten()
        found = as_tensor(corpus[wanted if isinstance(corpus, Tensor) else wanted.numpy()])
        out[queries] = _exact(q[queries, None], found.view(-1, rows.shape[1], q.shape[1]))
    return out


def _exact(a: Tensor, b: Tensor) -> Tensor:
    """Dot products along the last dimension, summed in float64 in an order that no other row has a part in."""
    return (a.double() * b.double()).sum(dim=-1).to(a.dtype)


def _order(similarities: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each line, largest first, equal ones by row."""
    rows, at = rows.sort(dim=1)
    similarities, best = similarities.gather(1, at).sort(dim=1, descending=True, stable=True)
    return similarities[:, :k].contiguous(), rows.gather(1, best)[:, :k].contiguous()
