"""Clotho: sounds of 15 to 30 seconds with five captions each."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import wavfile

from grclip._validation import check_flag, check_k
from grclip.datasets._counts import check_published
from grclip.datasets._dataset import Dataset, described
from grclip.datasets._files import id_of, read_table, rows_of, text_of
from grclip.datasets._pairs import check_pairs, one_line, pairs
from grclip.datasets._places import Media, check_files, folder_at, unpacking
from grclip.datasets._writing import new_folder, required_file_at, splits_of, write_file, write_table
from grclip.items import Items, SearchTask

PUBLISHED = {"development": (3839, 3840), "validation": (1045, 1046), "evaluation": (1045,)}
"""Sounds of each split in versions 2.1 and 2.0."""

N_CAPTIONS = 5
WAV_TYPES = ("uint8", "int16", "int32", "float32", "float64")
SOURCE = "https://zenodo.org/records/4783391"
LICENCE = (
    "captions under that of Tampere University, sounds under those of Freesound that the metadata tables list, as its "
    "publishers say"
)


def load_clotho(
    folder: str | os.PathLike[str],
    split: str = "validation",
    *,
    query_caption: int = 1,
    text_caption: int = 2,
    check_counts: bool = True,
) -> Dataset:
    """Load Clotho: one caption of a sound asks for it, another one is its text, and the sound is its other part.

    Parameters
    ----------
    folder : path-like
        Folder with the table of captions and the folder of sounds.
    split : {"development", "validation", "evaluation"}, default="validation"
        Which sounds.
    query_caption : int, default=1
        Which of the five captions is the query.
    text_caption : int, default=2
        Which of them is the text of the document.
    check_counts : bool, default=True
        Whether other counts than those published are an error. False takes data of your own in this layout.

    Returns
    -------
    Dataset
        ``task`` with queries in the role ``"query"`` (str) and documents in ``"text"`` (str) and ``"audio"`` (str,
        paths of sounds), one document for each query in the same row; ``qrels``; ``description``, with the names of
        the sounds as ids.

    Raises
    ------
    FileNotFoundError
        If the table or the folder of sounds is missing; missing sounds are counted and named.
    TypeError
        If check_counts is neither True nor False.
    ValueError
        If an argument has no such value, a line is malformed, a sound comes twice, a caption is empty, a path leaves
        the folder, or the split has another number of sounds than those published.

    See Also
    --------
    write_clotho : Write a task in this layout.

    Notes
    -----
    The folder holds ``clotho_captions_{split}.csv`` (``file_name``, ``caption_1``, ..., ``caption_5``) and the sounds
    in ``{split}``, ``clotho_audio_{split}`` or ``clotho_audio_{split}/{split}``, as
    https://zenodo.org/records/4783391 has them. No sound is opened.

    The paper has 1,046 pairs, which is the size of the validation split of version 2.0; in version 2.1 that split has
    1,045 sounds, as the evaluation split has. The development split has 3,840 or 3,839; the sounds of either version
    pass. The paper lets GPT-4o choose the caption that is the text; here it is chosen by number.

    References
    ----------
    Drossos et al., Clotho: an Audio Captioning Dataset, arXiv:1910.09387. Li et al., Closing the Modality Gap for Mixed
    Modality Search, arXiv:2507.19054, appendix E.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from grclip import Items, SearchTask
    >>> from grclip.datasets import load_clotho, write_clotho
    >>> hum = np.sin(np.arange(8000) / 20), 16000
    >>> task = SearchTask(Items({"query": ["a hum"]}), Items({"text": ["a machine hums"], "audio": [hum]}))
    >>> with tempfile.TemporaryDirectory() as root:
    ...     write_clotho(task, [{0: 1}], f"{root}/clotho")
    ...     task, qrels, description = load_clotho(f"{root}/clotho", check_counts=False)
    >>> task.corpus
    Items(n=1, text=1, audio=1)
    >>> description.document_ids
    ('d0.wav',)
    """
    _check_split(split)
    _check_captions(query_caption, text_caption)
    check_flag("check_counts", check_counts)
    place, columns = folder_at(folder), [f"caption_{number}" for number in (query_caption, text_caption)]
    media, home = _sounds(place, split, check_counts)
    places, captions, paths = [], [], []
    for where, row in read_table(place / f"clotho_captions_{split}.csv", ["file_name", *columns]):
        places.append((where, id_of(row, "file_name", where)))
        captions.append([_caption(row, column, where) for column in columns])
        paths.append(media.path(row["file_name"], where, home))
    if not places:
        raise ValueError(f"{place / f'clotho_captions_{split}.csv'} is empty: there is no sound in it")
    names = list(rows_of(places))
    if check_counts:
        check_published(place, "Clotho", {f"sounds of the split {split!r}": (len(names), PUBLISHED[split])})
    media.check()
    queries, texts = zip(*captions, strict=True)
    task = SearchTask(Items({"query": list(queries)}), Items({"text": list(texts), "audio": paths}))
    source = f"{SOURCE}, read from {place}; caption {query_caption} asks, caption {text_caption} is the text"
    return Dataset(task, pairs(len(names)), described(f"Clotho, split {split}", source, LICENCE, task, names, names))


def _check_split(split: str) -> None:
    if split not in PUBLISHED:
        raise ValueError(f"split must be one of {', '.join(map(repr, PUBLISHED))}; got {split!r}")


def _check_captions(query_caption: int, text_caption: int) -> None:
    for name, number in (("query_caption", query_caption), ("text_caption", text_caption)):
        if check_k(number, name=name) > N_CAPTIONS:
            raise ValueError(f"{name} must be a whole number from 1 to {N_CAPTIONS}; got {number!r}")
    if query_caption == text_caption:
        raise ValueError(f"query_caption and text_caption are both {query_caption}: every query would be its own text")


def _sounds(place: Path, split: str, published: bool) -> tuple[Media, str]:
    """The sounds of a split, and the folder that they lie in."""
    way_out = (
        f"get clotho_captions_{split}.csv and clotho_audio_{split}.7z from {SOURCE}, and unpack them in {place}, so "
        f"that the sounds lie in {place / split}"
    )
    check_files([place / f"clotho_captions_{split}.csv"], way_out if published else None)
    archive = f"clotho_audio_{split}"
    homes = [name for name in (split, f"{archive}/{split}", archive) if (place / name).is_dir()]
    if not homes:
        way_out = unpacking([place / split, place / archive]) or way_out
        raise FileNotFoundError(f"{place} has neither a folder {split} nor {archive}; {way_out}")
    return Media(place, "sound", way_out if published else None), homes[0]


def _caption(row: Mapping[str, Any], column: str, where: str) -> str:
    caption = text_of(row, column, where)
    if caption is None:
        raise ValueError(f"{where}: {column!r} is empty; a sound needs it, or take another caption of the five")
    return caption


def write_clotho(
    task: SearchTask,
    qrels: Sequence[Mapping[int, float]],
    folder: str | os.PathLike[str],
    split: str | Sequence[str] = "validation",
) -> None:
    """Write a task of sounds in the layout of Clotho, from which `load_clotho` reads it.

    Parameters
    ----------
    task : SearchTask
        Queries in the role ``"query"`` (str) and as many documents in ``"text"`` (str) and ``"audio"``: paths, which
        are copied, or tuples (samples, rate) with samples of shape (n,) or (n, channels) and the rate in Hz, which
        become WAV.
    qrels : list of dict
        ``[{0: 1}, {1: 1}, ...]``: each query asks for the document in its row.
    folder : path-like
        Folder to make.
    split : {"development", "validation", "evaluation"} or sequence of these, default="validation"
        Name of the split whose place it takes, or that of each query.

    Raises
    ------
    FileExistsError
        If the folder is there already.
    FileNotFoundError
        If a sound to copy is not there.
    TypeError
        If a part is of another type.
    ValueError
        If a role is another one, a part is missing, a caption is blank or has several lines, qrels are others, or split
        has no such value.

    See Also
    --------
    load_clotho : Read it back, with ``check_counts=False``.

    Notes
    -----
    The query is caption 1 and the text caption 2; captions 3 to 5 repeat them.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from grclip import Items, SearchTask
    >>> from grclip.datasets import write_clotho
    >>> hum = np.sin(np.arange(8000) / 20), 16000
    >>> task = SearchTask(Items({"query": ["a hum"]}), Items({"text": ["a machine hums"], "audio": [hum]}))
    >>> with tempfile.TemporaryDirectory() as root:
    ...     write_clotho(task, [{0: 1}], f"{root}/clotho")
    ...     sorted(path.name for path in Path(root, "clotho").iterdir())
    ['clotho_captions_validation.csv', 'validation']
    """
    check_pairs(task, qrels, ["query"], ["text", "audio"])
    splits = splits_of(split, len(task), _check_split)
    header = ["file_name", *(f"caption_{number}" for number in range(1, N_CAPTIONS + 1))]
    with new_folder(Path(folder)) as place:
        rows: dict[str, list[list[str]]] = {each: [] for each in splits}
        for row, each in enumerate(splits):
            content, suffix = _sound_at(task.corpus, row)
            write_file(place / each / f"d{row}{suffix}", content)
            captions = [one_line(task.queries, "query", row), one_line(task.corpus, "text", row)]
            rows[each].append([f"d{row}{suffix}", *(captions * N_CAPTIONS)[:N_CAPTIONS]])
        for each, lines in rows.items():
            write_table(place / f"clotho_captions_{each}.csv", header, lines)


def _sound_at(items: Items, row: int) -> tuple[bytes, str]:
    """The content of a row's sound and the ending of its name."""
    value = items["audio"][row]
    if isinstance(value, str | os.PathLike):
        return required_file_at(items, "audio", row)
    if not isinstance(value, tuple) or len(value) != 2:
        raise TypeError(f"role 'audio', row {row}: expected a path or (samples, rate); got {type(value).__name__}")
    return _wav(np.asarray(value[0]), value[1], row), ".wav"


def _wav(samples: NDArray, rate: Any, row: int) -> bytes:
    """Samples as a WAV file, in their own type, with the channels on the short side."""
    whole = isinstance(rate, Real) and float(rate).is_integer() and float(rate) > 0
    if not whole or not samples.size or samples.ndim not in (1, 2) or samples.dtype.name not in WAV_TYPES:
        raise TypeError(
            f"role 'audio', row {row}: WAV holds 1-D or 2-D samples of {', '.join(WAV_TYPES)} at a whole rate; got "
            f"{samples.dtype}{list(samples.shape)} at {rate!r} Hz"
        )
    file = io.BytesIO()
    channels = samples if samples.ndim == 1 else np.moveaxis(samples, int(np.argmin(samples.shape)), 1)
    wavfile.write(file, int(rate), channels)
    return file.getvalue()
