"""What retrievers have in common: the corpus and the queries, checked at one door."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from grclip._doc_link import DocLinkMixin
from grclip._kernels import Array, row_norms
from grclip._validation import check_k, check_matrix, check_values, remember_width, warn_zero_rows
from grclip.items import Items, SearchTask, refuse_documents_as_y


class BaseRetriever(DocLinkMixin, BaseEstimator, ABC):
    """A search by dot product. A subclass says how a corpus is kept and asked."""

    k: int

    def fit(self, X: Any, y: Any = None) -> Self:
        """Take the corpus.

        Parameters
        ----------
        X : SearchTask of arrays, or array of shape (n_documents, d)
            The corpus, or the task whose corpus it is.
        y : None
            Ignored.

        Returns
        -------
        BaseRetriever
            This instance, fitted anew.

        Raises
        ------
        TypeError, ValueError
            As said of the class; the instance is then as it was.
        """
        refuse_documents_as_y(y)
        corpus = check_matrix(self, self._fused(X.corpus if isinstance(X, SearchTask) else X), reset=True)
        check_k(self.k, corpus.shape[0])
        self._check_parameters()
        zero, largest = self._check_values("corpus", corpus)
        learned = self._learn(corpus, zero, largest)
        remember_width(self, corpus if isinstance(X, SearchTask) else X)
        for name, value in learned.items():
            setattr(self, name, value)
        return self

    def predict(self, X: Any) -> Array:
        """Find the k nearest documents of each query, best first.

        Parameters
        ----------
        X : SearchTask of arrays, or array of shape (n_queries, d)
            Queries alone are searched in the fitted corpus. A SearchTask brings its own corpus, and that is searched.

        Returns
        -------
        ndarray or Tensor of shape (n_queries, k), int64
            Rows of the corpus. Of the library and on the device of the queries.

        Raises
        ------
        TypeError, ValueError
            As said of the class.
        """
        return self.kneighbors(X)[1]

    def kneighbors(self, X: Any, k: int | None = None) -> tuple[Array, Array]:
        """Find the k nearest documents of each query, and how near they are.

        Parameters
        ----------
        X : SearchTask of arrays, or array of shape (n_queries, d)
            Queries alone are searched in the fitted corpus. A SearchTask brings its own corpus, and that is searched.
        k : int, default=None
            Documents to return; None takes that of the retriever.

        Returns
        -------
        similarities : ndarray or Tensor of shape (n_queries, k)
            Dot products, of the dtype that the class says. ``-inf`` for rows of zeros.
        rows : ndarray or Tensor of shape (n_queries, k), int64
            Rows of the corpus.

        Raises
        ------
        TypeError, ValueError
            As said of the class.
        """
        check_is_fitted(self)
        if isinstance(X, SearchTask) and not self._holds(X.corpus):
            return clone(self).set_params(k=self.k if k is None else k).fit(X).kneighbors(X.queries)
        queries = check_matrix(self, self._fused(X.queries if isinstance(X, SearchTask) else X), reset=False)
        k = check_k(self.k if k is None else k, self._n_documents())
        zero, _ = self._check_values("queries", queries)
        similarities, rows = self._ask(queries, k, zero)
        if isinstance(queries, Tensor):
            return similarities.to(queries.device), rows.to(queries.device)
        return similarities.cpu().numpy(), rows.cpu().numpy()

    @abstractmethod
    def _learn(self, corpus: Array, zero: NDArray[np.intp], largest: float) -> dict[str, Any]:
        """Fitted attributes by name; `zero` are the rows of zeros, `largest` is the largest norm. Changes nothing."""

    @abstractmethod
    def _ask(self, queries: Array, k: int, zero: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        """Similarities and rows of k documents for each query; `zero` are the queries of zeros."""

    @abstractmethod
    def _holds(self, corpus: Array) -> bool:
        """Whether this was fitted on that corpus."""

    @abstractmethod
    def _n_documents(self) -> int:
        """Rows of the corpus, those of zeros included."""

    def _check_parameters(self) -> None:
        """Refuse parameters of the subclass."""

    def _check_values(self, name: str, x: Array) -> tuple[NDArray[np.intp], float]:
        """Rows of zeros, and the largest norm, after refusing rows that cannot be compared."""
        norms = row_norms(x)
        zero = check_values(name, x, norms, allow_missing=False)
        self._check_norms(name, norms, zero)
        warn_zero_rows({name: zero})
        return zero, float(norms.max())

    def _check_norms(self, name: str, norms: Tensor, zero: NDArray[np.intp]) -> None:
        """Refuse rows that the subclass cannot compute with, by their norms; `zero` are those of zeros."""

    def _fused(self, X: Any) -> Any:
        """X, unless its parts are yet to be fused."""
        if isinstance(X, Items):
            raise TypeError(
                f"{type(self).__name__} compares one vector a row; got Items: fuse their parts first (MultimodalFuser)"
            )
        return X
