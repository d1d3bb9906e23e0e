"""Columns of Arrow tables as embeddings and back: one list of numbers a row, null where a part is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grclip._columns import is_missing
from grclip._kernels import dtype_of, norm_limits, row_norms
from grclip._parquet import are_fingerprints, arrow, as_vectors, list_type, refuse_fused


def check_columns(schema: Any, columns: Mapping[str, str]) -> None:
    """That there is a column for each role."""
    absent = {role: name for role, name in columns.items() if name not in schema.names}
    if absent:
        listed = ", ".join(told(name, role) for role, name in absent.items())
        raise ValueError(
            f"no {listed}; there are {', '.join(map(repr, schema.names))}: name the column of each role, "
            "columns={'text': ...}"
        )


def check_new(schema: Any, names: Iterable[str]) -> None:
    """That no column is about to be written over."""
    there = [name for name in names if name in schema.names]
    if there:
        raise ValueError(f"column {', '.join(map(repr, there))} is there already: drop it first, or name another")


def parts_of_table(table: Any, columns: Mapping[str, str]) -> dict[str, NDArray]:
    """The embeddings of each role, (n, d), a row of NaN where one is missing; a column of nulls alone is left out."""
    check_columns(table.schema, columns)
    _refuse_fused(table, columns)
    found = {role: _part(table.column(name), told(name, role)) for role, name in columns.items()}
    return {role: part for role, part in found.items() if part is not None}


def vectors_of_table(table: Any, columns: Mapping[str, str], encoder_column: str | None) -> Any:
    """The columns of embeddings and fingerprints alone, and tensors as the lists that they are kept in."""
    check_columns(table.schema, columns)
    _refuse_fused(table, columns)  # before columns are made anew, which then say nothing
    kept = {*columns.values(), encoder_column, "calibrator"}
    table = table.select([name for name in table.column_names if name in kept])
    for role, name in columns.items():
        table = with_column(table, name, _plain(table.column(name), told(name, role)))
    return table


def _refuse_fused(table: Any, columns: Mapping[str, str]) -> None:
    """Columns and rows that say which calibrator made their vectors are an error."""
    for role, name in columns.items():
        refuse_fused(table.schema.field(name), told(name, role))
    values = _distinct(table, "calibrator") if "calibrator" in table.column_names else []
    if any(are_fingerprints("calibrator", values)):
        raise ValueError(
            f"column 'calibrator' says that {', '.join(map(str, values))} made the vectors: means would be subtracted "
            "twice; give the dataset of embeddings (or, if these are, drop that column)"
        )


def _distinct(table: Any, name: str) -> list[Any]:
    """The values of a column of fingerprints; of lists, tensors and the like, which cannot be any, one."""
    column = table.column(name).drop_null()
    other = arrow("pyarrow.types").is_nested(column.type) or isinstance(column.type, arrow().BaseExtensionType)
    return (column[:1] if other else column.unique()).to_pylist()


def _part(column: Any, where: str) -> NDArray | None:
    """The vectors of a column, None where it tells of none."""
    if arrow("pyarrow.types").is_null(column.type) or not len(column):  # a column without rows may have no chunk
        return None
    return as_vectors(_plain(column, where), where)


def _plain(column: Any, where: str) -> Any:
    """A column of tensors as the lists that it is kept in, any other as it is."""
    shape = getattr(column.type, "shape", None)
    if shape is not None and len(shape) != 1:
        raise TypeError(f"{where} holds tensors of shape {tuple(shape)}; expected vectors: flatten them, if they are")
    if shape is None:
        return column
    return arrow().chunked_array([chunk.storage for chunk in column.chunks], type=column.type.storage_type)


def told(name: str, role: str) -> str:
    """A column in messages."""
    return f"column {name!r} (role {role!r})"


def has_rows(part: NDArray) -> bool:
    """Whether a mean can be learned from some row, or one has to be refused; most parts tell at their beginning."""
    smallest, _ = norm_limits(dtype_of(part))
    norms = (row_norms(part[start : start + 1024]) for start in range(0, len(part), 1024))
    return any(bool(((some >= smallest) | (some < 0)).any()) for some in norms)


def as_lists(x: Any) -> Any:
    """An (n, d) array or tensor as lists of a fixed size, null for rows of NaN."""
    x = np.ascontiguousarray(x.cpu().numpy() if hasattr(x, "cpu") else x)
    missing, pa = is_missing(x), arrow()
    mask = pa.array(missing) if missing.any() else None
    return pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), type=list_type(x.dtype, x.shape[1]), mask=mask)


def raw_values(column: Any) -> list[Any]:
    """Values of a column that an encoder takes, None where there is none; pictures kept as tensors become arrays."""
    if isinstance(column.type, arrow().BaseExtensionType):
        return [value for chunk in column.chunks for value in chunk.to_numpy(zero_copy_only=False)]
    return column.to_pylist()


def one_name(table: Any, name: str | None) -> str | None:
    """The only value of a column of fingerprints; None where the table lacks the column or it is empty."""
    if name is None or name not in table.column_names:
        return None
    found = sorted(_distinct(table, name), key=str)
    if len(found) > 1:
        raise ValueError(mixed(name, *found[:2]))
    if found and not isinstance(found[0], str):
        raise TypeError(
            f"column {name!r} holds {found[0]!r}; expected fingerprints of encoders (str): if it is about something "
            "else, name another with encoder_column"
        )
    return found[0] if found else None


def mixed(name: str, one: str, other: str) -> str:
    """What to say of a dataset in which two encoders meet."""
    return (
        f"column {name!r} names two encoders, {one!r} and {other!r}; means and vectors of one are wrong for another: "
        "keep the rows of one, or encode all anew; if the column is about something else, name another with "
        "encoder_column"
    )


def with_column(table: Any, name: str, values: Any) -> Any:
    """The table with a column at its end, or with another one in its place."""
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, values)
    return table.append_column(name, values)


def repeated(value: str | None, n: int) -> Any:
    """A column of strings that says the same in every row."""
    pa = arrow()
    return pa.nulls(n, pa.string()) if value is None else pa.repeat(pa.scalar(value), n)


def where(table: Any, columns: Mapping[str, str], id_column: str | None) -> str:
    """Which rows of a batch an error may be about: those with NaN beside numbers or inf, or without any part."""
    listed = ", ".join(told(name, role) for role, name in columns.items())
    place = f"rows are counted from 0 in a block of {table.num_rows}, of {listed}"
    if id_column is None or id_column not in table.column_names:
        return place
    suspects = _suspects(table, columns)
    rows = suspects if len(suspects) else np.arange(1)
    ids = ", ".join(repr(table.column(id_column)[int(row)].as_py()) for row in rows[:5])
    which = f"{id_column!r} of rows that cannot be used" if len(suspects) else f"{id_column!r} of its first row"
    return f"{place}; {which}: {ids}" + (", ..." if len(rows) > 5 else "")


def _suspects(table: Any, columns: Mapping[str, str]) -> NDArray[np.intp]:
    """Rows that no estimator takes."""
    try:
        parts = list(parts_of_table(table, columns).values())
    except (TypeError, ValueError):
        return np.empty(0, np.intp)
    missing = [is_missing(part) for part in parts]
    broken = [~np.isfinite(part).all(axis=1) & ~gone for part, gone in zip(parts, missing, strict=True)]
    return np.flatnonzero(np.any(broken, axis=0) | np.all(missing, axis=0)) if parts else np.empty(0, np.intp)
