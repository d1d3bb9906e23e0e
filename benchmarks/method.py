"""The figures of docs/method.md: ``python -m benchmarks.method``.

Reads the folder that GRCLIP_REAL_DATA names, and prints

- a worked example: one query and six documents in three coordinates;
- the distance of the means of texts and images in four sets;
- levels and widths: mean and standard deviation of the similarities of a text query to documents that are not relevant;
- spreads: predicted from the second moments of some rows, and measured on pairs of others;
- extremes: the best of 249 unrelated documents, predicted and measured (COCO);
- ranks: the share of images in the top 10, by a Gaussian model and measured (COCO);
- one kind: retrieval of images alone by texts, where there is no gap between documents (four sets);
- indexes: one scale ranked by inner product and by cosine (Flickr8k);
- pictures to ask with, by spreads of their own and by those of text queries (COCO);
- domains: Flickr8k, with means and spreads from photos, from drawings, and from itself.

Means, spreads and moments come from rows that are not measured on, except for the levels of photos290, the spreads by
kind of query, and where a row says so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm
from sklearn.pipeline import Pipeline

from benchmarks import real_clip
from benchmarks.real_clip import KINDS, METHODS, data_folder, fitted, print_table, score_ranking
from grclip import ExactRetriever, Items, ModalityGapRemover, SearchTask
from grclip.metrics import ndcg_score

Rows = NDArray[Any]
Table = dict[str, dict[str, float]]
CENTRED = ("means removed", "one scale")


def load_coco(folder: Path) -> tuple[Rows, Rows]:
    images, texts = np.load(folder / "coco500_clip_vitb16" / "features_clip.npy")
    return texts, images


def load_parts(name: str) -> Callable[[Path], tuple[Rows, Rows]]:
    """Reader of a set that has a file for its texts and one for its images."""
    return lambda folder: (
        np.load(folder / name / "text_embeddings.npy"),
        np.load(folder / name / "image_embeddings.npy"),
    )


def load_flickr(folder: Path) -> tuple[Rows, Rows]:
    """All 500 captions, and the 100 images once."""
    captions, images = real_clip.flickr(folder)
    return captions.reshape(-1, captions.shape[2]), images


SETS: dict[str, Callable[[Path], tuple[Rows, Rows]]] = {
    "coco500": load_coco,
    "flickr8k100x5": load_flickr,
    "photos290": load_parts("photos290_clip_vitb32"),
    "design patents": load_parts("design_patents1000_clip_vitb32"),
}
PAIRED = ("coco500", "photos290", "design patents")
"""Sets in which row i of the texts belongs to row i of the images."""


def captioned(texts: Rows, images: Rows) -> SearchTask:
    """Texts that ask for documents of a text and an image."""
    return SearchTask(Items({"query": texts}), Items({"text": texts, "image": images}))


def apart(texts: Rows, images: Rows) -> Items:
    """Every text, then every image, as documents of their own."""
    missing = np.full_like(texts, np.nan)
    return Items({"text": np.concatenate([texts, missing]), "image": np.concatenate([missing, images])})


def halves(n: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows to fit on and rows to measure on, several times: those of benchmarks.real_clip."""
    for seed in range(real_clip.HALVES):
        fit, test = np.array_split(np.random.default_rng(seed).permutation(n), 2)
        yield fit, test


def flickr_pairs(folder: Path) -> tuple[SearchTask, NDArray[np.intp]]:
    """Each of five captions with its image, and the number of the image in each row."""
    captions, images = real_clip.flickr(folder)
    five = captions.shape[1]
    task = captioned(captions.reshape(-1, captions.shape[2]), np.repeat(images, five, axis=0))
    return task, np.repeat(np.arange(len(images)), five)


def vectors(pipeline: Pipeline, task: SearchTask) -> tuple[Rows, dict[str, Rows]]:
    """Fused queries, and fused documents of each kind that the parts of the corpus can make."""
    documents = {}
    for kind in KINDS:
        parts = Items({role: task.corpus[role] for role in kind.split("+")})
        documents[kind] = np.asarray(pipeline.transform(parts), dtype=np.float64)
    return np.asarray(pipeline.transform(task.queries), dtype=np.float64), documents


def predicted_spread(queries: Rows, documents: Rows) -> float:
    """Standard deviation of q.d for independent q and d, from their first two moments alone."""
    (second_q, mean_q), (second_d, mean_d) = ((x.T @ x / len(x), x.mean(axis=0)) for x in (queries, documents))
    return float(np.sqrt(np.sum(second_q * second_d) - (mean_q @ mean_d) ** 2))  # trace(AB) of symmetric A, B


def moment_spreads(pipeline: Pipeline, calibration: SearchTask, seed: int = 0) -> dict[str, float]:
    """Predicted spread of each kind: queries from one half of the rows and documents from the other.

    So no text meets itself or its image: document i belongs to query i.
    """
    first, second = np.array_split(np.random.default_rng(seed).permutation(len(calibration)), 2)
    queries, documents = vectors(pipeline, calibration)
    return {kind: predicted_spread(queries[first], rows[second]) for kind, rows in documents.items()}


def unrelated(queries: Rows, documents: Rows, groups: NDArray[np.intp] | None = None) -> Rows:
    """Similarities of queries and documents of different groups; without groups, of different rows."""
    group = np.arange(len(queries)) if groups is None else groups
    return (queries @ documents.T)[group[:, None] != group]


def worked_example() -> Table:
    """Similarities of the query 'a dog' in coordinates (dog, bicycle, gap), raw and with means removed."""
    dog, bicycle, missing = (0.8, 0.0), (0.0, 0.8), (np.nan,) * 3
    texts, images = ([np.array([*topic, gap]) for topic in (dog, bicycle)] for gap in (0.6, -0.6))
    corpus = Items(
        {"text": np.array([*texts, missing, missing, *texts]), "image": np.array([missing] * 2 + images * 2)}
    )
    task = SearchTask(Items({"query": np.array(texts)}), corpus)
    names = [f"{kind}, {topic}" for kind in KINDS for topic in ("dog", "bicycle")]
    table = {}
    for method in ("raw", "means removed"):
        fused = METHODS[method]().fit_transform(task)
        table[method] = dict(zip(names, (fused.corpus @ fused.queries[0]).tolist(), strict=True))
    return table


def gaps(folder: Path) -> Table:
    """Distance of the mean text and the mean image, of unit rows, in each set."""
    row = {}
    for name, load in SETS.items():
        texts, images = load(folder)
        means = ModalityGapRemover().fit({"text": texts, "image": images}).means_
        row[name] = float(np.linalg.norm(means["text"] - means["image"]))
    return {"distance of means": row}


def levels(folder: Path) -> tuple[Table, Table]:
    """Mean and standard deviation of similarities to documents that are not relevant, by methods fitted on photos290.

    Beside the means stands that of a caption and its own image.
    """
    photos, (flickr, groups) = real_clip.photos(folder), flickr_pairs(folder)
    measured = {f"photos290, {method}": (method, photos, np.arange(len(photos))) for method in METHODS}
    measured["Flickr8k, one scale"] = ("one scale", flickr, groups)
    means, widths = {}, {}
    for name, (method, task, group) in measured.items():
        queries, documents = vectors(fitted(method, photos), task)
        others = {kind: unrelated(queries, rows, group) for kind, rows in documents.items()}
        means[name] = {kind: float(values.mean()) for kind, values in others.items()}
        means[name]["its own image"] = float(np.sum(queries * documents["image"], axis=1).mean())
        widths[name] = {kind: float(values.std()) for kind, values in others.items()}
    return means, widths


def spread_table(folder: Path) -> Table:
    """Spread by kind, means removed: predicted from moments, and measured on pairs of other rows."""
    table = {f"{name}, other half": _spreads_of_halves(*SETS[name](folder)) for name in PAIRED}
    photos, (flickr, groups) = real_clip.photos(folder), flickr_pairs(folder)
    pipeline = fitted("means removed", photos)
    rows = [_predicted_and_measured(pipeline, photos, flickr, groups, seed) for seed in range(real_clip.HALVES)]
    return table | {"Flickr8k, from photos290": _mean(rows)}


def _spreads_of_halves(texts: Rows, images: Rows) -> dict[str, float]:
    """Predicted from one half, measured on the other, mean over halves."""
    rows = []
    for fit, test in halves(len(texts)):
        calibration = captioned(texts[fit], images[fit])
        pipeline = fitted("means removed", calibration)
        rows.append(_predicted_and_measured(pipeline, calibration, captioned(texts[test], images[test])))
    return _mean(rows)


def _predicted_and_measured(
    pipeline: Pipeline, calibration: SearchTask, task: SearchTask, groups: NDArray[np.intp] | None = None, seed: int = 0
) -> dict[str, float]:
    predicted = moment_spreads(pipeline, calibration, seed)
    queries, documents = vectors(pipeline, task)
    row = {}
    for kind, rows in documents.items():
        row[f"{kind}: predicted"] = predicted[kind]
        row[f"{kind}: measured"] = float(unrelated(queries, rows, groups).std())
    return row


def _mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each column."""
    return {column: float(np.mean([row[column] for row in rows])) for column in rows[0]}


def extremes(folder: Path) -> Table:
    """By kind, on COCO with means removed: the best of N unrelated documents, predicted and measured."""
    texts, images = load_coco(folder)
    found: dict[str, list[dict[str, float]]] = {"text": [], "image": []}
    for fit, test in halves(len(texts)):
        calibration = captioned(texts[fit], images[fit])
        pipeline = fitted("means removed", calibration)
        spreads = moment_spreads(pipeline, calibration)
        queries, documents = vectors(pipeline, captioned(texts[test], images[test]))
        for kind, rows in found.items():
            s, n = spreads[kind], len(test) - 1
            best = unrelated(queries, documents[kind]).reshape(-1, n).max(axis=1).mean()
            bound = s * (2 * np.log(n)) ** 0.5
            rows.append({"s": s, "Gaussian": s * expected_maximum(n), "s * sqrt(2 ln N)": bound, "measured": best})
    return {kind: _mean(rows) for kind, rows in found.items()}


def expected_maximum(n: int) -> float:
    """Mean of the largest of n standard normal draws, by the trapezoidal rule."""
    x = np.linspace(-10, 10, 20_001)
    return float(np.trapezoid(x * n * norm.pdf(x) * norm.cdf(x) ** (n - 1), x))


def gaussian_shares(spreads: Sequence[float], counts: Sequence[int], k: int = 10) -> Rows:
    """Share of each kind in the top k, where counts[j] scores are drawn from a normal distribution of spreads[j].

    The k-th score is where as many as k are expected above it, over all kinds.
    """
    s, n = np.array(spreads), np.array(counts)
    threshold = brentq(lambda x: np.sum(n * norm.sf(x / s)) - k, -10 * s.max(), 10 * s.max())
    return n * norm.sf(threshold / s) / k


def ranks(folder: Path) -> Table:
    """Share of images in the top 10 on COCO: of unrelated documents, predicted and measured; and of all documents."""
    texts, images = load_coco(folder)
    found: dict[str, list[dict[str, float]]] = {method: [] for method in CENTRED}
    for fit, test in halves(len(texts)):
        calibration, n = captioned(texts[fit], images[fit]), len(test)
        task = SearchTask(Items({"query": texts[test]}), apart(texts[test], images[test]))
        for method, rows in found.items():
            pipeline = fitted(method, calibration)
            spreads = moment_spreads(pipeline, calibration)
            ranking = real_clip.ranked(pipeline, task, k=12)
            own, image = np.arange(n), np.arange(n, 2 * n)
            rows.append(
                {
                    "predicted": float(gaussian_shares([spreads["text"], spreads["image"]], [n - 1, n - 1])[1]),
                    "measured": float((leave_out(ranking, own, image) >= n).mean()),
                    "with the paired image": float((leave_out(ranking, own) >= n).mean()),
                }
            )
    return {method: _mean(rows) for method, rows in found.items()}


def leave_out(ranking: NDArray, *columns: NDArray[np.intp]) -> NDArray:
    """The first ten of each line that are in none of the columns."""
    dropped = np.stack(columns, axis=1)
    return np.stack([line[~np.isin(line, drop)][:10] for line, drop in zip(ranking, dropped, strict=True)])


def flickr_row(pipeline: Pipeline, captions: Rows, images: Rows, *, cosine: bool = False) -> dict[str, float]:
    """NDCG@10 over the corpora of benchmarks.real_clip, ranked by dot product or by cosine."""
    rows = []
    for trial in range(real_clip.TRIALS):
        task = real_clip.mixed(captions, images, trial)
        fused, kinds = pipeline.transform(task), task.corpus.kinds
        lengths = np.linalg.norm(fused.corpus, axis=1, keepdims=True) if cosine else 1
        found = score_ranking(np.asarray(ExactRetriever(k=10).fit(fused.corpus / lengths).predict(fused.queries)))
        rows.append({"all": found.mean()} | {kind: found[kinds == kind].mean() for kind in KINDS})
    return _mean(rows)


def one_kind(folder: Path) -> Table:
    """NDCG@10 of the image among images alone, asked for by text: set, or where it was calibrated, by method."""
    table: Table = {"raw": {}, "means removed": {}}
    captions, images = real_clip.flickr(folder)
    sources = {"Flickr8k": real_clip.photos(folder), "Flickr8k, own means": captioned(captions[:, 0], images)}
    for method, row in table.items():
        for name in PAIRED:
            row[name] = _images_alone(method, *SETS[name](folder))
        for name, source in sources.items():
            pipeline = fitted(method, source)
            trials = (real_clip.mixed(captions, images, trial, share=1.0) for trial in range(real_clip.TRIALS))
            row[name] = float(np.mean([real_clip.scores(pipeline, task).mean() for task in trials]))
    return table


def _images_alone(method: str, texts: Rows, images: Rows) -> float:
    """Fitted on one half, measured on the other, mean over halves."""
    found = []
    for fit, test in halves(len(texts)):
        pipeline = fitted(method, captioned(texts[fit], images[fit]))
        task = SearchTask(Items({"query": texts[test]}), Items({"image": images[test]}))
        found.append(real_clip.scores(pipeline, task).mean())
    return float(np.mean(found))


def indexes(folder: Path) -> Table:
    """Flickr8k, calibrated on photos290: what is left of one scale where vectors are ranked by cosine."""
    captions, images = real_clip.flickr(folder)
    means, scale = (fitted(method, real_clip.photos(folder)) for method in CENTRED)
    return {
        "means removed": flickr_row(means, captions, images),
        "one scale, inner product": flickr_row(scale, captions, images),
        "one scale, cosine": flickr_row(scale, captions, images, cosine=True),
    }


def pictures_asked(folder: Path) -> Table:
    """COCO halves, an image as the query: NDCG@10 of its caption among all captions and all other images.

    In the last row documents are scaled by spreads of text queries; the package refuses that, so each side is
    transformed by itself.
    """
    texts, images = load_coco(folder)
    names = {method: method for method in METHODS} | {"one scale of text queries": "one scale"}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for fit, test in halves(len(texts)):
        told = captioned(texts[fit], images[fit])
        asked = SearchTask(Items({"query_image": images[fit]}), told.corpus)
        n, corpus = len(test), apart(texts[test], images[test])
        for name, method in names.items():
            queries = fitted(method, asked).transform(Items({"query_image": images[test]}))
            documents = fitted(method, told if name not in METHODS else asked).transform(corpus)
            ranking = np.asarray(ExactRetriever(k=11).fit(documents).predict(queries))
            ranking = leave_out(ranking, np.arange(n, 2 * n))
            ndcg = float(ndcg_score([{i: 1} for i in range(n)], ranking, k=10))
            found[name].append({"ndcg": ndcg, "images in top 10": float((ranking >= n).mean())})
    return {name: _mean(rows) for name, rows in found.items()}


def asked_spreads(folder: Path) -> Table:
    """Spreads by kind of query, as the fuser measures them on COCO halves."""
    texts, images = load_coco(folder)
    found: dict[str, list[dict[str, float]]] = {"text query": [], "image query": []}
    for fit, _ in halves(len(texts)):
        told = captioned(texts[fit], images[fit])
        asked = SearchTask(Items({"query_image": images[fit]}), told.corpus)
        for rows, task in zip(found.values(), (told, asked), strict=True):
            spread = fitted("one scale", task)["fuse"].spread_
            rows.append({kind: spread[frozenset(kind.split("+"))] for kind in KINDS})
    return {name: _mean(rows) for name, rows in found.items()}


def domains(folder: Path) -> Table:
    """Flickr8k, NDCG@10 with means and spreads of three collections of the same encoder, one of them itself."""
    captions, images = real_clip.flickr(folder)
    sources = {
        "photos290": real_clip.photos(folder),
        "design patents": captioned(*SETS["design patents"](folder)),
        "itself (first captions)": captioned(captions[:, 0], images),
    }
    return {
        f"{source}, {method}": flickr_row(fitted(method, task), captions, images)
        for source, task in sources.items()
        for method in CENTRED
    }


def main(arguments: Sequence[str] = ()) -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args(arguments)
    folder = data_folder()
    print_table("Worked example: similarity to the query 'a dog'", worked_example())
    print_table("Distance of the mean text and the mean image, unit rows", gaps(folder))
    means, widths = levels(folder)
    print_table("Levels: mean similarity to documents that are not relevant; fitted on photos290", means)
    print_table("Widths: standard deviation of the same", widths)
    print_table("Spreads: predicted from moments, measured on pairs of other rows", spread_table(folder))
    print_table("Extremes: the best of 249 unrelated documents (COCO, means removed)", extremes(folder))
    print_table("Ranks: share of images in the top 10, of unrelated and of all documents (COCO)", ranks(folder))
    print_table("One kind: images alone, asked for by text, NDCG@10", one_kind(folder))
    print_table("Indexes: Flickr8k, NDCG@10 by kind of the relevant document", indexes(folder))
    print_table("Queries: spreads by kind of query (COCO)", asked_spreads(folder))
    print_table("Pictures as queries: the caption among captions and other pictures (COCO)", pictures_asked(folder))
    print_table("Domains: Flickr8k, NDCG@10, by what was calibrated on", domains(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
