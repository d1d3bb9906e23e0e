"""Columns that were exchanged: the mean direction of some rows tells of which modality they are."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from grclip._kernels import dtype_of, norm_limits, row_norms
from grclip.gap import ModalityGapRemover
from grclip.items import modalities_of

ROWS = 30
"""Rows of a column, and of a mean, without which nothing is said of its direction."""

_MOST = 1000  # rows of a batch that are looked at
_ERRORS = 4  # standard errors by which rows have to lie nearer to another mean


class Directions:
    """Looks at the first rows of each role, once, and tells if they lie nearer to the mean of another modality."""

    def __init__(self, pipeline: Pipeline) -> None:
        first, self.means, self.modalities = pipeline[0], dict[str, NDArray](), dict[str, str]()
        for role, mean in first.means_.items() if isinstance(first, ModalityGapRemover) else ():
            with suppress(ValueError):  # of a role whose modality nobody said, which cannot be fused either
                self.modalities[role] = modalities_of([role], pipeline[-1].modalities)[0]
                if first.n_samples_seen_[role] >= ROWS and mean.any():
                    self.means[role] = mean / np.linalg.norm(mean)
        self.seen: dict[str, list[NDArray]] = {role: [] for role in self.means}

    def look(self, parts: Mapping[str, NDArray]) -> dict[str, str]:
        """What is odd about a role, of those of which enough rows have been seen by now."""
        odd: dict[str, str] = {}
        for role in [role for role in parts if role in self.seen]:
            self.seen[role].append(_directions(parts[role]))
            if sum(map(len, self.seen[role])) >= ROWS:
                told = self._odd(role, np.concatenate(self.seen.pop(role)))
                odd |= {role: told} if told else {}
        return odd

    def _odd(self, role: str, rows: NDArray) -> str:
        """The other role that rows lie nearer to, with numbers."""
        own, middle = self.means[role], rows.mean(axis=0)
        others = [name for name in self.means if self.modalities[name] != self.modalities[role]]
        other = max(others, key=lambda name: middle @ self.means[name], default=role)
        nearer = rows @ (self.means[other] - own)
        if nearer.mean() <= _ERRORS * nearer.std() / np.sqrt(len(rows)) or other == role:
            return ""
        cosines = [middle @ mean / np.linalg.norm(middle) for mean in (own, self.means[other])]
        return (
            f"looks like {other!r}: the mean of its first {len(rows):,} vectors has cosine {cosines[1]:.2f} with the "
            f"mean of {other!r}, and {cosines[0]:.2f} with that of {role!r}"
        )


def _directions(part: NDArray) -> NDArray:
    """Some rows that are there, of unit length, in float64."""
    rows = part[~np.isnan(part[:, 0])][:_MOST]
    norms = row_norms(rows).numpy()
    usable = norms >= norm_limits(dtype_of(part))[0]
    return rows[usable] / norms[usable, None].astype(np.float64)
