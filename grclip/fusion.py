"""MultimodalFuser: one vector for each document, and one scale for all kinds of documents."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from grclip._doc_link import DocLinkMixin
from grclip._fuse import fuse_parts, kind_weights, kinds_of, name_kinds
from grclip._kernels import Array, row_norms
from grclip._spread import document_spreads
from grclip._validation import (
    check_flag,
    check_matrix,
    check_qrels,
    check_values,
    check_width,
    refuse_other_encoder,
    remember_width,
)
from grclip.items import Items, SearchTask, encoder_of, parts_of, refuse_documents_as_y


class MultimodalFuser(DocLinkMixin, TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """Fuse the parts of each row into one unit vector; on request, put all kinds of documents on one scale.

    The fused vector is ``alpha * text + (1 - alpha) * rest``, L2-normalised; a part that stands alone keeps its
    direction for every alpha. With ``equalize=True`` each document vector is divided by the spread of its kind (its
    set of parts), so that scores of texts, images and both are comparable, in spreads above unrelated.

    Parameters
    ----------
    alpha : float, default=0.5
        Weight, from 0 to 1, of the parts of modality text; the others share ``1 - alpha``. Parts of one side share
        its weight equally.
    weights : dict of str to float, default=None
        A weight of 0 or more for each role instead of alpha; only the ratio among the parts that a row has counts. A
        side of a task (queries or corpus) that it names no role of keeps alpha.
    modalities : dict of str to str, default=None
        Modality (text, image, audio, video) of roles that are not known by name.
    equalize : bool, default=False
        Learn spreads in fit, and divide document vectors by them in transform. Queries keep unit length.
    random_state : int, RandomState instance or None, default=0
        Draws the rows that spreads are measured on, where there are more than 2,000 queries, or documents of a kind.
        The default gives every candidate of a grid search the same rows.

    Attributes
    ----------
    n_features_in_ : int
        Width d of the embeddings.
    spread_ : dict of frozenset of str to float
        Only with equalize: for every set of roles found together in the corpus, and every subset of it, the standard
        deviation of the dot products of fused unit documents with unit queries that they are not relevant to.
    query_roles_, document_roles_ : frozenset of str
        Roles of the queries and of the corpus, where fit saw a SearchTask; else empty.
    query_kinds_ : set of frozenset of str
        Only with equalize: the sets of parts that the queries of fit had.
    encoder_ : str or None
        Fingerprint of the encoder of the vectors that fit saw, where it was known.

    Raises
    ------
    TypeError
        For parts that are not embeddings, and for parameters of a wrong type.
    ValueError
        For alpha outside 0 to 1, weights that are negative, all zero or leave out a role, a row without any part,
        a kind of document without a spread, queries of a kind that spreads were not measured with, qrels that do not
        fit the task, or ``equalize=True`` without queries.

    Warns
    -----
    UserWarning
        For rows of zeros; for kinds with too few rows to measure a spread: they get the pooled one; and for spreads
        measured on queries of several kinds.

    See Also
    --------
    grclip.ModalityGapRemover : Goes before: parts with a gap between them do not add up.
    grclip.ExactRetriever : Goes after: ranks by dot product.

    Notes
    -----
    Items become an array of shape (n, d), a SearchTask becomes a SearchTask of arrays, and a bare 2-D array becomes
    unit rows. Parts are weighted as they come, not normalised first: a removed mean leaves them shorter, and that is
    how the source [1]_ fuses them. Spreads are our own addition: removing means leaves the similarities of a text
    query to unrelated texts about twice as widely spread as those to unrelated images, so texts still win the ranks.
    For a picture that is asked with it is the other way round: spreads belong to a kind of query, so fit a pipeline for
    each. They also belong to the alpha and weights of fit: fit again after changing these. Rank by dot product; an
    index that normalises vectors (cosine) would undo them.

    References
    ----------
    .. [1] Li et al., "Closing the Modality Gap for Mixed Modality Search", arXiv:2507.19054, 2025, Algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from grclip import Items, MultimodalFuser
    >>> documents = Items({"text": np.array([[1.0, 0.0], [np.nan, np.nan]]),
    ...                    "image": np.array([[0.0, 1.0], [0.0, 2.0]])})
    >>> MultimodalFuser(alpha=0.5).fit_transform(documents).round(3)
    array([[0.707, 0.707],
           [0.   , 1.   ]])
    """

    n_features_in_: int
    spread_: dict[frozenset[str], float]
    query_roles_: frozenset[str]
    document_roles_: frozenset[str]
    query_kinds_: set[frozenset[str]]
    encoder_: str | None

    def __init__(
        self,
        alpha: float = 0.5,
        *,
        weights: Mapping[str, float] | None = None,
        modalities: Mapping[str, str] | None = None,
        equalize: bool = False,
        random_state: Any = 0,
    ) -> None:
        self.alpha = alpha
        self.weights = weights
        self.modalities = modalities
        self.equalize = equalize
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check parameters and parts; with ``equalize=True``, learn the spread of each kind of document.

        Parameters
        ----------
        X : SearchTask, Items or array of shape (n, d)
            Embeddings, as a rule with the gap removed.
        y : list of dict, default=None
            qrels: grades by document row, one dict per query. Pairs graded above 0 are left out of the spreads, which
            are a little wide without: give them where you have them.

        Returns
        -------
        MultimodalFuser
            This instance, fitted anew.

        Raises
        ------
        TypeError, ValueError
            As said of the class; the instance is then as it was.
        """
        self._check_parameters()
        refuse_documents_as_y(y)
        if not isinstance(X, SearchTask | Items):
            x = check_matrix(self, X, reset=True)
            check_values("X", x, row_norms(x), allow_missing=False)
            self._refuse_equalize(X)
            remember_width(self, X)
            return self._remember(None)
        if isinstance(X, Items):
            self._refuse_equalize(X)
        width = check_width(self, parts_of(X), None)
        sides = (X.queries, X.corpus) if isinstance(X, SearchTask) else (X,)
        for side in sides:
            kind_weights(side.roles, **self._weighting())
        unknown = [role for role in self.weights or () if not any(role in side for side in sides)]
        if unknown:
            found = ", ".join(repr(role) for side in sides for role in side)
            raise ValueError(f"weights name {', '.join(map(repr, unknown))}, but X has the roles {found}")
        qrels = check_qrels(y, len(X.queries), len(X.corpus)) if isinstance(X, SearchTask) and y is not None else None
        learned = {}
        if self.equalize and isinstance(X, SearchTask):
            spread, kinds = document_spreads(X, qrels, random_state=self.random_state, **self._weighting())
            learned = {"spread_": spread, "query_kinds_": kinds}
        remember_width(self, X, width)
        return self._remember(X, **learned)

    def transform(self, X: Any) -> Any:
        """Fuse the parts of each row.

        Parameters
        ----------
        X : SearchTask, Items or array of shape (n, d)
            Items are taken for queries if fit saw their roles on the side of the queries, else for documents.

        Returns
        -------
        SearchTask or array of shape (n, d)
            Unit rows; with ``equalize=True`` documents have the length 1 / spread of their kind. Same library, dtype
            and device as the parts.

        Raises
        ------
        TypeError, ValueError
            As said of the class.
        """
        check_is_fitted(self)
        self._check_parameters()
        if isinstance(X, SearchTask):
            parts_of(X)
            return SearchTask(self._fuse_side(X.queries, queries=True), self._fuse_side(X.corpus, queries=False))
        if isinstance(X, Items):
            return self._fuse_side(X, queries=self._are_queries(X))
        x = check_matrix(self, X, reset=False)
        self._refuse_equalize(X)
        return fuse_parts({"": x}, np.array([[0.0], [1.0]]), np.ones(2))

    def _fuse_side(self, items: Items, *, queries: bool) -> Array:
        """The fused rows of one side."""
        refuse_other_encoder(self, self.encoder_, encoder_of(items))
        parts = parts_of(items)
        check_width(self, parts, self.n_features_in_)
        weights = kind_weights(tuple(parts), **self._weighting())
        lengths, no_length = self._lengths(tuple(parts), queries=queries)
        return fuse_parts(parts, weights, lengths, no_length=no_length)

    def _lengths(self, roles: tuple[str, ...], *, queries: bool) -> tuple[NDArray[np.float64], str]:
        """The length of fused rows of each kind, NaN where it is not known, and what to say of such rows."""
        if not self.equalize:
            return np.ones(2 ** len(roles)), ""
        if not hasattr(self, "spread_"):
            raise NotFittedError("equalize=True, but this MultimodalFuser was fitted without it: fit it again")
        kinds, asked = kinds_of(roles), name_kinds(self.query_kinds_)
        if queries:
            return np.array([1.0 if kind in self.query_kinds_ else np.nan for kind in kinds]), (
                f"spreads were measured with queries of kind {asked}, and differ for kind {{kind}}, as in {{rows}}: "
                "fit one pipeline for each kind of query"
            )
        return 1 / np.array([self.spread_.get(kind, np.nan) for kind in kinds]), (
            "no spread was learned for documents of kind {kind}, as in {rows}; fit on a corpus where these parts occur "
            f"together (queries were of kind {asked})"
        )

    def _are_queries(self, items: Items) -> bool:
        """Whether these are queries, by the roles that fit saw on either side."""
        asked = [role for role in items.roles if role in self.query_roles_]
        told = [role for role in items.roles if role in self.document_roles_]
        if asked and told:
            raise ValueError(
                f"these Items mix roles of queries ({', '.join(asked)}) and of documents ({', '.join(told)}); "
                "transform each side by itself"
            )
        return bool(asked)

    def _remember(self, X: SearchTask | Items | None, **learned: Any) -> Self:
        """Store what was fitted; what an earlier fit left and this one did not learn goes."""
        sides = (X.queries, X.corpus) if isinstance(X, SearchTask) else ((), ())
        self.query_roles_, self.document_roles_ = frozenset(sides[0]), frozenset(sides[1])
        self.encoder_ = encoder_of(X)
        for name in ("spread_", "query_kinds_"):
            if name in learned:
                setattr(self, name, learned[name])
            elif hasattr(self, name):
                delattr(self, name)
        return self

    def _weighting(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "weights": self.weights, "modalities": self.modalities}

    def _refuse_equalize(self, X: Any) -> None:
        """Spreads need kinds of documents, and queries to measure them against."""
        if self.equalize:
            raise ValueError(
                "equalize=True measures kinds of documents against queries: fit on a SearchTask of Items, transform "
                f"Items or a SearchTask; got {type(X).__name__}"
            )

    def _check_parameters(self) -> None:
        if not isinstance(self.alpha, Real) or isinstance(self.alpha, bool) or not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be a number from 0 to 1; got {self.alpha!r}")
        check_flag("equalize", self.equalize)
        for name in ("weights", "modalities"):
            given = getattr(self, name)
            if given is not None and not isinstance(given, Mapping):
                raise TypeError(f"{name} must be a dict with a value for each role; got {given!r}")
        if self.weights is None:
            return
        for role, weight in self.weights.items():
            if not isinstance(weight, Real) or isinstance(weight, bool) or not 0 <= weight <= sys.float_info.max:
                raise ValueError(f"weights[{role!r}] must be a finite number of at least 0; got {weight!r}")
        if not any(self.weights.values()):
            raise ValueError(
                f"weights have nothing above zero: {dict(self.weights)!r}; give at least one role a weight"
            )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32", "float16"]
        return tags
