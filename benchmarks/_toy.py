"""Toy data in the layouts of the paper's datasets: drawn scenes under one folder, for every reproduction to run on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._paper import SUBSETS
from grclip import Items, SearchTask
from grclip.datasets import make_scenes, write_beir, write_clotho, write_mixbench, write_msvd, write_nights
from grclip.datasets._writing import new_folder

BEIR = ("nfcorpus", "scifact")
MARK = "toy.txt"
"""File that tells a folder of toy data from others, and how large they are."""

N_SETS = 14
"""Sets of scenes that are drawn."""

MOST = 299
"""Scenes a set, of which there are some 4,000 in all."""

Drawn = tuple[SearchTask, list[dict[int, int]]]


def write_toy(root: Path, n: int) -> None:
    """Every dataset, of n queries each, from scenes that no two of them share; in a folder of their own."""
    mark = root / MARK
    if mark.is_file() and mark.read_text() == str(n):
        return
    if root.is_dir() and any(root.iterdir()):
        held = f"{mark.read_text()} toy scenes a dataset" if mark.is_file() else "other data"
        raise SystemExit(f"{root} holds {held}; give --toy {n} a folder of its own by --root, or remove that one")
    if root.is_dir():
        root.rmdir()
    scenes = draw(n)
    with new_folder(root) as folder:  # there whole or not at all
        for place in (folder, folder / "train"):
            for subset in SUBSETS:
                write_mixbench(*of_subset(subset, scenes), place, subset)
        for name in BEIR:
            task, qrels = next(scenes)
            halves = ["train"] * (n // 2) + ["test"] * (n - n // 2)
            write_beir(SearchTask(task.queries, Items({"text": task.corpus["text"]})), qrels, folder / name, halves)
        write_media(folder, n, scenes)
        (folder / MARK).write_text(str(n))


def draw(n: int) -> Iterator[Drawn]:
    """Sets of n scenes."""
    task, qrels = make_scenes(N_SETS * n, random_state=0)
    return ((SearchTask(task.queries[i : i + n], task.corpus[i : i + n]), qrels[:n]) for i in range(0, N_SETS * n, n))


def of_subset(subset: str, scenes: Iterator[Drawn]) -> Drawn:
    """Scenes as a subset has them: Google_WIT has more documents than queries, OVEN asks with pictures and texts."""
    task, qrels = next(scenes)
    if subset == "Google_WIT":
        others, _ = next(scenes)
        return SearchTask(task.queries, joined(task.corpus, others.corpus)), qrels
    if subset == "OVEN":
        return SearchTask(Items({**task.queries, "query_image": smaller(task.corpus["image"])}), task.corpus), qrels
    return task, qrels


def write_media(root: Path, n: int, scenes: Iterator[Drawn]) -> None:
    """Scenes as sounds (a tone each), as videos (of one frame each), and as pictures that are asked with."""
    (task, qrels), (pictures, _) = next(scenes), next(scenes)
    half = n // 2
    time = np.arange(4000) / 8000
    texts = {"text": task.corpus["text"]}
    tones = [(np.sin(2 * np.pi * (200 + 40 * row) * time).astype(np.float32), 8000) for row in range(n)]
    write_clotho(
        SearchTask(task.queries, Items({**texts, "audio": tones})),
        qrels,
        root / "clotho",
        ["development"] * half + ["validation"] * (n - half),
    )
    frames = [np.asarray(picture)[None].repeat(4, axis=0) for picture in smaller(task.corpus["image"])]
    split = ["train"] * half + ["test"] * (n - half)
    write_msvd(SearchTask(task.queries, Items({**texts, "video": frames})), qrels, root / "msvd", split)
    asked = Items({"query_image": smaller(pictures.corpus["image"])})
    write_nights(SearchTask(asked, pictures.corpus), qrels, root / "nights", split)


def smaller(pictures: Sequence[Any]) -> list[Any]:
    """The same pictures at three quarters of their size."""
    return [picture.resize((96, 96)) for picture in pictures]


def joined(one: Items, other: Items) -> Items:
    """The rows of one, then those of the other."""
    return Items({role: [*one[role], *other[role]] for role in one})
