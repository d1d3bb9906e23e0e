"""What the figures of curves share: measuring what is at hand, and its tables, files and pictures."""

from __future__ import annotations

import argparse
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._arguments import folder, parser
from benchmarks._calibration import CALIBRATIONS, Calibration, trained
from benchmarks._data import Data, Judged
from benchmarks._paper import MODELS
from benchmarks._reproduction import Missing, reference_ndcg
from grclip._optional import optional_import
from grclip.diagnostics import Curve
from grclip.plots.curves import CurveDisplay

Metric = tuple[str | Callable[..., Any], int]
"""A metric, or its name in `grclip.metrics.retrieval_scorer`, and the ranks that count."""

NO_CALIBRATION = "none"
"""What raw vectors are calibrated on."""


@dataclass(frozen=True)
class Measured:
    """A curve of one model on one dataset, of the methods that one calibration serves."""

    model: str
    encoder: str | None
    dataset: str
    calibration: str
    learned_from: str | None
    curve: Curve
    n_queries: int
    n_documents: int

    def as_json(self) -> dict[str, Any]:
        """Means over the repeats and their 95 % intervals, None where there is but one repeat."""
        curve, about = self.curve, {name: value for name, value in vars(self).items() if name != "curve"}
        scores = {
            name: {"mean": _plain(curve.mean(name)), "interval": _plain(curve.interval(name))} for name in curve.scores
        }
        more = {"metric": curve.metric, "parameter": curve.parameter, "values": curve.values.tolist()}
        return {**about, **more, "repeats": curve.repeats, "scores": scores, "notes": curve.notes}


class Figure(ABC):
    """A figure of the paper that shows curves: what it is drawn from, and what was measured of it.

    Parameters
    ----------
    arguments : Namespace
        Those of `curve_parser`.
    metrics : sequence of (str, int)
        Metrics to measure, one curve for each; with ``--reference-metric`` each NDCG also as the paper's code has it.
    """

    name: str
    """First word of the files of its pictures."""

    title: str
    """What it is in the paper, and here."""

    datasets: tuple[str, ...]
    """What it can be drawn of."""

    display: type[CurveDisplay]
    """What draws it."""

    columns: Sequence[tuple[str, Callable[[NDArray, NDArray], str]]]
    """What tables tell beside the points: titles, and functions of the values and the means."""

    def __init__(self, arguments: argparse.Namespace, metrics: Sequence[Metric]) -> None:
        ranks = [k for name, k in metrics if name == "ndcg"] if arguments.reference_metric else []
        self.arguments, self.metrics = arguments, [*metrics, *((reference_ndcg, k) for k in ranks)]
        self.measured: list[Measured] = []
        self.missing = Missing()

    @abstractmethod
    def judged(self, data: Data, dataset: str) -> Judged:
        """A dataset in which every document has both parts."""

    @abstractmethod
    def others(self, dataset: str) -> Sequence[str]:
        """The datasets that a cross-dataset calibration learns from."""

    @abstractmethod
    def curve(self, judged: Judged, calibration: Calibration | None, metric: Metric) -> Curve:
        """The curves of the calibrated methods, or of raw vectors."""

    def serves(self, model: str, dataset: str) -> bool:
        """Whether a model encodes what a dataset holds."""
        return True

    def calibrated(self, data: Data, dataset: str, how: str) -> Calibration | None:
        """What means and spreads of a dataset are learned from."""
        judged = self.judged(data, dataset)
        match how:
            case "none":
                return None
            case "training":
                return trained(data, judged.asked)
            case "transductive":
                return Calibration([judged], judged.asked, judged=False)
            case _:
                return Calibration([self.judged(data, each) for each in self.others(dataset)], judged.asked)

    def measure(self, data: Data) -> None:
        """Measure a model on all datasets that were asked for, as far as they are at hand."""
        asked = [dataset for dataset in self.arguments.datasets if dataset in self.datasets]
        served = [dataset for dataset in asked if self.serves(data.model, dataset)]
        for dataset, how in product(served, (NO_CALIBRATION, *self.arguments.calibrations)):
            with self.missing.noting(f"{data.model}, {dataset}, calibration {how}"):
                calibration, judged = self.calibrated(data, dataset, how), self.judged(data, dataset)
                for metric in self.metrics:
                    curve = self.curve(judged, calibration, metric)
                    sizes = len(judged.task), len(judged.task.corpus)
                    learned = None if calibration is None else calibration.told
                    of = data.model, judged.task.encoder, dataset, how, learned
                    self.measured.append(Measured(*of, curve, *sizes))

    def note_unserved(self) -> None:
        """Say which datasets no model was asked to encode."""
        for dataset in self.arguments.datasets:
            if dataset in self.datasets and not any(self.serves(model, dataset) for model in self.arguments.models):
                self.missing.note(
                    "none of the models encodes it; --models, or --checkpoint with --toy, names one", dataset
                )

    def page(self) -> str:
        """A table for each dataset and metric in Markdown, and what is missing."""
        lines = [f"## {self.title}"]
        if self.arguments.unpublished:
            what = f"{self.arguments.toy} drawn scenes a dataset" if self.arguments.toy else "other data than published"
            lines += ["", f"Measured on {what}: not to be compared with the paper."]
        for metric, dataset in product(dict.fromkeys(each.curve.metric for each in self.measured), self.datasets):
            found = [each for each in self.measured if (each.dataset, each.curve.metric) == (dataset, metric)]
            if found:
                lines += ["", f"### {dataset}, {metric}", "", *self.table(found), *_told(found)]
        return "\n".join([*lines, *self.missing.lines()])

    def table(self, found: Sequence[Measured]) -> list[str]:
        """Rows of model, method and calibration, with a column for each point."""
        values = found[0].curve.values
        head = ["model, method", "calibration", *(f"{value:g}" for value in values), *dict(self.columns)]
        rows = [
            [f"{each.model}, {name}", each.calibration, *self._cells(values, each.curve.mean(name))]
            for each in found
            for name in each.curve.scores
        ]
        return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]

    def _cells(self, values: NDArray, mean: NDArray) -> list[str]:
        """The points of a curve, and what is told beside them."""
        return [*(f"{score:.3f}" for score in mean), *(tell(values, mean) for _, tell in self.columns)]

    def draw(self, folder: Path) -> list[Path]:
        """A picture for each model, dataset, metric and calibration, with raw vectors in each."""
        pyplot = optional_import("matplotlib.pyplot", "plots", "--plots")
        paths = []
        for each in self._together():
            name = f"{each.model}, {each.dataset} (calibration: {each.calibration})"
            display = self.display.from_predictions(each.curve, name=name)
            words = (self.name, each.curve.metric, each.model, each.dataset, each.calibration)
            paths.append(folder / (re.sub(r"[^A-Za-z0-9]+", "-", " ".join(words)).lower() + ".png"))
            display.figure_.savefig(paths[-1], dpi=150)
            pyplot.close(display.figure_)
        return paths

    def _together(self) -> Iterator[Measured]:
        """Curves of each calibration with those of raw vectors; of raw vectors alone where nothing was calibrated."""
        raw = {_place(each): each for each in self.measured if each.calibration == NO_CALIBRATION}
        calibrated = [each for each in self.measured if each.calibration != NO_CALIBRATION]
        served = {_place(each) for each in calibrated}
        yield from (each for place, each in raw.items() if place not in served)
        for each in calibrated:
            scores = {**raw[_place(each)].curve.scores, **each.curve.scores}
            yield replace(each, curve=replace(each.curve, scores=scores))


def _place(each: Measured) -> tuple[str, str, str]:
    return each.model, each.dataset, each.curve.metric


def _told(found: Sequence[Measured]) -> list[str]:
    """Sizes, and what the curves have to say."""
    first, n_repeats = found[0], len(next(iter(found[0].curve.scores.values()))[0])
    sizes = f"{first.n_queries} queries, {first.n_documents} documents; mean of {n_repeats} {first.curve.repeats}"
    notes = dict.fromkeys(note for each in found for note in each.curve.notes)
    learned = dict.fromkeys(f"- {each.calibration}: {each.learned_from}" for each in found if each.learned_from)
    return ["", "; ".join([sizes, *notes]) + ".", *([""] if learned else []), *learned]


def _plain(x: NDArray) -> Any:
    """Numbers for JSON, which has no NaN."""
    numbers = x.astype(object)
    numbers[np.isnan(x)] = None
    return numbers.tolist()


def curve_parser(
    description: str | None,
    datasets: Sequence[str],
    models: Sequence[str] = MODELS,
    calibrations: Sequence[str] = CALIBRATIONS,
) -> argparse.ArgumentParser:
    """The arguments that all figures of curves take."""
    made = parser(description, models)
    made.add_argument("--datasets", nargs="+", default=list(datasets), choices=datasets)
    made.add_argument("--calibrations", nargs="+", default=list(calibrations), choices=calibrations)
    made.add_argument("--plots", type=folder, metavar="FOLDER", help="draw each curve as a PNG file in it")
    return made


def data_apart(model: str, arguments: argparse.Namespace) -> Data:
    """The data of a model, with texts and pictures encoded apart: VLM2Vec would read those of a document together."""
    data = Data(model, arguments)
    if "joint" in data.encoder.get_params(deep=False):
        data.encoder.set_params(joint=False)
    return data


def run(arguments: argparse.Namespace, figures: Sequence[Figure]) -> int:
    """Measure figures, print their pages, and write what was asked for; 1 where nothing could be measured."""
    for model in arguments.models:
        data = data_apart(model, arguments)
        for figure in figures:
            figure.measure(data)
    for figure in figures:
        figure.note_unserved()
    print("\n\n".join(figure.page() for figure in figures))
    if arguments.json:
        write_json(arguments.json, arguments, figures)
    if arguments.plots:
        arguments.plots.mkdir(parents=True, exist_ok=True)
        drawn = [path for figure in figures for path in figure.draw(arguments.plots)]
        print(f"\n{len(drawn)} pictures in {arguments.plots}")
    return 0 if any(figure.measured for figure in figures) else 1


def write_json(path: Path, arguments: argparse.Namespace, figures: Sequence[Figure]) -> None:
    """Curves with their settings."""
    names = ("repeats", "query_alpha", "toy", "unpublished", "checkpoint")
    settings = {name: vars(arguments).get(name) for name in names} | {"root": str(arguments.root or "the hub")}
    content: dict[str, Any] = {"date": str(date.today()), "settings": settings}
    for figure in figures:
        measured = [each.as_json() for each in figure.measured]
        content[figure.name] = {"missing": figure.missing.reasons, "measured": measured}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
