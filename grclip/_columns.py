"""Columns: what a part of Items may hold, and how rows are taken from it."""

from __future__ import annotations

from collections.abc import Mapping, Set
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grclip._kernels import missing_rows
from grclip._validation import check_embeddings


def row_key(key: Any, length: int) -> slice | NDArray[np.intp]:
    """A key as scikit-learn or NumPy give it, as a slice or a 1-D array of rows."""
    if isinstance(key, tuple) and len(key) == 2 and key[1] is Ellipsis:
        key = key[0]
    if isinstance(key, slice):
        backwards = key.step is not None and key.step < 0  # tensors know no negative steps
        return np.arange(*key.indices(length)) if backwards else key
    rows = key.cpu().numpy() if isinstance(key, Tensor) else np.asarray(key)
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "biu"):
        raise TypeError(f"rows are taken by a slice, or a list or array of integers or booleans; got {key!r}")
    if rows.dtype.kind == "b":
        if len(rows) != length:
            raise IndexError(f"a boolean key has {len(rows)} entries, but there are {length} rows")
        return np.flatnonzero(rows)
    rows = rows.astype(np.intp)
    outside = rows[(rows < -length) | (rows >= length)]
    if len(outside):
        raise IndexError(f"row {outside[0]} is out of bounds: there are {length} rows")
    return rows


def take_rows(x: Any, rows: slice | NDArray) -> Any:
    """Rows of an array, a tensor or Items."""
    if isinstance(x, Tensor) and isinstance(rows, np.ndarray):
        return x[torch.tensor(rows, dtype=torch.long, device=x.device)]
    return x[rows]


def as_column(role: str, values: Any) -> Any:
    """A part as Items keep it: an (n, d) floating array, or a 1-D object array of raw values."""
    values = _of_arrow(values)
    if isinstance(values, str | bytes | Mapping | Set) or not hasattr(values, "__len__"):
        raise TypeError(f"role {role!r} is {values!r}; expected a column: a list, an array, a tensor")
    numeric = isinstance(values, np.ndarray) and values.dtype.kind not in "OSUT"
    if numeric or isinstance(values, Tensor):
        return check_embeddings(values, f"role {role!r}") if len(values) else values
    if len(getattr(values, "shape", (len(values),))) != 1:  # tables of pyarrow have no ndim
        raise ValueError(
            f"role {role!r} has shape {values.shape}; a column of raw values has one dimension, "
            "and embeddings are an array or tensor of shape (n, d)"
        )
    if hasattr(values, "isna"):  # pandas: its own marks for missing values
        values = [None if missing else value for value, missing in zip(values, values.isna(), strict=True)]
    column = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):  # one by one: NumPy would stack images of equal size
        column[i] = None if _is_na(value) else value
    if len(column) and all(isinstance(value, int | float | complex) for value in column):
        raise ValueError(
            f"role {role!r} is 1-D and numeric; expected (n, d): one row of numbers per item; of a table, take the "
            "columns that are parts"
        )
    return freeze(column)


def stack_vectors(values: Any) -> Any:
    """A column of vectors of one length, some of them missing, as an (n, d) array; anything else as it is."""
    values = _of_arrow(values)
    objects = getattr(values, "ndim", 0) == 1 and getattr(getattr(values, "dtype", None), "kind", "") == "O"
    if not (objects or isinstance(values, list | tuple)):
        return values
    if not _is_vector(next((value for value in values if not _is_na(value)), None)):
        return values
    there = np.array([not _is_na(value) for value in values])
    present: Any = [value for value in values if not _is_na(value)]
    tensors = isinstance(present[0], Tensor)
    if any(not _is_vector(v) or isinstance(v, Tensor) != tensors or len(v) != len(present[0]) for v in present):
        return values
    stacked: Any = torch.stack(present).detach() if tensors else np.array(present)
    if not tensors and stacked.dtype.kind != "f":
        return values
    shape = (len(there), stacked.shape[1])
    out = stacked.new_full(shape, torch.nan) if tensors else np.full(shape, np.nan, stacked.dtype)
    out[np.flatnonzero(there)] = stacked
    return out


def _of_arrow(values: Any) -> Any:
    """A column of pyarrow, whose values are objects of its own and its nulls, too, as an array of NumPy with None."""
    if type(values).__module__.partition(".")[0] != "pyarrow" or not hasattr(values, "null_count"):
        return values
    chunks = getattr(values, "chunks", None) or [values]  # one by one: of all, pyarrow mixes up those of dictionaries
    return np.concatenate([chunk.to_numpy(zero_copy_only=False) for chunk in chunks])


def _is_vector(value: Any) -> bool:
    """Whether a value is a 1-D floating array or tensor, or a list of numbers."""
    if isinstance(value, Tensor):
        return value.ndim == 1 and value.is_floating_point()
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.dtype.kind == "f"
    numbers = isinstance(value, list | tuple) and bool(value)
    return numbers and all(isinstance(v, Real) and not isinstance(v, bool) for v in value)


def is_raw(part: Any) -> bool:
    """Whether a part holds raw values, not embeddings."""
    return isinstance(part, np.ndarray) and part.dtype == object


def own(part: Any) -> Any:
    """A part whose tensor, if it is one, shares no storage."""
    return part.detach().clone() if isinstance(part, Tensor) else part


def freeze(part: Any) -> Any:
    """A part whose raw values cannot be replaced."""
    if is_raw(part):
        part.flags.writeable = False
    return part


def _is_na(value: Any) -> bool:
    """Whether a raw value is one of the marks for 'not there': None, a NaN, pandas' NA and NaT."""
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value))
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def is_missing(part: Any) -> NDArray[np.bool_]:
    """Which rows of a column are not there."""
    if is_raw(part):
        return np.fromiter((value is None for value in part), bool, len(part))
    return missing_rows(part)


def describe(part: Any) -> str:
    """'float32[500, 512]', or how many raw values are there."""
    if is_raw(part):
        n = int((~is_missing(part)).sum())
        return f"{n}" if n == len(part) else f"{n} of {len(part)}"
    return f"{str(part.dtype).removeprefix('torch.')}{list(part.shape)}"
