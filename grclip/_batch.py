"""What commands on Parquet share: batches, files that fit together, and messages that name file, column and rows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grclip._append import beside
from grclip._kernels import dtype_of, norm_limits, row_norms
from grclip._parquet import Source
from grclip._validation import few, warn

BATCH = 2**21
"""Bytes of vectors, as they are in the file, that are read at once; pyarrow takes some ten times that to read them."""

UNCHECKED = "cannot check that one encoder made all vectors"

_SHOWN = 3  # warnings that are shown in full


def check_outputs(outputs: Sequence[Path], read: Sequence[Path], folder: Path | None = None) -> None:
    """That files can be written there, before the work is done; the folder may have to be made first."""
    sources = {*map(place_of, read)} - {None}
    for output in outputs:
        place = output.resolve().parent
        if not place.is_dir() and (folder is None or place != folder.resolve()):
            raise FileNotFoundError(f"there is no folder {str(place)!r} to write {output.name!r} to")
        if output.is_dir():
            raise IsADirectoryError(f"{output} is a folder; name a file in it to write to")
        if output.exists() and not output.is_file():
            raise FileExistsError(f"{output} is a device or a pipe, which would be replaced; name a file to write to")
        for written in (output, *beside(output)):
            if place_of(written) in sources:
                raise ValueError(f"{written} is the file that is read; write to another")


def place_of(path: Path) -> tuple[int, int] | None:
    """What tells a file from another, whatever it is called; None of one that is not there."""
    if not path.exists():
        return None
    about = path.stat()
    return about.st_dev, about.st_ino


def one_encoder(sources: Sequence[Source], given: str | None) -> str | None:
    """The encoder of all files, as they say themselves, else as given; two are an error."""
    found = {source.path: source.encoder or given for source in sources}
    known = {name: path for path, name in found.items() if name is not None}
    if given is not None:
        known.setdefault(given, Path("--encoder"))
    if len(known) > 1:
        listed = ", ".join(f"{name!r} ({path})" for name, path in known.items())
        raise ValueError(f"vectors come from several encoders: {listed}; encode all with one, and fit once for each")
    silent = [str(path) for path, name in found.items() if name is None]
    for name, path in known.items() if silent else ():
        more = f" and {len(silent) - 1} more" if len(silent) > 1 else ""
        warn(f"{UNCHECKED}: {path} says {name!r}, {silent[0]}{more} nothing; if it is the same, say --encoder NAME")
    return next(iter(known), None)


def batch_rows(source: Source, width: int | None = None, carried: int = 0) -> int:
    """Rows that are read at once: by the types of columns, the width, and what is carried through, if it is large."""
    known = {role: dtype.itemsize for role in source.columns if (dtype := source.dtype(role)) is not None}
    bytes_of_row = sum(size * (width or source.width(role) or 512) for role, size in known.items())
    return max(1, BATCH // max(1, bytes_of_row, carried))


class Warned:
    """Warnings of batches, the first few with the rows they speak of, and then how many more there were."""

    def __init__(self, source: Source) -> None:
        self.source, self.n = source, 0

    @contextmanager
    def told(self, first: int) -> Iterator[None]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        for warning in caught:
            self.n += 1
            if self.n <= _SHOWN:
                warn(f"{self.source.path}, in rows counted from {first}: {warning.message}")

    def sum_up(self) -> None:
        if self.n > _SHOWN:
            warn(f"{self.source.path}: {self.n - _SHOWN} more such warnings, of other rows")


@contextmanager
def explained(
    source: Source, parts: Mapping[str, NDArray], first: int, n: int, others: Sequence[str] = ()
) -> Iterator[None]:
    """Say of which file, column and rows an error is that came from a batch."""
    try:
        yield
    except ValueError as error:
        for role, part in parts.items():
            _refuse_values(source.where(role), part, first)
        refuse_empty(source, parts, first, n, others)
        raise ValueError(f"{source.path}, in rows counted from {first}: {error}") from error


def _refuse_values(where: str, part: NDArray, first: int) -> None:
    """Rows that hold what is no number are an error."""
    norms = row_norms(part).numpy()
    for broken, what in (
        (norms < 0, "NaN beside numbers (a missing part is a null, or NaN throughout)"),
        (norms > norm_limits(dtype_of(part))[1], "inf, or numbers too large to square,"),
    ):
        if broken.any():
            rows = few(first + np.flatnonzero(broken))
            raise ValueError(f"{where} has {what} in {rows}; drop these rows or encode them again")


def refuse_empty(source: Source, parts: Mapping[str, NDArray], first: int, n: int, others: Sequence[str] = ()) -> None:
    """Rows without any part are an error; where values have been checked, one number tells whether a row is there."""
    there = np.zeros(n, dtype=bool)
    for part in parts.values():
        there |= ~np.isnan(part[:, 0])
    if not there.all():
        listed = ", ".join(repr(column) for column in source.columns.values())
        more = f"; the calibrator also knows {', '.join(map(repr, others))}: --column {others[0]}=..." if others else ""
        raise ValueError(
            f"{source.path}: no part at all in {few(first + np.flatnonzero(~there))}: nothing in {listed}; leave these "
            f"rows out{more}"
        )
