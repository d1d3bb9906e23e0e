"""Fitted state in safetensors files: float64 vectors, and a JSON header that says what they are. No pickle."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

SCHEMA_VERSION = 1
"""Version of the files that this release writes, and the newest that it reads."""

_KEY = "grclip"


def save_state(
    path: str | os.PathLike[str], kind: str, header: Mapping[str, Any], vectors: Mapping[str, NDArray]
) -> None:
    """Write fitted state to a safetensors file.

    The file is written under a temporary name beside its own and then renamed, so a failure leaves what was there.

    Parameters
    ----------
    path : str or path-like
        The file to write; replaced if it exists.
    kind : str
        Name of the class whose state it is.
    header : mapping of str to JSON values
        All that is not a vector.
    vectors : mapping of str to ndarray
        Arrays by name.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    path = Path(path)
    metadata = {_KEY: json.dumps({"schema_version": SCHEMA_VERSION, "class": kind, **header})}
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    try:
        save_file({name: np.ascontiguousarray(vector) for name, vector in vectors.items()}, partial, metadata=metadata)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def load_state(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """Read fitted state from a file that `save_state` wrote.

    Parameters
    ----------
    path : str or path-like
        The file to read.
    kind : str
        Name of the class whose state is expected.

    Returns
    -------
    header : dict
        All that is not a vector, ``schema_version`` and ``class`` included.
    vectors : dict of str to ndarray
        Arrays by name.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, not one of ours, of another class, or of a newer schema.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            vectors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        header = json.loads(metadata[_KEY]) if _KEY in metadata else None
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{os.fspath(path)!r} is damaged or no safetensors file ({error}); save it again") from error
    if not isinstance(header, dict) or "schema_version" not in header:
        raise ValueError(f"{os.fspath(path)!r} is a safetensors file, but not one that grclip wrote")
    if not isinstance(header["schema_version"], int) or header["schema_version"] > SCHEMA_VERSION:
        raise ValueError(
            f"{os.fspath(path)!r} has schema version {header['schema_version']}, but this grclip reads up to "
            f"{SCHEMA_VERSION}: update grclip"
        )
    if header.get("class") != kind:
        raise ValueError(f"{os.fspath(path)!r} holds a {header.get('class')}, not a {kind}")
    return header, vectors
