"""The scan of a corpus: scores of all documents by matrix product, of which the largest are kept.

A matrix product is fast and not exact; its last bits even depend on its shape. So the scan says how far off its scores
may be, and whoever calls it keeps more documents than wanted and compares them exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grclip._kernels import Array, as_tensor, row_blocks

_QUERIES = 1024  # queries compared at once
_SCORES = 2**23  # numbers in a block of scores, 32 MB of float32
_CHUNK = 128  # scores of which only the largest is looked at, if it cannot enter
_CROWDED = 0.5  # share of the scores from which on all are looked at

_HALF_QUERIES = 32  # below, rounding the corpus takes longer than the products save
_HALF_K = 100  # and above, the documents kept are so many that ranking them does
_HALF_UNIT = 2.0**-8  # largest relative error of a number rounded to bfloat16
_HALF_RANGE = 2.0**120  # similarities beyond could be rounded to infinity

_INPUT_ROUNDING = {"tf32": 2.0**-9, "bf16": 2.0**-7}
"""Error of a float32 product relative to its factors where torch is told to round these first."""


class Blocks:
    """The corpus in blocks of rows; `zero_rows` are in ascending order, `largest_norm` is the largest of all rows."""

    def __init__(
        self, corpus: Array, zero_rows: NDArray[np.intp], largest_norm: float, block_size: int | None = None
    ) -> None:
        self.corpus, self.zero_rows, self.largest_norm = corpus, zero_rows, largest_norm
        self.block_size = block_size or max(1, _SCORES // _QUERIES)

    def __iter__(self) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        """First row of a block, its rows, and the places of rows of zeros in it, if there are any."""
        for rows in row_blocks(self.corpus, self.block_size):
            first, last = np.searchsorted(self.zero_rows, [rows.start, rows.stop])
            block, zero = as_tensor(self.corpus[rows]), self.zero_rows[first:last] - rows.start
            yield rows.start, block, torch.as_tensor(zero, device=block.device) if len(zero) else None


def is_halved(q: Tensor, k: int, largest_norm: float) -> bool:
    """Whether to multiply in bfloat16: where the processor has instructions for it, at several times the rate."""
    if q.device.type != "cpu" or q.dtype != torch.float32 or len(q) < _HALF_QUERIES or k > _HALF_K:
        return False
    if float(torch.linalg.vector_norm(q, dim=1).max()) * largest_norm > _HALF_RANGE:
        return False
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.9 cannot tell
    return bool(torch.backends.mkldnn.enabled and (able.get("avx512_bf16") or able.get("amx_bf16")))


def scan(q: Tensor, blocks: Blocks, kept: int, *, halved: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """The `kept` largest scores of each query, largest first, their rows, both (n_queries, kept), and their error.

    The error (n_queries,) bounds how far a score is from the similarity that it stands for, and how far above the last
    score that of a document can be which was not kept. Blocks are worked on without waiting for a GPU.
    """
    best = torch.full((len(q), kept), -torch.inf, dtype=q.dtype, device=q.device)
    rows = torch.zeros((len(q), kept), dtype=torch.long, device=q.device)
    asked = q.bfloat16() if halved else q
    lost, room = torch.zeros((), dtype=q.dtype, device=q.device), asked.new_empty(0)
    for start, block, zero in blocks:
        wanted = block.to(asked.dtype)
        if halved and block.dtype != asked.dtype:
            lost = torch.maximum(lost, _largest_difference(block.to(q.dtype), wanted))
        for some in row_blocks(q, _QUERIES):
            size = (some.stop - some.start) * len(block)
            if len(room) < size:
                room = asked.new_empty(size)  # a new one for each block would cost more in page faults than in time
            scores = torch.mm(asked[some], wanted.T, out=room[:size].view(-1, len(block)))
            if zero is not None:
                scores.index_fill_(1, zero, -torch.inf)
            _keep(best[some], rows[some], scores, start)
    for some in row_blocks(q, _QUERIES):  # in place: of many queries, a copy would be larger than all else
        best[some], order = best[some].sort(dim=1, descending=True)
        rows[some] = rows[some].gather(1, order)
    error = rounding_error(q) * torch.linalg.vector_norm(q, dim=1) * blocks.largest_norm
    return best, rows, error + (_halving_error(q, best, lost, blocks) if halved else 0)


def _largest_difference(a: Tensor, b: Tensor) -> Tensor:
    """The largest distance of two rows in the same place."""
    return torch.stack([torch.linalg.vector_norm(a[rows] - b[rows], dim=1).max() for rows in row_blocks(a)]).max()


def rounding_error(q: Tensor) -> float:
    """Bound on the error of a matrix product's dot products, relative to the product of both norms."""
    backend: Any = torch.backends.cuda if q.is_cuda else torch.backends.mkldnn
    rounding = _INPUT_ROUNDING.get(backend.matmul.fp32_precision, 0.0) if q.dtype == torch.float32 else 0.0
    return (q.shape[1] + 2) * torch.finfo(q.dtype).eps + rounding


def _halving_error(q: Tensor, best: Tensor, lost: Tensor, blocks: Blocks) -> Tensor:
    """What bfloat16 adds to the error: the factors' rounding, by Cauchy and Schwarz, and that of the scores kept."""
    norms, missed = torch.linalg.vector_norm(q, dim=1), torch.linalg.vector_norm(q - q.bfloat16(), dim=1)
    factors = norms * lost + missed * (blocks.largest_norm + lost)
    return (1 + 4 * _HALF_UNIT) * factors + _HALF_UNIT * best.abs().amax(dim=1)


def _keep(best: Tensor, rows: Tensor, scores: Tensor, start: int) -> None:
    """Enter scores of a block, whose first row is `start`, among the best so far, in place and in no order."""
    whole = 0 if scores.is_cuda else scores.shape[1] // _CHUNK * _CHUNK
    if whole:
        least, chunks = best.amin(dim=1), scores[:, :whole].unflatten(1, (-1, _CHUNK))
        hits = torch.nonzero(chunks.amax(dim=2) > least[:, None])
        if len(hits) * _CHUNK > _CROWDED * scores.numel():
            whole = 0
        elif len(hits):
            _keep_some(best, rows, chunks, hits, least, start)
    if whole < scores.shape[1]:
        _keep_all(best, rows, scores[:, whole:], start + whole)


def _keep_all(best: Tensor, rows: Tensor, scores: Tensor, start: int) -> None:
    top, columns = scores.to(best.dtype).topk(min(best.shape[1], scores.shape[1]), dim=1, sorted=False)
    _merge(best, rows, top, columns + start)


def _keep_some(best: Tensor, rows: Tensor, chunks: Tensor, hits: Tensor, least: Tensor, start: int) -> None:
    """As _keep_all, of the chunks (query, chunk; n_hits) whose largest score can enter."""
    asked, chunk = hits.T
    found = chunks[asked, chunk].to(best.dtype)
    hit, at = torch.nonzero(found > least[asked, None]).T
    lines, scores, places = in_lines(asked[hit], found[hit, at], chunk[hit] * _CHUNK + at + start)
    merged, merged_rows = best[lines], rows[lines]
    _merge(merged, merged_rows, scores, places)
    best[lines], rows[lines] = merged, merged_rows


def _merge(best: Tensor, rows: Tensor, scores: Tensor, places: Tensor) -> None:
    candidates, found = torch.cat([best, scores], dim=1), torch.cat([rows, places], dim=1)
    top, at = candidates.topk(best.shape[1], dim=1, sorted=False)
    best.copy_(top)
    rows.copy_(found.gather(1, at))


def in_lines(asked: Tensor, scores: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs in the order of their queries as lines: the query, the scores (-inf at the end) and the rows of each."""
    lines, at = asked.unique_consecutive(return_inverse=True)
    place = torch.arange(len(at), device=at.device) - torch.searchsorted(at, at)
    width = int(place.max()) + 1
    found = torch.full((len(lines), width), -torch.inf, dtype=scores.dtype, device=scores.device)
    found_rows = torch.zeros((len(lines), width), dtype=torch.long, device=rows.device)
    found[at, place], found_rows[at, place] = scores, rows
    return lines, found, found_rows
