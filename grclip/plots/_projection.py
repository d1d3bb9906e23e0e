"""From embeddings by role to points in the plane."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from grclip._columns import take_rows
from grclip._validation import check_width, few
from grclip.diagnostics._roles import unit
from grclip.items import Items, SearchTask, parts_of

Points = dict[str, NDArray[np.float64]]

_EXACT = 1024  # features up to which exact components take less than half a second


def embedded(X: Any, name: str = "X") -> dict[str, Any]:
    """The embeddings of X by role."""
    if not isinstance(X, SearchTask | Items | Mapping):
        raise TypeError(
            f"{name} must be a SearchTask, Items or a dict of embeddings by role, e.g. {{'text': ..., 'image': ...}}; "
            f"got {type(X).__name__}"
        )
    parts = parts_of(X)
    if check_width(None, parts, None) < 2:
        raise ValueError(f"{name} has 1 feature; a plane needs embeddings of at least 2")
    return parts


def transformed(estimator: Any, X: Any) -> dict[str, Any]:
    """The embeddings that an estimator, or the first step of a pipeline, makes of X."""
    estimator = getattr(estimator, "best_estimator_", estimator)
    first = estimator[0] if isinstance(estimator, Pipeline) else estimator
    if not hasattr(first, "transform"):
        raise TypeError(
            "estimator must be a fitted ModalityGapRemover, or a Pipeline that starts with one; got "
            f"{type(first).__name__}"
        )
    check_is_fitted(first)
    after = first.transform(X)
    if not isinstance(after, SearchTask | Items | Mapping) or (
        isinstance(after, SearchTask) and not isinstance(after.queries, Items)
    ):
        raise TypeError(
            f"{type(first).__name__} gives one vector a row and no roles; pass a ModalityGapRemover, or a Pipeline "
            "that starts with one"
        )
    return parts_of(after)


def sample(parts: Mapping[str, Any], max_rows: int, random_state: Any) -> dict[str, NDArray[np.intp]]:
    """At most so many rows of each role that are neither missing nor zero; two roles at least."""
    random = check_random_state(random_state)
    rows = {}
    for role, part in parts.items():
        there = np.flatnonzero(~np.isnan(as_numpy(part[:, 0])))  # a missing row is NaN throughout
        chosen = np.sort(random.permutation(there)[:max_rows])
        norms = np.linalg.norm(as_numpy(part[chosen]), axis=1)
        if not np.isfinite(norms).all():
            broken = few(chosen[~np.isfinite(norms)])
            raise ValueError(
                f"role {role!r}: NaN or inf beside numbers in {broken}; drop these rows or encode them again"
            )
        rows[role] = chosen[norms > 0]
    rows = {role: chosen for role, chosen in rows.items() if len(chosen)}
    if len(rows) < 2:
        raise ValueError(
            f"X has rows of {' and '.join(map(repr, rows)) or 'no role'} alone; the plot compares roles, so give at "
            "least two, e.g. {'text': ..., 'image': ...}"
        )
    return rows


def taken(X: Any, rows: Mapping[str, NDArray[np.intp]]) -> tuple[Any, dict[str, NDArray[np.intp]]]:
    """X with no more rows than those of some role, and where these are in it."""
    if isinstance(X, SearchTask):
        sides = [taken(side, {role: rows[role] for role in side if role in rows}) for side in (X.queries, X.corpus)]
        return SearchTask(*(side for side, _ in sides)), sides[0][1] | sides[1][1]
    if not isinstance(X, Items):
        return {role: take_rows(X[role], chosen) for role, chosen in rows.items()}, {
            role: np.arange(len(chosen)) for role, chosen in rows.items()
        }
    kept = np.unique(np.concatenate(list(rows.values()))) if rows else np.zeros(1, np.intp)  # Items have a row
    return X[kept], {role: np.searchsorted(kept, chosen) for role, chosen in rows.items()}


def as_numpy(x: Any) -> NDArray[np.float64]:
    """An array, or a tensor of any dtype on any device, in float64."""
    return np.asarray(x.detach().cpu().double() if isinstance(x, Tensor) else x, dtype=np.float64)


def project(
    parts: Mapping[str, Any], rows: Mapping[str, NDArray[np.intp]], method: Any, random_state: Any
) -> tuple[Points, NDArray[np.float64] | None]:
    """Points by role, from one projection of all, and the share of the variance along each axis where it has one."""
    units = {role: unit(as_numpy(parts[role][chosen])) for role, chosen in rows.items()}
    points, variance = _METHODS[check_method(method)](np.concatenate(list(units.values())), random_state)
    ends = np.cumsum([len(x) for x in units.values()])[:-1]
    return dict(zip(units, np.split(points, ends), strict=True)), variance


def _pca(x: NDArray[np.float64], random_state: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The two directions of largest variance."""
    exact = x.shape[1] <= _EXACT
    pca = PCA(2, svd_solver="covariance_eigh" if exact else "randomized", random_state=random_state)
    return pca.fit_transform(x), pca.explained_variance_ratio_


def _umap(x: NDArray[np.float64], random_state: Any) -> tuple[NDArray[np.float64], None]:
    """Neighbourhoods, whose distances and directions mean nothing."""
    try:
        umap = importlib.import_module("umap")
    except ModuleNotFoundError as error:
        if error.name != "umap":
            raise  # it is there, and lacks something of its own
        raise ModuleNotFoundError(
            "method='umap' needs umap-learn, which is not installed: pip install umap-learn; method='pca' needs "
            "nothing more",
            name="umap",
        ) from error
    neighbours = min(15, len(x) - 1)
    mapper = umap.UMAP(n_neighbors=neighbours, metric="cosine", random_state=random_state, n_jobs=1)
    return np.asarray(mapper.fit_transform(x), dtype=np.float64), None


_METHODS = {"pca": _pca, "umap": _umap}


def check_method(method: Any) -> str:
    """The name of a projection."""
    if not isinstance(method, str) or method not in _METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, _METHODS))}; got {method!r}")
    return method
