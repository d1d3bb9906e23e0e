"""Ranks of relevant documents for many alphas, without fusing the corpus for each.

Fused vectors are lines in alpha, so all similarities come from dot products of queries with both ends of each document
and from the documents' lengths. Where rounding could decide a rank, both documents are fused as MultimodalFuser fuses
them and compared as ExactRetriever compares.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grclip._kernels import compute_dtype, norm_limits, row_blocks
from grclip._lines import Ends, Lines, powers_of, products, row_products

_CPU_SCORES = 2**17  # scores of one query in a block, by alpha and document: 512 kB of float32
_GPU_SCORES = 2**22
_PAIRS = 2**19  # numbers in a table of relevant documents by alpha
_PENDING = 2**17  # comparisons that wait to be made exactly


class Group(NamedTuple):
    """Some queries, and the documents relevant to them that may be among the first k."""

    queries: Tensor  # rows, (n_queries,)
    asked: Tensor  # for each pair the place of its query in `queries`, ascending, (n_pairs,)
    documents: Tensor  # and its document, (n_pairs,)
    low: Tensor  # a document that scores less ranks below it for certain, (n_pairs, n_alphas); NaN: not known
    high: Tensor  # a document that scores more ranks above it for certain, (n_pairs, n_alphas); NaN: not known


class Block(NamedTuple):
    """Some documents of the corpus: the score of one is the sum of its factors times its products."""

    rows: slice
    factors: list[Tensor]  # by power of alpha, (n_alphas, n_rows); NaN where the length is not known
    products: list[Tensor]  # with the queries of a group, (n_queries, n_rows)
    zero: Tensor  # whether a row is nothing at any alpha, (n_rows,)


class Ranker:
    """Ranks in the corpus at each alpha; `lengths` (n_kinds, n_alphas) are those of fused documents."""

    def __init__(
        self, queries: Lines, corpus: Lines, alphas: NDArray[np.float64], lengths: NDArray[np.float64]
    ) -> None:
        self.queries, self.corpus, self.lengths = queries, corpus, lengths
        self.dtype, self.device = compute_dtype(queries.dtype, corpus.dtype), corpus.device
        self.alphas = torch.as_tensor(alphas, device=self.device)
        self.lengths_ = torch.as_tensor(lengths.T.copy(), device=self.device)
        self.fixed = queries.fixed(alphas.tolist())
        self.powers = powers_of(self.alphas, fixed=self.fixed)
        scores = _GPU_SCORES if self.device.type == "cuda" else _CPU_SCORES
        self.block = max(1, min(scores // len(alphas), corpus.block_rows))
        self.lines = max(1, 4 * scores // self.block)  # of a block, whose doubtful documents are listed at once
        self.error, self.length = self._largest()

    def ranks(
        self, asked: NDArray[np.intp], relevant: Sequence[NDArray[np.intp]], k: int
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int64]]]:
        """Places in `asked`, documents relevant there, and their ranks from 0, (n_pairs, n_alphas), group by group.

        Ranks below k are exact. Others may have any value from k on, and documents that have no other are left out.
        """
        for places in self._groups(relevant):
            group = self._group(asked[places], [relevant[place] for place in places], k)
            if len(group.asked):
                ranks = self._count(group, k).cpu().numpy()
                yield places[group.asked.cpu().numpy()], group.documents.cpu().numpy(), ranks

    def _groups(self, relevant: Sequence[NDArray[np.intp]]) -> Iterator[NDArray[np.intp]]:
        """Places of consecutive queries that fit a block, and whose relevant documents fit a table."""
        most = _PAIRS // len(self.alphas)
        ends = np.cumsum([len(rows) for rows in relevant])
        start = 0
        while start < len(relevant):
            fit = int(np.searchsorted(ends, most + (ends[start - 1] if start else 0), side="right"))
            stop = min(max(fit, start + 1), start + self.corpus.block_rows)
            yield np.arange(start, stop)
            start = stop

    def _largest(self) -> tuple[Tensor, Tensor]:
        """The largest error and the largest length of any document, (n_alphas,)."""
        error = length = torch.zeros(len(self.alphas), dtype=torch.float64, device=self.device)
        for rows in row_blocks(self.corpus.columns[0], self.block):
            _, errors, lengths = self._documents(rows)
            error = torch.maximum(error, errors.masked_fill(errors.isinf(), 0).amax(dim=1))
            length = torch.maximum(length, lengths.amax(dim=1))
        return error, length

    def _documents(self, rows: Tensor | slice) -> tuple[Tensor, Tensor, Tensor]:
        """Scales of some documents' lines (NaN where not known), errors and lengths of vectors, (n_alphas, n)."""
        norms, errors = self.corpus.norms(self.alphas, rows)
        lengths = self.lengths_[:, self.corpus.codes[rows]]
        return torch.where(errors.isinf(), torch.nan, lengths / norms), errors * lengths, lengths

    def _group(self, asked: NDArray[np.intp], relevant: Sequence[NDArray[np.intp]], k: int) -> Group:
        """Queries with their relevant documents, but for those that k others certainly outrank."""
        counts = [len(rows) for rows in relevant]
        at = torch.as_tensor(np.repeat(np.arange(len(asked)), counts), device=self.device)
        documents = torch.as_tensor(np.concatenate(relevant), device=self.device)
        queries = torch.as_tensor(asked, device=self.queries.device)
        ends = self._ends(queries)
        bounds = [self._bounds(queries, ends, *pairs) for pairs in zip(*self._split(at, documents), strict=True)]
        low, high = (torch.cat(found) for found in zip(*bounds, strict=True))
        keep = torch.cat([self._within(*own, k) for own in zip(low.split(counts), high.split(counts), strict=True)])
        return Group(queries, at[keep], documents[keep], low[keep].to(self.dtype), high[keep].to(self.dtype))

    def _bounds(self, queries: Tensor, ends: Ends, at: Tensor, documents: Tensor) -> tuple[Tensor, Tensor]:
        """What other documents must score to rank certainly below and above those of some pairs, (n_pairs, n_alphas).

        NaN where that is not known. Scores are those of queries as long as their ends make them.
        """
        scales, errors, lengths = self._documents(documents)
        terms = products((ends[0][at], ends[1][at]), self.corpus.take(documents), fixed=self.fixed, dot=row_products)
        scores = reduce(torch.add, map(torch.mul, self.powers, terms)) * scales
        norms, blur = self._blur(queries[at.to(queries.device)])
        margin = norms * (errors + self.error[:, None] + (lengths + self.length[:, None]) * blur)
        zero = self.corpus.zero[documents]  # behind all that are something
        return (scores - margin).masked_fill(zero, -torch.inf).T, (scores + margin).masked_fill(zero, -torch.inf).T

    def _blur(self, queries: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Lengths and relative errors of queries, (n_alphas, n); those that alpha does not change are there fused."""
        if self.fixed:
            return 1.0, 0.0
        norms, errors = self.queries.norms(self.alphas.to(queries.device), queries)
        return norms.to(self.device), errors.to(self.device)

    @staticmethod
    def _within(low: Tensor, high: Tensor, k: int) -> Tensor:
        """Which of one query's relevant documents fewer than k others outrank at some alpha, for all that is known."""
        if len(low) <= k:
            return torch.ones(len(low), dtype=torch.bool, device=low.device)
        reached = low.masked_fill(low.isnan(), -torch.inf).topk(k, dim=0).values[-1]
        return ~(high < reached).all(dim=1)

    def _count(self, group: Group, k: int) -> Tensor:
        """How many documents rank above each of a group, (n_pairs, n_alphas); counts from k on are not finished."""
        above = torch.zeros(group.low.shape, dtype=torch.long, device=self.device)
        pending: list[Tensor] = []
        for block in self._blocks(group):
            higher, lower = self._compare(group, block, (above < k).any(dim=1))
            above += higher
            inside = (group.documents >= block.rows.start) & (group.documents < block.rows.stop)
            doubtful = higher + lower + inside[:, None] < len(block.zero)
            for cells in torch.nonzero(doubtful & (above < k)).split(self.lines):
                pairs, alphas = cells.T
                certain, unsure = self._examine(group, block, pairs, alphas)
                above[pairs, alphas] += certain - higher[pairs, alphas]  # another sum may round otherwise: count anew
                pending.append(unsure)
                if sum(comparisons.shape[1] for comparisons in pending) > _PENDING:
                    self._settle(group, above, torch.cat(pending, dim=1))
                    pending.clear()
        if pending:
            self._settle(group, above, torch.cat(pending, dim=1))
        return above

    def _blocks(self, group: Group) -> Iterator[Block]:
        """The corpus, beside the queries of a group."""
        ends = self._ends(group.queries)
        for rows in row_blocks(self.corpus.columns[0], self.block):
            scales, _, _ = self._documents(rows)
            terms = products(ends, self.corpus.take(rows), fixed=self.fixed)
            factors = [(power * scales).to(self.dtype) for power in self.powers]
            yield Block(rows, factors, [term.to(self.dtype) for term in terms], self.corpus.zero[rows])

    def _compare(self, group: Group, block: Block, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """How many documents of a block certainly rank above and below each wanted pair, (n_pairs, n_alphas)."""
        higher, lower = (torch.zeros(group.low.shape, dtype=self.dtype, device=self.device) for _ in range(2))
        scores, marks = torch.empty_like(block.factors[0]), torch.empty_like(block.factors[0])
        asked, last = group.asked.tolist(), -1
        for pair in torch.nonzero(wanted).flatten().tolist():
            query = asked[pair]
            if query != last:
                torch.mul(block.factors[0], block.products[0][query], out=scores)
                for factor, product in zip(block.factors[1:], block.products[1:], strict=True):
                    scores.addcmul_(factor, product[query])
                last = query
            torch.sum(torch.gt(scores, group.high[pair, :, None], out=marks), dim=1, out=higher[pair])
            torch.sum(torch.lt(scores, group.low[pair, :, None], out=marks), dim=1, out=lower[pair])
        return higher.long(), lower.long() + block.zero.sum() * (group.low > -torch.inf)

    def _examine(self, group: Group, block: Block, pairs: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
        """How many documents of a block certainly rank above some pairs, each at an alpha, and which may.

        Counts have the shape (n,), and comparisons to be made exactly are (pair, alpha, document), (3, n_unsure).
        """
        terms = zip(block.factors, block.products, strict=True)
        scores = reduce(torch.add, [factor[alphas] * product[group.asked[pairs]] for factor, product in terms])
        scores.masked_fill_(block.zero, -torch.inf)
        higher, lower = scores > group.high[pairs, alphas, None], scores < group.low[pairs, alphas, None]
        line, column = torch.nonzero(~(higher | lower)).T  # scores and bounds that are not known are neither
        return higher.sum(dim=1), torch.stack([pairs[line], alphas[line], column + block.rows.start])

    def _settle(self, group: Group, above: Tensor, comparisons: Tensor) -> None:
        """Add to `above`, in place, what exact comparisons (pair, alpha, document; n) find to rank above."""
        comparisons = comparisons[:, comparisons[2] != group.documents[comparisons[0]]]
        for alpha in torch.unique(comparisons[1]).tolist():
            for some in comparisons[:, comparisons[1] == alpha].split(self.corpus.block_rows, dim=1):
                pairs, rows = some[0], some[2]
                compared, line = torch.unique(pairs, return_inverse=True)
                own, asked = group.documents[pairs], group.asked[pairs]
                ours = self._similarities(group.queries, group.asked[compared], group.documents[compared], alpha)[line]
                theirs = self._similarities(group.queries, asked, rows, alpha)
                better = (theirs > ours) | ((theirs == ours) & (rows < own))
                above[:, alpha] += torch.bincount(pairs[better], minlength=len(above))

    def _similarities(self, queries: Tensor, asked: Tensor, documents: Tensor, alpha: int) -> Tensor:
        """Similarities of pairs at one alpha, as they are found in fused vectors."""
        rows, line = torch.unique(asked, return_inverse=True)
        q = self._fused(queries[rows.to(queries.device)], alpha)
        rows, place = torch.unique(documents, return_inverse=True)
        x = self.corpus.fuse(rows, float(self.alphas[alpha]), self.lengths[:, alpha]).to(self.dtype)
        found = row_products(q[line].double(), x[place].double()).to(self.dtype)
        nothing = torch.linalg.vector_norm(x, dim=1) < norm_limits(self.corpus.dtype)[0]
        return found.masked_fill(nothing[place], -torch.inf)

    def _fused(self, queries: Tensor, alpha: int) -> Tensor:
        """Some queries, where the corpus is, as they are searched with at one alpha."""
        q = self.queries.fuse(queries, float(self.alphas[alpha]), np.ones(self.queries.n_kinds))
        q = q.to(self.device, self.dtype)
        return q * (torch.linalg.vector_norm(q, dim=1, keepdim=True) >= norm_limits(self.dtype)[0])

    def _ends(self, queries: Tensor) -> Ends:
        """Both ends of some queries, where the corpus is."""
        if self.fixed:
            fused = self._fused(queries, 0).double()
            return fused, fused
        text, rest = self.queries.take(queries)
        return text.to(self.device), rest.to(self.device)

    def _split(self, *columns: Tensor) -> list[tuple[Tensor, ...]]:
        return [column.split(self.corpus.block_rows) for column in columns]
