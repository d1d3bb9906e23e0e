"""Tasks of clips written in the layout of MSVD."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grclip._optional import optional_import
from grclip.datasets._pairs import check_pairs, one_line
from grclip.datasets._writing import new_folder, required_file_at, splits_of, write_file
from grclip.datasets.msvd import CAPTIONS, CLIPS, check_split, words
from grclip.items import Items, SearchTask

RATE = 10
"""Frames per second of clips that are written; the frames are what is read back."""


def write_msvd(
    task: SearchTask,
    qrels: Sequence[Mapping[int, float]],
    folder: str | os.PathLike[str],
    split: str | Sequence[str] = "test",
) -> None:
    """Write a task of clips in the layout of MSVD, from which `load_msvd` reads it.

    Parameters
    ----------
    task : SearchTask
        Queries in the role ``"query"`` (str) and as many documents in ``"text"`` (str) and ``"video"``: paths of .avi
        files, which are copied, or frames, uint8 arrays of shape (n, height, width, 3), which are written without loss.
    qrels : list of dict
        ``[{0: 1}, {1: 1}, ...]``: each query asks for the document in its row.
    folder : path-like
        Folder to make.
    split : {"test", "train", "val", "all"} or sequence of these, default="test"
        Split whose list is written, or that of each query; "all" has no list.

    Raises
    ------
    FileExistsError
        If the folder is there already.
    FileNotFoundError
        If a clip to copy is not there.
    ModuleNotFoundError
        If frames are to be written and the extra ``media`` is not installed.
    TypeError
        If a part is of another type.
    ValueError
        If a role is another one, a part is missing, a caption is blank, has several lines or the words of its query,
        qrels are others, or split has no such value.

    See Also
    --------
    load_msvd : Read it back, with ``check_counts=False``.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from grclip import Items, SearchTask
    >>> from grclip.datasets import write_msvd
    >>> dark = np.zeros((5, 32, 48, 3), np.uint8)
    >>> task = SearchTask(Items({"query": ["night"]}), Items({"text": ["it is dark"], "video": [dark]}))
    >>> with tempfile.TemporaryDirectory() as root:
    ...     write_msvd(task, [{0: 1}], f"{root}/msvd")
    ...     sorted(path.name for path in Path(root, "msvd").iterdir())
    ['AllVideoDescriptions.txt', 'YouTubeClips', 'test_list.txt']
    """
    check_pairs(task, qrels, ["query"], ["text", "video"])
    splits = splits_of(split, len(task), check_split)
    with new_folder(Path(folder)) as place:
        names = [f"clip{row}_0_1" for row in range(len(task))]
        lines = ["# Captions of short clips: the name of a clip, a blank, a caption."]
        for row, name in enumerate(names):
            lines += [f"{name} {caption}" for caption in _two_captions(task, row)]
            _write_clip(place / CLIPS / f"{name}.avi", task.corpus, row)
        write_file(place / CAPTIONS, "".join(f"{line}\n" for line in lines).encode())
        for each in dict.fromkeys(splits):
            listed = [name for name, other in zip(names, splits, strict=True) if other == each != "all"]
            if listed:
                write_file(place / f"{each}_list.txt", "".join(f"{name}\n" for name in listed).encode())


def _two_captions(task: SearchTask, row: int) -> tuple[str, str]:
    query, text = one_line(task.queries, "query", row), one_line(task.corpus, "text", row)
    if words(query) == words(text):
        raise ValueError(f"row {row}: query and text are one caption, {text[:80]!r}; this layout needs two")
    return query, text


def _write_clip(path: Path, items: Items, row: int) -> None:
    value = items["video"][row]
    if isinstance(value, np.ndarray):
        if value.dtype != np.uint8 or value.ndim != 4 or value.shape[3] != 3 or not value.size:
            raise TypeError(
                f"role 'video', row {row}: expected uint8 frames of shape (n, height, width, 3); got "
                f"{value.dtype}{list(value.shape)}"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_frames(path, value)
    elif isinstance(value, str | os.PathLike):
        content, suffix = required_file_at(items, "video", row)
        if suffix.lower() != ".avi":
            raise ValueError(f"role 'video', row {row}: clips of this layout are .avi files; got {os.fspath(value)!r}")
        write_file(path, content)
    else:
        raise TypeError(f"role 'video', row {row}: expected a path or frames; got {type(value).__name__}")


def _write_frames(path: Path, frames: NDArray[np.uint8]) -> None:
    """Frames as AVI, in a codec that loses nothing."""
    av: Any = optional_import("av", "media", "writing videos")
    with av.open(path, "w", format="avi") as out:
        stream = out.add_stream("ffv1", rate=RATE)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
