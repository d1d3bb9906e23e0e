"""What the diagnostics measure, and what a report costs: ``python -m benchmarks.diagnostics``.

Reads the folder that GRCLIP_REAL_DATA names, and prints

- the gap between texts and images of four sets of real CLIP embeddings, and the spreads on photos290;
- the U-curve on Flickr8k by `replacement_curve`, with the push-down simulation, over 60 draws of captions and corpora;
- shares of kinds in the top 10, and methods compared with tests of their differences, in one corpus of Flickr8k;
- how many calibration rows are enough, on Flickr8k with rows of photos290;

and, without that folder too, the time that a report over 1,000 drawn scenes takes, and its size.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.pipeline import Pipeline

from benchmarks.real_clip import METHODS, SHARES, TRIALS, data_folder, fitted, flickr, mixed, photos, print_table
from grclip import ExactRetriever, Items, ModalityGapRemover, SearchTask, report
from grclip._demo import scenes
from grclip.diagnostics import (
    CalibrationSize,
    Comparison,
    Curve,
    ModalityBias,
    ModalityGap,
    calibration_size,
    compare,
    modality_bias,
    modality_gap,
    replacement_curve,
)
from grclip.plots import ReplacementCurveDisplay, SimilarityHistogramDisplay

SIZES = (10, 20, 50, 100, 200, 290)


def searches(folder: Path) -> dict[str, Pipeline]:
    """Each method, calibrated on photos290, with a search at its end."""
    task = photos(folder)
    pipelines = {method: fitted(method, task) for method in METHODS}
    return {
        method: Pipeline([*pipeline.steps, ("search", ExactRetriever(k=10).fit(pipeline.transform(task)))])
        for method, pipeline in pipelines.items()
    }


def complete(captions: np.ndarray, images: np.ndarray, trial: int) -> SearchTask:
    """Flickr8k with both parts in every document: the captions of a trial of `mixed`, none left out."""
    rng = np.random.default_rng(trial)
    n = len(images)
    rng.permutation(n)  # the kinds, which are not used here
    asked = rng.integers(0, 5, n)
    told = (asked + rng.integers(1, 5, n)) % 5
    rows = np.arange(n)
    return SearchTask(Items({"query": captions[rows, asked]}), Items({"text": captions[rows, told], "image": images}))


def gaps(folder: Path) -> dict[str, ModalityGap]:
    """The gap between texts and images of each set."""
    images, texts = np.load(folder / "coco500_clip_vitb16" / "features_clip.npy")
    captions, flickr_images = flickr(folder)
    patents = folder / "design_patents1000_clip_vitb32"
    return {
        "coco500": modality_gap(Items({"text": texts, "image": images})),
        "flickr8k100x5": modality_gap({"text": captions.reshape(-1, captions.shape[-1]), "image": flickr_images}),
        "photos290": modality_gap(Items(photos(folder).corpus)),
        "design patents": modality_gap(
            Items({role: np.load(patents / f"{role}_embeddings.npy") for role in ("text", "image")})
        ),
    }


def photo_gap(folder: Path, *, centred: bool) -> ModalityGap:
    """The gaps of photos290 as a task: captions ask for their own photo."""
    task = photos(folder)
    return modality_gap(
        ModalityGapRemover().fit_transform(task) if centred else task, [{i: 1} for i in range(len(task))]
    )


def u_curve(folder: Path, trials: int = TRIALS) -> Curve:
    """NDCG@10 by method and share of images, over draws of captions and corpora."""
    captions, images = flickr(folder)
    methods, qrels = searches(folder), [{i: 1} for i in range(len(images))]
    curves = [
        replacement_curve(complete(captions, images, trial), qrels, methods, SHARES, n_repeats=1, random_state=trial)
        for trial in range(trials)
    ]
    scores = {name: np.concatenate([curve.scores[name] for curve in curves], axis=1) for name in curves[0].scores}
    return replace(curves[0], scores=scores)


def one_corpus(folder: Path) -> tuple[Comparison, dict[str, ModalityBias]]:
    """Methods compared in one corpus of Flickr8k in kinds 1:1:1, and what fills their top 10."""
    task = mixed(*flickr(folder), trial=0)
    qrels = [{i: 1} for i in range(len(task))]
    found = compare(task, qrels, searches(folder))
    return found, {name: modality_bias(task, ranking, qrels) for name, ranking in found.rankings.items()}


def draw(folder: Path, curve: Curve, out: Path) -> None:
    """The U-curve, and similarities in one corpus of Flickr8k by three methods, as pictures for the documentation."""
    ReplacementCurveDisplay.from_predictions(curve).figure_.savefig(out / "ucurve.png", dpi=150)
    task = mixed(*flickr(folder), trial=0)
    figure, axes = plt.subplots(1, len(METHODS), figsize=(13, 4), layout="constrained")
    for ax, (name, method) in zip(axes, searches(folder).items(), strict=True):
        SimilarityHistogramDisplay.from_estimator(method, task, [{i: 1} for i in range(len(task))], ax=ax, name=name)
    legends = [ax.get_legend() for ax in axes]
    labels = [text.get_text() for text in legends[0].get_texts()]
    figure.legend(legends[0].legend_handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    for legend in legends:  # one for all three will do
        legend.remove()
    figure.savefig(out / "similarities.png", dpi=110)


def sizes(folder: Path) -> CalibrationSize:
    """NDCG@10 in that corpus, and the error of the means, by the number of photos that calibrate."""
    task, photographs = mixed(*flickr(folder), trial=0), photos(folder)
    qrels, calibration = ([{i: 1} for i in range(len(each))] for each in (task, photographs))
    return calibration_size(task, qrels, searches(folder), (photographs, calibration), SIZES)


def report_cost() -> dict[str, dict[str, float]]:
    """Seconds and megabytes of a report over 1,000 drawn scenes, after these are drawn and encoded."""
    found = scenes()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        page = report(
            found.task,
            found.qrels,
            found.methods,
            found.items,
            Path(folder) / "report.html",
            calibration=found.calibration,
        )
        return {"report": {"seconds": time.perf_counter() - start, "megabytes": page.stat().st_size / 1e6}}


def main(arguments: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write ucurve.png and similarities.png to it")
    options = parser.parse_args(arguments)
    if os.environ.get("GRCLIP_REAL_DATA"):
        folder = data_folder()
        for name, gap in gaps(folder).items():
            print(f"\n{name}\n\n{gap}")
        for title, centred in (("raw", False), ("means removed", True)):
            print(f"\nphotos290, {title}\n\n{photo_gap(folder, centred=centred)}")
        curve = u_curve(folder)
        print(f"\n{curve}")
        if options.plots:
            draw(folder, curve, options.plots)
        comparison, biases = one_corpus(folder)
        print(f"\n{comparison}")
        for name, bias in biases.items():
            print(f"\n{name}\n{bias}")
        print(f"\n{sizes(folder)}")
    print_table("A report over 1,000 drawn scenes", report_cost())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
