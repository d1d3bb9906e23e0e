"""MultimodalFuser: one vector for each document, and one scale for all kinds of documents. MultimodalFuserCV: alpha."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import check_cv
from sklearn.utils.validation import check_is_fitted

from grclip._alpha_cv import cross_validate_alpha
from grclip._doc_link import DocLinkMixin
from grclip._fuse import fuse_parts, kind_weights, kinds_of, name_kinds
from grclip._kernels import Array, row_norms
from grclip._measures import Measure, check_measure
from grclip._spread import document_spreads
from grclip._validation import (
    check_flag,
    check_k,
    check_matrix,
    check_qrels,
    check_values,
    check_width,
    refuse_other_encoder,
    remember_width,
    warn,
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
    weighting_ : dict of str to float or dict
        Only with equalize: alpha, weights and modalities that spreads were measured with.
    encoder_ : str or None
        Fingerprint of the encoder of the vectors that fit saw, where it was known.

    Raises
    ------
    TypeError
        For parts that are not embeddings, and for parameters of a wrong type.
    ValueError
        For alpha outside 0 to 1, weights that are negative, all zero or leave out a role, a row without any part,
        a kind of document without a spread, queries of a kind that spreads were not measured with, weights that were
        changed since, qrels that do not fit the task, or ``equalize=True`` without queries.

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
    each. They also belong to the alpha and weights of fit, and changing these afterwards is an error. Rank by dot
    product; an index that normalises vectors (cosine) would undo them.

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
    weighting_: dict[str, Any]
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
        unknown = [role for role in self._weighting()["weights"] or () if not any(role in side for side in sides)]
        if unknown:
            found = ", ".join(repr(role) for side in sides for role in side)
            raise ValueError(f"weights name {', '.join(map(repr, unknown))}, but X has the roles {found}")
        qrels = check_qrels(y, len(X.queries), len(X.corpus)) if isinstance(X, SearchTask) and y is not None else None
        learned = {}
        if self.equalize and isinstance(X, SearchTask):
            spread, kinds = document_spreads(X, qrels, random_state=self.random_state, **self._weighting())
            learned = {"spread_": spread, "query_kinds_": kinds, "weighting_": self._weighted_by()}
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
        self._check_spreads()
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
        for name in ("spread_", "query_kinds_", "weighting_"):
            if name in learned:
                setattr(self, name, learned[name])
            elif hasattr(self, name):
                delattr(self, name)
        return self

    def _weighting(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "weights": self.weights, "modalities": self.modalities}

    def _weighted_by(self) -> dict[str, Any]:
        """How parts are weighted, in a form to keep and to compare."""
        given = self._weighting()
        weights = {role: float(weight) for role, weight in (given["weights"] or {}).items()}
        return {"alpha": float(given["alpha"]), "weights": weights, "modalities": dict(given["modalities"] or {})}

    def _check_spreads(self) -> None:
        """Spreads are to be known, and those of the fused vectors that are made now."""
        if not hasattr(self, "spread_"):
            name = type(self).__name__
            raise NotFittedError(f"equalize=True, but this {name} was fitted without it: fit it again")
        now = self._weighted_by()
        changed = [
            f"{name} was {was!r} and is {now[name]!r}" for name, was in self.weighting_.items() if was != now[name]
        ]
        if changed:
            raise ValueError(
                f"spreads belong to the weights that they were measured with: {', '.join(changed)}; fit again"
            )

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
        self._check_options("weights", "modalities")
        if self.weights is None:
            return
        for role, weight in self.weights.items():
            if not isinstance(weight, Real) or isinstance(weight, bool) or not 0 <= weight <= sys.float_info.max:
                raise ValueError(f"weights[{role!r}] must be a finite number of at least 0; got {weight!r}")
        if not any(self.weights.values()):
            raise ValueError(
                f"weights have nothing above zero: {dict(self.weights)!r}; give at least one role a weight"
            )

    def _check_options(self, *by_role: str) -> None:
        check_flag("equalize", self.equalize)
        for name in by_role:
            given = getattr(self, name)
            if given is not None and not isinstance(given, Mapping):
                raise TypeError(f"{name} must be a dict with a value for each role; got {given!r}")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32", "float16"]
        return tags


class MultimodalFuserCV(MultimodalFuser, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """A fuser that chooses its alpha by cross-validation.

    All alphas are scored at once, with the scores that `GridSearchCV` finds over a `MultimodalFuser` followed by an
    `ExactRetriever`, in a small part of the time. Afterwards it is a fuser of the best alpha, fitted on all queries.

    Parameters
    ----------
    alphas : int or array-like of shape (n_alphas,), default=101
        Values from 0 to 1 to choose from, or how many of them, evenly spaced.
    k : int, default=10
        Ranks that count, where scoring is the name of a metric; a scorer brings its own.
    cv : int, cross-validation generator or iterable, default=5
        How queries are divided: a number of folds without shuffling, a splitter of scikit-learn's, or pairs of
        training and test rows. The corpus stays whole. Splits by groups, such as paraphrases of one question that
        should stay together, come as pairs: ``list(GroupKFold(5).split(task, groups=groups))``.
    scoring : str or scorer, default="ndcg"
        A metric (``"ndcg"``, ``"recall"`` or ``"reciprocal_rank"``), or what `retrieval_scorer` returns.
    modalities : dict of str to str, default=None
        As in `MultimodalFuser`.
    equalize : bool, default=False
        As in `MultimodalFuser`. Test queries are scored with the spreads of the training queries.
    random_state : int, RandomState instance or None, default=0
        As in `MultimodalFuser`.

    Attributes
    ----------
    alpha_ : float
        The best alpha: the first that reached the highest mean score, as in `GridSearchCV`.
    best_score_ : float
        Its mean score over the test splits.
    cv_results_ : dict of str to array
        In the form of `GridSearchCV`, without times: ``params``, ``param_alpha``, ``split0_test_score``, ...,
        ``mean_test_score``, ``std_test_score`` and ``rank_test_score``, an entry for each of `alphas` in their order.
    n_features_in_, spread_, query_roles_, document_roles_, query_kinds_, weighting_, encoder_
        As in `MultimodalFuser`.

    Raises
    ------
    TypeError
        If X is not a SearchTask of Items, there are no qrels, or a parameter has a wrong type.
    ValueError
        For alphas outside 0 to 1, an unknown metric, k below 1, queries without relevant documents (unless the scorer
        says what they are), and whatever `MultimodalFuser` refuses. Where `GridSearchCV` would note NaN as the score
        of a split that failed, this raises.

    Warns
    -----
    UserWarning
        As `MultimodalFuser`, once for the fit on all queries; and if other alphas score as the best one, which leaves
        out the texts of documents (or queries) of several parts, or all but these.

    See Also
    --------
    MultimodalFuser : Fuses with an alpha, or weights, that are given.
    grclip.metrics.retrieval_scorer : For other options of a metric.
    grclip.diagnostics.alpha_curve : How much alpha matters, over repeated draws.

    Notes
    -----
    Before they are normalised, fused vectors are linear in alpha, and their squared length is quadratic, so dot
    products of queries with the texts and with the other parts, and each document's own inner products, give the
    similarities for all alphas. A metric needs the ranks of relevant documents alone: the documents that score higher
    are counted. What rounding could decide is compared in fused vectors, as the retriever compares, so that equal
    documents, too, rank as they will be found. Without `equalize` nothing is learned from training queries, and the
    folds only show how scores vary. With it, spreads are those of a grid search to some 14 digits; with float64
    embeddings that can show in the order of documents that lie in one direction and are no copies of one another.
    Parts of queries are fused by the same alpha.

    In a pipeline after `ModalityGapRemover` the folds divide queries that are centred already, by the mean of all of
    them, where `GridSearchCV` over the pipeline would learn it from the training queries of each fold. For a score on
    queries that had no part in either, use `cross_val_score` on the pipeline.

    Examples
    --------
    >>> import numpy as np
    >>> from grclip import Items, MultimodalFuserCV, SearchTask
    >>> rng = np.random.default_rng(0)
    >>> topics = rng.normal(size=(100, 8))
    >>> text, image = topics + rng.normal(size=(100, 8)), topics + 2 * rng.normal(size=(100, 8))
    >>> task = SearchTask(Items({"query": topics}), Items({"text": text, "image": image}))
    >>> fuser = MultimodalFuserCV(alphas=11).fit(task, [{i: 1} for i in range(100)])
    >>> fuser.alpha_, round(fuser.best_score_, 3)
    (0.8, 0.705)
    """

    alpha_: float
    best_score_: float
    cv_results_: dict[str, Any]

    def __init__(
        self,
        alphas: Any = 101,
        *,
        k: int = 10,
        cv: Any = 5,
        scoring: Any = "ndcg",
        modalities: Mapping[str, str] | None = None,
        equalize: bool = False,
        random_state: Any = 0,
    ) -> None:
        self.alphas = alphas
        self.k = k
        self.cv = cv
        self.scoring = scoring
        self.modalities = modalities
        self.equalize = equalize
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Score all alphas, and fit a fuser of the best one on the whole task.

        Parameters
        ----------
        X : SearchTask
            Embeddings of queries and corpus, as a rule with the gap removed.
        y : list of dict
            qrels: grades by document row, one dict per query.

        Returns
        -------
        MultimodalFuserCV
            This instance, fitted anew.

        Raises
        ------
        TypeError, ValueError
            As said of the class; the instance is then as it was.
        """
        self._check_parameters()
        alphas, measure = self._values(), self._measure()
        refuse_documents_as_y(y)
        if not isinstance(X, SearchTask):
            raise TypeError(
                f"alpha is chosen by searches: X must be a SearchTask of Items, and y its qrels; got {type(X).__name__}"
            )
        check_width(self, parts_of(X), None)
        if y is None:
            raise TypeError("alpha is chosen by the scores of searches: give qrels as y, fit(task, qrels)")
        qrels = check_qrels(y, len(X.queries), len(X.corpus))
        options: dict[str, Any] = {"modalities": self.modalities, "equalize": self.equalize}
        folds = self._folds(X, y)
        results = cross_validate_alpha(X, qrels, folds, alphas, measure, random_state=self.random_state, **options)
        best = int(results["rank_test_score"].argmin())
        _warn_of_ties(X, alphas, results["mean_test_score"], best)
        fuser = MultimodalFuser(float(alphas[best]), random_state=copy.deepcopy(self.random_state), **options).fit(X, y)
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)
        for name, value in vars(fuser).items():
            if name.endswith("_"):
                setattr(self, name, value)
        self.alpha_, self.best_score_ = fuser.alpha, float(results["mean_test_score"][best])
        self.cv_results_ = results
        return self

    def _folds(self, X: SearchTask, y: Any) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Rows of training and test queries of each split."""
        rows = np.arange(len(X))
        try:
            folds = [(rows[train], rows[test]) for train, test in check_cv(self.cv).split(X, y)]
        except (IndexError, TypeError, ValueError) as error:
            raise ValueError(
                f"cv={self.cv!r} does not divide {len(X)} queries: {error} Where a splitter needs groups or classes, "
                "give cv the list of its splits, e.g. list(GroupKFold(5).split(task, groups=groups))"
            ) from error
        if not folds:
            raise ValueError(f"cv={self.cv!r} makes no split of the queries (an iterator makes them only once)")
        for i, pair in enumerate(folds):
            if any(part.ndim != 1 or not len(part) for part in pair):
                shapes = " and ".join(str(part.shape) for part in pair)
                raise ValueError(
                    f"split {i} of cv has training and test rows of shapes {shapes}; expected some of each"
                )
        return folds

    def _measure(self) -> Measure:
        """The metric to score by, with its options."""
        k = check_k(self.k)
        if isinstance(self.scoring, Measure):
            return self.scoring
        if not isinstance(self.scoring, str):
            raise TypeError(
                f"scoring must be the name of a metric or made by retrieval_scorer; got {self.scoring!r}: GridSearchCV "
                "over a MultimodalFuser takes any scorer"
            )
        return Measure(*check_measure(self.scoring, k, {}, "scoring"), {})

    def _values(self) -> NDArray[np.float64]:
        """The alphas to choose from."""
        if isinstance(self.alphas, Integral) and not isinstance(self.alphas, bool):
            if self.alphas < 2:
                raise ValueError(f"alphas={self.alphas} is too few to choose from: at least 2, or a list of values")
            return np.linspace(0, 1, int(self.alphas))
        try:
            values = np.asarray(self.alphas)
        except ValueError:  # lists within the list, of unequal lengths
            values = np.empty(0)
        is_list = values.ndim == 1 and len(values) and values.dtype.kind in "iuf"
        if not is_list or not ((values >= 0) & (values <= 1)).all():
            raise ValueError(f"alphas must be a list of numbers from 0 to 1, or how many of them; got {self.alphas!r}")
        return values.astype(np.float64)

    def _weighting(self) -> dict[str, Any]:
        return {"alpha": self.alpha_, "weights": None, "modalities": self.modalities}

    def _check_parameters(self) -> None:
        self._check_options("modalities")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.target_tags.required = True
        return tags


def _warn_of_ties(task: SearchTask, alphas: NDArray[np.float64], means: NDArray[np.float64], best: int) -> None:
    """Where other alphas do as well as one that leaves out parts, nothing has shown that these are of no use."""
    tied = np.unique(alphas[means == means[best]])
    if len(tied) == 1 or alphas[best] not in (0, 1):
        return
    if any("+" in kind for side in (task.queries, task.corpus) for kind in np.unique(side.kinds)):
        left_out = "the texts" if alphas[best] == 0 else "all but the texts"
        warn(
            f"{len(tied)} alphas, from {tied[0]:g} to {tied[-1]:g}, reach the highest score, {means[best]:.3f}, and "
            f"alpha_={alphas[best]:g}, the first, leaves out {left_out} of what has several parts; give alphas between "
            "0 and 1, or queries that tell alphas apart"
        )
