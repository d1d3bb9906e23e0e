"""FaissRetriever: search by inner product in an index of Faiss, exact or approximate."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from torch import Tensor

from grclip._kernels import Array, as_tensor, norm_limits, row_blocks
from grclip._optional import optional_import
from grclip._retriever import BaseRetriever
from grclip._validation import check_k, few, warn

__all__ = ["FaissRetriever"]

_DEGENERATE = re.compile(r"(?:IVF|PCA[RW]*|RR|HNSW)0+(?!\d)|HNSW0*1(?!\d)")
_REFUSED = {
    "L2norm": "normalises vectors, whose length may carry the scale of their kind: leave L2norm out",
    "IDMap": "numbers documents by ids that are given to it, and here rows are the ids: leave IDMap out",
    "_direct": "takes numbers for whole ones of a byte, which embeddings are not: choose SQ8",
    "PCAW": "divides directions by their spread, and so does not rank by inner product: choose OPQ or PCA",
    "ITQ": "subtracts means and normalises, and so does not rank by inner product: choose OPQ or PCA",
    "LSH": "compares signs, and does not rank by inner product: choose SQ4 or PQ",
    "NSG": "builds a graph that may never be finished where inner products rank: choose HNSW",
}
_MANY = 2**31  # parameters of Faiss are ints
_BLOCK = 2**14  # rows handed to Faiss at once: 32 MB of 512 float32


class FaissRetriever(BaseRetriever):
    """Find k documents with large dot products in an index of Faiss.

    Stands where `ExactRetriever` stands. Which documents are found depends on the index: ``"Flat"`` compares all of
    them; inverted lists and graphs look at a part, and so do not always find the nearest.

    Parameters
    ----------
    k : int, default=10
        Documents to return for each query.
    index_factory : str, default="Flat"
        The index, as ``faiss.index_factory`` describes it: ``"Flat"``, ``"IVF1024,Flat"``, ``"HNSW32"``,
        ``"OPQ64,IVF4096,PQ64np"``, ... It always ranks by inner product. Refused are those that cannot
        (``LSH``, ``IMI``, ``PCAW``, ``ITQ``, graphs of compressed vectors), ``NSG``, ``IDMap``, ``L2norm`` and
        ``SQ8_direct``. ``PQ64np`` leaves out an ordering of codes that takes most of the training of ``PQ64``, and
        finds the same.
    search_parameters : dict of str to number, default=None
        What a search may spend: ``{"nprobe": 16}`` for inverted lists, ``{"efSearch": 128}`` for graphs, or any other
        name that ``faiss.ParameterSpace`` knows. They can be changed after fit (`set_params`); one that is left out
        then keeps its last value until the next fit.
    training_size : int, default=100000
        Rows that an index is trained on at most, where it needs training; drawn without replacement. Faiss asks for 39
        rows an inverted list, and itself takes no more than 256.
    random_state : int, RandomState instance or None, default=0
        Draws these rows.

    Attributes
    ----------
    index_ : faiss.Index
        The index, which holds a copy of the documents as it encodes them, without rows of zeros.
    n_features_in_ : int
        Width d of the embeddings.

    Raises
    ------
    ModuleNotFoundError
        If Faiss is not installed: the extra ``faiss`` brings it.
    TypeError, ValueError
        As `ExactRetriever`; and for an index that Faiss does not know, cannot make of so few rows or so wide ones, that
        does not rank by inner product, or may never be finished (``NSG``), for search parameters that the index does
        not have, and for numbers too large or too small for float32.
    MemoryError
        If Faiss cannot have the memory for an index.

    Warns
    -----
    UserWarning
        For rows of zeros, which have no direction: they rank last, with similarity ``-inf``; and for an index that is
        trained on fewer rows than Faiss asks for.

    See Also
    --------
    grclip.ExactRetriever : Compares all documents, and knows no other order than the right one.

    Notes
    -----
    Faiss computes in float32, whatever it is given, and similarities are float32; those of an index that compresses
    (PQ, SQ) are approximate themselves. Equal ones are ordered by row; which of them take the last places, where not
    all have room, Faiss decides. So ``"Flat"`` finds what `ExactRetriever` finds, but for documents whose similarities
    differ by less than float32 can tell, or not at all.

    ``PCA64`` keeps 64 directions, and does not subtract the mean of the documents, as Faiss alone would do: with it,
    documents would be ranked by something else than their inner product with the query.

    An index that looks at a part of the documents may find fewer than k. Places for which it found nothing come last,
    hold row -1, and have similarity ``-inf``; the metrics of `grclip.metrics` take -1 for no document.

    The inner product is right for all vectors that this package makes. With ``equalize=True`` document vectors have
    the length 1 / spread of their kind, which is what puts kinds on one scale: an index that ranks by cosine, or
    normalises (``"L2norm"``, which is refused), undoes it.

    Faiss uses as many threads as torch does here, if it may use as many. Inverted lists and codes are the same at every
    fit; a graph that several threads build may differ from fit to fit. A SearchTask with another corpus than that of
    fit has an index built for it at each call. A hash of the values, for which they are read once, tells whether it is
    another: one changed in place since is, and a copy is not. Queries alone are searched in the index as it was built.
    Pickles hold the index as ``faiss.serialize_index`` writes it, and need Faiss to be loaded.

    Examples
    --------
    >>> import numpy as np
    >>> from grclip.scale.faiss import FaissRetriever
    >>> rng = np.random.default_rng(0)
    >>> documents = rng.normal(size=(1000, 16)).astype(np.float32)
    >>> documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    >>> retriever = FaissRetriever(k=3, index_factory="IVF16,Flat", search_parameters={"nprobe": 4}).fit(documents)
    >>> retriever.predict(documents[:2])[:, 0]
    array([0, 1])
    """

    def __init__(
        self,
        k: int = 10,
        *,
        index_factory: str = "Flat",
        search_parameters: Mapping[str, float] | None = None,
        training_size: int = 100_000,
        random_state: Any = 0,
    ) -> None:
        self.k = k
        self.index_factory = index_factory
        self.search_parameters = search_parameters
        self.training_size = training_size
        self.random_state = random_state

    def _check_parameters(self) -> None:
        if not isinstance(self.index_factory, str):
            raise TypeError(
                f"index_factory must be a str such as 'Flat' or 'HNSW32'; got {self.index_factory!r} (an index that "
                "holds raw vectors already is asked through grclip.retrofit.retrofit_search)"
            )
        for part, why in _REFUSED.items():
            if part in self.index_factory:
                raise ValueError(f"index_factory={self.index_factory!r} {why}")
        if found := _DEGENERATE.search(self.index_factory):
            raise ValueError(
                f"index_factory={self.index_factory!r} asks for {found.group()}, which finds nothing or ends the "
                "process: inverted lists and components start from 1, links of a graph from 2"
            )
        check_k(self.training_size, name="training_size")
        self._parameters()

    def _parameters(self) -> dict[str, float]:
        """The search parameters, checked as far as that goes without an index."""
        given = {} if self.search_parameters is None else self.search_parameters
        if not isinstance(given, Mapping):
            raise TypeError(f"search_parameters must be a dict such as {{'nprobe': 16}}; got {given!r}")
        for name, value in given.items():
            if not isinstance(name, str):
                raise TypeError(f"search_parameters are by name, a str such as 'nprobe'; got {name!r}")
            whole = not name.endswith("k_factor_rf")  # the one ratio that Faiss knows
            number = isinstance(value, Real) and not isinstance(value, bool)
            if not number or not 1 <= value < _MANY or (whole and value % 1):
                what = "whole number" if whole else "number"
                raise ValueError(f"search_parameters[{name!r}] must be a {what} from 1 to 2**31 - 1; got {value!r}")
        return dict(given)

    def _learn(self, corpus: Array, zero: NDArray[np.intp], largest: float) -> dict[str, Any]:
        there = np.ones(corpus.shape[0], dtype=bool)
        there[zero] = False
        kept = np.flatnonzero(there) if len(zero) else None
        library = _faiss()
        with _threads(library), self._errors(corpus):
            index = library.index_factory(int(corpus.shape[1]), self.index_factory, library.METRIC_INNER_PRODUCT)
        if index.metric_type != library.METRIC_INNER_PRODUCT:
            raise ValueError(
                f"index_factory={self.index_factory!r} does not rank by inner product: choose another index"
            )
        self._set(library, index)
        values = hashlib.sha256()
        with _threads(library), self._errors(corpus):
            if not index.is_trained and there.any():
                drawn = self._sample(corpus, kept)
                self._warn_of_few(list(_clusterings(library, index)), len(drawn), corpus.shape[0])
                rows = _float32(corpus, drawn)
                _train_components(library, index, rows)
                index.train(rows)
            _make_room(library, index, int(there.sum()))
            for place, block in _hashed(corpus, values):
                if there[place].any():
                    index.add(block if there[place].all() else block[there[place]])
        return {"index_": index, "_kept": kept, "_zero_rows": zero, "_content": (*_outside(corpus), values.hexdigest())}

    @contextmanager
    def _errors(self, corpus: Array) -> Iterator[None]:
        """Errors of Faiss as errors of the argument that they are about."""
        given = f"index_factory={self.index_factory!r} makes no index of {corpus.shape[0]} rows of {corpus.shape[1]} "
        try:
            yield
        except RuntimeError as error:
            said = str(error).rpartition(": ")[2] if "failed: " in str(error) else str(error).rpartition("cpp:")[2]
            said = re.sub(r"^\d+: ", "", said.strip())
            few_rows = "training points" in said and self.training_size < corpus.shape[0]
            hint = f"; it was given training_size={self.training_size} of them" if few_rows else ""
            raise ValueError(f"{given}numbers; Faiss says: {said}{hint}") from error
        except MemoryError as error:
            raise MemoryError(f"{given}numbers, which takes more memory than there is; choose a smaller one") from error

    def _sample(self, corpus: Array, kept: NDArray[np.intp] | None) -> NDArray[np.intp]:
        """The rows to train on."""
        rows = np.arange(corpus.shape[0]) if kept is None else kept
        if len(rows) <= self.training_size:
            return rows
        drawn = check_random_state(self.random_state).choice(len(rows), self.training_size, replace=False)
        return rows[np.sort(drawn)]

    def _warn_of_few(self, clusterings: list[tuple[Any, int]], n: int, n_documents: int) -> None:
        """Say once what Faiss prints for each of its clusterings, of which codes have dozens; OPQ goes on printing."""
        least = max((n_centroids for _, n_centroids in clusterings), default=0)  # with fewer, Faiss raises
        asked = max((n_centroids * x.min_points_per_centroid for x, n_centroids in clusterings), default=0)
        for parameters, _ in clusterings:
            parameters.min_points_per_centroid = 1  # which decides nothing but what is printed
        if least <= n < asked:
            more = "raise training_size" if self.training_size < n_documents else "index more documents"
            warn(
                f"few rows to train an index on: index_factory={self.index_factory!r} asks for {asked}, and gets {n}; "
                f"what it finds may be poor: choose fewer lists or shorter codes (such as PQ16x4), or {more}"
            )

    def _set(self, library: Any, index: Any) -> None:
        """Give the index its search parameters."""
        for name, value in self._parameters().items():
            try:
                library.ParameterSpace().set_index_parameter(index, name, float(value))
            except RuntimeError as error:
                raise ValueError(
                    f"search_parameters name {name!r}, which the index {self.index_factory!r} does not have; inverted "
                    "lists have 'nprobe', graphs 'efSearch'"
                ) from error

    def _ask(self, queries: Array, k: int, zero: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        library = _faiss()
        self._set(library, self.index_)
        n, found = queries.shape[0], min(k, int(self.index_.ntotal))
        similarities, rows = np.full((n, k), -np.inf, np.float32), np.full((n, k), -1, np.int64)
        if found:
            with _threads(library):
                for some in row_blocks(queries, _BLOCK):
                    similarities[some, :found], rows[some, :found] = self.index_.search(_float32(queries, some), found)
        similarities[rows < 0] = -np.inf
        similarities[zero, :found], rows[zero, :found] = 0, np.arange(found)  # all documents are alike to these
        if self._kept is not None and found:
            rows = np.where(rows < 0, -1, self._kept[rows])
        rows[:, found:] = self._zero_rows[: k - found]
        last = np.where(rows < 0, self._n_documents(), rows)  # what was not found comes after rows of zeros
        order = np.lexsort((last, -similarities), axis=1)
        first, then = (torch.from_numpy(np.take_along_axis(x, order, axis=1)) for x in (similarities, rows))
        return first, then

    def _holds(self, corpus: Array) -> bool:
        if not isinstance(corpus, np.ndarray | Tensor) or self._content[:-1] != _outside(corpus):
            return False
        values = hashlib.sha256()
        for _ in _hashed(corpus, values):
            pass
        return bool(self._content[-1] == values.hexdigest())

    def _n_documents(self) -> int:
        return int(self.index_.ntotal) + len(self._zero_rows)

    def _check_norms(self, name: str, norms: Tensor, zero: NDArray[np.intp]) -> None:
        smallest, most = norm_limits(torch.float32)
        if float(norms.max()) > most:
            raise ValueError(f"{name} holds numbers too large for float32, in which Faiss computes; scale them down")
        short = np.setdiff1d(np.flatnonzero(norms.cpu().numpy() < smallest), zero)
        if len(short):
            raise ValueError(
                f"{name}: numbers too small for float32, in which Faiss computes, in {few(short)}; scale them up"
            )

    def __getstate__(self) -> dict[str, Any]:
        """The state to pickle: the index as Faiss writes it."""
        state = super().__getstate__()
        if "index_" in state:
            state = {**state, "index_": _faiss().serialize_index(self.index_)}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "index_" in state:
            state = {**state, "index_": _faiss().deserialize_index(state["index_"])}
        super().__setstate__(state)


def _faiss() -> Any:
    """Faiss, whose wrapper warns of itself where Python is new."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return optional_import("faiss", "faiss", "FaissRetriever")


@contextmanager
def _threads(library: Any) -> Iterator[None]:
    """Faiss with no more threads than torch may use; it has a setting of its own."""
    before = library.omp_get_max_threads()
    library.omp_set_num_threads(min(before, torch.get_num_threads()))
    try:
        yield
    finally:
        library.omp_set_num_threads(before)


def _clusterings(library: Any, index: Any) -> Iterator[tuple[Any, int]]:
    """The parameters of each clustering that training an index takes, and its number of centroids."""
    index = library.downcast_index(index)
    if hasattr(index, "cp"):
        yield index.cp, index.nlist
    if hasattr(index, "pq"):
        yield index.pq.cp, index.pq.ksub
    if hasattr(index, "rq"):
        yield index.rq.cp, 1 << index.rq.nbits.at(0)
    for name in ("index", "base_index", "quantizer"):
        if getattr(index, name, None) is not None:
            yield from _clusterings(library, getattr(index, name))


def _train_components(library: Any, index: Any, rows: NDArray[np.float32]) -> None:
    """Train what rotates and shortens vectors, as training the index would, but for the mean that PCA subtracts.

    It would take it from queries too, and <q - m, d - m> ranks documents otherwise than <q, d>.
    """
    index = library.downcast_index(getattr(index, "base_index", index))
    if not isinstance(index, library.IndexPreTransform):
        return
    for i in range(index.chain.size()):
        step = library.downcast_VectorTransform(index.chain.at(i))
        if not step.is_trained:
            step.train(rows)
        if isinstance(step, library.PCAMatrix):
            step.have_bias = False
        rows = step.apply(rows)


def _outside(corpus: Array) -> tuple[Any, ...]:
    """What tells corpora apart without a look at their values."""
    return tuple(corpus.shape), str(corpus.dtype)


def _hashed(corpus: Array, values: Any) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Rows as Faiss takes them, some at a time, each of which goes into the hash of all values."""
    for rows in row_blocks(corpus, _BLOCK):
        block = _float32(corpus, rows)
        values.update(block.data)
        yield rows, block


def _make_room(library: Any, index: Any, n: int) -> None:
    """Memory for n rows, where they lie in one piece: growing by blocks, it would be doubled, and held twice."""
    holder = library.downcast_index(index.storage) if isinstance(index, library.IndexHNSW) else index
    if isinstance(holder, library.IndexFlatCodes):
        holder.codes.resize(n * holder.code_size)
        holder.codes.resize(0)  # which gives none back


def _float32(x: Array, rows: Any) -> NDArray[np.float32]:
    """Some rows as Faiss takes them."""
    if isinstance(x, Tensor) and isinstance(rows, np.ndarray):
        rows = torch.from_numpy(rows).to(x.device)
    return np.ascontiguousarray(as_tensor(x[rows]).to("cpu", torch.float32).numpy())
