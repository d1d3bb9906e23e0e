"""Whether arrays can be what a pipeline has fused, as far as lengths and directions of rows tell."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grclip._kernels import row_norms
from grclip._validation import few, warn
from grclip.fusion import MultimodalFuser
from grclip.gap import ModalityGapRemover
from grclip.pipelines import fitted_steps

_TOLERANCE = 0.01  # of a length; rows of float16 and bfloat16 are off by less
_NEAR = 0.45  # cosine with a mean: of real CLIP rows, half are above 0.6 while they are raw, and below 0.1 once fused
_WIDE = 64  # numbers of a vector; one of fewer may be near a mean by chance


def fuser_of(pipeline: Any) -> MultimodalFuser:
    """What makes the vectors that are stored, and those that are asked with."""
    fuser = list(fitted_steps(pipeline).values())[-1]
    if not isinstance(fuser, MultimodalFuser):
        raise TypeError("pipeline makes Items, not one vector a row: let it end in a MultimodalFuser")
    return fuser


def warn_of_documents(roles: Collection[str], fuser: MultimodalFuser) -> None:
    """Queries under roles of documents alone get a warning: the means and lengths of documents are not theirs."""
    if fuser.query_roles_ and fuser.document_roles_.issuperset(roles):
        given, known = (", ".join(map(repr, some)) for some in (roles, sorted(fuser.query_roles_)))
        warn(
            f"queries have the role {given}, so that they are calibrated as documents, to find what is like them; what "
            f"asks has the role of queries in fit, {known}"
        )


def check_fused(name: str, vectors: NDArray[np.float32], pipeline: Any, *, queries: bool) -> None:
    """Rows that the pipeline cannot have made are an error; rows along a mean that it subtracts are a warning."""
    steps, fuser = list(fitted_steps(pipeline).values()), fuser_of(pipeline)
    width = fuser.n_features_in_
    if vectors.shape[1] != width:
        raise ValueError(f"{name}: {vectors.shape[1]} features, where the pipeline makes vectors of {width}")
    norms = row_norms(vectors).numpy().astype(np.float64)
    way_out, lengths = _way_out(fuser, queries=queries), _lengths(fuser, queries=queries)
    is_other = (np.abs(norms[:, None] - lengths) > _TOLERANCE * lengths).all(axis=1)
    rows = np.flatnonzero(is_other & (norms > 0))
    if len(rows):
        made = ", ".join(f"{length:.4g}" for length in lengths)
        raise ValueError(
            f"{name}: length {norms[rows[0]]:.4g}, where the pipeline makes {made}, in {few(rows)}; {way_out}"
        )
    if isinstance(steps[0], ModalityGapRemover) and _follows_a_mean(vectors, norms, steps[0]):
        warn(
            f"{name}: half of the rows or more lie along a mean that the pipeline subtracts, as raw embeddings do and "
            f"fused ones do not; {way_out}"
        )


def _way_out(fuser: MultimodalFuser, *, queries: bool) -> str:
    """What to give instead."""
    known = fuser.query_roles_ if queries else fuser.document_roles_
    parts = ", ".join(f"{role!r}: ..." for role in sorted(known or {"query" if queries else "text"}))
    return (
        f"an array is taken as fused by this very pipeline: give embeddings as Items({{{parts}}}), or what "
        "pipeline.transform makes of these"
    )


def _lengths(fuser: MultimodalFuser, *, queries: bool) -> NDArray[np.float64]:
    """The lengths of fused documents; of queries too, which may also be documents that others are to be like."""
    of_documents = {1 / spread for spread in fuser.spread_.values()} if fuser.equalize else {1.0}
    return np.array(sorted(of_documents | {1.0} if queries else of_documents))


def _follows_a_mean(vectors: NDArray[np.float32], norms: NDArray[np.float64], remover: ModalityGapRemover) -> bool:
    """Whether rows lie around the mean of a role, and not around the origin."""
    if vectors.shape[1] < _WIDE:
        return False
    means = np.stack(list(remover.means_.values()))
    lengths = np.linalg.norm(means, axis=1)
    means, lengths = means[lengths > _NEAR], lengths[lengths > _NEAR]
    along = vectors @ (means / lengths[:, None]).T.astype(np.float32)
    cosines = along / np.where(norms > 0, norms, 1)[:, None]
    return bool((np.median(cosines, axis=0) > _NEAR).any())
