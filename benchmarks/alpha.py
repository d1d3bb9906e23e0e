"""Figure 3 of the paper: alpha, the weight of a document's text beside its picture: ``python -m benchmarks.alpha``.

On the full corpora of MixBench, in which each document has both: NDCG@10 of raw vectors, with means removed (GR-CLIP)
and with one scale, for alpha from 0 (the picture alone) to 1 (the text alone); the best alpha, and by how much it beats
the better end. It is chosen on the queries that it is measured on. Queries of OVEN have a text and a picture, whose
weights stay as they are.

Means and spreads come from training splits as in the paper's Appendix B, from the same data (transductive, without its
judgements), and from the three other subsets (cross-dataset). Spreads are learned anew for each alpha; where all
documents are of one kind, as in what was published, one scale leaves every ranking as it is.

The paper's text has no number of this figure, and the figure no VLM2Vec: given as a model, that encodes texts and
pictures apart here, so that there is something to weigh.

What cannot be measured here is listed at the end with what is missing. ``--toy 40`` runs all of it on drawn scenes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from benchmarks._arguments import add_query_alpha, prepare
from benchmarks._calibration import Calibration, fuser_of, pooled
from benchmarks._curves import Figure, Metric, curve_parser, run
from benchmarks._data import Data, Judged
from benchmarks._paper import SUBSETS
from benchmarks._reproduction import METHODS
from grclip import ExactRetriever
from grclip.diagnostics import Curve, alpha_curve
from grclip.plots import AlphaCurveDisplay

ALPHAS = np.linspace(0, 1, 11).round(1)

FLAT = 0.0005
"""Of a score, below which no three places differ."""


def best(values: NDArray, mean: NDArray) -> str:
    """The alpha of the highest point, the lowest one of equals; none where alpha makes no difference."""
    return "any" if mean.max() - mean.min() < FLAT else f"{values[np.argmax(mean)]:g}"


def highest(values: NDArray, mean: NDArray) -> str:
    """The highest point."""
    return f"{mean.max():.3f}"


def gain(values: NDArray, mean: NDArray) -> str:
    """How far the highest point lies above the better end."""
    return f"{mean.max() - max(mean[0], mean[-1]):.3f}"


class Alpha(Figure):
    """Scores along alpha."""

    name = "alpha"
    title = "Figure 3: the weight of the text"
    datasets = SUBSETS
    display = AlphaCurveDisplay
    columns = (("best alpha", best), ("there", highest), ("above the better end", gain))

    def judged(self, data: Data, dataset: str) -> Judged:
        """A subset whose documents have both parts."""
        return data.subset(dataset, "full")

    def others(self, dataset: str) -> Sequence[str]:
        """The three others."""
        return [each for each in SUBSETS if each != dataset]

    def curve(self, judged: Judged, calibration: Calibration | None, metric: Metric) -> Curve:
        """With means as they were learned, and spreads of each alpha."""
        if calibration is None:
            methods, learned = {METHODS[0]: self._pipeline(judged)}, (judged.task, judged.qrels)
        else:
            methods = {method: self._pipeline(judged, calibration, method) for method in METHODS[1:]}
            task, qrels = pooled(calibration.asking)
            learned = task, qrels if calibration.judged else [{} for _ in qrels]
        return alpha_curve(
            judged.task, judged.qrels, methods, ALPHAS, calibration=learned, metric=metric[0], k=metric[1]
        )

    def _pipeline(self, judged: Judged, calibration: Calibration | None = None, method: str = METHODS[0]) -> Pipeline:
        """A pipeline of which spreads are yet to be learned."""
        fuser = fuser_of(judged.task, 0.5, self.arguments.query_alpha, equalize=method == "one scale")
        steps = [] if calibration is None else [("degap", FrozenEstimator(calibration.remover))]
        return Pipeline([*steps, ("fuse", fuser), ("search", ExactRetriever())])


def main(argv: Sequence[str] = ()) -> int:
    made = curve_parser(__doc__, Alpha.datasets)
    add_query_alpha(made)
    arguments = prepare(made, argv)
    return run(arguments, [Alpha(arguments, [("ndcg", 10)])])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
