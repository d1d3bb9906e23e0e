"""Places of datasets: folders, files that are there and whole, and paths that stay in their folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

POINTER = b"version https://git-lfs.github.com/spec/"
"""What a file begins with that Git LFS has left in place of another."""

POINTER_SIZES = range(120, 1025)
"""How many bytes such a file may have: two lines, a checksum and a size at least."""

PACKED = (".gz", ".zip", ".tar", ".tar.gz", ".tgz", ".7z")
"""Endings of what is to be unpacked first."""

URL = re.compile("(https?|ftp|s3|gs|hf|file)://", re.IGNORECASE)


def folder_at(folder: str | os.PathLike[str]) -> Path:
    """A folder as it was given, where ``~`` is the home folder."""
    return Path(os.path.expanduser(folder))


def is_pointer(path: str | Path) -> bool:
    """Whether a file stands for one that Git LFS has not fetched; only one of such a size is opened to see."""
    if os.path.getsize(path) not in POINTER_SIZES:
        return False
    with open(path, "rb") as file:
        return file.read(len(POINTER)) == POINTER


def pointer_error(path: Path) -> ValueError:
    """What to say of such a file."""
    return ValueError(f"{path} is a Git LFS pointer, not the file itself; fetch it with: git lfs pull")


def check_files(files: Iterable[Path], way_out: str | None, reason: str | None = None) -> None:
    """Files that are absent are an error that names them, with the reason if known, and what is there packed."""
    lacking = [file for file in files if not file.is_file()]
    if lacking:
        hint = reason or unpacking(lacking) or way_out
        hint = hint or f"put {'it' if len(lacking) == 1 else 'them'} there, or correct the path"
        raise FileNotFoundError(f"{' and '.join(map(str, lacking))}: no such file; {hint}")


def unpacking(lacking: Iterable[Path]) -> str | None:
    """What to unpack, where files that are absent, or the folders that they are to lie in, are there packed."""
    packed: dict[str, None] = {}
    for file in lacking:
        for place in (file, *file.parents[:2]):
            if os.path.isdir(place):
                break
            if place != file and os.path.isfile(place):
                return f"unpack {place}, and give the folder" if place.suffix in PACKED else f"{place} is no folder"
            packed |= dict.fromkeys(f"{place}{end}" for end in PACKED if os.path.isfile(f"{place}{end}"))
    if not packed:
        return None
    gunzip = all(name.endswith(".gz") and not name.endswith(".tar.gz") for name in packed)
    return f"unpack it: gunzip {' '.join(packed)}" if gunzip else f"unpack {' and '.join(packed)}"


def check_name(argument: str, name: str) -> None:
    """A name of a file, not of a path."""
    if not isinstance(name, str) or not name.strip() or name.startswith(".") or Path(name).name != name:
        raise ValueError(f"{argument} must be the name of a file, without folders; got {name!r}")


class Media:
    """The files that a dataset refers to: each is in the folder, and whole.

    Without a way out, which tells where to get what was published, they are the user's own.
    """

    def __init__(self, folder: Path, what: str, way_out: str | None) -> None:
        self.folder, self.what, self.way_out = folder, what, way_out
        self._homes = [folder.resolve(), *_hub_blobs(folder)]
        self._inside: dict[str, bool] = {}
        self._states: dict[str, str] = {}
        self._given: dict[str, tuple[str, str]] = {}

    def path(self, name: Any, where: str, under: str = "") -> str:
        """The path of a file from its name, which is relative to the folder, or to one under it that it may begin with.

        Whether the file is there is noted; `check` tells of all of them at once.
        """
        if isinstance(name, str) and URL.match(name):
            raise ValueError(
                f"{where}: {shown(repr(name))} is a URL, and URLs are not fetched: download the file; {self._relative}"
            )
        given = PureWindowsPath(name if isinstance(name, str) else "")  # it knows both slashes, and drives
        parts = given.parts[1:] if given.parts[:1] == (under,) else given.parts
        if not parts or re.search("[\0\ud800-\udfff]", name):
            raise ValueError(f"{where}: expected the path of a file; got {shown(repr(name))}")
        path = os.path.join(self.folder, under, *parts)
        if Path(name).is_absolute() and self._is_home(os.path.dirname(name)):
            raise ValueError(f"{where}: {name!r} is an absolute path; {self._relative}")
        if given.anchor or ".." in parts or not self._stays(path):
            hint = f": {self._relative}" if given.anchor else ""
            raise ValueError(f"{where}: {name!r} leaves the folder {self.folder}; such a path is not followed{hint}")
        if path not in self._states:
            self._states[path], self._given[path] = _state(path), (name, where)
        return path

    @property
    def _relative(self) -> str:
        return f"paths must be relative to the folder {self.folder}"

    def _stays(self, path: str) -> bool:
        """Whether no link leads out of the folder; files of the hub's cache are links into its blobs."""
        parent = os.path.dirname(path)
        if parent not in self._inside:
            self._inside[parent] = self._is_home(parent)
        return self._inside[parent] and (not os.path.islink(path) or self._is_home(path))

    def _is_home(self, path: str) -> bool:
        return any(Path(os.path.realpath(path)).is_relative_to(home) for home in self._homes)

    def check(self) -> None:
        """Files that are missing, or not whole, are an error that counts and names them."""
        many = f"of the {len(self._states)} {self.what} files that {self.folder} refers to"
        for state, error, way_out in (
            ("missing", FileNotFoundError, "{}"),
            ("empty", ValueError, "remove them; then {}"),
            ("Git LFS pointers", ValueError, "fetch them with: git lfs pull"),
        ):
            paths = [path for path, found in self._states.items() if found == state]
            names = [os.path.relpath(path, self.folder) for path in paths]
            if names:
                hint = way_out.replace("{}", self._cure(paths))
                raise error(f"{len(names)} {many} are {state}: {first_of(names)}; {hint}{self._as_given(paths[0])}")

    def _cure(self, paths: Sequence[str]) -> str:
        """How to get files: what is packed beside them is to be unpacked."""
        files = dict.fromkeys(self._given[path][1].rpartition(", ")[0] for path in paths)
        return unpacking([Path(paths[0])]) or self.way_out or f"put them there, or correct {' and '.join(files)}"

    def _as_given(self, path: str) -> str:
        """What the dataset calls a file, where that is not its path in the folder."""
        name, where = self._given[path]
        known = name in (os.path.relpath(path, self.folder), os.path.basename(path))
        return "" if known else f"; the first is called {shown(repr(name))} at {where}"


def _state(path: str) -> str:
    """Whether a file is there, and whole as far as can be told without reading it."""
    if not os.path.isfile(path):
        return "missing"
    if not os.path.getsize(path):
        return "empty"
    return "Git LFS pointers" if is_pointer(path) else "whole"


def _hub_blobs(folder: Path) -> list[Path]:
    """Where the hub's cache keeps the files of a folder in a snapshot: blobs of the dataset, and shared ones."""
    resolved = folder.resolve()
    homes = [place.parent.parent for place in (resolved, *resolved.parents) if place.parent.name == "snapshots"]
    blobs = [place / "blobs" for home in homes if home.name.startswith("datasets--") for place in (home, home.parent)]
    return [place.resolve() for place in blobs]


def first_of(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def shown(text: str) -> str:
    return text[:80] + (" ..." if len(text) > 80 else "")
