"""What calibrated scores are made of, checked: roles, rows, products, and what searches find."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grclip._fuse import name_kinds, rename_kind
from grclip._kernels import Array, as_tensor
from grclip._validation import check_embeddings, few
from grclip.fusion import MultimodalFuser
from grclip.gap import ModalityGapRemover

Search = Callable[[Array, int], tuple[Any, Any]]

_LARGEST = 2.0  # no product of unit vectors, and more than a compressed index makes of one


def check_query_role(remover: ModalityGapRemover, fuser: MultimodalFuser, role: str | None) -> str | None:
    """The role of queries: as given, or the one that the fuser was fitted on, or none where it knows several."""
    if role is None and len(fuser.query_roles_) == 1:
        (role,) = fuser.query_roles_
    if role is None:
        return None
    if not isinstance(role, str) or role not in remover.means_:
        raise ValueError(f"query_role={role!r} has no mean; the remover has those of {', '.join(remover.means_)}")
    if np.isnan(fuser._lengths((role,), queries=True)[0][1]):
        raise ValueError(
            f"query_role={role!r}, but spreads were measured with queries of kind {name_kinds(fuser.query_kinds_)}: "
            "fit one pipeline for each kind of query"
        )
    return role


def check_roles(roles: Any) -> tuple[str, ...]:
    """Names of parts, each once."""
    names = () if isinstance(roles, str) else tuple(roles)
    if not names or len(set(names)) < len(names) or not all(isinstance(role, str) for role in names):
        raise ValueError(f"roles must be the names of the parts of documents, each once; got {roles!r}")
    return names


def check_columns(
    roles: Sequence[str], codes: NDArray[np.int64], shift: NDArray[np.float64], scale: NDArray[np.float64]
) -> None:
    """That each document has parts, of these roles, and that its numbers are some."""
    parts = codes & (2 ** len(roles) - 1)
    strange = (parts == 0) | (codes >> len(roles) & ~parts != 0)
    for name, wrong, column in (
        ("codes", strange, codes),
        ("shift", ~np.isfinite(shift), shift),
        ("scale", ~(np.isfinite(scale) & (scale >= 0)), scale),
    ):
        if wrong.any():
            rows = np.flatnonzero(wrong)
            raise ValueError(
                f"{name}: {column[rows[0]]} in {few(rows)}, which no document of {', '.join(roles)} has; take terms as "
                "retrofit_terms made them, all of their rows"
            )


def check_rows(rows: Any, n_queries: int, n_documents: int, name: str = "rows") -> NDArray[np.int64]:
    """Rows of candidates, -1 for none, as int64."""
    try:
        places = rows.detach().cpu().numpy() if isinstance(rows, Tensor) else np.asarray(rows)
    except ValueError as error:
        raise ValueError(f"{name} are not as many for each query: fill up with -1, and products with 0") from error
    if places.ndim != 2 or len(places) != n_queries or (places.dtype.kind not in "iu" and places.size):
        raise ValueError(
            f"{name} must be integers of shape ({n_queries}, n_candidates), rows of the terms; got {places.dtype} of "
            f"shape {places.shape}"
        )
    if places.size and not (places.min() >= -1 and places.max() < n_documents):
        raise ValueError(f"{name} go from {places.min()} to {places.max()}; terms have {n_documents} rows")
    return np.ascontiguousarray(places, dtype=np.int64)


def check_products(
    products: Any, roles: Sequence[str], codes: NDArray[np.int64], n_queries: int, rows: NDArray[np.int64] | None
) -> dict[str, Tensor]:
    """Products by role, of the right shapes, for all parts that documents have."""
    expected = (n_queries, len(codes))
    if rows is not None:
        codes, expected = codes[rows[rows >= 0]], rows.shape
    codes = codes & (2 ** len(roles) - 1)
    found = int(np.bitwise_or.reduce(codes, initial=0))
    needed = [role for r, role in enumerate(roles) if found >> r & 1]
    if not isinstance(products, Mapping):
        if np.any(codes & (codes - 1)):
            raise ValueError(f"documents have several parts: products must be a dict with those of {', '.join(needed)}")
        products = dict.fromkeys(needed or roles[:1], products)
    lacking = [role for role in needed if role not in products]
    if lacking or not set(products) <= set(roles):
        raise ValueError(f"products are by role, here {', '.join(needed)}; got those of {', '.join(products)}")
    checked = {role: as_tensor(check_embeddings(x, f"products of {role!r}")) for role, x in products.items()}
    for role, x in checked.items():
        if tuple(x.shape) != expected:
            raise ValueError(f"products of {role!r} have shape {tuple(x.shape)}; expected {expected}")
    return checked


def check_used(role: str, products: Tensor, used: Tensor, start: int, *, normalize: bool) -> None:
    """That the products that scores are made of are numbers, of unit vectors; their first row is `start`."""
    sizes = torch.where(used, products.abs(), 0)
    strange = ~(sizes < torch.inf)
    if strange.any():
        rows = few(start + np.flatnonzero(strange.any(dim=1).cpu().numpy()))
        raise ValueError(
            f"products of {role!r}: NaN or inf in {rows}, for parts that documents have; every one of these is needed"
        )
    if normalize and sizes.max() > _LARGEST:
        raise ValueError(
            f"products of {role!r} reach {float(sizes.max()):.3g}, which those of unit vectors do not: the index holds "
            "vectors of other lengths, or was asked with others; divide products by these lengths"
        )


def check_searches(searches: Any, names: NDArray[np.str_], counts: NDArray[np.intp]) -> dict[str, tuple[int, Search]]:
    """By kind, how many documents there are and the search for them; a kind is left out by None alone."""
    if not isinstance(searches, Mapping):
        raise TypeError(f"searches must be a dict with a function for each kind of document; got {searches!r}")
    there: dict[str, int] = {}
    for name, count in zip(names.tolist(), counts.tolist(), strict=True):
        there[rename_kind(name)] = there.get(rename_kind(name), 0) + count
    given: dict[str, str] = {}
    for kind, search in searches.items():
        known = rename_kind(kind) if isinstance(kind, str) else ""
        if not there.get(known):
            raise ValueError(
                f"searches name the kind {kind!r}, but documents are {', '.join(sorted(names[counts > 0]))}"
            )
        if known in given:
            raise ValueError(f"searches name one kind twice: {given[known]!r} and {kind!r}")
        if search is not None and not callable(search):
            raise TypeError(f"the search of kind {kind!r} must be a function search(vectors, n); got {search!r}")
        given[known] = kind
    unnamed = [code for code in np.flatnonzero(counts) if rename_kind(str(names[code])) not in given]
    left = [f"{names[code]} ({counts[code]:,})" for code in unnamed]
    if left:
        raise ValueError(
            f"searches lack kinds of documents, which would never be found: {', '.join(left)}; give each a search, or "
            "None to leave it out on purpose"
        )
    kept = {str(kind): (there[known], searches[kind]) for known, kind in given.items() if searches[kind] is not None}
    if not kept:
        raise ValueError("searches leave out every kind of document; give one of them a search")
    return kept


def check_found(kind: str, rows: NDArray[np.int64], kinds: NDArray[np.int64], names: NDArray[np.str_]) -> None:
    """That a search returned documents of its kind, each once."""
    own = np.array([rename_kind(name) == rename_kind(kind) for name in names])
    inside = rows[rows >= 0]
    strange = inside[~own[kinds[inside]]]
    if len(strange):
        raise ValueError(
            f"the search of kind {kind!r} returned {few(np.unique(strange))} of the terms, of kind "
            f"{str(names[kinds[strange[0]]])!r}; return rows of all documents, not of that index"
        )
    ordered = np.sort(rows, axis=1)
    twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1)
    if twice.any():
        raise ValueError(f"the search of kind {kind!r} returned a document twice for query {int(twice.argmax())}")
