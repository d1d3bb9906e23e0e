"""Figure 2 of the paper: texts replaced, with probability p, by what shows the same: ``python -m benchmarks.ucurve``.

Google_WIT and MSCOCO (the full corpora of MixBench) have a real picture for each text; those of NFCorpus and SciFact
are drawn as pages, which is done once. For each model the score of raw vectors, of raw vectors with all pictures pushed
below all texts (the paper's simulation), with means removed (GR-CLIP), and with one scale.

Means and spreads come from training splits as in the paper's Appendix B, from the same data (transductive, without its
judgements), and from the other dataset of the two (cross-dataset). Of screenshots the paper takes 2,500 training
examples and does not say which: here they are the documents that training queries ask for and test queries do not, and
these queries. Nor does it say what p it took, how large a page is, or in which font. "lowest / lower end" is the lowest
point of a curve as a share of its lower end: 1 where it does not sag.

VLM2Vec encodes texts and pictures apart here, as each document keeps but one of them.

What cannot be measured here is listed at the end with what is missing. ``--toy 40`` runs all of it on drawn scenes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from benchmarks._arguments import between, prepare
from benchmarks._calibration import N_OTHERS, Calibration, raw_pipeline
from benchmarks._curves import Figure, Measured, Metric, curve_parser, run
from benchmarks._data import Data, Judged, beir_dataset, rows_of, sampled
from benchmarks._reproduction import METHODS
from benchmarks._toy import BEIR
from grclip import ExactRetriever, SearchTask
from grclip._optional import optional_import
from grclip.datasets import Dataset
from grclip.datasets.screenshots import render_screenshots
from grclip.diagnostics import Curve, replacement_curve
from grclip.plots import ReplacementCurveDisplay

PICTURES = ("Google_WIT", "MSCOCO")
SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
"""Of documents that lose their text. The paper's text names 0, 0.99 and 1."""

PAPER = {0.0: 0.22, 0.99: 0.02, 1.0: 0.36}
"""NDCG@10 by p of raw CLIP where texts become screenshots (section 3.2); neither the dataset nor the model is named."""

CLIP = ("CLIP-B/16", "CLIP-L/14")
"""Models that the figures may be of."""


def dip(values: NDArray, mean: NDArray) -> str:
    """The lowest point as a share of the lower end: 1 where the curve does not sag."""
    lower = min(mean[0], mean[-1])
    return f"{mean.min() / lower:.2f}" if lower > 0 else ""


class UCurve(Figure):
    """Scores along p."""

    name = "ucurve"
    title = "Figure 2: texts replaced with probability p"
    datasets: tuple[str, ...] = (*PICTURES, *BEIR)
    display = ReplacementCurveDisplay
    columns = (("lowest / lower end", dip),)

    def judged(self, data: Data, dataset: str) -> Judged:
        """A dataset with a picture of each text."""
        if dataset in PICTURES:
            return data.subset(dataset, "full")
        folder = data.arguments.cache / "pages" / dataset
        return data.made(f"{dataset} drawn", lambda: drawn(beir_dataset(data.arguments, dataset), folder))

    def others(self, dataset: str) -> Sequence[str]:
        """The other one with pictures of its sort."""
        alike = PICTURES if dataset in PICTURES else BEIR
        return [each for each in alike if each != dataset]

    def calibrated(self, data: Data, dataset: str, how: str) -> Calibration | None:
        """What means and spreads are learned from: of screenshots the documents that training queries ask for."""
        if dataset not in BEIR or how != "training":
            return super().calibrated(data, dataset, how)
        folder = data.arguments.cache / "pages" / dataset
        rows = data.made(f"{dataset} training", lambda: drawn(training_part(data.arguments, dataset), folder))
        return Calibration([rows], rows.asked)

    def curve(self, judged: Judged, calibration: Calibration | None, metric: Metric) -> Curve:
        """Over random corpora, which are the same for each method; with the simulation for raw vectors."""
        fitted = (
            {METHODS[0]: raw_pipeline(judged.task)}
            if calibration is None
            else {method: calibration.pipeline(method) for method in METHODS[1:]}
        )
        return replacement_curve(
            judged.task,
            judged.qrels,
            {method: searching(pipeline, judged.task) for method, pipeline in fitted.items()},
            SHARES,
            metric=metric[0],
            k=metric[1],
            n_repeats=self.arguments.repeats,
            push_down=calibration is None,
        )

    def table(self, found: Sequence[Measured]) -> list[str]:
        """With the three numbers that the paper's text has, where they may be of what was measured."""
        lines = super().table(found)
        first = found[0]
        if (
            not self.arguments.unpublished
            and first.dataset in BEIR
            and first.curve.metric == "NDCG@10"
            and any(each.model in CLIP for each in found)
        ):
            points = [f"{PAPER[value]:.2f}" if value in PAPER else "" for value in first.curve.values.tolist()]
            lowest = dip(np.array([*PAPER]), np.array([*PAPER.values()]))
            row = ["paper's text, raw CLIP (it names neither dataset nor model)", "", *points, lowest]
            lines.append(f"| {' | '.join(row)} |")
        return lines


def training_part(arguments: argparse.Namespace, name: str) -> Dataset:
    """Training queries of a dataset of BEIR, and documents that they ask for and no test query does."""
    train, test = beir_dataset(arguments, name, "train"), beir_dataset(arguments, name)
    of_test = {row for judged in test.qrels for row in judged}
    kept = sorted({row for judged in train.qrels for row in judged} - of_test)
    if not kept:
        raise ValueError(
            f"all documents of {name} that its training queries ask for are asked for by test queries, too"
        )
    return sampled(rows_of(train, np.arange(len(train.task)), np.array(kept)), N_OTHERS, N_OTHERS)


def drawn(dataset: Dataset, folder: Path) -> Dataset:
    """A dataset of texts with a page of each document, in the font of matplotlib, which has Greek and accents."""
    task, qrels, description = dataset
    font = Path(optional_import("matplotlib", "plots", "drawing texts").get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    return Dataset(
        SearchTask(task.queries, render_screenshots(task.corpus, font=font, folder=folder)), qrels, description
    )


def searching(pipeline: Pipeline, task: SearchTask) -> Pipeline:
    """A fitted pipeline with a search at its end."""
    return Pipeline([*pipeline.steps, ("search", ExactRetriever(k=1).fit(pipeline.transform(task)))])


def add_repeats(made: argparse.ArgumentParser) -> None:
    """How many corpora are drawn for each p."""
    text = "random corpora for each p (default: 5)"
    made.add_argument("--repeats", type=between(1, 1000, int), default=5, help=text)


def main(argv: Sequence[str] = ()) -> int:
    made = curve_parser(__doc__, UCurve.datasets)
    add_repeats(made)
    arguments = prepare(made, argv)
    return run(arguments, [UCurve(arguments, [("ndcg", 10)])])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
