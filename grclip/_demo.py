"""The demo: a mixed search over drawn scenes, before and after the gap is removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from grclip._judged import METHODS, Reported, with_search
from grclip._sheet import Card, Ranking
from grclip.datasets import make_scenes, mix_kinds
from grclip.encoders import toy_encoder
from grclip.fusion import MultimodalFuser
from grclip.gap import ModalityGapRemover
from grclip.items import SearchTask
from grclip.metrics import ndcg_score

N_CALIBRATION = 600
KINDS = ("text", "image", "text+image")


@dataclass(frozen=True)
class Demo:
    """What was searched, and what each method found."""

    task: SearchTask
    kinds: NDArray[np.str_]
    scores: dict[str, NDArray[np.float64]]
    rows: dict[str, NDArray[np.int64]]

    def table(self) -> dict[str, list[float]]:
        """By method: NDCG@10 over all queries and by kind of the relevant document; share of images in the top 10."""
        qrels = [{i: 1} for i in range(len(self.task))]
        table = {}
        for method, rows in self.rows.items():
            found = np.asarray(ndcg_score(qrels, rows, k=10, per_query=True))
            by_kind = [found[self.kinds == kind].mean() for kind in KINDS]
            table[method] = [float(x) for x in (found.mean(), *by_kind, (self.kinds[rows] == "image").mean())]
        return table

    def examples(self) -> list[int]:
        """Of each kind of relevant document, the first query that the first and the last method answer differently.

        What rises most comes first.
        """
        rises = _rank(self.rows[METHODS[0]]) - _rank(self.rows[METHODS[-1]])
        found = (np.flatnonzero((rises != 0) & (self.kinds == kind)) for kind in KINDS)
        return sorted((int(queries[0]) for queries in found if len(queries)), key=lambda query: -rises[query])

    def rankings(self, query: int) -> list[Ranking]:
        """The five best documents of a query, before and after."""
        methods = (METHODS[0], METHODS[-1])
        return [Ranking(method, [self._card(query, method, place) for place in range(5)]) for method in methods]

    def _card(self, query: int, method: str, place: int) -> Card:
        row = int(self.rows[method][query, place])
        document = {role: part[row] for role, part in self.task.corpus.items()}
        score = float(self.scores[method][query, place])
        return Card(str(self.kinds[row]), score, document["text"], document["image"], relevant=row == query)


def _rank(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of document i for query i, and one past the last where it was not found."""
    right = rows == np.arange(len(rows))[:, None]
    return np.where(right.any(axis=1), right.argmax(axis=1), rows.shape[1])


def scenes(n: int = 1000, random_state: int = 0, encoder: Any = None) -> Reported:
    """Drawn scenes, encoded, in a corpus of texts, pictures and both; calibrated on 600 others."""
    drawn, _ = make_scenes(n + N_CALIBRATION, random_state=random_state)
    items = SearchTask(drawn.queries[:n], mix_kinds(drawn.corpus[:n], random_state=random_state))
    encoder = toy_encoder() if encoder is None else encoder
    others = encoder.transform(SearchTask(drawn.queries[n:], drawn.corpus[n:]))
    calibration = others, [{i: 1} for i in range(N_CALIBRATION)]
    pipelines = (
        Pipeline([("fuse", MultimodalFuser())]),
        Pipeline([("degap", ModalityGapRemover()), ("fuse", MultimodalFuser())]),
        Pipeline([("degap", ModalityGapRemover()), ("fuse", MultimodalFuser(equalize=True))]),
    )
    task, qrels = encoder.transform(items), [{i: 1} for i in range(n)]
    fitted = {
        name: with_search(method.fit(*calibration), task) for name, method in zip(METHODS, pipelines, strict=True)
    }
    note = f"Means and scales come from {N_CALIBRATION} other scenes; the encoder was trained on none of all these."
    return Reported(task, qrels, fitted, items, calibration, note)


def run_demo(n: int = 1000, random_state: int = 0, encoder: Any = None) -> Demo:
    """Draw scenes, encode them, calibrate on some and search the others by each method."""
    drawn = scenes(n, random_state, encoder)
    scores, rows = {}, {}
    for method, pipeline in drawn.methods.items():
        found = pipeline["search"].kneighbors(pipeline[:-1].transform(drawn.task.queries))
        scores[method], rows[method] = map(np.asarray, found)
    return Demo(drawn.items, drawn.items.corpus.kinds, scores, rows)
