"""Table 1 of the paper: mixed-modality search on the four subsets of MixBench: ``python -m benchmarks.mixbench``.

For each model NDCG@10 / NDCG@100 / Recall@1 of raw vectors, with means removed (the paper's GR-CLIP), and with one
scale, beside the paper's figures and the differences. Means and spreads come from training splits as in its Appendix B;
beside that from the test set itself (transductive, without its judgements), and from the three other subsets
(cross-dataset).

Embeddings are kept in a folder, and a run that was interrupted goes on where it stopped. What cannot be measured here
is listed at the end with what is missing. ``--toy 60`` runs all of it on drawn scenes, without a download.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np

from benchmarks._arguments import add_query_alpha, between, parser, prepare
from benchmarks._calibration import CALIBRATIONS, Calibration, calibrated, raw_pipeline
from benchmarks._data import Data, Judged
from benchmarks._paper import METRICS, MODELS, SUBSETS, paper_table
from benchmarks._reproduction import METHODS, Missing, ranked, scores_of
from grclip import Items, SearchTask
from grclip.datasets import keep_kinds, paper_split

BEGIN, END = "<!-- benchmarks.mixbench: begin -->", "<!-- benchmarks.mixbench: end -->"
BLANK = "—"

Cell = tuple[str, str, str]
"""Model, method and subset."""


@dataclass(frozen=True)
class Result:
    """What one method scores on one subset; seconds are those of fusing, searching and scoring."""

    model: str
    encoder: str | None
    method: str
    subset: str
    calibration: str
    learned_from: str | None
    scores: dict[str, float]
    n_queries: int
    n_documents: int
    seconds: float


class Results:
    """Everything that was measured, and why the rest was not."""

    def __init__(self) -> None:
        self.measured: list[Result] = []
        self.missing = Missing()

    def of(self, calibration: str) -> dict[Cell, dict[str, float]]:
        """Scores under one calibration, and those of raw vectors, which have none."""
        return {
            (r.model, r.method, r.subset): r.scores for r in self.measured if r.calibration in (calibration, "none")
        }

    def learned_from(self, calibration: str) -> list[str]:
        """What a calibration was made of, where that differs for each model and subset."""
        told: dict[str, dict[str, list[str]]] = {}
        for r in self.measured:
            if r.calibration == calibration and r.learned_from is not None:
                of_model = told.setdefault(r.learned_from, {}).setdefault(r.model, [])
                of_model += [r.subset] if r.subset not in of_model else []
        lines = []
        for what, models in told.items():
            of = "; ".join(f"{model} ({', '.join(subsets)})" for model, subsets in models.items())
            lines.append(f"- {of}: {what}")
        return lines


def measure(arguments: argparse.Namespace) -> Results:
    """Every model on every subset, as far as models and data are at hand."""
    results = Results()
    for model in arguments.models:
        data = Data(model, arguments)
        for subset, calibration in itertools.product(arguments.subsets, ("none", *arguments.calibrations)):
            with results.missing.noting(f"{model}, {subset}, calibration {calibration}"):
                results.measured += measure_subset(data, subset, calibration, arguments)
    return results


def measure_subset(data: Data, subset: str, calibration: str, arguments: argparse.Namespace) -> Iterator[Result]:
    """The methods of one calibration on one subset."""
    judged = data.subset(subset)
    learned = None if calibration == "none" else calibrated(data, subset, calibration)
    for method in METHODS[:1] if learned is None else METHODS[1:]:
        start = time.perf_counter()
        alphas = arguments.alpha, arguments.query_alpha
        pipeline = raw_pipeline(judged.task, *alphas) if learned is None else learned.pipeline(method, *alphas)
        scores = scores_of(judged.qrels, ranked(pipeline, judged.task), reference=arguments.reference_metric)
        of = data.model, judged.task.encoder, method, subset, calibration, None if learned is None else learned.told
        yield Result(*of, scores, len(judged.task), len(judged.task.corpus), time.perf_counter() - start)


def table(found: dict[Cell, dict[str, float]], models: Iterable[str], *, compared: bool) -> list[str]:
    """The layout of Table 1: its figures, ours where there are some, and by how much they lie above."""
    paper = paper_table()
    lines = [f"| | | {' | '.join(SUBSETS)} |", f"|---|---|{'---|' * len(SUBSETS)}"]
    for method, model in itertools.product(METHODS, models):
        cells = [(model, method, subset) for subset in SUBSETS]
        ours, theirs = [found.get(cell) for cell in cells], [paper.get(cell) for cell in cells]
        rows = {"measured": map(shown, ours)}
        if any(theirs):
            rows |= {"paper": map(shown, theirs)}
        if any(theirs) and any(ours) and compared:
            rows |= {"difference": map(difference, ours, theirs)}
        lines += [f"| {model}, {method} | {name} | {' | '.join(row)} |" for name, row in rows.items()]
    return lines


def short_table(found: dict[Cell, dict[str, float]]) -> list[str]:
    """What was measured, alone."""
    lines = [f"| | {' | '.join(SUBSETS)} |", f"|---|{'---|' * len(SUBSETS)}"]
    for model, method in dict.fromkeys((model, method) for model, method, _ in found):
        cells = [shown(found.get((model, method, subset))) for subset in SUBSETS]
        lines.append(f"| {model}, {method} | {' | '.join(cells)} |")
    return lines


def shown(scores: dict[str, float] | None) -> str:
    """The cell of a table: three metrics, and NDCG of the reference code where it was asked for."""
    if scores is None:
        return BLANK
    reference = "/".join(f"{scores[name]:.3f}" for name in scores if name not in METRICS)
    return "/".join(f"{scores[metric]:.3f}" for metric in METRICS) + (f" ({reference})" if reference else "")


def difference(ours: dict[str, float] | None, theirs: dict[str, float] | None) -> str:
    """By how much our figures lie above the paper's."""
    if ours is None or theirs is None:
        return BLANK
    return "/".join(f"{ours[metric] - theirs[metric]:+.3f}" for metric in METRICS)


def page(results: Results, arguments: argparse.Namespace) -> str:
    """All tables in Markdown, and what is missing."""
    models = [*MODELS, *(model for model in arguments.models if model not in MODELS)]
    first, *others = arguments.calibrations
    lines = [*heading(arguments), *("", f"Calibration: {first}", "")]
    lines += [*table(results.of(first), models, compared=not arguments.unpublished), "", *results.learned_from(first)]
    for calibration in others:
        lines += ["", f"Calibration: {calibration}", "", *short_table(results.of(calibration))]
        lines += ["", *results.learned_from(calibration)]
    return "\n".join([*lines, *results.missing.lines()])


def heading(arguments: argparse.Namespace) -> list[str]:
    """What was measured, on what."""
    lines = [
        f"NDCG@10/NDCG@100/Recall@1; alpha {arguments.alpha} for documents, {arguments.query_alpha} for queries with a "
        "picture."
    ]
    if arguments.reference_metric:
        lines.append("In brackets NDCG@10 and NDCG@100 as the paper's code has them.")
    if arguments.toy:
        lines.append(f"Measured on {arguments.toy} drawn scenes a subset, not on the data of the paper.")
    elif arguments.unpublished:
        lines.append("Measured on other data than those published: not to be compared with the paper.")
    return lines


def write_json(path: Path, results: Results, arguments: argparse.Namespace) -> None:
    """Results with their settings."""
    names = ("alpha", "query_alpha", "toy", "unpublished", "checkpoint", "reference_metric")
    settings = {name: getattr(arguments, name) for name in names} | {"root": str(arguments.root or "the hub")}
    content = {"date": str(date.today()), "settings": settings, "missing": results.missing.reasons}
    measured = [asdict(result) for result in results.measured]
    path.write_text(json.dumps(content | {"measured": measured}, indent=1) + "\n", encoding="utf-8")


def marked_page(text: str) -> Path:
    """A type of arguments: a page with two marks, between which tables are written."""
    path = Path(text)
    if not path.is_file() or not all(mark in path.read_text(encoding="utf-8") for mark in (BEGIN, END)):
        raise argparse.ArgumentTypeError(f"{text!r} is no page with the lines {BEGIN} and {END}")
    return path


def write_markdown(path: Path, text: str) -> None:
    """Put the tables between the two marks of a page."""
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def speed(rounds: int = 5) -> float:
    """Median seconds to calibrate, search and score by every method: 1,000 queries, 4,421 documents, width 768."""
    rng = np.random.default_rng(0)
    queries, texts, images = (rng.normal(size=(n, 768)).astype(np.float32) for n in (1000, 4421, 4421))
    corpus = keep_kinds(Items({"text": texts, "image": images}), paper_split(4421))
    judged = Judged("random", SearchTask(Items({"query": queries}), corpus), [{i: 1} for i in range(1000)])
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        learned = Calibration([judged], judged.asked, judged=False)
        for pipeline in (raw_pipeline(judged.task), *map(learned.pipeline, METHODS[1:])):
            scores_of(judged.qrels, ranked(pipeline, judged.task))
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def main(argv: Sequence[str] = ()) -> int:
    made = parser(__doc__, MODELS)
    add = made.add_argument
    add("--speed", action="store_true", help="measure the time of scoring on random vectors instead")
    add("--subsets", nargs="+", default=list(SUBSETS), choices=SUBSETS)
    add("--calibrations", nargs="+", default=list(CALIBRATIONS), choices=CALIBRATIONS)
    text = "weight of a document's text beside its picture (default: 0.5)"
    add("--alpha", type=between(0, 1, float), default=0.5, help=text)
    add("--markdown", type=marked_page, help="page whose tables are replaced, e.g. docs/benchmarks.md")
    add_query_alpha(made)
    arguments = prepare(made, argv)
    if arguments.speed:
        print(f"1,000 queries, 4,421 documents, three methods and metrics: {speed():.2f} s")
        return 0
    results = measure(arguments)
    text = page(results, arguments)
    print(text)
    if arguments.json:
        write_json(arguments.json, results, arguments)
    if arguments.markdown:
        write_markdown(arguments.markdown, text)
    return 0 if results.measured else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
