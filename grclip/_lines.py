"""Rows that alpha fuses, as lines: ``alpha * text + (1 - alpha) * rest`` before they are brought to a length.

A row that has parts of one side alone has the same vector at both ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grclip._fuse import check_kinds, kind_weights
from grclip._kernels import (
    Array,
    as_tensor,
    compute_dtype,
    device_of,
    dtype_of,
    empty_like,
    fuse_rows,
    kind_codes,
    norm_limits,
    row_blocks,
    row_norms,
)
from grclip._validation import check_same_place, check_values

_CPU_NUMBERS = 2**19  # numbers in a block of float64 rows, 4 MB
_GPU_NUMBERS = 2**24
_CANCELLED = 16.0
"""Parts that are together this many times as long as their weighted sum cancel: its length is not known well.

Errors of a query and of a document are added up, where those of their similarity multiply; below this it is less.
"""

Ends = tuple[Tensor, Tensor]


class Lines:
    """The rows of one side of a task, for any alpha.

    Ends are divided by the length of the row's longest part: products of long and of short rows stay within range.
    """

    def __init__(self, parts: Mapping[str, Array], modalities: Mapping[str, str] | None) -> None:
        check_same_place(parts)
        self.parts, self.modalities = dict(parts), modalities
        self.columns = list(parts.values())
        self.dtype = reduce(torch.promote_types, map(dtype_of, self.columns))
        self.device = device_of(self.columns[0])
        norms = []
        for role, part in parts.items():
            norms.append(row_norms(part))
            check_values(f"role {role!r}", part, norms[-1], allow_missing=True)
        self.codes = kind_codes(norms)
        check_kinds(tuple(parts), self.codes.cpu().numpy(), np.ones(self.n_kinds), "")
        lengths = torch.stack(norms, dim=1).double().nan_to_num(0)
        self.longest = lengths.amax(dim=1)
        self.zero = self.longest == 0  # rows that are nothing at any alpha
        units = self.longest.masked_fill(self.zero, 1).clamp(min=torch.finfo(torch.float64).tiny)
        self.shares = [self._weights(alpha)[self.codes] / units[:, None] for alpha in (1.0, 0.0)]
        self.masses = torch.stack([(lengths * shares).sum(dim=1) for shares in self.shares], dim=1)
        self.squares = self._squares()

    def __len__(self) -> int:
        return len(self.codes)

    def _weights(self, alpha: float) -> Tensor:
        """The weight of each part in each kind of row, (n_kinds, n_roles)."""
        weights = kind_weights(tuple(self.parts), alpha=alpha, modalities=self.modalities)
        return torch.as_tensor(weights, device=self.device)

    def _squares(self) -> Tensor:
        """Inner products of the ends of each row, (n, 3)."""
        squares = torch.empty((len(self), 3), dtype=torch.float64, device=self.device)
        for rows in row_blocks(self.columns[0], self.block_rows):
            text, rest = self.take(rows)
            squares[rows] = torch.stack([row_products(*ends) for ends in ((text, text), (text, rest), (rest, rest))], 1)
        return squares

    @property
    def n_kinds(self) -> int:
        """Kinds that rows may have, found or not."""
        return int(2 ** len(self.parts))

    @property
    def block_rows(self) -> int:
        """Rows whose ends are held at once."""
        numbers = _GPU_NUMBERS if self.device.type == "cuda" else _CPU_NUMBERS
        return max(1, numbers // self.columns[0].shape[1])

    def fixed(self, alphas: Sequence[float]) -> bool:
        """Whether each row is the same, to the last bit, at all of some alphas and at both ends."""
        kinds = torch.unique(self.codes)
        first, *others = (self._weights(alpha)[kinds] for alpha in (1.0, 0.0, *alphas))
        return all(torch.equal(first, other) for other in others)

    def take(self, rows: Tensor | slice) -> Ends:
        """Both ends of some rows, in float64."""
        blocks = [as_tensor(part).double().nan_to_num(0) for part in self._rows(rows)]
        text, rest = (
            reduce(torch.add, [block * shares[rows, r, None] for r, block in enumerate(blocks)])
            for shares in self.shares
        )
        return text, rest

    def fuse(self, rows: Tensor, alpha: float, lengths: NDArray[np.float64]) -> Tensor:
        """Some rows, as MultimodalFuser makes them."""
        parts = self._rows(rows)
        out = empty_like(parts[0], self.dtype)
        fuse_rows(parts, kind_weights(tuple(self.parts), alpha=alpha, modalities=self.modalities), lengths, out=out)
        return as_tensor(out)

    def norms(self, alphas: Tensor, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Lengths of rows, in units of the longest part, and the largest relative error of fused rows, (n_alphas, n).

        The error is inf where parts cancel, or add up to nothing.
        """
        dtype = compute_dtype(self.dtype)  # what rows are fused in, whatever they are compared in
        a, b = alphas[:, None], 1 - alphas[:, None]
        squares, masses = self.squares[rows].T, self.masses[rows].T
        norms = (a**2 * squares[0] + 2 * a * b * squares[1] + b**2 * squares[2]).clamp(min=0).sqrt()
        excess = (a * masses[0] + b * masses[1]) / norms
        known = (excess < _CANCELLED) & (norms * self.longest[rows] > 8 * norm_limits(dtype)[0])
        n_terms = self.columns[0].shape[1] + 32
        error = n_terms * (torch.finfo(dtype).eps * excess + torch.finfo(torch.float64).eps * excess**2)
        stored = 0.51 * torch.finfo(self.dtype).eps  # half a unit in the last place, and the product of two such errors
        return norms, torch.where(known, error + stored, torch.inf)

    def _rows(self, rows: Tensor | slice) -> list[Array]:
        at = rows if isinstance(rows, slice) or isinstance(self.columns[0], Tensor) else rows.cpu().numpy()
        return [column[at] for column in self.columns]


def powers_of(alphas: Tensor, *, fixed: bool) -> list[Tensor]:
    """What alpha makes of each of the `products`, (n_alphas, 1); `fixed` queries do not depend on it."""
    a, b = alphas[:, None], 1 - alphas[:, None]
    return [a, b] if fixed else [a * a, a * b, b * b]


def products(
    queries: Ends, documents: Ends, *, fixed: bool, dot: Callable[[Tensor, Tensor], Tensor] = lambda q, x: q @ x.T
) -> list[Tensor]:
    """The dot products of which each similarity is a sum, weighted by powers of alpha, before rows get a length."""
    (text, rest), (x, y) = queries, documents
    if fixed:
        return [dot(text, x), dot(text, y)]
    return [dot(text, x), dot(text, y) + dot(rest, x), dot(rest, y)]


def row_products(a: Tensor, b: Tensor) -> Tensor:
    """The dot product of each row of a with that row of b, (n,)."""
    return (a * b).sum(dim=1)
