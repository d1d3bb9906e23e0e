"""ExactRetriever: the k documents of largest dot product."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from grclip._doc_link import DocLinkMixin
from grclip._kernels import Array, row_norms
from grclip._topk import top_k
from grclip._validation import check_k, check_matrix, check_values, remember_width, warn_zero_rows
from grclip.items import Items, SearchTask, refuse_documents_as_y


class ExactRetriever(DocLinkMixin, BaseEstimator):
    """Find the k documents with the largest dot product by exhaustive search.

    Parameters
    ----------
    k : int, default=10
        Documents to return for each query.
    block_size : int, default=None
        Rows of the corpus that are compared at once; None chooses about 32 MB. The result does not depend on it.

    Attributes
    ----------
    corpus_ : ndarray or Tensor of shape (n_documents, d)
        What is searched: the array that fit was given, not a copy.
    n_features_in_ : int
        Width d of the embeddings.

    Raises
    ------
    ValueError
        If k is below 1 or above the size of the corpus, if a row holds NaN or inf, or if widths differ.

    Warns
    -----
    UserWarning
        For rows of zeros, which have no direction: they rank last, with similarity ``-inf``.

    See Also
    --------
    grclip.MultimodalFuser : Makes the vectors that this searches.
    grclip.metrics.retrieval_scorer : Scores a pipeline that ends in this.

    Notes
    -----
    Blocks of the corpus are scanned by a matrix product: of many queries in bfloat16 where the processor multiplies it,
    else in the precision of the corpus. Such products are not exact, and their last bits depend on the shape of the
    block. So the scan keeps more documents than k, and those that lie within the error of its scores are ordered by dot
    products summed in float64; where the error could have hidden a document from the scan, that query is scanned again
    in full precision. The ranking thus depends neither on ``block_size``, nor on the number of queries, nor on the
    processor, and equal similarities are ordered by row.

    A corpus in a memory-mapped file may be larger than memory: it is read block by block, once in fit (to check
    values), and once or, rarely, twice for each search. The corpus stays where it is; queries are moved to its device.

    Examples
    --------
    >>> import numpy as np
    >>> from grclip import ExactRetriever
    >>> retriever = ExactRetriever(k=2).fit(np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))
    >>> retriever.predict(np.array([[1.0, 0.0]]))
    array([[0, 2]])
    >>> similarities, rows = retriever.kneighbors(np.array([[0.0, 1.0]]), k=1)
    >>> similarities, rows
    (array([[1.]]), array([[1]]))
    """

    def __init__(self, k: int = 10, *, block_size: int | None = None) -> None:
        self.k = k
        self.block_size = block_size

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
        ExactRetriever
            This instance, fitted anew.

        Raises
        ------
        TypeError, ValueError
            As said of the class; the instance is then as it was.
        """
        refuse_documents_as_y(y)
        corpus = check_matrix(self, _fused(X.corpus if isinstance(X, SearchTask) else X), reset=True)
        check_k(self.k, corpus.shape[0])
        if self.block_size is not None:
            check_k(self.block_size, name="block_size")
        zero, largest = self._check_values("corpus", corpus)
        remember_width(self, corpus if isinstance(X, SearchTask) else X)
        self.corpus_, self._zero_rows, self._largest_norm = corpus, zero, largest
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
            Dot products, float64 where queries or corpus are, else float32. ``-inf`` for rows of zeros.
        rows : ndarray or Tensor of shape (n_queries, k), int64
            Rows of the corpus.

        Raises
        ------
        TypeError, ValueError
            As said of the class.
        """
        check_is_fitted(self)
        if isinstance(X, SearchTask) and X.corpus is not self.corpus_:
            searcher = ExactRetriever(self.k if k is None else k, block_size=self.block_size).fit(X)
            return searcher.kneighbors(X.queries)
        queries = check_matrix(self, _fused(X.queries if isinstance(X, SearchTask) else X), reset=False)
        k = check_k(self.k if k is None else k, self.corpus_.shape[0])
        self._check_values("queries", queries)
        similarities, rows = top_k(
            queries,
            self.corpus_,
            k,
            zero_rows=self._zero_rows,
            largest_norm=self._largest_norm,
            block_size=self.block_size,
        )
        if isinstance(queries, Tensor):
            return similarities.to(queries.device), rows.to(queries.device)
        return similarities.cpu().numpy(), rows.cpu().numpy()

    @staticmethod
    def _check_values(name: str, x: Array) -> tuple[np.ndarray, float]:
        """Rows of zeros, and the largest norm, after refusing rows that cannot be compared."""
        norms = row_norms(x)
        zero = check_values(name, x, norms, allow_missing=False)
        warn_zero_rows({name: zero})
        return zero, float(norms.max())

    def __getstate__(self) -> dict[str, Any]:
        """A pickle that loads without a GPU, and holds no more of a tensor than is searched."""
        state = super().__getstate__()
        if isinstance(state.get("corpus_"), torch.Tensor):
            state = {**state, "corpus_": state["corpus_"].to("cpu", copy=True)}
        return state


def _fused(X: Any) -> Any:
    """X, unless its parts are yet to be fused."""
    if isinstance(X, Items):
        raise TypeError("ExactRetriever compares one vector a row; got Items: fuse their parts first (MultimodalFuser)")
    return X
