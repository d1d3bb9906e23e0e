"""Embeddings in Parquet: columns of lists as arrays and back, rows in equal pieces, and what the metadata tell."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grclip._optional import optional_import
from grclip._validation import few

KEY = b"grclip"
"""Key of the metadata under which Parquet files say which encoder, and which calibrator, made their vectors."""

SCHEMA_VERSION = 1

_FINGERPRINTS = {"encoder": re.compile(r".+@[0-9a-f]{16}"), "calibrator": re.compile(r"grclip@[0-9a-f]{16}")}
_BUFFER = 2**20  # bytes of a column that are read from the disk at once
_HEADERS = 256  # bytes of a column of a row group that are no values
_CUT = 64  # letters of a value that every writer keeps in statistics
_FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}


def arrow(module: str = "pyarrow") -> Any:
    """A module of pyarrow."""
    return optional_import(module, "parquet", "Parquet")


@dataclass(frozen=True)
class Source:
    """A Parquet file, and the column that holds the vectors of each role."""

    path: Path
    columns: Mapping[str, str]
    schema: Any
    n_rows: int
    encoder: str | None

    @classmethod
    def open(cls, path: Path, columns: Mapping[str, str]) -> Source:
        """Check that a file is there, whole, and has columns of vectors that nothing was subtracted from."""
        with opened(path) as file:
            schema, n_rows = file.schema_arrow, file.metadata.num_rows
            told, rows = told_by(schema, str(path)), told_by_rows(file)
        named = sorted({*rows["encoder"], *filter(None, [told.get("encoder")])})
        if len(named) > 1:
            raise ValueError(
                f"{path}: column 'encoder' and metadata name several encoders: {', '.join(map(repr, named))}; write "
                "the rows of each to a file of its own, and fit once for each"
            )
        if told.get("calibrator") is None and rows["calibrator"]:
            raise ValueError(
                f"{path}: column 'calibrator' says that {', '.join(rows['calibrator'])} made its vectors: means would "
                "be subtracted twice; give the file of the embeddings (or, if these are, leave that column out of it)"
            )
        source = cls(path, dict(columns), schema, n_rows, next(iter(named), None))
        for role, column in columns.items():
            if schema.names.count(column) != 1:
                many = "more than one column" if column in schema.names else "no column"
                raise ValueError(f"{path} has {many} {column!r} (role {role!r}); it has {', '.join(schema.names)}")
            if told.get("vectors") == column:
                raise _fused_before(source.where(role), told.get("calibrator"))
            refuse_fused(schema.field(column), source.where(role))
            source.dtype(role)
        return source

    def where(self, role: str) -> str:
        """The place of a part, for messages."""
        return f"{self.path}: column {self.columns[role]!r} (role {role!r})"

    def dtype(self, role: str) -> np.dtype | None:
        """The dtype of the vectors of a role; None of a column of nulls alone."""
        return vector_type(self.schema.field(self.columns[role]).type, self.where(role))[0]

    def width(self, role: str) -> int | None:
        """The width of the vectors of a role, where the type says it."""
        return vector_type(self.schema.field(self.columns[role]).type, self.where(role))[1]

    def bytes_of_row(self, columns: Sequence[str]) -> int:
        """The mean size of some columns in a row, as they are in pages before compression, without their headers."""
        with opened(self.path) as file:
            groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
            leaves = range(file.metadata.num_columns) if groups else ()
            chunks = [group.column(i) for group in groups for i in leaves]
        owned = tuple(f"{name}." for name in columns)
        sizes = [chunk.total_uncompressed_size for chunk in chunks if f"{chunk.path_in_schema}.".startswith(owned)]
        return sum(max(0, size - _HEADERS) for size in sizes) // max(1, self.n_rows)

    def parts(self, table: Any, first: int, widths: Mapping[str, int]) -> dict[str, NDArray]:
        """Vectors of some rows by role, from the row `first` on; without roles that have none and no known width."""
        found = {
            role: as_vectors(table.column(column), self.where(role), first, widths.get(role))
            for role, column in self.columns.items()
        }
        return {role: part for role, part in found.items() if part is not None}

    def tables(self, columns: Sequence[str], n_rows: int, start: int = 0) -> Iterator[tuple[int, Any]]:
        """All rows from `start` on, `n_rows` at a time, with the number of the first; row groups may be of any size."""
        pa = arrow()
        with opened(self.path) as file:
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            ends = np.cumsum(sizes, dtype=np.int64)
            group = int(np.searchsorted(ends, start, side="right"))
            skip = start - int(ends[group - 1] if group else 0)
            left = list(range(group, len(sizes)))
            held: list[Any] = []
            for batch in file.iter_batches(n_rows, row_groups=left, columns=list(columns)) if left else ():
                cut = min(skip, len(batch))
                skip -= cut
                held.append(batch.slice(cut))
                while sum(map(len, held)) >= n_rows:
                    table = pa.Table.from_batches(held)
                    yield start, table.slice(0, n_rows)
                    start, held = start + n_rows, table.slice(n_rows).to_batches()
            if sum(map(len, held)):
                yield start, pa.Table.from_batches(held)


def is_parquet(path: Path) -> bool:
    """Whether a file begins as Parquet files do."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(4) == b"PAR1"


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A Parquet file, of which pages are read as they are needed; what is wrong with it names it."""
    pa, parquet = arrow(), arrow("pyarrow.parquet")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the Parquet files in it")
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is a device or a pipe, and Parquet is read from its end; give a file")
    try:
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER) as file:
            yield file
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file") from error
    except UnicodeEncodeError as error:
        raise ValueError(f"{path}: pyarrow takes file names in UTF-8 alone; rename it") from error
    except pa.ArrowNotImplementedError as error:
        raise ValueError(
            f"{path}: pyarrow {pa.__version__} cannot read one of its columns piece by piece ({error}); write "
            "dictionaries within lists or structs as plain values, or leave such a column out"
        ) from error
    except (pa.ArrowInvalid, OSError) as error:
        if str(path) in str(error):
            raise
        if "lists to be of size" in str(error):
            raise ValueError(
                f"{path}: {error}; pyarrow before 26 cannot read a null among lists of a fixed size (this one is "
                f'{pa.__version__}): pip install "pyarrow>=26"'
            ) from error
        raise ValueError(f"{path} is damaged or no Parquet file ({error})") from error


def vector_type(kind: Any, where: str) -> tuple[np.dtype | None, int | None]:
    """The dtype of the numbers in a column of lists, and their number where the type says it.

    Both are None for the type `null`, which writers give a column in which they saw no value: in a shard of documents
    of one kind, say, or in one without rows.
    """
    types = arrow("pyarrow.types")
    kind = getattr(kind, "storage_type", kind)
    if types.is_null(kind):
        return None, None
    lists = types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind)
    if not lists or str(kind.value_type) not in _FLOATS:
        empty = lists and types.is_null(kind.value_type)
        raise TypeError(
            f"{where} is of type {kind}; expected lists of float16, float32 or float64, of a fixed size or all of one "
            f"length{'; write null, not an empty list, where a part is missing' if empty else ''}"
        )
    return np.dtype(_FLOATS[str(kind.value_type)]), kind.list_size if types.is_fixed_size_list(kind) else None


def as_vectors(column: Any, where: str, first: int = 0, width: int | None = None) -> NDArray | None:
    """A column of lists as an (n, d) array, NaN where a list is null; None where all are, and d is not known.

    `where` names the column in messages, and `first` is the number of its first row there. The array may be a
    read-only view.
    """
    pa = arrow()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    column = getattr(column, "storage", column)
    dtype, fixed = vector_type(column.type, where)
    if dtype is None:  # float16 takes the dtype of the parts beside it
        return None if width is None else np.full((len(column), width), np.nan, dtype=np.float16)
    missing = column.is_null().to_numpy(zero_copy_only=False)
    lengths = np.full(len(column), fixed) if fixed is not None else np.diff(column.offsets.to_numpy())
    if None not in (fixed, width) and fixed != width:
        raise ValueError(
            f"{where} has vectors of {fixed} numbers, where {width} are expected; all vectors come from one encoder"
        )
    known = lengths[~missing]
    full = known[known > 0]
    width = width or (int(full[0]) if len(full) else 0 if len(known) else fixed)
    if width is None:
        return None
    odd = np.flatnonzero((lengths != width) & ~missing)
    if len(odd) or width == 0:
        rows = odd if width else np.flatnonzero(~missing)
        found = sorted({int(length) for length in lengths[rows]})
        way = "write null where a part is missing" if 0 in found else "all vectors come from one encoder"
        expected = f", where {width} are expected" if width else ""
        raise ValueError(
            f"{where} has vectors of {', '.join(map(str, found))} numbers in {few(first + rows)}{expected}; {way}"
        )
    return _filled(_numbers(column, missing, fixed, dtype, where, first), missing, width, dtype)


def _numbers(
    column: Any, missing: NDArray[np.bool_], fixed: int | None, dtype: np.dtype, where: str, first: int
) -> NDArray:
    """The numbers in lists that are there, one after the other; in those of a fixed size, in all."""
    flat = column.flatten() if fixed is None else column.values.slice(column.offset * fixed, len(column) * fixed)
    if flat.null_count:
        rows = np.flatnonzero(~missing) if fixed is None else np.arange(len(column))
        holes = flat.is_null().to_numpy(zero_copy_only=False).reshape(len(rows), -1).any(axis=1)
        partly = rows[holes & ~missing[rows]]
        if len(partly):
            raise ValueError(
                f"{where} has nulls inside the vectors of {few(first + partly)}; a missing part is a null in the place "
                "of the vector: encode these rows again"
            )
    buffer = flat.buffers()[1]
    numbers = np.frombuffer(buffer, dtype=dtype) if buffer is not None else np.empty(0, dtype)
    return numbers[flat.offset : flat.offset + len(flat)]


def _filled(numbers: NDArray, missing: NDArray[np.bool_], width: int, dtype: np.dtype) -> NDArray:
    """Rows of numbers, with NaN in those that are missing, for which there may be numbers without a meaning."""
    if not missing.any():
        return numbers.reshape(-1, width)
    out = np.full((len(missing), width), np.nan, dtype=dtype)
    whole = len(numbers) == out.size
    out[~missing] = numbers.reshape(-1, width)[~missing] if whole else numbers.reshape(-1, width)
    return out


def as_lists(vectors: NDArray) -> Any:
    """Rows of an array as a column of lists of a fixed size."""
    pa = arrow()
    numbers = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(numbers, type=list_type(vectors.dtype, vectors.shape[1]))


def list_type(dtype: np.dtype, width: int) -> Any:
    """The type of such a column."""
    pa = arrow()
    return pa.list_(pa.field("element", pa.from_numpy_dtype(dtype)), width)


def told_by(schema: Any, name: str) -> dict[str, Any]:
    """What the metadata of a schema or a field say of vectors: encoder, calibrator, and the column of fused ones."""
    given = (schema.metadata or {}).get(KEY)
    if given is None:
        return {}
    try:
        told = json.loads(given)
        version = told["schema_version"]
        valid = type(version) is int and isinstance(told.get("encoder"), str | None)
        if told.get("calibrator") is not None:
            valid &= isinstance(told["vectors"], str) and isinstance(told["roles"], list)
    except (ValueError, KeyError, TypeError, RecursionError):
        valid = False
    if not valid:
        raise ValueError(f"{name} has metadata {KEY.decode()!r} that grclip did not write: {given[:100]!r}")
    if version > SCHEMA_VERSION:
        raise ValueError(
            f"{name} has schema version {version}, but this grclip reads up to {SCHEMA_VERSION}: update it"
        )
    return told


def refuse_fused(field: Any, where: str) -> None:
    """A column that says itself which calibrator made its vectors is an error; `where` names it in messages."""
    calibrator = told_by(field, where).get("calibrator")
    if calibrator is not None:
        raise _fused_before(where, calibrator)


def _fused_before(where: str, calibrator: str | None) -> ValueError:
    return ValueError(
        f"{where} holds fused vectors of calibrator {calibrator}: means would be subtracted twice; give the columns "
        "that they were made of"
    )


def told_by_rows(file: Any) -> dict[str, list[str]]:
    """What columns `encoder` and `calibrator` hold, as Ray writes them; nothing if none of it is a fingerprint.

    The statistics of the columns tell them, or else these columns alone are read.
    """
    found = {name: _distinct(file, name) if name in file.schema_arrow.names else set() for name in _FINGERPRINTS}
    return {
        name: sorted(map(str, values)) if any(are_fingerprints(name, values)) else [] for name, values in found.items()
    }


def are_fingerprints(name: str, values: Iterable[Any]) -> Iterator[bool]:
    """Which values of a column `encoder` or `calibrator` are fingerprints."""
    return (_FINGERPRINTS[name].fullmatch(str(value)) is not None for value in values)


def _distinct(file: Any, name: str) -> set[Any]:
    """Values of a column, or the ends of those of its row groups, which are the same where all are one."""
    leaves = [file.schema.column(i).path for i in range(len(file.schema))]
    if name not in leaves:  # of lists or structs
        return {None}
    groups = (file.metadata.row_group(i) for i in range(file.num_row_groups))
    chunks = [(group.num_rows, group.column(leaves.index(name)).statistics) for group in groups]
    if all(told is not None and (_is_exact(told) or told.null_count == n) for n, told in chunks):
        return {end for _, told in chunks if told.has_min_max for end in (told.min, told.max)}
    batches = file.iter_batches(columns=[name])
    return {value for batch in batches for value in batch.column(0).unique().drop_null().to_pylist()}


def _is_exact(told: Any) -> bool:
    """Whether statistics hold values themselves; writers cut long ones short."""
    return told.has_min_max and max(len(str(end)) for end in (told.min, told.max)) < _CUT


def tell(schema: Any, **told: Any) -> Any:
    """A schema, or a field, whose metadata say what is told of vectors, beside what they said of other things."""
    line = json.dumps({"schema_version": SCHEMA_VERSION, **told}, sort_keys=True)
    return schema.with_metadata({**(schema.metadata or {}), KEY: line.encode()})
