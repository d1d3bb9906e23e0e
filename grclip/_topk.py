"""Exact top-k by dot product: a fast scan that keeps a few too many, and an exact order of what it kept."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grclip._kernels import Array, as_tensor, compute_dtype, device_of, dtype_of, norm_limits, row_blocks
from grclip._scan import Blocks, in_lines, is_halved, rounding_error, scan

MARGIN = 16
"""Documents that the scan keeps beyond k."""

HALVED = 4
"""How many times as many it keeps in half precision, whose error hides more."""

_QUERIES = 1024  # queries settled, or scanned again, at once
_PRODUCTS = 2**19  # numbers in a block of exact products
_PAIRS = 2**13  # pairs of a query and a document that are entered at once
_CROWDED = 0.01  # share of the pairs of a block from which on a product in float64 costs less than their own products
_CROWDED_QUERIES = 256  # queries multiplied in float64 at once: 16 MB of products


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
    settled = [
        _settle(q[some], corpus, scores[some], rows[some], error[some], best) for some in row_blocks(q, _QUERIES)
    ]
    similarities, rows = (torch.cat(pieces) for pieces in zip(*settled, strict=True))
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
    for start, block, zero in blocks:
        least = torch.maximum(reached, best[:, -1].nextafter(best.new_tensor(torch.inf)))
        for asked, columns, exact in _candidates(q, block, zero, least):
            better = exact > best[asked, -1]  # rows come in ascending order: an equal one is too late
            if better.any():
                lines, found, rows = in_lines(asked[better], exact[better], columns[better] + start)
                merged, order = torch.cat([best[lines], found], dim=1).sort(dim=1, descending=True, stable=True)
                best[lines] = merged[:, :k]
                best_rows[lines] = torch.cat([best_rows[lines], rows], dim=1).gather(1, order)[:, :k]
    return best, best_rows


def _candidates(
    q: Tensor, block: Tensor, zero: Tensor | None, least: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Pairs of a query and a row of a block that may be as similar as `least`, in order: both, and how similar."""
    highest, _ = _limits(q, block.to(q.dtype), zero, rounding_error(q))
    if q.dtype == torch.float32 and (highest >= least[:, None]).sum() > _CROWDED * highest.numel():
        yield from _crowded_candidates(q, block, zero, least)
        return
    for asked, columns in (pairs.T for pairs in torch.nonzero(highest >= least[:, None]).split(_PAIRS)):
        yield asked, columns, _exact(q, block, asked, columns)


def _crowded_candidates(
    q: Tensor, block: Tensor, zero: Tensor | None, least: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """As _candidates, by a product in float64, which tells most similarities in float32 to the last bit."""
    error, block_ = (q.shape[1] + 2) * torch.finfo(torch.float64).eps, block.double()
    for some in row_blocks(q, _CROWDED_QUERIES):
        highest, lowest = (limit.to(q.dtype) for limit in _limits(q[some].double(), block_, zero, error))
        for asked, columns in (pairs.T for pairs in torch.nonzero(highest >= least[some, None]).split(_PAIRS)):
            exact = highest[asked, columns]
            unsure = exact != lowest[asked, columns]
            exact[unsure] = _exact(q, block, asked[unsure] + some.start, columns[unsure])
            yield asked + some.start, columns, exact


def _limits(q: Tensor, block: Tensor, zero: Tensor | None, error: float) -> tuple[Tensor, Tensor]:
    """The highest and the lowest that similarities can be, whose error is relative to the product of both norms."""
    products, norms = q @ block.T, [torch.linalg.vector_norm(x, dim=1) for x in (q, block)]
    if zero is not None:
        products.index_fill_(1, zero, -torch.inf)
    return torch.addr(products, *norms, alpha=error), torch.addr(products, *norms, alpha=-error)


def _exact(q: Tensor, corpus: Array, asked: Tensor, rows: Tensor) -> Tensor:
    """Dot products of pairs of a query and a row, summed in float64 in an order that no other pair has a part in."""
    out = torch.empty(len(asked), dtype=q.dtype, device=q.device)
    some = max(1, _PRODUCTS // q.shape[1])
    for at, own, found in zip(asked.split(some), out.split(some), rows.split(some), strict=True):
        taken = as_tensor(corpus[found if isinstance(corpus, Tensor) else found.numpy()])
        own.copy_((q[at].double() * taken.double()).sum(dim=1))
    return out
