"""The arithmetic of calibrated scores from raw dot products, in the terms of the proof in docs/scale_retrofit.md.

With unit vectors q and d, means m and n, and a spread s, the score is ``(q . d - q . n - m . d + m . n) / |q - m|``
times ``1 / (|d - n| s)``. `measure` and `inverse` make what is stored of a document: ``m . d`` (shift) and the last
factor (scale). `Asking` makes what a query brings: ``1 / |q - m|`` (factors) and, for each role, ``(q - m) . n /
|q - m|`` (means). `scores_of` puts them together with ``q . d``, the products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grclip._kernels import Array, as_tensor, compute_dtype, dtype_of, kind_codes, norm_limits, row_blocks, row_norms
from grclip._retrofit_checks import check_used
from grclip._validation import check_values, warn_zero_rows
from grclip.fusion import MultimodalFuser
from grclip.gap import ModalityGapRemover
from grclip.items import Items, parts_of
from grclip.pipelines import flat_steps, pipeline_fingerprint

Steps = tuple[ModalityGapRemover, MultimodalFuser]

_SCORES = 2**22  # scores that are worked on at once: 32 MB of float64
_ROUNDED = 16  # roundings of a number near 1: what is shorter after a subtraction is rounding alone


def steps_of(pipeline: Any, expected: str | None = None) -> Steps:
    """The fitted remover and fuser of a pipeline, of the fingerprint that is expected."""
    kept = [step for _, step in flat_steps("", pipeline) if isinstance(step, ModalityGapRemover | MultimodalFuser)]
    if len(kept) != 2 or not isinstance(kept[0], ModalityGapRemover) or not isinstance(kept[1], MultimodalFuser):
        raise TypeError(
            "pipeline must be a Pipeline with one ModalityGapRemover and, after it, one MultimodalFuser; got "
            f"{pipeline!r}"
        )
    found = pipeline_fingerprint(pipeline)
    if expected not in (None, found):
        raise ValueError(f"these terms belong to the pipeline {expected!r}, and this is {found!r}: make terms for it")
    return kept[0], kept[1]


def codes_of(parts: Mapping[str, Array]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The code of each row's kind, and that of its parts without direction, after every value has been checked."""
    norms, zero = [], {}
    for role, part in parts.items():
        norms.append(row_norms(part).cpu())
        zero[f"role {role!r}"] = check_values(f"role {role!r}", part, norms[-1], allow_missing=True)
    warn_zero_rows(zero)
    codes, empty = kind_codes(norms).numpy(), np.zeros(len(norms[0]), dtype=np.int64)
    for r, rows in enumerate(zero.values()):
        empty[rows] |= 1 << r
    return codes, empty


def inverse(norms: NDArray[np.float64], *dtypes: torch.dtype) -> NDArray[np.float64]:
    """1 / norm of rows without their mean; zero for those that lie at it, as far as the dtypes tell."""
    usable = norms > _ROUNDED * max(torch.finfo(compute_dtype(dtype)).eps for dtype in dtypes)
    return np.divide(1, norms, out=np.zeros_like(norms), where=usable)


def stored(block: Array, *, normalize: bool) -> tuple[Tensor, Tensor]:
    """Rows as an index holds them, in float64, and whether each has a direction; others are zero."""
    smallest, _ = norm_limits(dtype_of(block))
    x = torch.nan_to_num(as_tensor(block).to("cpu", torch.float64))
    norms = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    usable = norms >= smallest
    return x * torch.where(usable, 1 / norms if normalize else 1, 0), usable


def measure(
    parts: Mapping[str, Array],
    means: Mapping[str, NDArray[np.float64]],
    shares: NDArray[np.float64],
    asked: NDArray[np.float64],
    *,
    normalize: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each row the product of its weighted raw parts with `asked`, and the length of its weighted centred ones.

    `shares` (n, n_roles) are the weights of the parts of each row.
    """
    shift, norms = np.empty(len(shares)), np.empty(len(shares))
    for rows in row_blocks(next(iter(parts.values()))):
        raw, centred = torch.zeros(2, rows.stop - rows.start, len(asked), dtype=torch.float64)
        for (role, part), share in zip(parts.items(), torch.from_numpy(shares[rows]).T, strict=True):
            x, usable = stored(part[rows], normalize=normalize)
            raw += share[:, None] * x
            centred += share[:, None] * (x - torch.from_numpy(means[role]) * usable)
        shift[rows] = raw @ torch.from_numpy(asked)
        norms[rows] = torch.linalg.vector_norm(centred, dim=1)
    return shift, norms


class Asking(NamedTuple):
    """What scores need of the queries.

    `vectors` (n_queries, d) are what the index is asked with, `factors` (n_queries,) one over their length without
    their mean, and `means` (n_queries, n_roles) the products of the calibrated queries with the means of documents.
    """

    vectors: Tensor
    factors: NDArray[np.float64]
    means: NDArray[np.float64]
    is_raw: bool

    @classmethod
    def of(
        cls,
        remover: ModalityGapRemover,
        fuser: MultimodalFuser,
        queries: Any,
        roles: Sequence[str],
        query_role: str | None,
    ) -> Asking:
        """That of raw queries of a role, or, without one, of calibrated queries."""
        if not isinstance(queries, Items):
            raise TypeError(f"queries must be Items: raw vectors by role; got {type(queries).__name__}")
        parts = {role: as_tensor(x).to("cpu", torch.float64, copy=True) for role, x in parts_of(queries).items()}
        if query_role is not None and set(parts) != {query_role}:
            raise ValueError(
                f"raw queries have the role {query_role!r} alone, which the terms are for; got {', '.join(parts)}: ask "
                "with calibrated queries (asked='calibrated'), or make terms for that role"
            )
        exact = Items({role: x.numpy() for role, x in parts.items()}, encoder=queries.encoder)
        calibrated = np.asarray(fuser._fuse_side(remover.transform(exact), queries=True))
        means = np.stack([remover.means_.get(role, np.zeros(calibrated.shape[1])) for role in roles], axis=1)
        own = calibrated @ means
        if query_role is None:
            return cls(torch.from_numpy(calibrated), np.ones(len(own)), own, False)
        raw, usable = stored(parts_of(queries)[query_role], normalize=remover.normalize)
        norms = torch.linalg.vector_norm(raw - torch.from_numpy(remover.means_[query_role]) * usable, dim=1).numpy()
        factors = inverse(norms, dtype_of(parts_of(queries)[query_role]))
        warn_zero_rows({"queries without their mean": np.flatnonzero((factors == 0) & usable[:, 0].numpy())})
        return cls(raw, factors, own * (factors > 0)[:, None], True)


def scores_of(
    products: Mapping[str, Tensor],
    asking: Asking,
    weights: NDArray[np.float64],
    lengths: NDArray[np.float64],
    terms: tuple[NDArray, NDArray, NDArray],
    rows: NDArray[np.int64] | None,
    roles: Sequence[str],
    *,
    normalize: bool,
) -> Tensor:
    """Calibrated scores by the formula of retrofit_scores, -inf where there is no document or it has no direction.

    None is larger than the length of the calibrated document, by code in `lengths`: that of one near its mean would be,
    by what the products were rounded.
    """
    first = next(iter(products.values()))
    dtype = compute_dtype(*(x.dtype for x in products.values()))
    out = torch.empty(first.shape, dtype=dtype, device=first.device)
    table, factors, means = (torch.from_numpy(x).to(out.device) for x in (weights, asking.factors, asking.means))
    columns = [as_tensor(column).to(out.device) for column in (*terms, np.nan_to_num(lengths, nan=np.inf))]
    places, kinds = None if rows is None else as_tensor(rows).to(out.device), 2 ** len(roles) - 1
    for some in row_blocks(out, max(1, _SCORES // out.shape[1])):
        at = slice(None) if places is None else places[some].clamp(min=0)
        code, shift, scale = (column[at] if places is not None else column[None] for column in columns[:3])
        length = columns[3][code & kinds]
        gone = scale == 0 if places is None else (scale == 0) | (places[some] < 0)
        total = -shift * factors[some, None] if asking.is_raw else torch.zeros_like(scale)
        for role, x in products.items():
            r, product = roles.index(role), x[some].double()
            share = table[code & kinds, r] * ~(code >> len(roles) + r & 1).bool()
            used = (share > 0) & ~gone
            check_used(role, product, used, some.start, normalize=normalize)
            total = total + torch.where(used, share * (product * factors[some, None] - means[some, r, None]), 0)
        out[some] = torch.where(gone, -torch.inf, (total * scale).clamp(-length, length))
    return out


def best(scores: NDArray, rows: NDArray, k: int) -> tuple[NDArray, NDArray[np.int64]]:
    """The k largest scores of each line and their rows, equal ones by row; -inf and -1 where there are fewer."""
    last = np.where(rows < 0, np.iinfo(np.int64).max, rows)
    order = np.lexsort((last, -scores), axis=1)[:, :k]
    wide = ((0, 0), (0, k - order.shape[1]))
    scores = np.pad(np.take_along_axis(scores, order, axis=1), wide, constant_values=-np.inf)
    return scores, np.pad(np.take_along_axis(rows, order, axis=1).astype(np.int64), wide, constant_values=-1)
