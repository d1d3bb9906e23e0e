"""Fitted state in safetensors files: float64 vectors, and a JSON header that says what they are. No pickle."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

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
    path = Path(path).resolve()  # through a link, not over it
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(path.parent)!r} to write {path.name!r} to")
    if path.exists() and not path.is_file():
        raise FileExistsError(f"{str(path)!r} is a folder, a device or a pipe, not a file to replace; name another")
    metadata = {_KEY: json.dumps({"schema_version": SCHEMA_VERSION, "class": kind, **header})}
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        with open(partial, "wb") as file:
            file.write(save(dict(vectors), metadata=metadata))
            file.flush()
            os.fsync(file.fileno())  # or a power failure could leave the name with nothing behind it
        os.replace(partial, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        partial.unlink(missing_ok=True)
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
    with _opened(path) as (file, header):
        check_header(header, _name(path), kind)
        for key in file.keys():  # noqa: SIM118 (not a mapping)
            if file.get_slice(key).get_dtype() != "F64":
                raise ValueError(f"{_name(path)} holds {key!r} in another dtype than float64; save it again")
        return header, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def class_in(path: str | os.PathLike[str]) -> str:
    """Name the class whose state a file holds.

    Parameters
    ----------
    path : str or path-like
        A file that `save_state` wrote.

    Returns
    -------
    str
        As its header says.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, not one of ours, or of a newer schema.
    """
    with _opened(path) as (_, header):
        return str(header.get("class"))


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A file that is ours, and its header; what is wrong with it names it."""
    if Path(path).exists() and not Path(path).is_file():
        raise ValueError(f"{_name(path)} is a folder, a device or a pipe, not a file that grclip wrote")
    try:
        with safe_open(path, framework="numpy") as file:
            yield file, _header(file.metadata() or {}, _name(path))
    except SafetensorError as error:
        raise _damaged(_name(path), error) from error


def _name(path: str | os.PathLike[str]) -> str:
    return repr(os.fspath(path))


def _header(metadata: Mapping[str, str], name: str) -> dict[str, Any]:
    """The header of a file that is ours, of a schema that we know."""
    try:
        header = json.loads(metadata.get(_KEY, "null"))
    except (ValueError, RecursionError) as error:
        raise _damaged(name, error) from error
    if not isinstance(header, dict) or not _is_version(header.get("schema_version")):
        raise ValueError(f"{name} is a safetensors file, but not one that grclip wrote")
    _check_version(header, name)
    return header


def _damaged(name: str, error: Exception) -> ValueError:
    return ValueError(f"{name} is damaged or no safetensors file ({error}); save it again")


def check_header(header: Mapping[str, Any], name: str, kind: str) -> None:
    """That a header is of a schema that we know, and of the class that is wanted.

    Parameters
    ----------
    header : mapping
        With ``schema_version`` and ``class``.
    name : str
        What holds it, for messages.
    kind : str
        Name of the class that is expected.

    Raises
    ------
    ValueError
        If it is not ours, of another class, or of a newer schema.
    """
    _check_version(header, name)
    if header.get("class") != kind:
        raise ValueError(f"{name} holds a {header.get('class')}, not a {kind}")


def _check_version(header: Mapping[str, Any], name: str) -> None:
    version = header.get("schema_version")
    if not _is_version(version):
        raise ValueError(f"{name} has schema_version {version!r}: nothing that grclip wrote")
    if version > SCHEMA_VERSION:
        raise ValueError(
            f"{name} has schema version {version}, but this grclip reads up to {SCHEMA_VERSION}: update grclip"
        )


def _is_version(version: Any) -> TypeGuard[int]:
    return type(version) is int and version >= 1
