"""ExactRetriever: the k documents of largest dot product."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grclip._kernels import Array
from grclip._retriever import BaseRetriever
from grclip._topk import top_k
from grclip._validation import check_k


class ExactRetriever(BaseRetriever):
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
    grclip.scale.faiss.FaissRetriever : Searches larger collections approximately.

    Notes
    -----
    Similarities are float64 where queries or corpus are, else float32.

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

    def _check_parameters(self) -> None:
        if self.block_size is not None:
            check_k(self.block_size, name="block_size")

    def _learn(self, corpus: Array, zero: NDArray[np.intp], largest: float) -> dict[str, Any]:
        return {"corpus_": corpus, "_zero_rows": zero, "_largest_norm": largest}

    def _ask(self, queries: Array, k: int, zero: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        known: dict[str, Any] = {"zero_rows": self._zero_rows, "largest_norm": self._largest_norm}
        return top_k(queries, self.corpus_, k, block_size=self.block_size, **known)

    def _holds(self, corpus: Array) -> bool:
        return corpus is self.corpus_

    def _n_documents(self) -> int:
        return int(self.corpus_.shape[0])

    def __getstate__(self) -> dict[str, Any]:
        """A pickle that loads without a GPU, and holds no more of a tensor than is searched."""
        state = super().__getstate__()
        if isinstance(state.get("corpus_"), torch.Tensor):
            state = {**state, "corpus_": state["corpus_"].to("cpu", copy=True)}
        return state
