"""What the embedded encoder shows on held-out scenes: ``python -m benchmarks.toy [FOLDER ...]``.

Draws 1,200 scenes to measure on and 600 others to calibrate with, none of whose (pair, relation) was in training, and
prints for the model that comes with the package, or for each folder of a checkpoint,

- NDCG@10 of terse queries among the long texts alone and among the pictures alone, and the gap: the distance of the
  means of text and picture vectors;
- NDCG@10 in a 1:1:1 corpus of text, image and both, overall and by kind of the relevant document, and the share of
  images in the top 10, of which a third would be fair;
- the p-curve: the same where each document is a picture with probability p, and a text otherwise;
- the alpha-curve on complementary scenes, where text and picture each show one of the two objects.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from benchmarks.real_clip import KINDS, METHODS, fitted, print_table, ranked, score_ranking, scores
from grclip import Items, SearchTask
from grclip.datasets import make_scenes, mix_kinds, replace_parts
from grclip.encoders import OpenCLIPEncoder, toy_encoder

N_TEST, N_CALIBRATION = 1200, 600
SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
ALPHAS = tuple(round(0.1 * i, 1) for i in range(11))
TRIALS = 5


def scenes(encoder: OpenCLIPEncoder, *, complementary: bool = False) -> tuple[SearchTask, SearchTask]:
    """Encoded scenes to measure on, and others to calibrate with."""
    task, _ = make_scenes(N_TEST + N_CALIBRATION, random_state=0, complementary=complementary)
    encoded = encoder.transform(task)
    test, rest = slice(N_TEST), slice(N_TEST, None)
    return SearchTask(encoded.queries[test], encoded.corpus[test]), SearchTask(
        encoded.queries[rest], encoded.corpus[rest]
    )


def with_corpus(task: SearchTask, corpus: Items) -> SearchTask:
    return SearchTask(task.queries, corpus)


def encoder_table(test: SearchTask) -> dict[str, float]:
    """Retrieval in a corpus of one kind, and the distances of means."""
    means = {role: part.mean(axis=0) for side in (test.queries, test.corpus) for role, part in side.items()}
    raw = fitted("raw", test)
    return {
        "text to text": float(scores(raw, with_corpus(test, Items({"text": test.corpus["text"]}))).mean()),
        "text to image": float(scores(raw, with_corpus(test, Items({"image": test.corpus["image"]}))).mean()),
        "gap text-image": float(np.linalg.norm(means["text"] - means["image"])),
        "gap query-image": float(np.linalg.norm(means["query"] - means["image"])),
    }


def mixed_table(test: SearchTask, calibration: SearchTask) -> dict[str, dict[str, float]]:
    """By method, in 1:1:1 corpora: NDCG@10 over all and by kind, and the share of images in the top 10."""
    table = {}
    for method in METHODS:
        pipeline, rows = fitted(method, calibration), []
        for trial in range(TRIALS):
            task = with_corpus(test, mix_kinds(test.corpus, random_state=trial))
            ranking, kinds = ranked(pipeline, task), task.corpus.kinds
            found, images = score_ranking(ranking), (kinds[ranking] == "image").mean()
            rows.append([found.mean(), *(found[kinds == kind].mean() for kind in KINDS), images])
        names = ("all", *KINDS, "images in top 10")
        table[method] = dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))
    return table


def p_curve(test: SearchTask, calibration: SearchTask) -> dict[str, dict[float, float]]:
    """By method: NDCG@10 for each share of pictures, and the lowest point as a share of the lower end."""
    curves = {}
    for method in METHODS:
        pipeline = fitted(method, calibration)
        curves[method] = {
            p: float(
                np.mean(
                    [
                        scores(pipeline, with_corpus(test, replace_parts(test.corpus, p, random_state=t))).mean()
                        for t in range(TRIALS)
                    ]
                )
            )
            for p in SHARES
        }
    return curves


def alpha_curve(test: SearchTask, calibration: SearchTask) -> dict[str, dict[float, float]]:
    """By method: NDCG@10 on complementary scenes for each weight of the text."""
    curves: dict[str, dict[float, float]] = {}
    for method in METHODS:
        curves[method] = {}
        for alpha in ALPHAS:
            pipeline = METHODS[method]().set_params(fuse__alpha=alpha)
            pipeline.fit(calibration, [{i: 1} for i in range(len(calibration))])
            curves[method][alpha] = float(scores(pipeline, test).mean())
    return curves


def dip(curve: dict[float, float]) -> float:
    """The lowest point of a p-curve as a share of its lower end."""
    return min(curve.values()) / min(curve[SHARES[0]], curve[SHARES[-1]])


def main(arguments: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", nargs="*", help="checkpoints; without any, the one that comes with the package")
    folders = parser.parse_args(arguments).folders
    encoders = {folder: OpenCLIPEncoder(f"local-dir:{folder}") for folder in folders} or {"toy": toy_encoder()}
    pairs = {name: scenes(encoder) for name, encoder in encoders.items()}
    print_table("One kind of document, raw vectors", {name: encoder_table(test) for name, (test, _) in pairs.items()})
    for name, (test, calibration) in pairs.items():
        print_table(f"{name}: NDCG@10 by kind in 1:1:1 corpora", mixed_table(test, calibration))
        curves = p_curve(test, calibration)
        print_table(f"{name}: NDCG@10 by share of pictures", curves)
        print_table(f"{name}: lowest point / lower end", {m: {"dip": dip(curve)} for m, curve in curves.items()})
        halves = scenes(encoders[name], complementary=True)
        print_table(f"{name}: NDCG@10 by alpha, complementary scenes", alpha_curve(*halves))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
