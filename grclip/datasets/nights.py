"""NIGHTS: generated pictures, each with the one of two others that people find more like it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sklearn.utils import check_random_state

from grclip._validation import check_flag, check_k
from grclip.datasets._counts import check_published
from grclip.datasets._dataset import Dataset, described
from grclip.datasets._files import counted, id_of, read_records, read_table, rows_of, text_of
from grclip.datasets._pairs import check_pairs, one_line, pairs
from grclip.datasets._places import Media, check_files, check_name, folder_at
from grclip.datasets._writing import new_folder, required_file_at, splits_of, write_file, write_table
from grclip.items import Items, SearchTask

COLUMNS = ("id", "left_vote", "right_vote", "votes", "ref_path", "left_path", "right_path", "split")
N_TRIPLETS = 20_019
"""Triplets of all splits together, with any number of votes."""

MIN_VOTES = 6
"""Votes that a triplet needs, as in the loader of its publishers."""

SOURCE = "https://github.com/ssundaram21/dreamsim/tree/main/dataset"
LICENCE = "none named for the pictures; the repository of its publishers is under MIT"


class _Triplet(NamedTuple):
    where: str
    id: str
    reference: str
    alike: str
    prompt: str | None


def load_nights(
    folder: str | os.PathLike[str],
    split: str = "test",
    *,
    titles: str | os.PathLike[str] | Mapping[Any, str] | None = None,
    n: int | None = None,
    random_state: Any = 0,
    check_counts: bool = True,
) -> Dataset:
    """Load NIGHTS: a picture asks for the one that people find alike, and a title is the text of that document.

    Parameters
    ----------
    folder : path-like
        Folder with ``data.csv`` and the pictures.
    split : str, default="test"
        Which triplets: a value of the column ``split``, "train", "val" or "test".
    titles : path-like or dict of id to str, default=None
        Titles of the reference pictures by the id of the triplet, or a file of JSON lines
        ``{"id": ..., "title": ...}``. None takes the column ``prompt``, what the pictures were generated from.
    n : int, default=None
        Number of triplets to draw; None takes all. The others need neither pictures nor titles.
    random_state : int, RandomState instance or None, default=0
        Decides which triplets are drawn.
    check_counts : bool, default=True
        Whether a table of another number of triplets than published is an error, all splits together. False takes data
        of your own in this layout.

    Returns
    -------
    Dataset
        ``task`` with queries in the role ``"query_image"`` (str, paths) and documents in ``"text"`` (str) and
        ``"image"`` (str, paths), one document for each query in the same row, in the order of the table; ``qrels``;
        ``description``, with the ids of the triplets.

    Raises
    ------
    FileNotFoundError
        If the table is missing; missing pictures are counted and named.
    TypeError
        If titles are neither a path nor a dict, one of them is no str, or check_counts is neither True nor False.
    ValueError
        If the table has no such split or n is no number of its triplets; if a line is malformed, a vote is no number of
        at least 0, votes are equal, an id comes twice, a title is missing or blank, a path leaves the folder, or the
        table has another number of triplets than those published.

    See Also
    --------
    write_nights : Write a task in this layout.

    Notes
    -----
    ``data.csv`` has the columns ``id``, ``left_vote``, ``right_vote``, ``votes``, ``ref_path``, ``left_path``,
    ``right_path``, ``split`` and ``prompt``, in any order and with others; paths are relative to the folder
    (``ref/000/000.png``, ``distort/000/000_0.png``), as https://data.csail.mit.edu/nights/nights.zip has them. Triplets
    with fewer than 6 votes are left out, as its publishers do, and ``description.source`` says how many. No picture is
    opened. Its publishers count 20,019 triplets in all; how many of them a split keeps they do not say, so the rows of
    the whole table are what is checked.

    The paper uses 1,000 pairs, and does not say which: ``n=1000`` draws as many. Its titles were written by GPT-4o;
    give such titles for its figures. A prompt ("An image of a ...") is shared by all triplets of a category, whose
    texts then cannot be told apart.

    References
    ----------
    Fu et al., DreamSim: Learning New Dimensions of Human Visual Similarity using Synthetic Data, arXiv:2306.09344. Li
    et al., Closing the Modality Gap for Mixed Modality Search, arXiv:2507.19054, appendix E.

    Examples
    --------
    >>> import tempfile
    >>> from grclip import Items, SearchTask
    >>> from grclip.datasets import load_nights, make_scenes, write_nights
    >>> scenes = make_scenes(3, random_state=0)[0].corpus
    >>> task = SearchTask(Items({"query_image": scenes["image"]}), scenes)
    >>> with tempfile.TemporaryDirectory() as root:
    ...     write_nights(task, [{0: 1}, {1: 1}, {2: 1}], f"{root}/nights")
    ...     task, qrels, description = load_nights(f"{root}/nights", n=2, check_counts=False)
    >>> task.corpus
    Items(n=2, text=2, image=2)
    """
    check_flag("check_counts", check_counts)
    place = folder_at(folder)
    way_out = f"get https://data.csail.mit.edu/nights/nights.zip, and unpack it so that {place} holds data.csv and ref"
    check_files([place / "data.csv"], way_out if check_counts else None)
    rows = _rows(place / "data.csv", with_prompt=titles is None)
    if check_counts:
        check_published(place / "data.csv", "NIGHTS", {"triplets": (len(rows), [N_TRIPLETS])})
    found, left_out = _triplets(place / "data.csv", rows, split)
    triplets = found if n is None else _drawn(found, n, random_state)
    media = Media(place, "image", way_out if check_counts else None)
    queries = [media.path(each.reference, each.where) for each in triplets]
    documents = [media.path(each.alike, each.where) for each in triplets]
    media.check()
    texts = _texts(triplets, titles)
    task = SearchTask(Items({"query_image": queries}), Items({"text": texts, "image": documents}))
    source = f"{SOURCE}, read from {place}; triplets with fewer than {MIN_VOTES} votes left out: {left_out}"
    drawn = "" if n is None else f", {n} of {len(found)} drawn"
    ids = [each.id for each in triplets]
    return Dataset(task, pairs(len(ids)), described(f"NIGHTS, split {split}{drawn}", source, LICENCE, task, ids, ids))


def _rows(path: Path, *, with_prompt: bool) -> list[tuple[str, dict[str, str]]]:
    """The rows of the table, of all splits, each with its place."""
    rows = list(read_table(path, [*COLUMNS, "prompt"] if with_prompt else COLUMNS))
    rows_of([(where, id_of(row, "id", where)) for where, row in rows])
    return rows


def _triplets(path: Path, rows: Sequence[tuple[str, dict[str, str]]], split: str) -> tuple[list[_Triplet], int]:
    """The triplets of a split, and how many had too few votes."""
    splits = dict.fromkeys(row["split"] for _, row in rows)
    if split not in splits:
        raise ValueError(f"split must be one of {', '.join(map(repr, splits))}, which {path} has; got {split!r}")
    chosen = [(where, row) for where, row in rows if row["split"] == split]
    kept = [(where, row) for where, row in chosen if _number(row, "votes", where) >= MIN_VOTES]
    if not kept:
        raise ValueError(f"{path}: none of the {len(chosen)} triplets of the split {split!r} has {MIN_VOTES} votes")
    return [_triplet(where, row) for where, row in kept], len(chosen) - len(kept)


def _triplet(where: str, row: Mapping[str, str]) -> _Triplet:
    left, right = (_number(row, side, where) for side in ("left_vote", "right_vote"))
    if left == right:
        raise ValueError(f"{where}: left_vote and right_vote are both {left:g}, so neither picture is more alike")
    alike = row["left_path"] if left > right else row["right_path"]
    return _Triplet(where, id_of(row, "id", where), row["ref_path"], alike, text_of(row, "prompt", where))


def _number(row: Mapping[str, str], name: str, where: str) -> float:
    try:
        number = float(row[name])
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"{where}: {name} is {row[name]!r}; expected a number of at least 0")
    return number


def _drawn(triplets: Sequence[_Triplet], n: int, random_state: Any) -> list[_Triplet]:
    """Some triplets at random, in their order."""
    if check_k(n, name="n") > len(triplets):
        raise ValueError(f"n={n} is larger than the number of triplets, {len(triplets)}; ask for at most that many")
    rows = check_random_state(random_state).permutation(len(triplets))[:n]
    return [triplets[row] for row in sorted(rows)]


def _texts(triplets: Sequence[_Triplet], titles: Any) -> list[str]:
    """A title for each triplet."""
    if titles is None:
        found, what = {each.id: each.prompt for each in triplets}, "prompt"
    elif isinstance(titles, Mapping):
        found, what = {str(each): title for each, title in titles.items()}, "title in titles"
    elif isinstance(titles, str | os.PathLike):
        found, what = _read_titles(folder_at(titles)), f"title in {titles}"
    else:
        raise TypeError(f"titles must be a path, or a dict of id to str; got {type(titles).__name__}")
    texts = {each.id: found.get(each.id) for each in triplets}
    strange = [each for each, text in texts.items() if text is not None and not isinstance(text, str)]
    if strange:
        raise TypeError(f"titles must be str; got others for {counted(strange, 'triplet', 'triplets')}")
    lacking = [each for each, text in texts.items() if not (text or "").strip()]
    if lacking:
        raise ValueError(f"no {what} for {counted(lacking, 'triplet', 'triplets')}")
    return [str(text) for text in texts.values()]


def _read_titles(path: Path) -> dict[str, str | None]:
    places, found = [], []
    for where, record in read_records(path):
        places.append((where, id_of(record, "id", where)))
        found.append(text_of(record, "title", where))
    return dict(zip(rows_of(places), found, strict=True))


def write_nights(
    task: SearchTask,
    qrels: Sequence[Mapping[int, float]],
    folder: str | os.PathLike[str],
    split: str | Sequence[str] = "test",
) -> None:
    """Write a task of pairs of pictures in the layout of NIGHTS, from which `load_nights` reads it.

    Parameters
    ----------
    task : SearchTask
        Queries in the role ``"query_image"`` and as many documents in ``"text"`` (str) and ``"image"``: pictures are
        PIL images, which become PNG, or paths or binary files, which are copied.
    qrels : list of dict
        ``[{0: 1}, {1: 1}, ...]``: each query asks for the document in its row.
    folder : path-like
        Folder to make.
    split : str or sequence of str, default="test"
        Value of the column ``split``, or that of each query.

    Raises
    ------
    FileExistsError
        If the folder is there already.
    FileNotFoundError
        If a picture to copy is not there.
    TypeError
        If a part is of another type.
    ValueError
        If a role is another one, a part is missing, a text is blank or has several lines, or qrels are others.

    See Also
    --------
    load_nights : Read it back, with ``check_counts=False``.

    Notes
    -----
    Texts become prompts. The third picture of a triplet, which people find less alike, is the document of the next
    query; the alike one is left and right by turns.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from grclip import Items, SearchTask
    >>> from grclip.datasets import make_scenes, write_nights
    >>> scenes = make_scenes(3, random_state=0)[0].corpus
    >>> task = SearchTask(Items({"query_image": scenes["image"]}), scenes)
    >>> with tempfile.TemporaryDirectory() as root:
    ...     write_nights(task, [{0: 1}, {1: 1}, {2: 1}], f"{root}/nights")
    ...     sorted(path.name for path in Path(root, "nights").iterdir())
    ['data.csv', 'distort', 'ref']
    """
    check_pairs(task, qrels, ["query_image"], ["text", "image"])
    splits = splits_of(split, len(task), lambda name: check_name("split", name))
    with new_folder(Path(folder)) as place:
        rows = []
        for row in range(len(task)):
            stem = f"{row // 1000:03}/{row % 1000:03}"
            reference = _write_picture(place, f"ref/{stem}", task.queries, "query_image", row)
            sides = [row, (row + 1) % len(task)][:: -1 if row % 2 else 1]
            paths = [
                _write_picture(place, f"distort/{stem}_{side}", task.corpus, "image", shown)
                for side, shown in enumerate(sides)
            ]
            votes = [row % 2 == 0, row % 2 == 1]
            prompt = one_line(task.corpus, "text", row)
            rows.append([row, *map(int, votes), MIN_VOTES, reference, *paths, splits[row], prompt, False])
        write_table(place / "data.csv", [*COLUMNS, "prompt", "is_imagenet"], rows)


def _write_picture(place: Path, stem: str, items: Items, role: str, row: int) -> str:
    """Write the picture of a row, and tell its path in the folder."""
    content, suffix = required_file_at(items, role, row)
    write_file(place / f"{stem}{suffix}", content)
    return f"{stem}{suffix}"
