"""What the reproductions share beside data and calibration: methods, scores, and what could not be measured."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from benchmarks._data import Qrels
from grclip import ExactRetriever, SearchTask
from grclip.metrics import ndcg_score, recall_score

METHODS = ("raw", "means removed", "one scale")

METRICS: Mapping[str, Callable[[Qrels, Any], float]] = {
    "ndcg@10": lambda qrels, ranking: float(ndcg_score(qrels, ranking, k=10)),
    "ndcg@100": lambda qrels, ranking: float(ndcg_score(qrels, ranking, k=100)),
    "recall@1": lambda qrels, ranking: float(recall_score(qrels, ranking, k=1)),
}

EXPECTED = (OSError, ValueError, ModuleNotFoundError)
"""Errors of data and models that are not there; others are of the program, or of the machine."""


class Missing:
    """What could not be measured, by the reason."""

    def __init__(self) -> None:
        self.reasons: dict[str, list[str]] = {}

    @contextmanager
    def noting(self, what: str) -> Iterator[None]:
        """Say what is measured now, and remember the reason if it cannot be: what was measured before is kept."""
        print(f"{what} ...", file=sys.stderr)
        try:
            yield
        except EXPECTED as error:
            self.note(str(error), what)
        except Exception as error:
            traceback.print_exc()
            self.note(f"{type(error).__name__}: {error}", what)

    def note(self, reason: str, what: str) -> None:
        """Remember a reason."""
        self.reasons.setdefault(reason, []).append(what)

    def lines(self) -> list[str]:
        """In Markdown, the reasons first."""
        told = [f"- {reason} ({_some(what)})" for reason, what in self.reasons.items()]
        return ["", "Not measured:", "", *told] if told else []


def _some(names: list[str]) -> str:
    return "; ".join(names[:4]) + (f"; and {len(names) - 4} more" if len(names) > 4 else "")


def reference_ndcg(qrels: Qrels, ranking: Any, *, k: int = 10, per_query: bool = False) -> Any:
    """NDCG as the paper's code has it: the ideal ranking is made of the k retrieved documents alone.

    It hands the grades of these to scikit-learn's ``ndcg_score``, in which the gain of a document is its grade.
    """
    lines = zip(qrels, ranking, strict=True)
    grades = np.array([[judged.get(int(row), 0) for row in line[:k]] for judged, line in lines])
    discount = 1 / np.log2(np.arange(2, grades.shape[1] + 2))
    ideal = np.sort(grades, axis=1)[:, ::-1] @ discount
    scores = np.divide(grades @ discount, ideal, out=np.zeros(len(grades)), where=ideal > 0)
    return scores if per_query else float(np.mean(scores))


def ranked(pipeline: Pipeline, task: SearchTask, k: int = 100) -> np.ndarray:
    """The k best documents of each query, or all that there are."""
    fused = pipeline.transform(task)
    return np.asarray(ExactRetriever(min(k, len(task.corpus))).fit(fused).predict(fused.queries))


def scores_of(qrels: Qrels, ranking: np.ndarray, *, reference: bool = False) -> dict[str, float]:
    """Every metric of a ranking; on request NDCG as the paper's code has it, too."""
    scores = {name: metric(qrels, ranking) for name, metric in METRICS.items()}
    return scores | (
        {f"reference ndcg@{k}": reference_ndcg(qrels, ranking, k=k) for k in (10, 100)} if reference else {}
    )
