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
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

import numpy as np

from benchmarks._paper import METRICS, MODELS, SUBSETS, paper_table
from benchmarks._reproduction import (
    CALIBRATIONS,
    METHODS,
    Calibration,
    Data,
    Judged,
    calibrated,
    parser,
    prepare,
    ranked,
    raw_pipeline,
    scores_of,
)
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
    method: str
    subset: str
    calibration: str
    scores: dict[str, float]
    n_queries: int
    n_documents: int
    seconds: float


@dataclass
class Results:
    """Everything that was measured, and why the rest was not."""

    measured: list[Result] = field(default_factory=list)
    missing: dict[str, list[str]] = field(default_factory=dict)

    def note(self, what: str, error: Exception) -> None:
        """Remember what could not be measured, once for each reason."""
        self.missing.setdefault(str(error), []).append(what)

    def of(self, calibration: str) -> dict[Cell, dict[str, float]]:
        """Scores under one calibration, and those of raw vectors, which have none."""
        return {
            (r.model, r.method, r.subset): r.scores for r in self.measured if r.calibration in (calibration, "none")
        }


def measure(arguments: argparse.Namespace) -> Results:
    """Every model on every subset, as far as models and data are at hand."""
    results = Results()
    for model in arguments.models:
        data = Data(model, arguments)
        for subset in arguments.subsets:
            for calibration in ("none", *arguments.calibrations):
                try:
                    results.measured += measure_subset(data, subset, calibration, arguments)
                except (OSError, ValueError, ModuleNotFoundError) as error:
                    results.note(f"{model}, {subset}, calibration {calibration}", error)
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
        sizes = len(judged.task), len(judged.task.corpus)
        yield Result(data.model, method, subset, calibration, scores, *sizes, time.perf_counter() - start)


def table(found: dict[Cell, dict[str, float]], models: Iterable[str]) -> list[str]:
    """The layout of Table 1, with the paper's figures and the differences below ours."""
    paper = paper_table()
    lines = [f"| | | {' | '.join(SUBSETS)} |", f"|---|---|{'---|' * len(SUBSETS)}"]
    for method, model in itertools.product(METHODS, models):
        cells = [(model, method, subset) for subset in SUBSETS]
        rows = {
            "measured": [shown(found.get(cell)) for cell in cells],
            "paper": [shown(paper.get(cell)) for cell in cells],
            "difference": [difference(found.get(cell), paper.get(cell)) for cell in cells],
        }
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
    """The cell of a table: three metrics, and NDCG@10 of the reference code where it was asked for."""
    if scores is None:
        return BLANK
    reference = [f" ({scores[name]:.3f})" for name in scores if name not in METRICS]
    return "/".join(f"{scores[metric]:.3f}" for metric in METRICS) + "".join(reference)


def difference(ours: dict[str, float] | None, theirs: dict[str, float] | None) -> str:
    """By how much our figures lie above the paper's."""
    if ours is None or theirs is None:
        return BLANK
    return "/".join(f"{ours[metric] - theirs[metric]:+.3f}" for metric in METRICS)


def page(results: Results, arguments: argparse.Namespace) -> str:
    """All tables in Markdown, and what is missing."""
    models = [*MODELS, *(model for model in arguments.models if model not in MODELS)]
    first, *others = arguments.calibrations
    lines = [
        f"NDCG@10/NDCG@100/Recall@1{' (NDCG@10 as the reference code)' if arguments.reference_metric else ''}; alpha "
        f"{arguments.alpha} for documents, {arguments.query_alpha} for queries with a picture.",
        *("", f"Calibration: {first}", "", *table(results.of(first), models)),
    ]
    for calibration in others:
        lines += ["", f"Calibration: {calibration}", "", *short_table(results.of(calibration))]
    if results.missing:
        lines += ["", "Not measured:", ""]
        lines += [f"- {'; '.join(what)}: {reason}" for reason, what in results.missing.items()]
    return "\n".join(lines)


def write_json(path: Path, results: Results, arguments: argparse.Namespace) -> None:
    """Results with their settings."""
    settings = {name: getattr(arguments, name) for name in ("alpha", "query_alpha", "toy", "reference_metric")}
    content = {"date": str(date.today()), "settings": settings, "missing": results.missing}
    measured = [asdict(result) for result in results.measured]
    path.write_text(json.dumps(content | {"measured": measured}, indent=1) + "\n")


def write_markdown(path: Path, text: str) -> None:
    """Put the tables between the two marks of a page; a page without them is left alone."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{path} lacks the lines {BEGIN} and {END}, between which tables are written")
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


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
    made = parser(__doc__)
    made.add_argument("--speed", action="store_true", help="measure the time of scoring on random vectors instead")
    made.add_argument("--subsets", nargs="+", default=list(SUBSETS), choices=SUBSETS)
    made.add_argument("--calibrations", nargs="+", default=list(CALIBRATIONS), choices=CALIBRATIONS)
    made.add_argument("--alpha", type=float, default=0.5, help="weight of a document's text beside its picture")
    made.add_argument("--query-alpha", type=float, default=0.5, help="the same of a query: OVEN's have both")
    made.add_argument("--reference-metric", action="store_true", help="NDCG@10 as the paper's code has it, in brackets")
    made.add_argument("--markdown", type=Path, help="page whose tables are replaced, e.g. docs/benchmarks.md")
    arguments = made.parse_args(argv)
    if arguments.speed:
        print(f"1,000 queries, 4,421 documents, three methods and metrics: {speed():.2f} s")
        return 0
    prepare(arguments)
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
