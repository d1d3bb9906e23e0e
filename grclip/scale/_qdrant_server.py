"""A Qdrant and one of its collections: how it is reached, waited for, and known to be the right one."""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from grclip._optional import optional_import

Answer = TypeVar("Answer")

METADATA = "grclip"
"""The entry of a collection's metadata that holds the fingerprints."""

SCHEMA = 1
"""The version of that entry, and of how points are named and labelled."""

OLDEST = (1, 16)
"""The first version of Qdrant that keeps metadata of collections."""

_MEMORY = ":memory:"
_TURNS: WeakKeyDictionary[Any, Lock] = WeakKeyDictionary()  # of embedded clients
_TAKING = Lock()
_MAY_PASS = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED"}  # of gRPC: 503, 408, 500, 429


class Fingerprints(NamedTuple):
    """What made the vectors of a collection; None where it is unknown."""

    encoder: str | None
    calibrator: str | None


def qdrant(module: str = "") -> Any:
    """A module of the client's library."""
    return optional_import(f"qdrant_client{module}", "qdrant", "QdrantRetriever")


def is_there(given: Any) -> bool:
    """Whether there may be collections at a place: no Qdrant has written to a folder without its file of them."""
    folder = None if isinstance(given, qdrant().QdrantClient) else _folder_of(given)
    return folder is None or os.path.exists(os.path.join(folder, "meta.json"))


def make_client(given: Any, timeout: float) -> Any:
    """A client of a URL, of a folder, or of a memory of its own."""
    folder = _folder_of(given)
    if folder is not None:
        return _open_folder(folder)
    place = os.fspath(given)
    if place == _MEMORY:
        return qdrant().QdrantClient(_MEMORY)
    # the check of versions would be a warning from a thread while the server is away; ours is in `create`
    return qdrant().QdrantClient(url=place, timeout=timeout, check_compatibility=False)


def is_embedded(client: Any) -> bool:
    """Whether a client is a Qdrant itself, in this process."""
    given = client.init_options
    return given["location"] == _MEMORY or given["path"] is not None


def turn_at(client: Any) -> AbstractContextManager[Any]:
    """What a thread holds during a request: two at once lose rows of an embedded Qdrant, while a server takes many."""
    if not is_embedded(client):
        return nullcontext()
    with _TAKING:
        return _TURNS.setdefault(client, Lock())


def _folder_of(given: Any) -> str | None:
    """The folder that a place is, or None if it is a URL or ':memory:'."""
    if not isinstance(given, str | os.PathLike) or not os.fspath(given):
        raise TypeError(f"client_or_url must be a QdrantClient, a URL, a folder or ':memory:'; got {given!r}")
    place = os.fspath(given)
    if place == _MEMORY or re.match(r"https?://", place):
        return None
    if re.fullmatch(r"[\w.-]+:\d+|\w+://.*", place):
        raise ValueError(f"client_or_url is {place!r}; a URL begins with http:// or https://, else it is a folder")
    return place


def _open_folder(place: str) -> Any:
    """A client of a folder; one that is in use is an error, after which the client forgets to close its lock."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            return qdrant().QdrantClient(path=place)
        except RuntimeError as error:
            told = str(error)
        except OSError:
            raise
        except Exception as error:  # of whatever kind: JSON, its contents, or the database beside it is not as it was
            raise ValueError(
                f"{place!r} is no folder of Qdrant, or a broken one ({error!r}); give another (client_or_url), or this "
                "one from a copy"
            ) from error
    raise RuntimeError(
        f"{told} Call close() on the retriever or client that has it open, in this process or another, or give all of "
        "them one client (client_or_url)"
    )


def patiently(request: Callable[[], Answer], place: str, retries: int, backoff: float) -> Answer:
    """The answer to a request, repeated while the server is away: after backoff, 2 backoff, 4 backoff, ... seconds.

    A server that is asked too often says itself how long to wait, which may be longer.
    """
    attempt, waited = 0, 0.0
    while True:
        try:
            return request()
        except Exception as error:
            if not may_pass(error):
                raise
            if attempt == retries:
                raise ConnectionError(
                    f"no good answer from {place}, asked {attempt + 1} times with {waited:.3g} s between "
                    f"({_told(error)})"
                ) from error
            pause = max(backoff * 2**attempt, float(getattr(error, "retry_after_s", 0)))
        time.sleep(pause)
        attempt, waited = attempt + 1, waited + pause


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed later: no connection, a timeout (408), too many requests, a fault (5xx)."""
    exceptions, httpx, grpc = qdrant(".http.exceptions"), qdrant_needs("httpx"), qdrant_needs("grpc")
    if isinstance(error, qdrant(".common.client_exceptions").QdrantException):  # a 429, whatever its Retry-After
        return True
    if isinstance(error, exceptions.UnexpectedResponse):
        return (error.status_code or 0) >= 500 or error.status_code in (408, 429)
    if isinstance(error, exceptions.ResponseHandlingException):
        return isinstance(error.source, httpx.TransportError)
    if isinstance(error, grpc.RpcError):
        return error.code().name in _MAY_PASS
    return False


def qdrant_needs(module: str) -> Any:
    """A library that the client itself imports."""
    return optional_import(module, "qdrant", "QdrantRetriever")


def _told(error: Exception) -> str:
    """What an error says, in one line; that of a lost connection lies in its source."""
    return " ".join(str(error).split()) or repr(getattr(error, "source", error))


def check_version(version: str) -> None:
    """A server that would forget the fingerprints is an error."""
    if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < OLDEST:
        raise RuntimeError(
            f"Qdrant {version} keeps no metadata of a collection, where the fingerprints belong; version "
            f"{'.'.join(map(str, OLDEST))} and newer do"
        )


def metadata_of(ours: Fingerprints) -> dict[str, Any]:
    """The metadata of a collection that is written with these."""
    return {METADATA: {"schema_version": SCHEMA, **ours._asdict()}}


def check_collection(name: str, info: Any, ours: Fingerprints) -> int:
    """The width of a collection, after refusing one that cannot hold vectors of these fingerprints."""
    vectors = info.config.params.vectors
    if not hasattr(vectors, "distance") or vectors.multivector_config is not None:
        raise ValueError(f"collection {name!r} has named or several vectors a point; expected a single unnamed one")
    if vectors.distance != qdrant(".models").Distance.DOT:
        raise ValueError(
            f"collection {name!r} compares by {vectors.distance.value}; expected Dot: the length of a vector is its "
            "scale, which cosine undoes. Take another collection"
        )
    _refuse_other(name, _fingerprints_of(name, (info.config.metadata or {}).get(METADATA)), ours)
    return int(vectors.size)


def _fingerprints_of(name: str, entry: Any) -> Fingerprints:
    """What a collection says of its vectors, after refusing one that says nothing, or what is not understood here."""
    if entry is None:
        raise ValueError(
            f"collection {name!r} has no fingerprints in its metadata, so what made its vectors is unknown; take a "
            "collection that QdrantRetriever creates"
        )
    known = isinstance(entry, Mapping) and entry.get("schema_version") == SCHEMA
    if not known or not entry.keys() >= {*Fingerprints._fields}:
        raise ValueError(
            f"collection {name!r} has {entry!r} in its metadata, where this grclip reads the fingerprints of schema "
            f"{SCHEMA}: use the grclip that wrote it, or take another collection"
        )
    return Fingerprints(entry["encoder"], entry["calibrator"])


def _refuse_other(name: str, stored: Fingerprints, ours: Fingerprints) -> None:
    """A collection of another encoder or calibrator is an error."""
    if None not in (stored.encoder, ours.encoder) and stored.encoder != ours.encoder:
        raise ValueError(
            f"collection {name!r} holds vectors of encoder {stored.encoder!r}, but these come from "
            f"{ours.encoder!r}; encode both with one model, or take another collection"
        )
    if stored.calibrator != ours.calibrator:
        raise ValueError(
            f"collection {name!r} was written with calibrator {_or_none(stored.calibrator)}, but the pipeline here "
            f"is {_or_none(ours.calibrator)}; give the one it was written with (pipeline=), or take another collection"
        )


def _or_none(calibrator: str | None) -> str:
    return "unknown (pipeline=None)" if calibrator is None else repr(calibrator)
