"""Figures 6 and 7 of the paper, other metrics of its Figures 2 and 3: ``python -m benchmarks.metrics``.

Figure 6 is that of ``benchmarks.ucurve`` by NDCG@100, Figure 7 that of ``benchmarks.alpha`` by NDCG@100 and Recall@1.
Embeddings that these two have kept are used again. The paper's text has no number of either figure.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks._arguments import add_query_alpha, prepare
from benchmarks._curves import curve_parser, run
from benchmarks.alpha import Alpha
from benchmarks.ucurve import UCurve, add_repeats


class Figure6(UCurve):
    """Scores along p by another metric."""

    title = "Figure 6: texts replaced with probability p"


class Figure7(Alpha):
    """Scores along alpha by other metrics."""

    title = "Figure 7: the weight of the text"


def main(argv: Sequence[str] = ()) -> int:
    made = curve_parser(__doc__, tuple(dict.fromkeys((*UCurve.datasets, *Alpha.datasets))))
    add_repeats(made)
    add_query_alpha(made)
    arguments = prepare(made, argv)
    return run(arguments, [Figure6(arguments, [("ndcg", 100)]), Figure7(arguments, [("ndcg", 100), ("recall", 1)])])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
