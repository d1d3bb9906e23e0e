"""QdrantRetriever: the k documents of largest dot product, found by a Qdrant collection."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from itertools import chain
from math import inf
from numbers import Real
from threading import Lock
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from torch import Tensor

from grclip._doc_link import DocLinkMixin
from grclip._kernels import Array, row_norms
from grclip._validation import check_flag, check_k, check_matrix, check_values, few, remember_width, warn_zero_rows
from grclip.items import Items, SearchTask, encoder_of, refuse_documents_as_y
from grclip.pipelines import encoder_fingerprint, pipeline_fingerprint
from grclip.scale._qdrant_arrays import check_fused, fuser_of, warn_of_documents
from grclip.scale._qdrant_collection import Collection, nothing_there
from grclip.scale._qdrant_points import as_filter, as_rows, names_of, payloads, point_id, point_ids
from grclip.scale._qdrant_server import Fingerprints, is_there, make_client, qdrant

_BLOCK = 2**15  # documents that the pipeline takes at once
_SAMPLE = 16  # documents of a task that are compared with those of the collection
_MAKING = Lock()  # threads that search first share one client: a folder opens once
_OURS = {"collection_name", "vectors_config", "metadata"}  # arguments of create_collection


class QdrantRetriever(DocLinkMixin, BaseEstimator):
    """Find the k documents with the largest dot product in a Qdrant collection: in this process, or on a server.

    Parameters
    ----------
    client_or_url : str, path-like or QdrantClient, default=":memory:"
        A folder, which one process at a time can open, or ``":memory:"``: embedded, for some 20,000 documents. A URL
        (``"http://..."``): a server or cluster. A client of your own, for API keys, gRPC and the like.
    collection : str, default="grclip"
        Name of the collection; created at the first fit or add where there is none.
    pipeline : Pipeline, ModalityGapRemover or MultimodalFuser, default=None
        Fitted, and ending in a fuser: what makes vectors of the Items that come in, and whose fingerprint the
        collection keeps. Embeddings come in as Items: an array is taken as already fused by this pipeline; see Notes.
    k : int, default=10
        Documents to return for each query.
    exact : bool, default=False
        Whether a server compares all documents, and does not ask its approximate index. Embedded search is exact.
    batch_size : int, default=256
        Documents in one request; fewer where these would be more than 16 MB, as a server takes 32.
    retries : int, default=6
        How often a request is repeated while the server is away: no connection, no answer in time (or a 408), a 5xx, or
        a 429; and what gRPC has in their place.
    backoff : float, default=0.5
        Seconds before the first repetition; each further one waits twice as long, or as long as the server says.
    timeout : int, default=60
        Seconds that a server, given by URL, has for an answer; read when the client is made, at first use.
    progress : bool, default=False
        Whether to show a progress bar while documents are stored.
    options : dict, default=None
        For `QdrantClient.create_collection`: `hnsw_config`, `quantization_config`, `shard_number`, ...

    Attributes
    ----------
    n_features_in_ : int
        Width d of the vectors; set by fit and add.

    Raises
    ------
    ModuleNotFoundError
        If qdrant-client is not installed (extra ``qdrant``).
    TypeError
        If Items come in and there is no pipeline, or one that ends in no fuser.
    ValueError
        If the collection has another distance than dot product or another width, or was written with another encoder
        or calibrator; if rows of an array have a width or length that ``pipeline`` gives to none; if a row holds NaN
        or inf, or a document is a row of zeros; if k is below 1 or, without a filter, above the number of documents;
        or if a folder is not one of Qdrant that can be opened.
    NotFittedError
        If there is no collection to search.
    ConnectionError
        If the server stays away; while documents are stored, with how many are there.
    RuntimeError
        If the server is older than 1.16, or the folder is open elsewhere, in this process or another: `close` it.

    Warns
    -----
    UserWarning
        For arrays along a mean that ``pipeline`` subtracts, as raw embeddings are; for queries of zeros, which find all
        documents alike; for Items as queries that have roles of documents; and by the client, from 20,000 embedded
        documents on.

    See Also
    --------
    grclip.ExactRetriever : Searches arrays in memory, and is what this is measured by.
    grclip.save_pipeline : Keeps a pipeline for the process that searches.

    Notes
    -----
    **What comes in.** Alone, the retriever takes encoded Items and sends them through ``pipeline``. As the last step of
    a scikit-learn Pipeline it takes the arrays that the steps before have fused, as ExactRetriever does. An array does
    not know what made it. With ``pipeline`` given as well it is taken to be fused by exactly this pipeline, whose
    fingerprint the collection keeps; without, the calibrator is noted as unknown, and such a collection and one that
    knows its calibrator do not mix. Raw embeddings are no such array. They are refused where their lengths tell: fused
    documents have the length 1 / spread of a kind with ``equalize=True``, else 1. Raw unit rows among the latter, or as
    queries, are told by their directions alone, for which there is a warning; vectors of fewer than 64 numbers, or of
    a pipeline that removes no mean, pass.

    **State.** What was fitted lies in the collection, not in the instance: one that is only given the place searches
    at once. Pickles hold the place and no client (a QdrantClient that was given is an error), and of ``":memory:"``
    an empty one. Clones share a given client, and the pipeline as it was fitted.

    **Documents** are stored under ids, so storing one again replaces it. Whole numbers and UUIDs are ids of Qdrant
    (a `uuid.UUID` comes back as a string); of any other string one is made by `uuid.uuid5`, and the string is kept in
    the field ``grclip_id``. The parts of a document, from Items, are in the field ``kind``: ``"image"``, ``"text"``,
    ``"image+text"``. Threads may share a retriever: requests to an embedded Qdrant take turns.

    **Order.** Qdrant stores vectors in float32, and similarities are compared as numbers of float32: of equal ones the
    lower id comes first. 16 documents more than k are asked for, so that this holds for the k-th and those that are as
    good, unless they are more. Embedded, products are summed in float64, as ExactRetriever does; a server sums in
    float32, and documents whose similarities differ by less than that tells apart may change places. A server's
    approximate index may miss documents: ``exact=True`` asks for all.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from grclip import Items, ModalityGapRemover, MultimodalFuser
    >>> from grclip.datasets import make_scenes
    >>> from grclip.encoders import toy_encoder
    >>> from grclip.scale.qdrant import QdrantRetriever
    >>> task = toy_encoder().transform(make_scenes(50, random_state=0)[0])
    >>> pipeline = make_pipeline(ModalityGapRemover(), MultimodalFuser()).fit(task)
    >>> retriever = QdrantRetriever(":memory:", "scenes", pipeline, k=3)
    >>> retriever.fit(task.corpus).predict(task.queries[:2])[:, 0]
    array([0, 1])
    """

    def __init__(
        self,
        client_or_url: Any = ":memory:",
        collection: str = "grclip",
        pipeline: Any = None,
        *,
        k: int = 10,
        exact: bool = False,
        batch_size: int = 256,
        retries: int = 6,
        backoff: float = 0.5,
        timeout: int = 60,
        progress: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.client_or_url = client_or_url
        self.collection = collection
        self.pipeline = pipeline
        self.k = k
        self.exact = exact
        self.batch_size = batch_size
        self.retries = retries
        self.backoff = backoff
        self.timeout = timeout
        self.progress = progress
        self.options = options

    @property
    def client(self) -> Any:
        """The QdrantClient: as given, or made at first use, and anew where `client_or_url` was set to another place."""
        if isinstance(self.client_or_url, qdrant().QdrantClient):
            return self.client_or_url
        with _MAKING:
            place, client = getattr(self, "_made", (None, None))
            if client is None or place != self.client_or_url:
                self.close()
                client = make_client(self.client_or_url, self.timeout)
                self._made = (self.client_or_url, client)
        return client

    def close(self) -> Self:
        """Close the client that was made here, and with it the folder; the next use makes another.

        Returns
        -------
        QdrantRetriever
            This instance.

        Raises
        ------
        RuntimeError
            If the client cannot be closed.
        """
        _, client = self.__dict__.pop("_made", (None, None))
        if client is not None:
            client.close()
        return self

    def fit(self, X: Any, y: Any = None, *, ids: Any = None, payload: Any = None) -> Self:
        """Store a corpus: afterwards the collection holds these documents and no others.

        Parameters
        ----------
        X : SearchTask, Items or array of shape (n_documents, d)
            The corpus, or the task whose corpus it is. Items go through the pipeline; arrays are already fused, by it.
        y : None
            Ignored.
        ids : list of int, UUID or str, default=None
            One a document; None takes row numbers.
        payload : list of dict, default=None
            Fields that are stored with each document, to filter by: what JSON holds, NumPy numbers, dates, UUIDs.

        Returns
        -------
        QdrantRetriever
            This instance.

        Raises
        ------
        TypeError, ValueError, ConnectionError, RuntimeError
            As said of the class; and if the collection holds documents of other ids (`add` adds to them), before or,
            by another writer, afterwards. What ``":memory:"`` held is dropped instead. Values are checked before
            anything is stored.
        """
        refuse_documents_as_y(y)
        return self._store(X.corpus if isinstance(X, SearchTask) else X, encoder_of(X), ids, payload, anew=True)

    def add(self, X: Any, ids: Any, payload: Any = None) -> Self:
        """Store documents beside those that are there; ones of the same ids are replaced.

        Parameters
        ----------
        X : Items or array of shape (n_documents, d)
            Documents. Items go through the pipeline; arrays are already fused, by it.
        ids : list of int, UUID or str
            One a document. Row numbers would start anew in each call, and replace the documents of the one before.
        payload : list of dict, default=None
            Fields that are stored with each document, to filter by: what JSON holds, NumPy numbers, dates, UUIDs.

        Returns
        -------
        QdrantRetriever
            This instance.

        Raises
        ------
        TypeError, ValueError, ConnectionError, RuntimeError
            As said of the class. Values are checked before anything is stored.
        """
        if isinstance(X, SearchTask):
            raise TypeError("add takes documents; got a SearchTask: pass task.corpus, or the task to fit")
        if ids is None:
            raise TypeError("ids must be a list with one id a document; fit alone takes row numbers, of a whole corpus")
        return self._store(X, encoder_of(X), ids, payload, anew=False)

    def delete(self, ids: Any) -> Self:
        """Take documents out of the collection; ids that it does not hold are passed over.

        Parameters
        ----------
        ids : list of int, UUID or str
            Ids as they were given to `fit` or `add`. The client knows strings by the UUIDs that were made of them, and
            takes none out by the strings themselves.

        Returns
        -------
        QdrantRetriever
            This instance.

        Raises
        ------
        TypeError, ValueError, ConnectionError, NotFittedError
            As said of the class. Ids are checked before anything is taken out.
        """
        points = [point_id(name) for name in names_of(ids)]
        collection = self._collection(create=False)
        collection.open(self._fingerprints(None))
        collection.delete(points)
        return self

    def predict(self, X: Any) -> Array:
        """Find the k nearest documents of each query, best first.

        Parameters
        ----------
        X : SearchTask, Items or array of shape (n_queries, d)
            As of kneighbors.

        Returns
        -------
        ndarray or Tensor of shape (n_queries, k)
            Ids of the documents: int64 where these are numbers, as rows are; else an array of objects.

        Raises
        ------
        TypeError, ValueError, ConnectionError, NotFittedError
            As said of the class.
        """
        return self.kneighbors(X)[1]

    def kneighbors(self, X: Any, k: int | None = None, filter: Any = None) -> tuple[Array, Array]:
        """Find the k nearest documents of each query, and how near they are.

        Parameters
        ----------
        X : SearchTask, Items or array of shape (n_queries, d)
            Queries. Items go through the pipeline; arrays are already fused, by it. The corpus of a SearchTask is to be
            what the collection holds, under row numbers: its size and some of its rows are compared. Where documents
            have other ids, ask with ``task.queries``, and map the ids that are found to rows to score them.
        k : int, default=None
            Documents to return; None takes that of the retriever.
        filter : dict or qdrant_client.models.Filter, default=None
            Only documents whose fields have these values: ``{"kind": "image", "brand": ["A", "B"]}``. A dot leads into
            a field (``"size.width"``), unless it stands in quotes (``'"size.width"'``). Numbers are whole, and match
            whole numbers alone: what is stored as 3.0 is found by a range of ``models.Filter``, and not by 3. Dates and
            UUIDs match the strings that they are stored as.

        Returns
        -------
        similarities : ndarray or Tensor of shape (n_queries, k)
            Dot products, as precise as float32; of float64 where queries are. ``-inf`` in places for which a filter
            leaves no document: these come last.
        ids : ndarray or Tensor of shape (n_queries, k)
            Ids of the documents: int64 where these are numbers, as rows are; else an array of objects. In either, -1
            (the number) for no document, as the metrics of `grclip.metrics` take it.

        Raises
        ------
        TypeError, ValueError, ConnectionError, NotFittedError
            As said of the class; and if the corpus of a SearchTask is not what the collection holds.
        """
        collection = self._collection(create=False)
        k, condition = check_k(self.k if k is None else k), as_filter(filter)
        asked = X.queries if isinstance(X, SearchTask) else X
        given = self._fused(asked)
        queries = _float32(given)
        zero = check_values("queries", queries, row_norms(queries), allow_missing=False)
        self._check_width(queries.shape[1], collection.open(self._fingerprints(encoder_of(X))))
        if self.pipeline is not None and not isinstance(asked, Items):
            check_fused("queries", queries, self.pipeline, queries=True)
        warn_zero_rows({"queries": zero})
        if self.pipeline is not None and isinstance(asked, Items):
            warn_of_documents(asked.roles, fuser_of(self.pipeline))
        if isinstance(X, SearchTask):
            self._refuse_other_corpus(collection, X.corpus)
        similarities, names = collection.search(queries, k, condition, exact=bool(self.exact))
        dtype = torch.float64 if str(given.dtype).endswith("float64") else torch.float32
        scores, rows = torch.tensor(similarities, dtype=dtype), as_rows(names)
        if isinstance(given, Tensor):
            return scores.to(given.device), torch.from_numpy(rows).to(given.device) if rows.dtype != object else rows
        return scores.numpy(), rows

    def _store(self, X: Any, encoder: str | None, ids: Any, payload: Any, *, anew: bool) -> Self:
        """Check all of a corpus, then store it batch by batch."""
        documents = X if isinstance(X, Items) else check_matrix(self, X, reset=True)
        if not len(documents):
            raise ValueError("X holds nothing; expected at least one document")
        collection = self._collection()
        names = names_of(ids, len(documents))
        points = point_ids(names)
        rows = payloads(payload, names, points, documents.kinds if isinstance(documents, Items) else None)
        width, blocks = self._checked(documents)
        if anew and self.client_or_url == ":memory:":
            collection.drop()
        self._check_width(width, collection.open(self._fingerprints(encoder), width, self.options))
        if anew:
            collection.refuse_other_documents(points)
        collection.upsert(blocks, points, rows, self.batch_size, progress=self.progress)
        collection.refuse_replaced(self._fingerprints(encoder))
        if anew:
            collection.refuse_other_writer(len(points))
        remember_width(self, None, width)
        return self

    def _checked(self, documents: Any) -> tuple[int, Iterator[NDArray[np.float32]]]:
        """Width and blocks of vectors, of which all have been looked at; but for the first they are made again."""
        blocks = self._blocks(documents)
        first = next(blocks)
        deque(blocks, maxlen=0)
        with_first = chain([first], self._blocks(documents, _BLOCK, again=True))
        return int(first.shape[1]), with_first

    def _blocks(self, documents: Any, start: int = 0, *, again: bool = False) -> Iterator[NDArray[np.float32]]:
        """Vectors of some documents after the other; what was warned of once is not `again`."""
        for at in range(start, len(documents), _BLOCK):
            with warnings.catch_warnings() if again else nullcontext():
                if again:
                    warnings.simplefilter("ignore")
                vectors = self._stored(documents, at)
            yield vectors

    def _stored(self, documents: Any, start: int) -> NDArray[np.float32]:
        """The vectors of a block of documents as Qdrant keeps them."""
        try:
            vectors = _float32(self._fused(documents[start : start + _BLOCK]))
            zero = check_values("corpus", vectors, row_norms(vectors), allow_missing=False)
            if len(zero):
                raise ValueError(
                    f"corpus: zeros, or numbers too small to measure, throughout {few(zero)}; they have no direction, "
                    "and Qdrant would rank them above all that is unlike a query: drop these rows"
                )
            if self.pipeline is not None and not isinstance(documents, Items):
                check_fused("corpus", vectors, self.pipeline, queries=False)
        except ValueError as error:
            if start:
                error.add_note(f"Rows are counted from row {start} of the documents.")
            raise
        return vectors

    def _fused(self, X: Any) -> Array:
        """One vector a row: of Items by the pipeline, of arrays as they are."""
        if not isinstance(X, Items):
            return check_matrix(self, X, reset=True)
        if self.pipeline is None:
            raise TypeError(
                "QdrantRetriever compares one vector a row; got Items: give the fitted remover and fuser "
                "(pipeline=), or put them before it in a Pipeline"
            )
        if not hasattr(self.pipeline, "transform"):
            raise TypeError(
                f"pipeline must make vectors, by a MultimodalFuser at its end; got {type(self.pipeline).__name__} that "
                "transforms nothing: leave out a retriever behind the fuser (pipeline[:-1])"
            )
        fuser_of(self.pipeline)
        return self.pipeline.transform(X)

    def _refuse_other_corpus(self, collection: Collection, corpus: Any) -> None:
        """The corpus of a task is to be what the collection holds."""
        rows = np.unique(np.linspace(0, len(corpus) - 1, _SAMPLE).astype(int))
        collection.refuse_other_corpus(len(corpus), rows.tolist(), _float32(self._fused(corpus[rows])))

    def _fingerprints(self, encoder: str | None) -> Fingerprints:
        """What makes the vectors here, of Items that know their encoder or not."""
        if self.pipeline is None:
            return Fingerprints(encoder, None)
        return Fingerprints(encoder_fingerprint(self.pipeline) or encoder, pipeline_fingerprint(self.pipeline))

    def _check_width(self, width: int, expected: int) -> None:
        """Vectors of another width than the collection's are an error."""
        if width != expected:
            raise ValueError(
                f"X has {width} features, but QdrantRetriever is expecting {expected} features as input, the width of "
                f"collection {self.collection!r}"
            )

    def _collection(self, *, create: bool = True) -> Collection:
        """The collection, after errors for parameters that no request would survive; a search makes no folder."""
        self._check_parameters()
        given = self.client_or_url
        place = repr(os.fspath(given)) if isinstance(given, str | os.PathLike) else "the Qdrant of the client"
        if not create and not is_there(given):
            raise nothing_there(self.collection, place)
        return Collection(self.client, self.collection, place, int(self.retries), float(self.backoff))

    def _check_parameters(self) -> None:
        """Refuse parameters that are none."""
        for name in ("exact", "progress"):
            check_flag(name, getattr(self, name))
        check_k(self.batch_size, name="batch_size")
        if self.retries != 0:
            check_k(self.retries, name="retries")
        if not isinstance(self.backoff, Real) or not 0 <= float(self.backoff) < inf:
            raise ValueError(f"backoff must be a number of seconds from 0 on; got {self.backoff!r}")
        if not isinstance(self.timeout, Real) or not 0 < float(self.timeout) < inf:
            raise ValueError(f"timeout must be a number of seconds above 0; got {self.timeout!r}")
        if not isinstance(self.collection, str) or not self.collection:
            raise TypeError(f"collection must be the name of a collection; got {self.collection!r}")
        options = {} if self.options is None else self.options
        if not isinstance(options, Mapping):
            raise TypeError(f"options must be a dict of arguments of create_collection; got {options!r}")
        if ours := _OURS & options.keys():
            raise ValueError(f"options has {min(ours)!r}, which QdrantRetriever sets itself; leave it out")

    def _doc_link_url_param_generator(self) -> dict[str, str]:
        return {"name": f"{type(self).__module__}.{type(self).__name__}"}

    def __sklearn_is_fitted__(self) -> bool:
        """What is fitted lies in the collection."""
        return True

    def __sklearn_clone__(self) -> Self:
        """The same place and pipeline: a client cannot be copied, and the collection knows the pipeline as fitted."""
        shared = ("client_or_url", "pipeline")
        parameters = self.get_params(deep=False)
        return type(self)(**{n: v if n in shared else clone(v, safe=False) for n, v in parameters.items()})

    def __getstate__(self) -> dict[str, Any]:
        """A pickle without the client."""
        if not isinstance(self.client_or_url, str | os.PathLike):
            raise TypeError("a QdrantClient cannot be pickled; give its URL or folder (client_or_url) instead")
        return {name: value for name, value in super().__getstate__().items() if name != "_made"}


def _float32(x: Array) -> NDArray[np.float32]:
    """Vectors as Qdrant stores them; what float32 cannot hold becomes inf, and is found as such."""
    if isinstance(x, Tensor):
        return x.detach().to("cpu", torch.float32).numpy()
    with np.errstate(over="ignore"):
        return np.asarray(x, dtype=np.float32)
