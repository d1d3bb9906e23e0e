"""Exact top-k by dot product: a fast scan that keeps a few too many, and an exact order of what it kept."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grclip._kernels import Array, as_tensor, compute_dtype, device_of, dtype_of, norm_limits
from grclip._scan import Blocks, in_lines, is_halved, rounding_error, scan

MARGIN = 16
"""Documents that the scan keeps beyond k."""

HALVED = 4
"""How many times as many it keeps in half precision, whose error hides more."""

_QUERIES = 1024  # queries scanned again at once
_PRODUCTS = 2**19  # numbers in a block of exact products
_PAIRS = 2**13  # pairs of a query and a document that are entered at once


def top_k(
    queries: Array,
    corpus: Array,
    k: int,
    *,
    zero_rows: NDArray[np.intp],
    largest_norm: float,
    block_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Similarities (n_queries, k) and rows of the k largest dot products; ties go to the lower row, zero rows last.

    `zero_rows` of the corpus are in ascending order; `largest_norm` is the largest of its row norms.
    """
    q = as_tensor(queries).to(device_of(corpus), compute_dtype(dtype_of(queries), dtype_of(corpus)))
    q = q * (torch.linalg.vector_norm(q, dim=1, keepdim=True) >= norm_limits(q.dtype)[0])  # too short to measure: zero
    usable = corpus.shape[0] - len(zero_rows)
    best, halved = min(k, usable), is_halved(q, k, largest_norm)
    kept = min((HALVED if halved else 1) * k + MARGIN, usable)
    last = torch.as_tensor(zero_rows[: k - best], device=q.device).expand(len(q), -1)
    if not best:
        return torch.full(last.shape, -torch.inf, dtype=q.dtype, device=q.device), last.contiguous()
    blocks = Blocks(corpus, zero_rows, largest_norm, block_size)
    scores, rows, error = scan(q, blocks, kept, halved=halved)
    similarities, rows = _settle(q, corpus, scores, rows, error, best)
    if kept < usable:  # a document that was dropped is at most as similar as the last score and its error
        unsettled = torch.nonzero(scores[:, -1] + error >= similarities[:, -1]).flatten()
        for some in unsettled.split(_QUERIES) if len(unsettled) else ():
            similarities[some], rows[some] = _rescan(q[some], blocks, similarities[some, -1], best)
    return torch.nn.functional.pad(similarities, (0, k - best), value=-torch.inf), torch.cat([rows, last], dim=1)


def _settle(q: Tensor, corpus: Array, scores: Tensor, rows: Tensor, error: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The exact top k of each query among the documents kept, best first, equal ones by row.

    Documents that fall short of the k-th by more than both errors are not looked at.
    """
    asked, place = torch.nonzero(scores >= (scores[:, k - 1] - 2 * error)[:, None]).T
    similarities = torch.full_like(scores, -torch.inf)
    similarities[asked, place] = _exact(q, corpus, asked, rows[asked, place])
    rows, at = rows.sort(dim=1)
    similarities, order = similarities.gather(1, at).sort(dim=1, descending=True, stable=True)
    return similarities[:, :k].contiguous(), rows.gather(1, order)[:, :k].contiguous()


def _rescan(q: Tensor, blocks: Blocks, reached: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The exact top k of each query among all documents that may be as similar as `reached`, the k-th best so far."""
    best = torch.full((len(q), k), -torch.inf, dtype=q.dtype, device=q.device)
    best_rows = torch.zeros((len(q), k), dtype=torch.long, device=q.device)
    error = rounding_error(q) * torch.linalg.vector_norm(q, dim=1)
    for start, block, zero in blocks:
        scores = q @ block.to(q.dtype).T
        if zero is not None:
            scores.index_fill_(1, zero, -torch.inf)
        threshold = reached - error * torch.linalg.vector_norm(block.to(q.dtype), dim=1).max()
        for some in torch.nonzero(scores >= threshold[:, None]).split(_PAIRS):
            asked, columns = some.T
            exact = _exact(q, block, asked, columns)
            better = exact > best[asked, -1]  # rows come in ascending order: an equal one is too late
            if better.any():
                lines, found, rows = in_lines(asked[better], exact[better], columns[better] + start)
                merged, order = torch.cat([best[lines], found], dim=1).sort(dim=1, descending=True, stable=True)
                best[lines] = merged[:, :k]
                best_rows[lines] = torch.cat([best_rows[lines], rows], dim=1).gather(1, order)[:, :k]
    return best, best_rows


def _exact(q: Tensor, corpus: Array, asked: Tensor, rows: Tensor) -> Tensor:
    """Dot products of pairs of a query and a row, summed in float64 in an order that no other pair has a part in."""
    out = torch.empty(len(asked), dtype=q.dtype, device=q.device)
    some = max(1, _PRODUCTS // q.shape[1])
    for at, own, found in zip(asked.split(some), out.split(some), rows.split(some), strict=True):
        taken = as_tensor(corpus[found if isinstance(corpus, Tensor) else found.numpy()])
        own.copy_((q[at].double() * taken.double()).sum(dim=1))
    return out
