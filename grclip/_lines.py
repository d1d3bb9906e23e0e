"""Rows that alpha fuses, as lines: ``alpha * text + (1 - alpha) * rest`` before they are brought to a length.

A row that has parts of one side alone has the same vector at both ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grclip._fuse import check_kinds, kind_weights
from grclip._kernels import (
    Array,
    as_tensor,
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
_CANCELLED = 64.0
"""Parts that are together this many times as long as their weighted sum cancel: its length is not known well."""


class Lines:
    """The rows of one side of a task, for any alpha."""

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
        check_kinds(tuple(parts), self.codes.cpu().numpy(), np.ones(2 ** len(parts)), "")
        self.ends = tuple(
            torch.as_tensor(kind_weights(tuple(parts), alpha=alpha, modalities=modalities), device=self.device)
            for alpha in (1.0, 0.0)
        )
        self.squares, self.masses = self._measure(torch.stack(norms, dim=1).double().nan_to_num(0))

    def __len__(self) -> int:
        return len(self.codes)

    def _measure(self, norms: Tensor) -> tuple[Tensor, Tensor]:
        """Inner products of the ends of each row, (n, 3), and the lengths of what adds up to each end, (n, 2)."""
        squares = torch.empty((len(self), 3), dtype=torch.float64, device=self.device)
        for rows in row_blocks(self.columns[0], self.block_rows):
            text, rest = self.take(rows)
            squares[rows] = torch.stack([(a * b).sum(dim=1) for a, b in ((text, text), (text, rest), (rest, rest))], 1)
        return squares, torch.stack([(norms * table[self.codes]).sum(dim=1) for table in self.ends], dim=1)

    @property
    def block_rows(self) -> int:
        """Rows whose ends are held at once."""
        numbers = _GPU_NUMBERS if self.device.type == "cuda" else _CPU_NUMBERS
        return max(1, numbers // self.columns[0].shape[1])

    @property
    def fixed(self) -> bool:
        """Whether no row depends on alpha."""
        kinds = torch.unique(self.codes)
        text, rest = (table[kinds] for table in self.ends)
        return torch.allclose(text, rest, rtol=0, atol=1e-12)

    def take(self, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Both ends of some rows, in float64."""
        blocks = [as_tensor(part).double().nan_to_num(0) for part in self._rows(rows)]
        codes = self.codes[rows]
        text, rest = (
            reduce(torch.add, [block * table[codes, r, None] for r, block in enumerate(blocks)]) for table in self.ends
        )
        return text, rest

    def fuse(self, rows: Tensor, alpha: float, lengths: NDArray[np.float64]) -> Tensor:
        """Some rows, as MultimodalFuser makes them."""
        parts = self._rows(rows)
        out = empty_like(parts[0], self.dtype)
        fuse_rows(parts, kind_weights(tuple(self.parts), alpha=alpha, modalities=self.modalities), lengths, out=out)
        return as_tensor(out)

    def norms(self, alphas: Tensor, rows: Tensor | slice, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Lengths of rows at each alpha, and what rounding in `dtype` adds to them at most, relative; (n_alphas, n).

        The error is inf where parts cancel, or add up to nothing.
        """
        a, b = alphas[:, None], 1 - alphas[:, None]
        squares, masses = self.squares[rows].T, self.masses[rows].T
        norms = (a**2 * squares[0] + 2 * a * b * squares[1] + b**2 * squares[2]).clamp(min=0).sqrt()
        excess = (a * masses[0] + b * masses[1]) / norms
        known = (excess < _CANCELLED) & (norms > 8 * norm_limits(dtype)[0])
        n_terms = self.columns[0].shape[1] + 32
        error = n_terms * (torch.finfo(dtype).eps * excess + torch.finfo(torch.float64).eps * excess**2)
        return norms, torch.where(known, error + 2 * torch.finfo(self.dtype).eps, torch.inf)

    def _rows(self, rows: Tensor | slice) -> list[Array]:
        at = rows if isinstance(rows, slice) or isinstance(self.columns[0], Tensor) else rows.cpu().numpy()
        return [column[at] for column in self.columns]
