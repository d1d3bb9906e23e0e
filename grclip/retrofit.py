"""Calibrated scores from an index of raw vectors: two numbers a document, stored beside it, instead of a new index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from torch import Tensor

from grclip._fuse import check_kinds, kind_weights, kinds_of
from grclip._kernels import Array, dtype_of
from grclip._retrofit import Asking, Steps, best, codes_of, inverse, measure, scores_of, steps_of
from grclip._retrofit_checks import (
    Search,
    check_columns,
    check_found,
    check_products,
    check_query_role,
    check_roles,
    check_rows,
    check_searches,
)
from grclip._validation import check_k, check_width, refuse_other_encoder, warn_zero_rows
from grclip.items import Items, parts_of
from grclip.pipelines import pipeline_fingerprint

__all__ = ["RetrofitTerms", "retrofit_scores", "retrofit_search", "retrofit_terms"]


@dataclass(frozen=True, eq=False)
class RetrofitTerms:
    """What is stored beside raw documents: their kind, and two numbers each; made by `retrofit_terms`.

    Parameters
    ----------
    roles : tuple of str
        Names of the parts that documents have.
    query_role : str or None
        The role of raw queries that `shift` is for; None where it is for none.
    codes : ndarray of shape (n,), int64
        The parts of each document: bit r of its code stands for the r-th role, and bit len(roles) + r says that this
        part is a row of zeros.
    shift : ndarray of shape (n,), float64
        The dot product of the document's raw parts, weighted as they are fused, with the mean of queries.
    scale : ndarray of shape (n,), float64
        One over the length of the centred document, and over the spread of its kind; 0 for a row of zeros, and for a
        document that lies at its mean.
    calibrator : str, default=None
        `pipeline_fingerprint` of the pipeline that they belong to; None leaves that unchecked.

    Raises
    ------
    TypeError
        If codes are no integers, or shift and scale no floating numbers.
    ValueError
        If lengths differ, or if there is a code that these roles do not have, NaN or inf, or a scale below 0, as where
        columns come back from a server incomplete.

    See Also
    --------
    retrofit_terms : Makes them.

    Examples
    --------
    >>> import numpy as np
    >>> from grclip.retrofit import RetrofitTerms
    >>> terms = RetrofitTerms(("text", "image"), "query", np.array([1, 2]), np.array([0.2, 0.1]), np.array([1.5, 1.2]))
    >>> terms.kinds.tolist(), len(terms[:1])
    (['text', 'image'], 1)
    """

    roles: tuple[str, ...]
    query_role: str | None
    codes: NDArray[np.int64]
    shift: NDArray[np.float64]
    scale: NDArray[np.float64]
    calibrator: str | None = None

    def __post_init__(self) -> None:
        for name, dtype in (("codes", np.int64), ("shift", np.float64), ("scale", np.float64)):
            column = np.asarray(getattr(self, name))
            if column.dtype.kind not in ("iu" if name == "codes" else "f"):
                raise TypeError(f"{name} must be an array of {np.dtype(dtype)}; got {column.dtype}")
            object.__setattr__(self, name, column.astype(dtype, copy=False))
        lengths = {name: np.shape(getattr(self, name)) for name in ("codes", "shift", "scale")}
        if len(set(lengths.values())) > 1 or len(lengths["codes"]) != 1:
            raise ValueError(f"codes, shift and scale have a value for each document; got shapes {lengths}")
        object.__setattr__(self, "roles", check_roles(self.roles))
        check_columns(self.roles, self.codes, self.shift, self.scale)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: Any) -> RetrofitTerms:
        """The terms of some documents."""
        return replace(self, codes=self.codes[rows], shift=self.shift[rows], scale=self.scale[rows])

    @property
    def kinds(self) -> NDArray[np.str_]:
        """The roles that each document has, joined by ``+``, as `Items.kinds`."""
        names = _kind_names(self.roles)
        return names[self.codes & (len(names) - 1)]


def retrofit_terms(pipeline: Pipeline, items: Items, *, query_role: str | None = None) -> RetrofitTerms:
    """The two numbers of each document that turn its raw dot products into calibrated scores.

    Parameters
    ----------
    pipeline : Pipeline
        With a fitted `ModalityGapRemover` and, after it, a fitted `MultimodalFuser`; an encoder in front and a
        retriever behind are passed over. Steps may be frozen, or Pipelines themselves.
    items : Items
        The documents, raw, as they were indexed. Arrays in memory-mapped files are read in blocks, twice.
    query_role : str, default=None
        The role of the queries that the index will be asked with; None takes the one that the pipeline was fitted on.

    Returns
    -------
    RetrofitTerms
        A row for each document.

    Raises
    ------
    TypeError
        If pipeline or items are something else.
    ValueError
        As the transform of both steps, and for a query role without a mean, or that spreads were not measured with.

    Warns
    -----
    UserWarning
        For rows of zeros, and for documents that lie at the mean of their roles: nothing is left of them but rounding.

    See Also
    --------
    retrofit_scores : Takes them.

    Notes
    -----
    They belong to this pipeline: another mean, alpha, weight or spread needs other terms, and scoring with it is
    refused.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from grclip import Items, ModalityGapRemover, MultimodalFuser, SearchTask
    >>> from grclip.retrofit import retrofit_terms
    >>> rng = np.random.default_rng(0)
    >>> query, image = rng.normal(size=(50, 8)) + 1, rng.normal(size=(50, 8)) - 1
    >>> task = SearchTask(Items({"query": query}), Items({"image": image}))
    >>> pipeline = make_pipeline(ModalityGapRemover(), MultimodalFuser()).fit(task)
    >>> terms = retrofit_terms(pipeline, task.corpus)
    >>> terms.shift.shape, terms.scale.shape, terms.query_role
    ((50,), (50,), 'query')
    """
    remover, fuser = steps_of(pipeline)
    if not isinstance(items, Items):
        raise TypeError(f"items must be Items: documents by role, as they were indexed; got {type(items).__name__}")
    for step in (remover, fuser):
        refuse_other_encoder(step, step.encoder_, items.encoder)
    query_role = check_query_role(remover, fuser, query_role)
    parts = parts_of(items)
    check_width(remover, parts, remover.n_features_in_)
    means = {role: remover._mean(role, part) for role, part in parts.items()}
    codes, empty = codes_of(parts)
    lengths, no_length = fuser._lengths(tuple(parts), queries=False)
    check_kinds(tuple(parts), codes, lengths, no_length)
    shares = kind_weights(tuple(parts), **fuser._weighting())[codes]
    asked = np.zeros(remover.n_features_in_) if query_role is None else remover.means_[query_role]
    shift, norms = measure(parts, means, shares, asked, normalize=remover.normalize)
    inverses = inverse(norms, *map(dtype_of, parts.values()))
    warn_zero_rows({"fused parts": np.flatnonzero((inverses == 0) & (codes != empty))})
    scale, told = inverses * lengths[codes], pipeline_fingerprint(pipeline)
    return RetrofitTerms(tuple(parts), query_role, codes | empty << len(parts), shift, scale, told)


def retrofit_scores(
    products: Any,
    pipeline: Pipeline,
    queries: Items,
    terms: RetrofitTerms,
    *,
    rows: Any = None,
    asked: str = "raw",
) -> Array:
    """Calibrated scores from dot products with raw vectors.

    They are the dot products of ``pipeline.transform(queries)`` with ``pipeline.transform(documents)``, up to
    rounding, without a look at the documents.

    Parameters
    ----------
    products : array of shape (n_queries, n_documents), or dict of str to such arrays
        Dot products of the vectors that were asked with, with the raw unit vectors of the documents. Where documents
        have several parts, one array for each role; a document's places in those of roles that it lacks are not read.
    pipeline : Pipeline
        That of the terms.
    queries : Items
        The queries, raw.
    terms : RetrofitTerms
        Of the documents.
    rows : array of shape (n_queries, n_candidates), int, default=None
        The documents that `products` are of, where these are not all: for each query rows of `terms`, or -1 for none.
    asked : {"raw", "calibrated"}, default="raw"
        What the index was asked with: the raw unit queries (of one part), or ``pipeline.transform(queries)``, which
        may be of any parts and do not need the `shift` of the terms.

    Returns
    -------
    ndarray or Tensor of shape (n_queries, n_documents) or (n_queries, n_candidates)
        Scores, of the library and device of the products; float64 where these are, else float32. ``-inf`` for rows of
        zeros and where there is no document.

    Raises
    ------
    TypeError, ValueError
        For products of another shape than rows and terms have, of documents of several parts that are not by role, or
        that are NaN, inf or too large for unit vectors; for queries or another pipeline that the terms are not for;
        and as the transform of the pipeline.

    Warns
    -----
    UserWarning
        For raw queries that are zero, or lie at the mean of their role: they have score 0 with all documents.

    See Also
    --------
    retrofit_search : Finds candidates first.

    Notes
    -----
    With unit vectors q and d, means m and n and a spread s the calibrated score is

    ``(q - m) . (d - n) / (|q - m| |d - n| s) = (q . d - q . n - m . (d - n)) / |q - m| * scale``,

    where ``scale`` is ``1 / (|d - n| s)`` and ``m . d`` is ``shift``: all else is the query's own. All that is fused
    before its length is taken is linear in the parts, so a sum over the parts, weighted as they are fused, stands in
    the place of d. The error is that of the products, times ``scale / |q - m|``; scores never exceed the length of
    the calibrated document, 1 or 1 / s.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from grclip import Items, ModalityGapRemover, MultimodalFuser, SearchTask
    >>> from grclip.retrofit import retrofit_scores, retrofit_terms
    >>> rng = np.random.default_rng(0)
    >>> unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    >>> query, image = unit(rng.normal(size=(50, 8)) + 1), unit(rng.normal(size=(50, 8)) - 1)
    >>> task = SearchTask(Items({"query": query}), Items({"image": image}))
    >>> pipeline = make_pipeline(ModalityGapRemover(), MultimodalFuser()).fit(task)
    >>> scores = retrofit_scores(query @ image.T, pipeline, task.queries, retrofit_terms(pipeline, task.corpus))
    >>> calibrated = pipeline.transform(task)
    >>> bool(np.abs(scores - calibrated.queries @ calibrated.corpus.T).max() < 1e-12)
    True
    """
    steps = steps_of(pipeline, terms.calibrator)
    asking = Asking.of(*steps, queries, terms.roles, _role_of(terms, asked))
    places = None if rows is None else check_rows(rows, len(queries), len(terms))
    out = _scored(products, steps, asking, terms, places)
    given = next(iter(products.values())) if isinstance(products, Mapping) else products
    return out if isinstance(given, Tensor) else out.numpy()


def _scored(
    products: Any, steps: Steps, asking: Asking, terms: RetrofitTerms, places: NDArray[np.int64] | None
) -> Tensor:
    """The scores of products, by what is known of the queries."""
    remover, fuser = steps
    by_role = check_products(products, terms.roles, terms.codes, len(asking.vectors), places)
    weights, (lengths, _) = kind_weights(terms.roles, **fuser._weighting()), fuser._lengths(terms.roles, queries=False)
    columns = (terms.codes, terms.shift, terms.scale)
    return scores_of(by_role, asking, weights, lengths, columns, places, terms.roles, normalize=remover.normalize)


def retrofit_search(
    searches: Mapping[str, Search | None],
    pipeline: Pipeline,
    queries: Items,
    terms: RetrofitTerms,
    *,
    k: int = 10,
    candidates: int = 100,
    asked: str = "raw",
) -> tuple[Array, Array]:
    """Search raw vectors in two stages: candidates of each kind, then all of them by calibrated score.

    Raw scores of two kinds of documents cannot be compared, so each kind is searched apart.

    Parameters
    ----------
    searches : dict of str to callable, or None
        For each kind of document (``"text"``, ``"image"``, ``"text+image"`` or ``"image+text"``; see `Items.kinds`) a
        function ``search(vectors, n)`` that asks an index of its raw vectors. It returns products and document rows,
        rows of `terms`, each of shape (n_queries, n or fewer), -1 where nothing was found; for a kind of several parts
        a dict with the products of each role. None in the place of a function leaves the documents of that kind out.
    pipeline : Pipeline
        That of the terms.
    queries : Items
        The queries, raw.
    terms : RetrofitTerms
        Of all documents.
    k : int, default=10
        Documents to return for each query.
    candidates : int, default=100
        Documents of each kind to look at. With all of them the ranking is that of the calibrated vectors.
    asked : {"raw", "calibrated"}, default="raw"
        The vectors that `searches` are given: unit queries, or calibrated ones, which within a kind rank documents as
        the calibrated score does but for `scale`, and so find the right candidates sooner.

    Returns
    -------
    scores : ndarray or Tensor of shape (n_queries, k)
        As `retrofit_scores`; ``-inf`` where there is no document.
    rows : ndarray or Tensor of shape (n_queries, k), int64
        Rows of the terms, best first, -1 for none; equal scores are ordered by row.

    Raises
    ------
    TypeError, ValueError
        If searches lack a kind that documents have, or one returns documents that are not of its kind, or one twice;
        and as `retrofit_scores`.

    See Also
    --------
    grclip.scale.faiss.FaissRetriever : An index to search.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from grclip import ExactRetriever, Items, ModalityGapRemover, MultimodalFuser, SearchTask
    >>> from grclip.retrofit import retrofit_search, retrofit_terms
    >>> rng = np.random.default_rng(0)
    >>> unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    >>> query, image = unit(rng.normal(size=(50, 8)) + 1), unit(rng.normal(size=(50, 8)) - 1)
    >>> task = SearchTask(Items({"query": query}), Items({"image": image}))
    >>> pipeline = make_pipeline(ModalityGapRemover(), MultimodalFuser()).fit(task)
    >>> terms, index = retrofit_terms(pipeline, task.corpus), ExactRetriever().fit(image)
    >>> scores, rows = retrofit_search({"image": index.kneighbors}, pipeline, task.queries, terms, candidates=20)
    >>> rows.shape
    (50, 10)
    """
    check_k(k)
    check_k(candidates, name="candidates")
    steps = steps_of(pipeline, terms.calibrator)
    asking = Asking.of(*steps, queries, terms.roles, _role_of(terms, asked))
    exact = asking.vectors
    given = next(iter(parts_of(queries).values()))
    vectors = exact.to(given.device, given.dtype) if isinstance(given, Tensor) else exact.numpy().astype(given.dtype)
    found, names = [], _kind_names(terms.roles)
    kinds = terms.codes & (len(names) - 1)
    counts = np.bincount(kinds, minlength=len(names))
    for kind, (n_documents, search) in check_searches(searches, names, counts).items():
        answer = search(vectors, min(candidates, n_documents))
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise TypeError(f"the search of kind {kind!r} must return products and rows; got {type(answer).__name__}")
        products, given_rows = answer
        rows = check_rows(given_rows, len(queries), len(terms), f"rows of the search of kind {kind!r}")
        check_found(kind, rows, kinds, names)
        if not rows.shape[1]:
            found.append((np.empty(rows.shape, np.float32), rows))
            continue
        found.append((_scored(products, steps, asking, terms, rows).cpu().numpy(), rows))
    columns = [np.concatenate(column, axis=1) for column in zip(*found, strict=True)]
    scores, rows = best(columns[0], columns[1], k)
    if isinstance(given, Tensor):
        return torch.from_numpy(scores).to(given.device), torch.from_numpy(rows).to(given.device)
    return scores, rows


def _kind_names(roles: tuple[str, ...]) -> NDArray[np.str_]:
    """The name of each kind by its code."""
    return np.array(["+".join(role for role in roles if role in kind) for kind in kinds_of(roles)])


def _role_of(terms: RetrofitTerms, asked: str) -> str | None:
    """The role of raw queries; None where calibrated ones ask."""
    if asked not in ("raw", "calibrated"):
        raise ValueError(f"asked must be 'raw' or 'calibrated'; got {asked!r}")
    if asked == "raw" and terms.query_role is None:
        raise ValueError(
            "these terms are for no role of queries, so raw queries cannot be scored by them; make them with "
            "retrofit_terms(pipeline, items, query_role=...), or ask with calibrated queries (asked='calibrated')"
        )
    return terms.query_role if asked == "raw" else None
