"""Mixed-modality search on real CLIP embeddings: ``python -m benchmarks.real_clip``.

Reads the folder that GRCLIP_REAL_DATA names, and prints

- the spreads that one scale divides by: how much similarities to unrelated documents vary, by kind;
- the Flickr8k table: NDCG@10 in a 1:1:1 corpus of texts, images and both, over 60 random corpora;
- the U-curve: the same where each document is an image with probability p, and a text otherwise;
- COCO: means and spreads from one half, measured on the other, over five random halves;
- COCO with an untrained model, where nothing may rise above chance.

For Flickr8k means and spreads come from the photos290 set alone: other photos, with machine captions.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from sklearn.pipeline import Pipeline

from grclip import ExactRetriever, Items, ModalityGapRemover, MultimodalFuser, SearchTask
from grclip.metrics import ndcg_score

METHODS: dict[str, Callable[[], Pipeline]] = {
    "raw": lambda: Pipeline([("fuse", MultimodalFuser())]),
    "means removed": lambda: Pipeline([("degap", ModalityGapRemover()), ("fuse", MultimodalFuser())]),
    "one scale": lambda: Pipeline([("degap", ModalityGapRemover()), ("fuse", MultimodalFuser(equalize=True))]),
}
"""Pipelines up to fused vectors; the last step, the search, is fitted on each corpus."""

KINDS = ("text", "image", "text+image")
SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
TRIALS = 60
HALVES = 5


def data_folder() -> Path:
    """The folder of embeddings, or a way out where there is none."""
    folder = os.environ.get("GRCLIP_REAL_DATA")
    if not folder or not Path(folder).is_dir():
        raise SystemExit(
            "set GRCLIP_REAL_DATA to the folder that holds flickr8k100x5_clip_vitb32, photos290_clip_vitb32 and "
            f"coco500_clip_vitb16; it is {folder!r}"
        )
    return Path(folder)


def fitted(method: str, task: SearchTask) -> Pipeline:
    """A method fitted on a task in which document i is relevant to query i."""
    return METHODS[method]().fit(task, [{i: 1} for i in range(len(task))])


def photos(folder: Path) -> SearchTask:
    """The calibration set: machine captions ask for, and describe, their photos."""
    texts, images = (np.load(folder / "photos290_clip_vitb32" / f"{part}_embeddings.npy") for part in ("text", "image"))
    return SearchTask(Items({"query": texts}), Items({"text": texts, "image": images}))


def flickr(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Five captions (100, 5, d) of each of 100 images (100, d)."""
    folder = folder / "flickr8k100x5_clip_vitb32"
    with open(folder / "metadata.csv", newline="") as file:
        names = [row["image_id"] for row in csv.DictReader(file)]
    firsts = np.sort(np.unique(names, return_index=True)[1])
    texts, images = (np.load(folder / f"{part}_embeddings.npy") for part in ("text", "image"))
    return texts.reshape(len(firsts), -1, texts.shape[1]), images[firsts]


def mixed(captions: np.ndarray, images: np.ndarray, trial: int, share: float | None = None) -> SearchTask:
    """One random corpus: kinds 1:1:1, or images with probability `share` and texts otherwise."""
    n = len(images)
    rng = np.random.default_rng(trial)
    kind = rng.permutation(np.arange(n) % 3)
    asked = rng.integers(0, 5, n)
    told = (asked + rng.integers(1, 5, n)) % 5
    if share is not None:
        kind = (rng.random(n) < share).astype(int)
    text = np.where((kind != 1)[:, None], captions[np.arange(n), told], np.float32(np.nan))
    image = np.where((kind != 0)[:, None], images, np.float32(np.nan))
    return SearchTask(Items({"query": captions[np.arange(n), asked]}), Items({"text": text, "image": image}))


def ranked(pipeline: Pipeline, task: SearchTask, k: int = 10) -> np.ndarray:
    """The k best documents of each query."""
    fused = pipeline.transform(task)
    return np.asarray(ExactRetriever(k=k).fit(fused).predict(fused.queries))


def score_ranking(ranking: np.ndarray) -> np.ndarray:
    """NDCG@10 of each query, whose relevant document is that of the same number."""
    return np.asarray(ndcg_score([{i: 1} for i in range(len(ranking))], ranking, k=10, per_query=True))


def scores(pipeline: Pipeline, task: SearchTask) -> np.ndarray:
    """NDCG@10 of each query of a task."""
    return score_ranking(ranked(pipeline, task))


def flickr_table(folder: Path, methods: Iterable[str] = tuple(METHODS)) -> dict[str, dict[str, float]]:
    """NDCG@10 by method, over all queries and by the kind of their document."""
    captions, images = flickr(folder)
    table = {}
    for method in methods:
        pipeline = fitted(method, photos(folder))
        rows = []
        for trial in range(TRIALS):
            task = mixed(captions, images, trial)
            found, kinds = scores(pipeline, task), task.corpus.kinds
            rows.append([found.mean(), *(found[kinds == kind].mean() for kind in KINDS)])
        table[method] = dict(zip(("all", *KINDS), np.mean(rows, axis=0).tolist(), strict=True))
    return table


def u_curve(folder: Path, methods: Iterable[str] = tuple(METHODS)) -> dict[str, dict[float, float]]:
    """NDCG@10 by method and share of images in a corpus of texts and images."""
    captions, images = flickr(folder)
    curves = {}
    for method in methods:
        pipeline = fitted(method, photos(folder))
        curves[method] = {
            share: float(np.mean([scores(pipeline, mixed(captions, images, t, share)).mean() for t in range(TRIALS)]))
            for share in SHARES
        }
    return curves


def coco_halves(folder: Path, file: str = "features_clip.npy") -> dict[str, dict[str, float]]:
    """By method: NDCG@10 of the paired image, and the share of images in the top 10.

    Query i is a caption; the corpus is all other captions and all images of the half that was not fitted on.
    """
    images, texts = np.load(folder / "coco500_clip_vitb16" / file)
    results = {method: np.zeros((HALVES, 2)) for method in METHODS}
    for half in range(HALVES):
        fit, test = np.array_split(np.random.default_rng(half).permutation(len(texts)), 2)
        both = SearchTask(Items({"query": texts[fit]}), Items({"text": texts[fit], "image": images[fit]}))
        missing = np.full_like(texts[test], np.nan)
        corpus = Items(
            {"text": np.concatenate([texts[test], missing]), "image": np.concatenate([missing, images[test]])}
        )
        n = len(test)
        for method, rows in results.items():
            ranking = ranked(fitted(method, both), SearchTask(Items({"query": texts[test]}), corpus), k=11)
            others = np.stack([line[line != i][:10] for i, line in enumerate(ranking)])  # not the asked caption itself
            rows[half] = ndcg_score([{n + i: 1} for i in range(n)], others, k=10), (others >= n).mean()
    return {
        method: dict(zip(("ndcg", "images in top 10"), rows.mean(axis=0).tolist(), strict=True))
        for method, rows in results.items()
    }


def photo_spreads(folder: Path) -> dict[str, dict[str, float]]:
    """Standard deviation of the similarities to unrelated documents, by kind, after means are removed."""
    spread = fitted("one scale", photos(folder))["fuse"].spread_
    return {"spread": {kind: spread[frozenset(kind.split("+"))] for kind in KINDS}}


def print_table(title: str, table: dict[str, dict]) -> None:
    """A Markdown table: one line a method."""
    columns = list(next(iter(table.values())))
    print(f"\n{title}\n\n| | {' | '.join(map(str, columns))} |\n|---|{'---|' * len(columns)}")
    for method, row in table.items():
        print(f"| {method} | {' | '.join(f'{row[column]:.3f}' for column in columns)} |")


def main(arguments: Sequence[str] = ()) -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args(arguments)
    folder = data_folder()
    print_table("Spread of similarities to unrelated photos, means removed", photo_spreads(folder))
    print_table("Flickr8k, NDCG@10 by kind of the relevant document (60 corpora)", flickr_table(folder))
    print_table("U-curve: NDCG@10 by share of images in the corpus (60 corpora)", u_curve(folder))
    print_table("COCO, fitted on one half, measured on the other (5 halves)", coco_halves(folder))
    print_table("The same with an untrained model", coco_halves(folder, "features_clip_random.npy"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
