"""The checks at the public door. Each error names the argument or role and its rows, what came, and the way out."""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from itertools import chain
from numbers import Integral, Real
from typing import Any

import joblib
import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.utils.validation import check_array, validate_data
from torch import Tensor

from grclip._kernels import Array, as_tensor, block_rows, dtype_of, norm_limits

_NOT_THE_USER = tuple(os.path.dirname(file) + os.sep for file in (__file__, joblib.__file__, sklearn.__file__))
_FLOATS = ("float16", "float32", "float64")
_TENSOR_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def few(rows: NDArray | Sequence[int], one: str = "row", many: str = "rows", shown: int = 5) -> str:
    """'3 rows (1, 4, 7)'; the first few where there are many."""
    listed = ", ".join(str(int(row)) for row in rows[:shown]) + (", ..." if len(rows) > shown else "")
    return f"{len(rows)} {one if len(rows) == 1 else many} ({listed})"


def warn(message: str) -> None:
    """Warn on behalf of the line of the user's code that called us, directly or through scikit-learn and joblib."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_NOT_THE_USER):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


def check_embeddings(x: Any, name: str) -> Array:
    """Return x as an (n, d) floating array or detached tensor. Values are checked in the pass that reads them."""
    _refuse_other_arrays(x, name)
    if not isinstance(x, Tensor):
        x = np.asarray(x)
        if x.dtype.kind in "OSUT":
            raise TypeError(
                f"{name} holds {_first_type(x)} objects, not embeddings; encode them first, or, where each is a "
                "vector, make them one (n, d) array with a row of NaN for each that is missing"
            )
    if x.ndim != 2:
        hint = "; a single row is x.reshape(1, -1)" if x.ndim == 1 else ""
        raise ValueError(f"{name} has shape {tuple(x.shape)}; expected (n, d): one row per item{hint}")
    if not (x.dtype in _TENSOR_FLOATS if isinstance(x, Tensor) else x.dtype.name in _FLOATS):
        how = "x.float()" if isinstance(x, Tensor) else "x.astype(np.float32)"
        raise TypeError(
            f"{name} has dtype {x.dtype}; expected float16, bfloat16, float32 or float64: convert it, e.g. with {how}"
        )
    if 0 in x.shape:
        raise ValueError(f"{name} has shape {tuple(x.shape)}; expected at least one row and one column")
    return x.detach() if isinstance(x, Tensor) and x.requires_grad else x


def _refuse_other_arrays(x: Any, name: str) -> None:
    """Arrays of another sort, whose gaps would be read as numbers, are errors."""
    if issparse(x) or (isinstance(x, Tensor) and x.layout != torch.strided):
        raise TypeError(f"{name} is sparse; embeddings are dense: pass x.toarray() or x.to_dense()")
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; mark missing rows by NaN instead: x.filled(np.nan)")


def _first_type(x: NDArray) -> str:
    """The type of the first part that is there."""
    return next((type(part).__name__ for part in x.ravel().tolist() if part is not None), "only missing (None)")


def check_matrix(estimator: Any, x: Any, *, reset: bool) -> Array:
    """A bare 2-D array as scikit-learn takes it: integers become float64, and a width unlike that of fit is an error.

    Sets nothing on the estimator: call `remember_width` when fit has succeeded.
    """
    _refuse_other_arrays(x, "X")
    if isinstance(x, Mapping):
        raise TypeError("X is a dict; wrap columns of one length in Items")
    first = x[0] if isinstance(x, list | tuple) and x else x
    if isinstance(first, str | os.PathLike):
        raise TypeError(f"X is {x!r:.80}; expected embeddings: encode texts and images, and load files, first")
    dtype = getattr(x, "dtype", None)
    if dtype in (bool, torch.bool) or getattr(dtype, "kind", "") in tuple("mM"):
        raise TypeError(f"X has dtype {dtype}; expected a floating dtype")
    given = x
    if isinstance(x, Tensor):
        x = check_embeddings(x, "X")
    elif not (isinstance(x, np.ndarray) and x.dtype.name in _FLOATS and x.ndim == 2 and 0 not in x.shape):
        x = check_array(x, estimator=estimator, dtype=[np.float64, np.float32, np.float16], ensure_all_finite=False)
    if not reset:
        validate_data(estimator, given, reset=False, skip_check_array=True)
    return x


def remember_width(estimator: Any, x: Any, width: int | None = None) -> None:
    """Store n_features_in_ after a fit: of a bare array, with its column names, or of Items that have `width`."""
    if width is None:
        validate_data(estimator, x, reset=True, skip_check_array=True)
        return
    estimator.n_features_in_ = width
    if hasattr(estimator, "feature_names_in_"):
        del estimator.feature_names_in_


def check_width(estimator: Any, parts: Mapping[str, Array], expected: int | None) -> int:
    """The common width of all parts, which is that of fit where there was one."""
    widths = {role: int(part.shape[1]) for role, part in parts.items()}
    if expected is None:
        expected = next(iter(widths.values()))
        known = f"role {next(iter(widths))!r} has {expected}"
    else:
        known = f"{type(estimator).__name__} is expecting {expected} features as input"
    for role, width in widths.items():
        if width != expected:
            raise ValueError(f"role {role!r} has {width} features, but {known}; all roles come from one encoder")
    return expected


def check_same_place(parts: Mapping[str, Array]) -> None:
    """That parts which are added up are of one library and lie on one device."""
    places = {role: str(part.device) if isinstance(part, Tensor) else "NumPy" for role, part in parts.items()}
    if len(set(places.values())) > 1:
        listed = ", ".join(f"{role!r}: {place}" for role, place in places.items())
        raise ValueError(f"parts of a document lie in different places ({listed}); move them to one device or library")


def check_values(name: str, x: Array, norms: Tensor, *, allow_missing: bool) -> NDArray[np.intp]:
    """The rows without direction (all zero), after refusing rows that cannot be used.

    `norms` are the row norms of x. NaN throughout is a missing row; NaN beside numbers, inf, and numbers whose
    square overflows are errors.
    """
    smallest, largest = norm_limits(dtype_of(x))
    lengths = norms.cpu().numpy()  # where one thread does, all need not wait for one another
    broken = np.flatnonzero(lengths < 0 if allow_missing else ~(lengths >= 0))
    if len(broken):
        hint = "NaN beside numbers" if allow_missing else "NaN"
        note = " (a missing part is NaN throughout)" if allow_missing else ""
        raise ValueError(f"{name}: {hint} in {few(broken)}{note}; drop these rows or encode them again")
    suspect = np.flatnonzero(lengths > largest)
    infinite = suspect[_with_inf(x, suspect)]
    if len(infinite):
        raise ValueError(f"{name}: inf in {few(infinite)}; drop these rows or encode them again")
    if len(suspect):
        raise ValueError(f"{name}: numbers too large to square in {few(suspect)}; scale these rows down")
    return np.flatnonzero(lengths < smallest)


def _with_inf(x: Array, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which of some rows hold inf."""
    some = [rows[start : start + block_rows(x)] for start in range(0, len(rows), block_rows(x))]
    taken = [as_tensor(x[torch.from_numpy(at).to(x.device) if isinstance(x, Tensor) else at]) for at in some]
    return np.array([inf for block in taken for inf in torch.isinf(block).any(dim=1).tolist()], dtype=bool)


def warn_zero_rows(zero: Mapping[str, NDArray[np.intp]]) -> None:
    """One warning that names all rows without direction, by the name of the array they are in."""
    found = [f"{name}: {few(rows)}" for name, rows in zero.items() if len(rows)]
    if found:
        warn(
            "rows of zeros (or too short to measure) have no direction: they stay zero, count for no mean, and a "
            f"document that is nothing else ranks last ({'; '.join(found)}). If they mean missing parts, use NaN"
        )


def check_qrels(qrels: Any, n_queries: int | None = None, n_documents: int | None = None) -> list[Mapping[int, float]]:
    """The qrels as a list of mappings document row -> grade, one per query, that stay inside the corpus."""
    if isinstance(qrels, Mapping | str) or not hasattr(qrels, "__len__"):
        raise TypeError(
            f"qrels must be a list of dicts {{document row: grade}}, one per query; got {type(qrels).__name__}"
        )
    if len(getattr(qrels, "shape", ())) == 2:
        raise TypeError(
            f"qrels is a table of shape {tuple(qrels.shape)}; expected a list of dicts, e.g. "
            "[{row: grade for row, grade in enumerate(line) if grade} for line in table]"
        )
    qrels = list(qrels)  # by position, whatever the labels of a pandas Series
    if n_queries is not None and len(qrels) != n_queries:
        raise ValueError(f"qrels has {len(qrels)} entries, but there are {n_queries} queries; one dict per query")
    if _are_plain(qrels, n_documents):
        return qrels
    for query, judged in enumerate(qrels):
        if not isinstance(judged, Mapping):
            raise TypeError(f"qrels[{query}] is {judged!r}; expected a dict {{document row: grade}}")
        for row, grade in judged.items():
            if not isinstance(row, Integral) or isinstance(row, bool) or int(row) < 0:
                raise ValueError(
                    f"qrels[{query}] judges document {row!r}; documents are row numbers of the corpus, from 0"
                )
            if n_documents is not None and int(row) >= n_documents:
                raise ValueError(f"qrels[{query}] judges document {row}, but the corpus has {n_documents} rows")
            if not isinstance(grade, Real) or not 0 <= float(grade) < np.inf:
                raise ValueError(f"qrels[{query}][{row}] is {grade!r}; a grade is a finite number, 0 for irrelevant")
    return qrels


def _are_plain(qrels: list[Any], n_documents: int | None) -> bool:
    """Whether all are dicts of ints and numbers in their ranges: a quick look that most qrels pass."""
    if not set(map(type, qrels)) <= {dict}:
        return False
    rows, grades = list(chain.from_iterable(qrels)), list(chain.from_iterable(map(dict.values, qrels)))
    if not (set(map(type, rows)) <= {int} and set(map(type, grades)) <= {int, float}):
        return False
    inside = min(rows, default=0) >= 0 and (n_documents is None or max(rows, default=-1) < n_documents)
    return inside and min(grades, default=0) >= 0 and all(map(math.isfinite, grades))


def check_k(k: Any, n_documents: int | None = None, *, name: str = "k") -> int:
    """Return k as an int, if it is a whole number of at least 1 and at most the corpus."""
    if not isinstance(k, Integral) or isinstance(k, bool | np.bool_) or int(k) < 1:
        raise ValueError(f"{name} must be a whole number of at least 1; got {k!r}")
    if n_documents is not None and int(k) > n_documents:
        raise ValueError(
            f"{name}={k} is larger than the corpus, which has {n_documents} rows; ask for at most that many"
        )
    return int(k)


def check_flag(name: str, value: Any) -> None:
    """A switch that is neither True nor False is an error: any text would pass for True."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False; got {value!r}")


def refuse_other_encoder(estimator: Any, fitted: str | None, given: str | None) -> None:
    """Two known fingerprints that differ are an error."""
    if fitted is not None and given is not None and fitted != given:
        raise ValueError(
            f"{type(estimator).__name__} was fitted on vectors of encoder {fitted!r}, but these come from {given!r}; "
            "means and spreads of one encoder are wrong for another: fit a new one"
        )
