"""Large searches of real CLIP embeddings: real queries and documents among drawn ones.

The real sets hold hundreds of documents, of which an approximate index makes no point. So the corpora are filled up
with drawn pairs of a text and an image: normal, with the means and the covariance (within and between both) of the real
pairs, brought to unit length. They have the gap of the real ones and their directions of variance, and none of their
clusters.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from benchmarks import real_clip
from benchmarks._arguments import new_file
from grclip import Items, SearchTask


class Large(NamedTuple):
    """A search, what answers it, and the task that means and spreads come from."""

    name: str
    task: SearchTask
    qrels: list[dict[int, int]]
    calibration: SearchTask


def searches(folder: Path, n_documents: int) -> Iterator[Large]:
    """The three searches: images of two models, and a corpus of texts, images and both, all asked with captions."""
    photos = real_clip.photos(folder)
    captions, images = real_clip.flickr(folder)
    pairs = [
        np.concatenate([part, own]) for part, own in zip(photos.corpus.values(), (captions[:, 0], images), strict=True)
    ]
    texts, pictures = drawn(pairs[0], pairs[1], n_documents)
    yield _images("flickr8k images", captions, images, pictures, photos)
    yield _mixed("flickr8k mixed", captions, images, (texts, pictures), photos)
    coco_images, coco_texts = (
        part.astype(np.float32) for part in np.load(folder / "coco500_clip_vitb16/features_clip.npy")
    )
    fit, test = np.array_split(np.random.default_rng(0).permutation(len(coco_texts)), 2)
    halves = SearchTask(Items({"query": coco_texts[fit]}), Items({"text": coco_texts[fit], "image": coco_images[fit]}))
    _, pictures = drawn(coco_texts, coco_images, n_documents)
    yield _images("coco images", coco_texts[test][:, None], coco_images[test], pictures, halves)


def drawn(texts: NDArray, images: NDArray, n: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pairs of a text and an image, n of them, with the moments of the real pairs."""
    factors = np.random.default_rng(0).normal(size=(n, len(texts))) / np.sqrt(len(texts) - 1)
    made = []
    for part in (unit(texts), unit(images)):
        mean = part.mean(axis=0)
        made.append(unit(mean + factors @ (part - mean)).astype(np.float32))
    return made[0], made[1]


def fitted(method: str, search: Large) -> Pipeline:
    """A method fitted on the calibration task."""
    return real_clip.fitted(method, search.calibration)


def overlap(exact: NDArray, found: NDArray) -> float:
    """The share of the rows of exact search, of all queries, that were found too."""
    both = [len(set(a) & set(b)) for a, b in zip(exact.tolist(), found.tolist(), strict=True)]
    return sum(both) / exact.size


def run(
    argv: Sequence[str],
    description: str | None,
    methods: Iterable[str],
    measure: Callable[[Large, str], list[dict[str, Any]]],
    print_tables: Callable[[Sequence[dict[str, Any]]], None],
) -> int:
    """A command: rows of each search by each method, printed, and written where the arguments say."""
    arguments = parser(description).parse_args(argv)
    found = searches(real_clip.data_folder(), arguments.documents)
    rows = [row for search in found for method in methods for row in measure(search, method)]
    print_tables(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps({**about(arguments), "rows": rows}, indent=1) + "\n", encoding="utf-8")
    return 0


def about(arguments: argparse.Namespace) -> dict[str, Any]:
    """What figures depend on: the date, versions, machine, threads and settings."""
    names = ("faiss-cpu", "numpy", "scikit-learn", "torch")
    return {
        "date": str(date.today()),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "documents": arguments.documents,
    }


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser of the arguments that these benchmarks take."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--documents", type=int, default=20_000, help="documents to draw for a corpus (default: 20,000)")
    made.add_argument("--json", type=new_file, help="file to write the results to")
    return made


def unit(x: NDArray) -> NDArray:
    """Rows of unit length."""
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _images(name: str, captions: NDArray, images: NDArray, pictures: NDArray, calibration: SearchTask) -> Large:
    """Captions (n, m, d) that ask for their images (n, d) among drawn pictures."""
    corpus = np.concatenate([images.astype(np.float32), pictures])
    qrels = [{i: 1} for i in range(len(images)) for _ in range(captions.shape[1])]
    queries = captions.reshape(-1, captions.shape[2]).astype(np.float32)
    return Large(name, SearchTask(Items({"query": queries}), Items({"image": corpus})), qrels, calibration)


def _mixed(
    name: str, captions: NDArray, images: NDArray, more: tuple[NDArray, NDArray], calibration: SearchTask
) -> Large:
    """Four captions of each image ask for the document that the fifth, the image or both make; kinds are 1:1:1."""
    rng, n = np.random.default_rng(0), len(images)
    kind, told = rng.permutation(np.arange(n) % 3), rng.integers(0, 5, n)
    others = (told[:, None] + np.arange(1, 5)) % 5
    kind = np.concatenate([kind, np.arange(len(more[0])) % 3])[:, None]
    text, image = np.concatenate([captions[np.arange(n), told], more[0]]), np.concatenate([images, more[1]])
    missing = np.float32(np.nan)
    corpus = Items({"text": np.where(kind == 1, missing, text), "image": np.where(kind == 0, missing, image)})
    queries = captions[np.arange(n)[:, None], others].reshape(4 * n, -1)
    return Large(
        name, SearchTask(Items({"query": queries}), corpus), [{i: 1} for i in range(n) for _ in range(4)], calibration
    )
