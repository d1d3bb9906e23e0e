"""Fusing as functions: the weight of each part in each kind of row, and the fused rows.

A kind of row is numbered by the parts it has: bit r of its code stands for the r-th role.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray

from grclip._kernels import Array, dtype_of, empty_like, fuse_rows, kind_codes, norm_limits
from grclip._validation import check_same_place, check_values, few, warn_zero_rows
from grclip.items import modalities_of

MAX_ROLES = 16
"""Roles of one side at most: tables have a row for each of 2**n_roles kinds."""

Kind = frozenset[str]


def kinds_of(roles: Sequence[str]) -> list[Kind]:
    """The set of roles that each code stands for."""
    return [frozenset(role for r, role in enumerate(roles) if code >> r & 1) for code in range(2 ** len(roles))]


def name_kind(roles: Iterable[str]) -> str:
    """A kind by one name, in whatever order its roles come: 'image+text'."""
    return "+".join(sorted(roles))


def rename_kind(name: str) -> str:
    """The same of a name: 'image+text' for 'text+image'."""
    return name_kind(name.split("+"))


def name_kinds(kinds: Iterable[Kind]) -> str:
    """Kinds for a message: 'image, image+text'."""
    return ", ".join(sorted(map(name_kind, kinds)))


def kind_weights(
    roles: Sequence[str],
    *,
    alpha: float = 0.5,
    weights: Mapping[str, float] | None = None,
    modalities: Mapping[str, str] | None = None,
) -> NDArray[np.float64]:
    """The weight of each part in each kind of row, (2**n_roles, n_roles); the weights of a kind add up to 1."""
    if len(roles) > MAX_ROLES:
        raise ValueError(f"one side has {len(roles)} roles; at most {MAX_ROLES} can be fused")
    alpha, weights = float(alpha), weights or {}  # 1 - float16(0.1) is not what 1 - 0.1 is
    left_out = [role for role in roles if role not in weights]
    if 0 < len(left_out) < len(roles):
        raise ValueError(
            f"weights of {', '.join(map(repr, weights))} leave out {', '.join(map(repr, left_out))}; give every role "
            "of a side a weight, 0 to ignore it"
        )
    has = (np.arange(2 ** len(roles))[:, None] >> np.arange(len(roles))) & 1
    if left_out:
        text = np.array(modalities_of(roles, modalities)) == "text"
        table = np.zeros(has.shape)
        for side, share in ((text, alpha), (~text, 1 - alpha)):
            table[:, side] = has[:, side] * share / np.maximum(has[:, side].sum(axis=1, keepdims=True), 1)
    else:
        given = np.array([float(weights[role]) for role in roles])
        table = has * (given / (given.max() or 1))
    table = np.where(table.sum(axis=1, keepdims=True) > 0, table, has)  # parts of no weight share equally
    return table / np.where(has.any(axis=1, keepdims=True), table.sum(axis=1, keepdims=True), 1)


def fuse_parts(
    parts: Mapping[str, Array],
    weights: NDArray[np.float64],
    lengths: NDArray[np.float64],
    *,
    no_length: str = "",
    quiet: bool = False,
) -> Array:
    """Weighted sums of the parts of each row, brought to the length of its kind, (n, d).

    `weights` (2**n_roles, n_roles) and `lengths` (2**n_roles,) have a row for each kind; a length of NaN marks a
    kind that cannot be scaled, for which `no_length` is the error. Every value is checked before anything is returned.
    `quiet` leaves rows of zeros unsaid.
    """
    check_same_place(parts)
    columns = list(parts.values())
    dtype = reduce(torch.promote_types, map(dtype_of, columns))
    out = empty_like(columns[0], dtype)
    norms, fused = fuse_rows(columns, weights, lengths, out=out)
    for (role, part), norm in zip(parts.items(), norms, strict=True):
        check_values(f"role {role!r}" if role else "X", part, norm, allow_missing=bool(role))
    check_kinds(tuple(parts), kind_codes([norm.cpu() for norm in norms]).numpy(), lengths, no_length)
    if not quiet:
        warn_zero_rows({"fused parts": np.flatnonzero(fused.cpu().numpy() < norm_limits(fused.dtype)[0])})
    return out


def check_kinds(roles: tuple[str, ...], codes: NDArray[np.int64], lengths: NDArray[np.float64], no_length: str) -> None:
    """Rows without any part, and of kinds without a length, are errors."""
    for code in np.unique(codes).tolist():
        if code == 0 or np.isnan(lengths[code]):
            rows = few(np.flatnonzero(codes == code))
            if code == 0:
                listed = ", ".join(map(repr, roles))
                raise ValueError(f"no part at all in {rows} (roles {listed}); leave them out: items[items.kinds != '']")
            kind = "+".join(role for r, role in enumerate(roles) if code >> r & 1)
            raise ValueError(no_length.format(kind=kind, rows=rows))
