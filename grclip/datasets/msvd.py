"""MSVD: short clips of YouTube videos with some forty captions each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from grclip._validation import check_flag
from grclip.datasets._counts import check_published
from grclip.datasets._dataset import Dataset, described
from grclip.datasets._files import counted, read_text, rows_of
from grclip.datasets._pairs import pairs
from grclip.datasets._places import Media, check_files, folder_at
from grclip.items import Items, SearchTask

CAPTIONS, CLIPS, MAPPING = "AllVideoDescriptions.txt", "YouTubeClips", "youtube_mapping.txt"
SPLITS = {"train": range(1, 1201), "val": range(1201, 1301), "test": range(1301, 1971)}
"""Numbers of the clips of each split in the mapping."""

SOURCE = "https://www.cs.utexas.edu/~ml/clamp/videoDescription/"
LICENCE = "see the page of its publishers; the clips are excerpts of YouTube videos"


def load_msvd(folder: str | os.PathLike[str], split: str = "test", *, check_counts: bool = True) -> Dataset:
    """Load MSVD: one caption of a clip asks for it, another one is its text, and the clip is its other part.

    Parameters
    ----------
    folder : path-like
        Folder with the captions, the folder of clips, and a list of the split.
    split : {"test", "train", "val", "all"}, default="test"
        Which clips; "all" takes those that have captions and needs no list.
    check_counts : bool, default=True
        Whether a list of another length than published is an error. False takes data of your own in this layout; with
        "all" there is no list to check.

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
    TypeError
        If check_counts is neither True nor False.
    ValueError
        If split has no such value, a line is malformed, a clip is in the list twice, has no captions or only one, a
        path leaves the folder, or the split has another number of clips than 1,200 (train), 100 (val) or 670 (test).

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
    ...     task, qrels, description = load_msvd(f"{root}/msvd", check_counts=False)
    >>> task.corpus
    Items(n=1, text=1, video=1)
    >>> description.document_ids
    ('clip0_0_1',)
    """
    check_split(split)
    check_flag("check_counts", check_counts)
    place = folder_at(folder)
    way_out = f"get {CAPTIONS} and YouTubeClips.tar from {SOURCE}, and unpack them in {place}"
    check_files([place / CAPTIONS], way_out if check_counts else None)
    captions = _captions(place / CAPTIONS)
    listed = _listed(place, split, captions)
    media = Media(place, "video", way_out if check_counts else None)
    paths = [media.path(f"{clip}.avi", where, CLIPS) for where, clip in listed]
    names = list(rows_of(listed))
    if check_counts and split != "all":
        check_published(place, "MSVD", {f"clips of the split {split!r}": (len(names), [len(SPLITS[split])])})
    media.check()
    chosen = _chosen(place, names, captions)
    queries, texts = zip(*chosen, strict=True)
    task = SearchTask(Items({"query": list(queries)}), Items({"text": list(texts), "video": paths}))
    source = f"{SOURCE}, read from {place}; the first caption asks, the next with other words is the text"
    return Dataset(task, pairs(len(names)), described(f"MSVD, split {split}", source, LICENCE, task, names, names))


def check_split(split: str) -> None:
    """A split that there is, or all clips."""
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
    if not listed and path.name == MAPPING:
        numbers = SPLITS[split]
        raise ValueError(
            f"{path} has no clip of the split {split!r}, whose clips are vid{numbers[0]} to vid{numbers[-1]}"
        )
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
        others = [caption for _, caption in captions[clip] if words(caption) != words(first)]
        if not others:
            alone.append(clip)
        chosen.append((first, *others[:1]))
    if alone:
        raise ValueError(
            f"{place / CAPTIONS} has one caption only, however often, of {counted(alone, 'clip', 'clips')}; one is the "
            "query and another one the text, so add one, or take these clips out of the list"
        )
    return [(first, second) for first, second in chosen]


def words(caption: str) -> list[str]:
    """The words of a caption, whatever their capitals: captions with the same are one."""
    return caption.casefold().split()
