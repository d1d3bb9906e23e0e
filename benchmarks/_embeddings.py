"""Vectors kept on disk, batch by batch: encoding goes on where it was interrupted, and is never done twice."""

from __future__ import annotations

import copy
import json
import os
import re
import secrets
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save
from tqdm import tqdm

from benchmarks._content import array_digest, hashed, value_digest
from grclip import Items, SearchTask
from grclip._validation import check_k, warn
from grclip.encoders._base import BaseEncoder
from grclip.encoders._model import state_of
from grclip.items import modalities_of

VERSION = 1
"""Version of the files; those of another are not found, and encoded anew."""

PASSING = ("batch_size", "device", "num_workers", "output", "progress")
"""Parameters of an encoder that do not decide its vectors."""

STALE = 3600
"""Seconds after which a temporary file is what a killed run has left, not what another is writing."""

SHOWN = 5
"""Batches whose warnings are told."""


def encoded(
    encoder: BaseEncoder, X: Any, folder: str | os.PathLike[str], *, rows: int = 256, progress: Any = None
) -> Any:
    """Encode every part as ``encoder.transform(X)`` does, and keep the vectors on disk.

    A run that is interrupted, at whatever moment, is resumed by the same call: batches that were finished are read.
    Where all of them were, the model is not loaded, and need not be there.

    Parameters
    ----------
    encoder : BaseEncoder
        Any encoder of `grclip.encoders`.
    X : Items or SearchTask
        Raw parts, as the encoder takes them.
    folder : str or path-like
        Where the vectors are kept, in a subfolder for each encoder; made if it is not there. Several runs may share it
        at one time.
    rows : int, default=256
        Rows of Items that are encoded and kept together: what a killed run loses at most. A few times the encoder's
        batch_size keeps its batches full. Another number finds none of the files of the last.
    progress : bool, default=None
        Whether to show a progress bar; None shows one on a terminal for work of more than two seconds.

    Returns
    -------
    Items or SearchTask
        As X, with a float32 array (n, d) for each role: rows of unit norm, NaN throughout for missing parts. Carries
        the fingerprint of the model.

    Raises
    ------
    TypeError
        If the encoder is none, if X is something else or holds vectors, or if a value has no content to go by.
    ValueError
        If ``rows`` is no whole number of at least 1; if files of one encoder come from two models; and whatever the
        encoder finds wrong, with row numbers of X.
    OSError
        If the folder cannot be written, or the model is needed and neither on this machine nor to be had.

    Warns
    -----
    UserWarning
        Once, of texts that were cut and parts that were skipped, whether encoded now or before, with row numbers of X;
        and of each damaged file, which is encoded again.

    Notes
    -----
    A batch is one safetensors file, written under another name, synchronised and then renamed, with a checksum that is
    verified when it is read. Its name is a digest of what decides the vectors: the class of the encoder and all its
    parameters but batch_size, device, num_workers, output and progress; sizes and times of the files of a local model;
    and the values. Texts, pictures, sounds, arrays and binary files count by their content, paths by their name and the
    size and time of the file: what is replaced is encoded anew. A file in place of one of the same size and time goes
    unnoticed, and so does new code in an encoder's class. A part that ``on_error="skip"`` took for missing stays so
    until its file changes or the vectors are deleted.

    A model by name on the hub has no files to look at. When it changes there, its fingerprint does, and files of two
    fingerprints for one X are an error that says what to delete. Where the folder of a local model is gone, the files
    that it had when it was last used for encoding count.

    Vectors are those of ``transform`` up to rounding: arithmetic on batches of other sizes, and texts padded to another
    length, differ in the last bits. Equal values are encoded once in each batch of rows, not once in X. Beside the
    files of an encoder, ``encoder.json`` says which it is; any of these folders can be deleted at any time.

    See Also
    --------
    grclip.encoders : The encoders.

    Examples
    --------
    >>> import tempfile
    >>> from grclip import Items
    >>> from grclip.encoders import toy_encoder
    >>> documents = Items({"text": ["a red circle", None, "a blue square"]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first = encoded(toy_encoder(), documents, folder)
    ...     second = encoded(toy_encoder(), documents, folder)  # does not load the model
    >>> second["text"].shape, bool((first["text"] == second["text"])[[0, 2]].all())
    ((3, 128), True)
    """
    _check(encoder, X, rows, progress)
    sides = [X.queries, X.corpus] if isinstance(X, SearchTask) else [X]
    run = Run(encoder, Store(encoder, Path(folder)), int(rows))
    hidden = None if progress is None else not progress
    total, delay = sum(map(len, sides)), 0 if progress else 2  # seconds
    with tqdm(total=total, desc=f"encoding by {run.store.name}", unit="row", delay=delay, disable=hidden) as bar:
        found = [run.encode(side, bar.update) for side in sides]
    if run.told:
        more = f"\nand so in {len(run.told) - SHOWN} more batches" if len(run.told) > SHOWN else ""
        warn("\n".join(run.told[:SHOWN]) + more)
    return SearchTask(*found) if isinstance(X, SearchTask) else found[0]


def _check(encoder: Any, X: Any, rows: Any, progress: Any) -> None:
    """What can be said before anything is read or encoded."""
    if not isinstance(encoder, BaseEncoder):
        raise TypeError(f"encoder is a {type(encoder).__name__}; expected one of grclip.encoders, e.g. toy_encoder()")
    if not isinstance(X, Items | SearchTask):
        raise TypeError(f"X is {type(X).__name__}; expected Items or a SearchTask of raw parts")
    check_k(rows, name="rows")
    if progress not in (None, True, False):
        raise TypeError(f"progress must be True, False or None (where there is a terminal); got {progress!r}")
    encoder.fit(X)


@dataclass(frozen=True)
class Batch:
    """Vectors by role of some rows, the fingerprint of their model, and warnings, with rows counted in the batch."""

    vectors: Mapping[str, NDArray[np.float32]]
    fingerprint: str | None
    notices: list[str]


class Store:
    """The folder of one encoder: a file a batch, and a note that says which encoder it is."""

    def __init__(self, encoder: BaseEncoder, root: Path) -> None:
        chosen = {name: value for name, value in encoder.get_params(deep=False).items() if name not in PASSING}
        kind = f"{type(encoder).__module__}.{type(encoder).__qualname__}"
        self._about = {"encoder": kind, "parameters": json.loads(_json(chosen))}
        self.name = _readable(encoder)
        self._identity = hashed("encoder", _json(self._about).encode())
        self.folder = root / f"{self.name}-{self._identity.hex()[:12]}"
        self._note = self.folder / "encoder.json"
        self._state = self._state_of_model(encoder)
        self._is_ready = False

    def _state_of_model(self, encoder: BaseEncoder) -> str | None:
        """A digest of the state of a local model's files; as noted where they are gone."""
        try:
            files = encoder._files()
            return None if files is None else hashed("files", _json(state_of(files)).encode()).hex()
        except FileNotFoundError:
            with suppress(OSError, ValueError, KeyError, TypeError):  # no note, or a damaged one
                return str(json.loads(self._note.read_text())["files"])
            raise

    def path(self, block: Items, modalities: Mapping[str, str] | None, start: int) -> Path:
        """The file of some rows, named after what decides their vectors."""
        digests = [hashed("model", str(VERSION).encode(), self._identity, str(self._state).encode())]
        for role, modality in zip(block.roles, modalities_of(block.roles, modalities), strict=True):
            values = [value_digest(value, role, modality, start + i) for i, value in enumerate(block[role])]
            digests.append(hashed("role", role.encode("utf-8", "surrogatepass"), modality.encode(), *values))
        return self.folder / f"{hashed('batch', *digests).hex()[:40]}.safetensors"

    def read(self, path: Path) -> Batch | None:
        """The batch of a file; None where there is none, and, with a warning, where it is damaged."""
        try:
            with safe_open(path, framework="numpy") as file:
                header = json.loads(file.metadata()["grclip"])
                vectors = {role: file.get_tensor(str(i)) for i, role in enumerate(header["roles"])}
            if header.pop("checksum") != _checksum(header, vectors) or header["file"] != path.name:
                raise ValueError("its checksum or its name is not that of its content")
            return Batch(vectors, header["fingerprint"], header["notices"])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            raise
        except Exception as error:  # a damaged header may lead to any
            warn(f"{path} is damaged ({error}); its rows are encoded again")
            return None

    def write(self, path: Path, batch: Batch) -> None:
        """Keep a batch."""
        header: dict[str, Any] = {"file": path.name, "roles": [*batch.vectors], "notices": batch.notices}
        header["fingerprint"] = batch.fingerprint
        header["checksum"] = _checksum(header, batch.vectors)
        numbered = {str(i): vectors for i, vectors in enumerate(batch.vectors.values())}  # a role may have any name
        self._put(path, save(numbered, metadata={"grclip": json.dumps(header)}))

    def make_ready(self) -> None:
        """Note which encoder it is, which shows that the folder can be written, and remove what killed runs left."""
        if self._is_ready:
            return
        hint = "Vectors that benchmarks/_embeddings.py keeps. Delete this folder to encode anew."
        note = {"about": hint, **self._about, "files": self._state}
        self._put(self._note, json.dumps(note, indent=2).encode())
        for partial in self.folder.glob(".*.part"):
            with suppress(OSError):
                if time.time() - partial.stat().st_mtime > STALE:
                    partial.unlink()
        self._is_ready = True

    def _put(self, path: Path, content: bytes) -> None:
        """Write a file whole or not at all."""
        partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(partial, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError as error:
            why = f"cannot keep vectors in {self.folder}: {error.strerror or error}"
            hint = "make room there, or choose another folder; batches that are finished stay"
            raise OSError(error.errno, f"{why}; {hint}") from error
        finally:
            with suppress(OSError):
                partial.unlink()


@dataclass
class Run:
    """One call: its encoder and files, what it has to tell, and the model that all batches have to come from."""

    encoder: BaseEncoder
    store: Store
    rows: int
    told: list[str] = field(default_factory=list)
    first: tuple[str | None, Path] | None = None
    passed_on: set[tuple[Any, ...]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.encoder = copy.copy(self.encoder)
        self.encoder.output, self.encoder.progress = "numpy", False

    def encode(self, side: Any, update: Callable[[int], Any]) -> Items:
        """The vectors of Items, in the roles that the encoder has for them as a whole; a batch may have fewer."""
        roles = [*self.encoder._columns(side)]
        names = "|".join(re.escape(repr(role)) for role in {*roles, *side.roles})
        places = re.compile(rf"((?:{names}),? row )(\d+)")
        parts: dict[str, NDArray[np.float32]] = {}
        for start in range(0, len(side), self.rows):
            block = side[start : start + self.rows]
            batch = self._batch(block, start, places)
            if not parts:
                width = next(iter(batch.vectors.values())).shape[1]
                parts = {role: np.full((len(side), width), np.nan, dtype=np.float32) for role in roles}
            for role in parts.keys() & batch.vectors.keys():
                parts[role][start : start + len(block)] = batch.vectors[role]
            self.told += [_shifted(notice, places, start) for notice in batch.notices]
            update(len(block))
        return Items(parts, encoder=self.first[0] if self.first else None)

    def _batch(self, block: Items, start: int, places: re.Pattern[str]) -> Batch:
        """The batch of some rows, read or else encoded and kept."""
        path = self.store.path(block, self.encoder.modalities, start)
        batch = self.store.read(path)
        if batch is None:
            self.store.make_ready()
            with _true_rows(block, start, places), warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found = self.encoder.transform(block)
            vectors = {role: np.ascontiguousarray(found[role], dtype=np.float32) for role in found}
            batch = Batch(vectors, found.encoder, [str(w.message) for w in caught if places.search(str(w.message))])
            self.store.write(path, batch)
            self._pass_on(w for w in caught if not places.search(str(w.message)))
        self._check_model(batch, path)
        return batch

    def _pass_on(self, caught: Iterable[warnings.WarningMessage]) -> None:
        """Warnings of libraries, as if nobody had listened; each once, though each batch may bring it."""
        for w in caught:
            key = (str(w.message), w.category, w.filename, w.lineno)
            if key not in self.passed_on:
                self.passed_on.add(key)
                warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)

    def _check_model(self, batch: Batch, path: Path) -> None:
        """Vectors of two models are an error."""
        fingerprint, first = self.first = self.first or (batch.fingerprint, path)
        if batch.fingerprint != fingerprint:
            raise ValueError(
                f"{first.name} holds vectors of the model {fingerprint!r}, but {path.name} of {batch.fingerprint!r}: "
                f"the model has changed since vectors of it were kept; delete {path.parent} to encode all of them anew"
            )


@contextmanager
def _true_rows(block: Items, start: int, places: re.Pattern[str]) -> Iterator[None]:
    """An error of some rows names them as rows of the whole."""
    try:
        yield
    except Exception as error:
        if len(error.args) == 1 and isinstance(error.args[0], str):
            error.args = (_shifted(error.args[0], places, start),)
        error.add_note(f"while encoding rows {start} to {start + len(block) - 1} of {', '.join(block.roles)}")
        raise


def _shifted(message: str, places: re.Pattern[str], start: int) -> str:
    """A message of an encoder about rows of a batch, with rows of the whole."""
    return places.sub(lambda place: f"{place[1]}{int(place[2]) + start}", message)


def _readable(encoder: BaseEncoder) -> str:
    """The class and the model of an encoder, as the name of a folder."""
    source = [getattr(encoder, name) for name in encoder._source]
    names = [Path(value).name for value in source if isinstance(value, str | os.PathLike)]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join([type(encoder).__name__, *names]))[:80]


def _json(value: Any) -> str:
    """Parameters as text, whatever the order of their keys."""
    return json.dumps(value, sort_keys=True, default=lambda x: dict(x) if isinstance(x, Mapping) else str(x))


def _checksum(header: Mapping[str, Any], vectors: Mapping[str, NDArray]) -> str:
    """A digest of all that a file holds."""
    return hashed("content", _json(header).encode(), *(array_digest(x) for x in vectors.values())).hex()
