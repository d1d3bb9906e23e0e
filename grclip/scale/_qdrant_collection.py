"""One collection of a Qdrant: what is written to it and asked of it, and the checks that it is the right one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from tqdm import tqdm

from grclip.scale._qdrant_points import NAME, NOTHING, found
from grclip.scale._qdrant_server import (
    Fingerprints,
    check_collection,
    check_version,
    is_embedded,
    metadata_of,
    patiently,
    qdrant,
    turn_at,
)

_QUERIES = 64  # queries in one request, where they are not larger than that may be
_TIES = 16  # documents asked for beyond k, to order those that are as good as the k-th
_POINTS = 1000  # points that are looked up, or taken out, in one request
_REQUEST = 2**24  # bytes of one request; a server takes 2**25, and one that is sent more may just stop reading
_NUMBER = 24  # bytes that JSON needs for a number of float32, at most

Vectors = NDArray[np.float32]


def nothing_there(name: str, place: str) -> NotFittedError:
    """The error for a search where nothing was stored."""
    return NotFittedError(
        f"there is no collection {name!r} in {place}; fit or add documents first, or give the client_or_url and "
        "collection that they were stored in"
    )


@dataclass(frozen=True)
class Collection:
    """A collection of documents, and the patience with its server."""

    client: Any
    name: str
    place: str
    retries: int
    backoff: float

    def open(self, ours: Fingerprints, width: int | None = None, options: Mapping[str, Any] | None = None) -> int:
        """Its width, after all checks; with a `width` it is created where there is none."""
        info = self._info()
        if info is None and width is not None:
            self._create(width, ours, options or {})
            info = self._info()
        if info is None:
            raise nothing_there(self.name, self.place)
        return check_collection(self.name, info, ours)

    def _info(self) -> Any:
        """What Qdrant tells of the collection; None where there is none."""
        try:
            return self._ask(self.client.get_collection, self.name)
        except ConnectionError:
            raise
        except Exception:
            if not self._ask(self.client.collection_exists, self.name):
                return None
        return self._ask(self.client.get_collection, self.name)  # made in between, or the same error again

    def _create(self, width: int, ours: Fingerprints, options: Mapping[str, Any]) -> None:
        """Make the collection, with its fingerprints in the same request: no moment shows one without the other."""
        check_version(str(self._ask(self.client.info).version))
        models = qdrant(".models")
        vectors = models.VectorParams(size=width, distance=models.Distance.DOT)
        try:
            self._ask(self.client.create_collection, self.name, vectors, metadata=metadata_of(ours), **options)
        except ConnectionError:
            raise
        except Exception:  # another writer may have been first, or the answer to our first request was lost
            if not self._ask(self.client.collection_exists, self.name):
                raise

    def drop(self) -> None:
        """Forget the collection, if there is one."""
        self._ask(self.client.delete_collection, self.name)

    def upsert(
        self,
        blocks: Iterable[Vectors],
        points: list[int | str],
        payloads: list[dict[str, Any]],
        batch_size: int,
        *,
        progress: bool,
    ) -> None:
        """Store documents batch by batch, and say how many are stored where that fails."""
        stored = 0
        try:
            with tqdm(total=len(points), unit=" documents", disable=not progress) as bar:
                for block in blocks:
                    for vectors in _batches(block, payloads[stored : stored + len(block)], batch_size):
                        some = slice(stored, stored + len(vectors))
                        self._upsert(points[some], vectors, payloads[some])
                        stored += len(vectors)
                        bar.update(len(vectors))
        except Exception as error:
            told = f"{stored} of {len(points)} documents are stored in {self.name!r}; call again to store all of them"
            if isinstance(error, ConnectionError):
                raise ConnectionError(f"{error}; {told}") from error
            error.add_note(told)
            if getattr(error, "status_code", None) == 413 or "larger than allowed" in str(error):
                error.add_note(
                    f"Up to {batch_size} documents a request are too much for it; give a smaller batch_size."
                )
            raise

    def _upsert(self, points: list[int | str], vectors: Vectors, payloads: list[dict[str, Any]]) -> None:
        """Store one batch; when this returns, the server has it."""
        batch = qdrant(".models").Batch(ids=points, vectors=vectors.tolist(), payloads=payloads)
        self._ask(self.client.upsert, self.name, batch, wait=True)

    def delete(self, points: Sequence[int | str]) -> None:
        """Take points out; those that are not there, as after an answer that was lost, are none to take out."""
        for some in _some(points):
            self._ask(self.client.delete, self.name, qdrant(".models").PointIdsList(points=some), wait=True)

    def search(
        self, queries: Vectors, k: int, condition: Any, *, exact: bool
    ) -> tuple[list[list[float]], list[list[Any]]]:
        """Scores and ids of the k best documents of each query; a filter may leave fewer, and places with nothing."""
        models, results = qdrant(".models"), []
        asked = {
            "limit": k + _TIES,
            "filter": condition,
            "params": None if is_embedded(self.client) else models.SearchParams(exact=exact),
            "with_payload": [NAME],
        }
        at_once = max(1, min(_QUERIES, _REQUEST // (queries.shape[1] * _NUMBER)))
        for start in range(0, len(queries), at_once):
            some = [models.QueryRequest(query=query, **asked) for query in queries[start : start + at_once].tolist()]
            answers = self._ask(self.client.query_batch_points, self.name, some)
            results += [found(answer.points, k) for answer in answers]
        fewest = min(len(names) for _, names in results)
        if fewest < k and condition is None:
            self._refuse_k(k, fewest)
        if fewest < k and not exact and fewest < self.count(condition):  # the index missed what the filter leaves
            return self.search(queries, k, condition, exact=True)
        return (
            [scores + [-inf] * (k - len(scores)) for scores, _ in results],
            [names + [NOTHING] * (k - len(names)) for _, names in results],
        )

    def _refuse_k(self, k: int, fewest: int) -> None:
        """More documents were asked for than there are, or than an approximate index finds."""
        count = self.count()
        if count >= k:
            raise ValueError(f"a query found {fewest} of {count} documents in Qdrant's index; ask with exact=True")
        raise ValueError(f"k={k} is larger than collection {self.name!r}, {count} documents; ask for at most that many")

    def count(self, condition: Any = None) -> int:
        """How many documents there are."""
        return int(self._ask(self.client.count, self.name, count_filter=condition, exact=True).count)

    def refuse_replaced(self, ours: Fingerprints) -> None:
        """A collection that became another while documents were stored, as where an alias is led on, is an error."""
        try:
            self.open(ours)
        except (ValueError, NotFittedError) as error:
            error.add_note(
                f"What {self.name!r} names was replaced while documents were stored: the last of them may be in what "
                "is there now. Delete these from it, by their ids, and store all where they belong."
            )
            raise

    def refuse_other_documents(self, points: Sequence[int | str]) -> None:
        """A collection that holds documents besides these is an error."""
        there = self.count()
        ours = len(self._retrieve(points)) if there else 0
        if there > ours:
            raise ValueError(
                f"collection {self.name!r} holds {there - ours} documents of other ids; use add to store these beside "
                "them, or take another collection"
            )

    def refuse_other_writer(self, n: int) -> None:
        """A collection that was to hold n documents, and holds others that came in the meantime, is an error."""
        there = self.count()
        if there != n:
            raise RuntimeError(
                f"collection {self.name!r} holds {there} documents after {n} were stored: another process writes to "
                "it; let one at a time fit, or take another collection"
            )

    def refuse_other_corpus(self, n: int, rows: Sequence[int], vectors: Vectors) -> None:
        """A corpus of n documents that is not what the collection holds, as its size and some rows tell, is an error.

        A hundredth of the length is left to collections that store numbers of fewer bits.
        """
        stored = {point.id: point.vector for point in self._retrieve(rows, with_vectors=True)}
        alike = self.count() == n and all(
            row in stored and np.linalg.norm(np.subtract(stored[row], vector)) <= 0.01 * np.linalg.norm(vector)
            for row, vector in zip(rows, vectors, strict=True)
        )
        if not alike:
            raise ValueError(
                f"the corpus of the task is not what collection {self.name!r} holds under its row numbers; fit stores "
                "it, and task.queries alone search what is there: map the ids that these find to rows, to score them"
            )

    def _retrieve(self, points: Sequence[int | str], **options: Any) -> list[Any]:
        """Those of some points that there are."""
        there: list[Any] = []
        for some in _some(points):
            there += self._ask(self.client.retrieve, self.name, some, with_payload=False, **options)
        return there

    def _ask(self, method: Callable[..., Any], *given: Any, **options: Any) -> Any:
        """The answer to one request, waited for while the server is away."""
        return patiently(partial(self._in_turn, method, *given, **options), self.place, self.retries, self.backoff)

    def _in_turn(self, method: Callable[..., Any], *given: Any, **options: Any) -> Any:
        """The answer to one request, while no other thread of this process has one that would mix with it."""
        with turn_at(self.client):
            return method(*given, **options)


def _some(points: Sequence[int | str]) -> Iterator[list[int | str]]:
    """The points of one request after the other."""
    return (list(points[start : start + _POINTS]) for start in range(0, len(points), _POINTS))


def _batches(block: Vectors, payloads: Sequence[Mapping[str, Any]], batch_size: int) -> Iterator[Vectors]:
    """The vectors of one request after the other: no more than batch_size, nor than a server takes at once."""
    start, filled = 0, 0
    for row, payload in enumerate(payloads):
        size = block.shape[1] * _NUMBER + len(json.dumps(payload))
        if row > start and (row - start == batch_size or filled + size > _REQUEST):
            yield block[start:row]
            start, filled = row, 0
        filled += size
    yield block[start:]
