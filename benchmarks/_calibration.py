"""What means and spreads are learned from: training splits as in the paper, the test data themselves, or other data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.pipeline import Pipeline

from benchmarks._data import TRAIN, Data, Judged, beir_dataset, sampled
from benchmarks._paper import SUBSETS
from grclip import Items, ModalityGapRemover, MultimodalFuser, SearchTask

CALIBRATIONS = ("training", "transductive", "cross-dataset")

N_CALIBRATION = 10_000
"""Rows of a role that a mean is taken of, from all training splits together (the paper's Appendix B)."""

N_OVEN = 2_000
"""Queries of OVEN's training split that its own query mean is taken of."""

N_OTHERS = 2_500
"""Rows that the means of other modalities are taken of: screenshots, sounds, videos, pictures that are asked with."""


class Calibration:
    """Means of the documents of all sources, and of queries of the kind that is asked with; spreads from the latter.

    Parameters
    ----------
    sources : list of Judged
        Tasks to learn from.
    asked : str
        Kind of the queries that will be asked.
    further : list of Judged
        Tasks whose queries, of that kind, count for the mean, and whose documents do not.
    judged : bool
        Whether pairs judged relevant are left out of the spreads. Not where test queries are learned from.
    lacking : list of str
        What should have been learned from, and was not there.
    """

    def __init__(
        self,
        sources: Sequence[Judged],
        asked: str,
        further: Sequence[Judged] = (),
        *,
        judged: bool = True,
        lacking: Sequence[str] = (),
    ) -> None:
        self.asking = [source for source in sources if source.asked == asked]
        if not self.asking:
            raise ValueError(f"there are no queries of kind {asked} to learn a mean from")
        self.names, self.lacking = [source.name for source in (*sources, *further)], list(lacking)
        self.remover = ModalityGapRemover()
        for source in sources:
            self.remover.partial_fit(source.task.corpus)
        for source in (*self.asking, *further):
            self.remover.partial_fit(source.task.queries)
        self.judged = judged

    @property
    def told(self) -> str:
        """How many rows of each role, of what."""
        rows = ", ".join(f"{role} {n:,}" for role, n in self.remover.n_samples_seen_.items())
        lacking = f"; without {', '.join(self.lacking)}" if self.lacking else ""
        return f"{rows} rows of {', '.join(self.names)}{lacking}"

    def pipeline(self, method: str, alpha: float = 0.5, query_alpha: float = 0.5) -> Pipeline:
        """A fitted pipeline up to fused vectors."""
        task, qrels = pooled(self.asking)
        centred = self.remover.transform(task)
        fuser = fuser_of(task, alpha, query_alpha, equalize=method == "one scale")
        return Pipeline([("degap", self.remover), ("fuse", fuser.fit(centred, qrels if self.judged else None))])


def fuser_of(task: SearchTask, alpha: float, query_alpha: float, *, equalize: bool = False) -> MultimodalFuser:
    """A fuser with a weight of its own for the text of queries that have a picture, too."""
    both = {"query", "query_image"} <= set(task.queries)
    weights = {"query": query_alpha, "query_image": 1 - query_alpha} if both else None
    return MultimodalFuser(alpha, weights=weights, equalize=equalize)


def raw_pipeline(task: SearchTask, alpha: float = 0.5, query_alpha: float = 0.5) -> Pipeline:
    """Fusion alone, which learns nothing."""
    return Pipeline([("fuse", fuser_of(task, alpha, query_alpha).fit(task))])


def calibrated(data: Data, subset: str, how: str) -> Calibration:
    """The calibration of a subset: on training splits, on itself, or on the other subsets."""
    asked = data.subset(subset).asked
    match how:
        case "training":
            return trained(data, asked)
        case "transductive":
            return Calibration([data.subset(subset)], asked, judged=False)
        case _:
            return Calibration([data.subset(each) for each in SUBSETS if each != subset], asked)


def trained(data: Data, asked: str) -> Calibration:
    """The paper's calibration, on the training splits that are there, for queries of a kind.

    Documents come in equal shares from each split; text queries from each but OVEN's, and from NFCorpus.
    """
    there = training_subsets(data.arguments.root)
    texts = [subset for subset in there if subset != "OVEN"]
    further, lacking = further_queries(data, -(-N_CALIBRATION // (len(texts) + 1)))
    n_queries, n_documents = -(-N_CALIBRATION // (len(texts) + len(further) or 1)), -(-N_CALIBRATION // len(there))
    sources = [data.training(each, N_OVEN if each == "OVEN" else n_queries, n_documents) for each in there]
    absent = [f"{TRAIN}/{subset}" for subset in SUBSETS if subset not in there]
    if asked != "query":
        return Calibration(sources, asked, lacking=absent)
    return Calibration(sources, asked, further, lacking=[*lacking, *absent])


def training_subsets(root: Path | None) -> list[str]:
    """The training splits that are there."""
    folder = (root or Path("ROOT")) / TRAIN
    there = [subset for subset in SUBSETS if root is not None and (folder / subset).is_dir()]
    if not there:
        raise FileNotFoundError(
            f"{folder} holds none of {', '.join(SUBSETS)}: the paper's means come from their training splits, of which "
            "there is no published copy in one place; write yours there with grclip.datasets.write_mixbench (see "
            "docs/reproduction.md)"
        )
    return there


def further_queries(data: Data, n: int) -> tuple[list[Judged], list[str]]:
    """Some queries of NFCorpus's training split, or its name where it cannot be had."""
    name = "nfcorpus train queries"
    try:
        return [data.made(name, lambda: sampled(beir_dataset(data.arguments, "nfcorpus", "train"), n, 1))], []
    except (OSError, ValueError, ModuleNotFoundError) as error:
        return [], [f"{name} ({error})"]


def stacked(sides: Sequence[Items]) -> Items:
    """The rows of several Items, one after the other, with NaN where a role is not of all of them."""
    roles = dict.fromkeys(role for side in sides for role in side)
    width = next(iter(sides[0].values())).shape[1]
    blank = [np.full((len(side), width), np.nan, dtype=np.float32) for side in sides]
    columns = {role: [side.get(role, none) for side, none in zip(sides, blank, strict=True)] for role in roles}
    return Items({role: np.concatenate(column) for role, column in columns.items()}, encoder=sides[0].encoder)


def pooled(sources: Sequence[Judged]) -> tuple[SearchTask, list[dict[int, float]]]:
    """One task of several."""
    starts = np.cumsum([0, *(len(source.task.corpus) for source in sources)]).tolist()
    qrels = [
        {start + row: grade for row, grade in judged.items()}
        for start, source in zip(starts, sources, strict=False)
        for judged in source.qrels
    ]
    queries, corpus = (stacked([getattr(source.task, side) for source in sources]) for side in ("queries", "corpus"))
    return SearchTask(queries, corpus), qrels
