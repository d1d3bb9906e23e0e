"""Serving on an embedded Qdrant: ``python -m benchmarks.qdrant``.

Prints

- rows found on the real CLIP sets (the folder that GRCLIP_REAL_DATA names): how many places hold the row that
  `ExactRetriever` finds, and how far apart the similarities are where they do not;
- documents stored and queries answered in a second, in memory and in a folder, beside `ExactRetriever`, on drawn
  vectors.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.pipeline import Pipeline

from benchmarks import real_clip
from grclip import ExactRetriever, Items, SearchTask
from grclip.scale.qdrant import QdrantRetriever


class Agreement(NamedTuple):
    """Places of a ranking, those that hold the row of exact search, and the largest distance where others do."""

    places: int
    same: int
    apart: float


def searches(folder: Path, trials: int) -> Iterator[tuple[str, Pipeline, SearchTask]]:
    """Calibrators and tasks on real embeddings: kinds 1:1:1, captions that are there twice, titles that are."""
    photos = real_clip.photos(folder)
    captions, images = real_clip.flickr(folder)
    for method in ("means removed", "one scale"):
        pipeline = real_clip.fitted(method, photos)
        for trial in range(trials):
            yield f"Flickr8k, {method}", pipeline, real_clip.mixed(captions, images, trial)
    yield "photos290, one scale", real_clip.fitted("one scale", photos), photos
    coco = np.load(folder / "coco500_clip_vitb16" / "features_clip.npy")
    patents = folder / "design_patents1000_clip_vitb32"
    for name, text, image in (
        ("COCO, one scale", coco[1], coco[0]),
        ("design patents, one scale", *(np.load(patents / f"{role}_embeddings.npy") for role in ("text", "image"))),
    ):
        task = SearchTask(Items({"query": text}), Items({"text": text, "image": image}))
        yield name, real_clip.fitted("one scale", task), SearchTask(task.queries, apart(text, image))


def apart(text: np.ndarray, image: np.ndarray) -> Items:
    """Each text and each image as a document of its own."""
    missing = np.full_like(text, np.nan)
    return Items({"text": np.concatenate([text, missing]), "image": np.concatenate([missing, image])})


def agreement(pipeline: Pipeline, task: SearchTask, k: int = 10) -> Agreement:
    """Compare the rankings of an embedded Qdrant and of exact search; similarities are summed in float64."""
    vectors = pipeline.transform(task)
    found = np.asarray(QdrantRetriever(pipeline=pipeline, k=k).fit(task).predict(task.queries))
    best = np.asarray(ExactRetriever(k=k).fit(vectors).predict(vectors.queries))
    queries, corpus = (np.asarray(side, dtype=np.float64) for side in (vectors.queries, vectors.corpus))
    at, place = np.nonzero(found != best)
    differences = np.einsum("nd,nd->n", queries[at], corpus[found[at, place]] - corpus[best[at, place]])
    return Agreement(found.size, int((found == best).sum()), float(np.abs(differences).max(initial=0)))


def agreements(folder: Path, trials: int = real_clip.TRIALS) -> dict[str, Agreement]:
    """Agreement by data set, over all its tasks."""
    found: dict[str, list[Agreement]] = defaultdict(list)
    for name, pipeline, task in searches(folder, trials):
        found[name].append(agreement(pipeline, task))
    return {
        name: Agreement(sum(one.places for one in all_), sum(one.same for one in all_), max(one.apart for one in all_))
        for name, all_ in found.items()
    }


def rates(n: int = 10_000, n_in_folder: int = 200, d: int = 512, n_queries: int = 200) -> dict[str, dict[str, float]]:
    """Documents stored, stored again, and queries answered in a second; a folder, which is slow to fill, has fewer."""
    rng = np.random.default_rng(0)
    corpus, queries = (unit(rng.normal(size=(rows, d))) for rows in (n, n_queries))
    with tempfile.TemporaryDirectory() as folder:
        in_folder = QdrantRetriever(folder)
        measured = {
            "ExactRetriever": rates_of(ExactRetriever(), corpus, queries),
            "Qdrant in memory": rates_of(QdrantRetriever(), corpus, queries),
            f"Qdrant in a folder, {n_in_folder} documents": rates_of(in_folder, corpus[:n_in_folder], queries),
        }
        in_folder.close()
    return measured


def rates_of(retriever: Any, corpus: np.ndarray, queries: np.ndarray, repeats: int = 3) -> dict[str, float]:
    """Rates of one retriever, by the median time of a search."""
    store = partial(retriever.add, ids=range(len(corpus))) if hasattr(retriever, "add") else retriever.fit
    stored, again = (seconds(partial(store, corpus)) for _ in range(2))
    searched = statistics.median(seconds(partial(retriever.predict, queries)) for _ in range(repeats))
    return {"stored": len(corpus) / stored, "again": len(corpus) / again, "queries": len(queries) / searched}


def unit(x: np.ndarray) -> np.ndarray:
    """Rows of length 1 in float32."""
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def seconds(call: Callable[[], Any]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=10_000, help="vectors to store (default: 10000)")
    parser.add_argument("--in-folder", type=int, default=200, help="those of them in a folder (default: 200)")
    parser.add_argument("--trials", type=int, default=real_clip.TRIALS, help="random corpora of Flickr8k (default: 60)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    print("| real CLIP set | places | same row | largest difference of similarity elsewhere |\n|---|---|---|---|")
    for name, (places, same, difference) in agreements(real_clip.data_folder(), given.trials).items():
        print(f"| {name} | {places} | {same} | {difference:.1g} |")
    print(f"\n{given.documents} vectors of 512 numbers, 200 queries at once, {given.threads} threads of torch\n")
    print("| | documents/s | the same again | queries/s |\n|---|---|---|---|")
    for name, row in rates(given.documents, given.in_folder).items():
        print(f"| {name} | {' | '.join(f'{rate:,.0f}' for rate in row.values())} |")


if __name__ == "__main__":
    main()
