"""MSVD: short clips of YouTube videos with some forty captions each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grclip._optional import optional_import
from grclip.datasets._dataset import Dataset, described
from grclip.datasets._files import Media, check_files, counted, read_text, rows_of
from grclip.datasets._pairs import check_pairs, one_line, pairs
from grclip.datasets._writing import new_folder, required_file_at, splits_of, write_file
from grclip.items import Items, SearchTask

CAPTIONS, CLIPS, MAPPING = "AllVideoDescriptions.txt", "YouTubeClips", "youtube_mapping.txt"
SPLITS = {"train": range(1, 1201), "val": range(1201, 1301), "test": range(1301, 1971)}
"""Numbers of the clips of each split in the mapping."""

SOURCE = "https://www.cs.utexas.edu/~ml/clamp/videoDescription/"
LICENCE = "see the page of its publishers; the clips are excerpts of YouTube videos"
RATE = 10
"""Frames per second of clips that are written; the frames are what is read back."""


def load_msvd(folder: str | os.PathLike[str], split: str = "test") -> Dataset:
    """Load MSVD: one caption of a clip asks for it, another one is its text, and the clip is its other part.

    Parameters
    ----------
    folder : path-like
        Folder with the captions, the folder of clips, and a list of the split.
    split : {"test", "train", "val", "all"}, default="test"
        Which clips; "all" takes those that have captions and needs no list.

    Returns
    -------
    Dataset
        ``task`` with queries in the role ``"query"`` (str) and documents in ``"text"`` (str) and ``"video"`` (str,
        paths of clips), one document for each query in the same row; ``qrels``; ``description``, with the names of the
        clips as ids.

    Raises
    ------
    FileNotFoundError
        If the captions or the list of the split are missing; missing clips are counted and named.
    ValueError
        If split has no such value, a line is malformed, a clip is in the list twice, has no captions or only one, or a
        path leaves the folder.

    See Also
    --------
    write_msvd : Write a task in this layout.

    Notes
    -----
    The folder holds ``AllVideoDescriptions.txt`` (lines ``CLIP caption``, several of each clip, and comments that begin
    with ``#``) and ``YouTubeClips/CLIP.avi``, as https://www.cs.utexas.edu/~ml/clamp/videoDescription/ has them, and
    for a split either ``test_list.txt`` (``train_list.txt``, ``val_list.txt``: the name of a clip a line, with or
    without ``.avi``) or ``youtube_mapping.txt`` (lines ``CLIP vidN``, where vid1 to vid1200 are train, up to vid1300
    val, and up to vid1970 test). These lists were made by others, and do not come with the clips. No clip is opened.

    The paper uses the 670 clips of the split test, and lets GPT-4o choose the caption that is the text. Here the first
    caption in the file is the query and the next one with other words is the text: many captions are there more than
    once, and a text that repeats its query would be no test. A clip without such a second caption is an error, for a
    document without a text is none of this task.

    References
    ----------
    Chen and Dolan, Collecting Highly Parallel Data for Paraphrase Evaluation, ACL 2011. Li et al., Closing the Modality
    Gap for Mixed Modality Search, arXiv:2507.19054, appendix E.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from grclip import Items, SearchTask
    >>> from grclip.datasets import load_msvd, write_msvd
    >>> dark = np.zeros((5, 32, 48, 3), np.uint8)
    >>> task = SearchTask(Items({"query": ["night"]}), Items({"text": ["it is dark"], "video": [dark]}))
    >>> with tempfile.TemporaryDirectory() as root:
    ...     write_msvd(task, [{0: 1}], f"{root}/msvd")
    ...     task, qrels, description = load_msvd(f"{root}/msvd")
    >>> task.corpus
    Items(n=1, text=1, video=1)
    >>> description.document_ids
    ('clip0_0_1',)
    """
    _check_split(split)
    place = Path(folder)
    way_out = f"get {CAPTIONS} and YouTubeClips.tar from {SOURCE}, and unpack them in {place}"
    check_files([place / CAPTIONS], way_out)
    captions = _captions(place / CAPTIONS)
    listed = _listed(place, split, captions)
    media = Media(place, "video", way_out)
    paths = [media.path(f"{clip}.avi", where, CLIPS) for where, clip in listed]
    names = list(rows_of(listed))
    media.check()
    chosen = _chosen(place, names, captions)
    queries, texts = zip(*chosen, strict=True)
    task = SearchTask(Items({"query": list(queries)}), Items({"text": list(texts), "video": paths}))
    source = f"{SOURCE}, read from {place}; the first caption asks, the next with other words is the text"
    return Dataset(task, pairs(len(names)), described(f"MSVD, split {split}", source, LICENCE, task, names, names))


def _check_split(split: str) -> None:
    if split not in (*SPLITS, "all"):
        raise ValueError(f"split must be one of {', '.join(map(repr, (*SPLITS, 'all')))}; got {split!r}")


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Lines that are neither blank nor comments, each with its place."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield f"{path}, line {number}", line.strip()


def _captions(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Captions of each clip in the order of the file, each with its place."""
    captions: dict[str, list[tuple[str, str]]] = {}
    for where, line in _lines(path):
        clip, *caption = line.split(maxsplit=1)
        if not caption:
            raise ValueError(f"{where}: no caption after {clip[:80]!r}; add it, or take the line out")
        captions.setdefault(clip, []).append((where, caption[0]))
    if not captions:
        raise ValueError(f"{path} is empty: there is no caption in it")
    return captions


def _listed(place: Path, split: str, captions: Mapping[str, Sequence[tuple[str, str]]]) -> list[tuple[str, str]]:
    """The clips of a split in the order of its list, each with its place."""
    if split == "all":
        return [(given[0][0], clip) for clip, given in captions.items()]
    path = place / f"{split}_list.txt"
    if not path.is_file():
        path = place / MAPPING
    if not path.is_file():
        raise FileNotFoundError(
            f"{place} has no list of the split {split!r}: put {split}_list.txt there, the name of a clip a line, or "
            f"{MAPPING}, lines of a name and vidN; or take all clips with split='all'"
        )
    listed = _mapped(path, split) if path.name == MAPPING else _named(path)
    if not listed:
        raise ValueError(f"{path} is empty: there is no clip of the split {split!r} in it")
    for where, clip in listed:
        if clip not in captions:
            raise ValueError(f"{where}: the clip {clip!r} has no caption in {place / CAPTIONS}")
    return listed


def _named(path: Path) -> list[tuple[str, str]]:
    return [(where, line.removesuffix(".avi")) for where, line in _lines(path)]


def _mapped(path: Path, split: str) -> list[tuple[str, str]]:
    """The clips whose numbers are those of a split, by number."""
    numbers, clips = [], {}
    for where, line in _lines(path):
        found = re.fullmatch(r"(\S+)\s+vid(\d{1,4})", line)
        number = int(found[2]) if found else 0
        if not found or not 1 <= number < SPLITS["test"].stop:
            raise ValueError(
                f"{where}: expected the name of a clip and vid1 to vid{SPLITS['test'].stop - 1}; got {line[:80]!r}"
            )
        numbers.append((where, f"vid{number}"))
        if number in SPLITS[split]:
            clips[number] = where, found[1].removesuffix(".avi")
    rows_of(numbers)
    return [clips[number] for number in sorted(clips)]


def _chosen(
    place: Path, clips: Sequence[str], captions: Mapping[str, Sequence[tuple[str, str]]]
) -> list[tuple[str, str]]:
    """The first caption of each clip, and the next one that has other words."""
    chosen, alone = [], []
    for clip in clips:
        first = captions[clip][0][1]
        others = [caption for _, caption in captions[clip] if _words(caption) != _words(first)]
        if not others:
            alone.append(clip)
        chosen.append((first, *others[:1]))
    if alone:
        raise ValueError(
            f"{place / CAPTIONS} has one caption only, however often, of {counted(alone, 'clip', 'clips')}; one is the "
            "query and another one the text, so add one, or take these clips out of the list"
        )
    return [(first, second) for first, second in chosen]


def _words(caption: str) -> list[str]:
    return caption.casefold().split()


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
    load_msvd : Read it back.

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
    splits = splits_of(split, len(task), _check_split)
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
    if _words(query) == _words(text):
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
