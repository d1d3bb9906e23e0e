"""Digests of raw parts: what tells whether a text, a picture or a file is still the same."""

from __future__ import annotations

import hashlib
import os
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from grclip.encoders._media import ORIENTATION


def hashed(kind: str, *pieces: bytes) -> bytes:
    """A digest of pieces of one kind, each with its length, so that no two lists of pieces read alike."""
    digest = hashlib.sha256()
    for piece in (kind.encode(), *pieces):
        digest.update(len(piece).to_bytes(8))
        digest.update(piece)
    return digest.digest()


def array_digest(x: NDArray) -> bytes:
    """A digest of numbers, their type and their shape."""
    return hashed("array", f"{x.dtype.str} {x.shape}".encode(), x.tobytes())


def value_digest(value: Any, role: str, modality: str, row: int) -> bytes:
    """A digest of a raw value, or an error that names its place."""
    try:
        return _digest(value, is_text=modality == "text")
    except (OSError, TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"role {role!r}, row {row}: its content cannot be read ({error})") from error


def _digest(value: Any, *, is_text: bool = False) -> bytes:
    """A digest of what a raw value is: the content, or the name and the state of a file."""
    if value is None:
        return hashed("missing")
    if is_text and isinstance(value, str):
        return hashed("text", value.encode("utf-8", "surrogatepass"))
    if isinstance(value, str | os.PathLike):
        name = str(os.fspath(value))
        return hashed("path", name.encode("utf-8", "surrogatepass"), _file_state(name).encode())
    if isinstance(value, list | tuple):
        return hashed("sequence", *map(_digest, value))
    if isinstance(value, Number | bytes):
        return hashed(type(value).__name__, value if isinstance(value, bytes) else repr(value).encode())
    if isinstance(value, Tensor):
        return hashed("tensor", str(value.dtype).encode(), array_digest(value.detach().cpu().float().numpy()))
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return array_digest(value)
    if isinstance(value, np.ndarray):  # its bytes are addresses
        return hashed("objects", str(value.shape).encode(), *map(_digest, value.ravel().tolist()))
    if hasattr(value, "tobytes") and hasattr(value, "getexif"):
        return _picture_digest(value)
    if hasattr(value, "read"):
        value.seek(0)
        return hashed("file", value.read())
    raise TypeError(f"it is a {type(value).__name__}")


def _file_state(name: str) -> str:
    """What tells whether a file has changed; empty where there is none."""
    try:
        state = os.stat(name)
    except (OSError, ValueError):  # a NUL in the name
        return ""
    return f"{state.st_size} {state.st_mtime_ns}"


def _picture_digest(picture: Any) -> bytes:
    """A digest of a PIL image: pixels, and what says how they are shown."""
    try:
        picture.load()  # before its mode is asked for, which this may change
        shown = (picture.mode, picture.size, picture.info.get("transparency"), picture.getexif().get(ORIENTATION))
        return hashed("picture", repr(shown).encode(), bytes(picture.getpalette(None) or ()), picture.tobytes())
    except Exception as error:  # broken; the encoder says so, or skips it
        return hashed("broken picture", repr(error).encode())
