"""What the reproductions share: data on disk, its embeddings, what is calibrated on, the methods, and their scores.

Data lie in one folder, ``--root``:

- ``MSCOCO``, ``Google_WIT``, ``OVEN``, ``VisualNews``: the subsets of MixBench25 as published;
- ``train/MSCOCO`` and so on: queries and documents of the training splits, in the same layout
  (`grclip.datasets.write_mixbench` writes it); means are taken from these;
- ``nfcorpus``, ``scifact``: in BEIR's layout; training queries of the former go into the mean of queries.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from benchmarks._embeddings import encoded
from benchmarks._models import TOY, encoder_of
from benchmarks._paper import MODELS, SUBSETS
from benchmarks._toy import write_toy
from grclip import ExactRetriever, Items, ModalityGapRemover, MultimodalFuser, SearchTask
from grclip.datasets import Dataset, load_beir, load_mixbench
from grclip.encoders import release_models
from grclip.encoders._base import BaseEncoder
from grclip.metrics import ndcg_score, recall_score

Qrels = Sequence[Mapping[int, float]]

METHODS = ("raw", "means removed", "one scale")
CALIBRATIONS = ("training", "transductive", "cross-dataset")
TRAIN = "train"

N_CALIBRATION = 10_000
"""Rows of a role that a mean is taken of, from all training splits together (the paper's Appendix B)."""

N_OVEN = 2_000
"""Queries of OVEN's training split that its own query mean is taken of."""


@dataclass(frozen=True)
class Judged:
    """An encoded task with its judgements, and what it is called."""

    name: str
    task: SearchTask
    qrels: Qrels

    @property
    def asked(self) -> str:
        """The kind of its queries."""
        kinds = np.unique(self.task.queries.kinds)
        return " and ".join(kinds)


def parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments that all reproductions take."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--root", type=Path, help="folder of the data; without it MixBench comes from the hub")
    made.add_argument("--cache", type=Path, help="folder of embeddings (default: ROOT/embeddings, or embeddings)")
    made.add_argument(
        "--models", nargs="+", default=list(MODELS), metavar="MODEL", help=f"of {', '.join(MODELS)}, {TOY}"
    )
    made.add_argument("--checkpoint", nargs="+", default=[], metavar="MODEL=PLACE", help="a folder or hub name for it")
    made.add_argument(
        "--toy",
        type=int,
        metavar="N",
        help=f"draw N scenes a subset under ROOT (a new folder); the models are {TOY} and those of --checkpoint",
    )
    made.add_argument("--unpublished", action="store_true", help="take subsets of other sizes than those published")
    made.add_argument("--device", help="where models run")
    made.add_argument("--batch-size", type=int, help="values in one pass of a model")
    made.add_argument("--json", type=Path, help="file to write the results to")
    return made


def prepare(arguments: argparse.Namespace) -> None:
    """Fill in what depends on other arguments, and draw the toy data where asked for."""
    places = [place.partition("=") for place in arguments.checkpoint]
    unclear = [f"{name}{sign}{place}" for name, sign, place in places if not (name and place)]
    if unclear:
        raise SystemExit(f"--checkpoint takes MODEL=PLACE; got {', '.join(unclear)}")
    arguments.checkpoint = {name: place for name, _, place in places}
    if arguments.toy:
        arguments.root = arguments.root or Path("toy")
        arguments.models, arguments.unpublished = [TOY, *arguments.checkpoint], True
        write_toy(arguments.root, arguments.toy)
    arguments.cache = arguments.cache or (arguments.root or Path()) / "embeddings"


def encoder(model: str, arguments: argparse.Namespace) -> BaseEncoder:
    """The encoder of a model, and room for it."""
    release_models()
    given = {"device": arguments.device, "batch_size": arguments.batch_size}
    return encoder_of(
        model, arguments.checkpoint, **{name: value for name, value in given.items() if value is not None}
    )


class Data:
    """The data of one model, encoded when they are first asked for."""

    def __init__(self, model: str, arguments: argparse.Namespace) -> None:
        self.model, self.arguments, self.encoder = model, arguments, encoder(model, arguments)
        self._known: dict[tuple[str, ...], Judged | Exception] = {}

    def subset(self, subset: str, corpus: str = "mixed") -> Judged:
        """A subset of MixBench."""
        check = not self.arguments.unpublished
        root = self.arguments.root
        return self._encoded((subset, corpus), lambda: load_mixbench(subset, root, corpus=corpus, check_counts=check))

    def made(self, name: str, make: Callable[[], Dataset]) -> Judged:
        """What a reproduction makes of published data."""
        return self._encoded((name,), make)

    def training(self, subset: str, share: int) -> Judged:
        """Rows of a training split: a share of the documents, and of the queries (OVEN's have a mean of their own)."""
        joint = getattr(self.encoder, "joint", False)  # one vector for a text and its picture: mixed rows alone
        corpus = "mixed" if joint else "full"
        root = self.arguments.root / TRAIN
        return self._encoded(
            (TRAIN, subset, str(share)),
            lambda: sampled(
                load_mixbench(subset, root, corpus=corpus, check_counts=False),
                N_OVEN if subset == "OVEN" else share,
                share,
            ),
        )

    def _encoded(self, key: tuple[str, ...], load: Callable[[], Dataset]) -> Judged:
        """The data of a key; what could not be had is not looked for again."""
        if key not in self._known:
            try:
                found = load()
                task = encoded(self.encoder, found.task, self.arguments.cache)
                self._known[key] = Judged(" ".join(key), task, found.qrels)
            except (OSError, ValueError, ModuleNotFoundError) as error:
                self._known[key] = error
        known = self._known[key]
        if isinstance(known, Exception):
            raise known
        return known


def beir_dataset(root: Path | None, name: str, split: str = "test") -> Dataset:
    """A dataset of BEIR as published: from its folder where that is there, else from the hub."""
    folder = root / name if root else None
    there = folder is not None and folder.is_dir()
    return load_beir(folder, split=split) if there else load_beir(name=name, split=split)


def sampled(dataset: Dataset, n_queries: int, n_documents: int) -> Dataset:
    """Some rows of a dataset, at random but always the same, with the judgements that remain."""
    task, qrels, description = dataset
    rng = np.random.default_rng(0)
    asked, kept = (
        np.sort(rng.permutation(len(side))[:n]) for side, n in ((task.queries, n_queries), (task.corpus, n_documents))
    )
    place = {int(row): i for i, row in enumerate(kept)}
    judged = [{place[row]: grade for row, grade in qrels[query].items() if row in place} for query in asked]
    return Dataset(SearchTask(task.queries[asked], task.corpus[kept]), judged, description)


def stacked(sides: Sequence[Items]) -> Items:
    """The rows of several Items, one after the other, with NaN where a role is not of all of them."""
    roles = dict.fromkeys(role for side in sides for role in side)
    width = next(iter(sides[0].values())).shape[1]
    blank = [np.full((len(side), width), np.nan, dtype=np.float32) for side in sides]
    parts = {
        role: np.concatenate([side.get(role, none) for side, none in zip(sides, blank, strict=True)]) for role in roles
    }
    return Items(parts, encoder=sides[0].encoder)


def pooled(sources: Sequence[Judged]) -> tuple[SearchTask, list[dict[int, float]]]:
    """One task of several."""
    starts = np.cumsum([0, *(len(source.task.corpus) for source in sources)]).tolist()
    qrels = [
        {start + row: grade for row, grade in judged.items()}
        for start, source in zip(starts, sources, strict=False)
        for judged in source.qrels
    ]
    return SearchTask(
        *(stacked([getattr(source.task, side) for source in sources]) for side in ("queries", "corpus"))
    ), qrels


class Calibration:
    """What means and spreads are learned from; queries of the kind that is asked with, documents of all sources.

    Parameters
    ----------
    sources : list of Judged
        Tasks to learn from.
    asked : str
        Kind of the queries that will be asked.
    queries : list of Items
        Further queries of that kind, without documents.
    judged : bool
        Whether pairs judged relevant are left out of the spreads. Not where test queries are learned from.
    """

    def __init__(
        self, sources: Sequence[Judged], asked: str, queries: Sequence[Items] = (), *, judged: bool = True
    ) -> None:
        self.asking = [source for source in sources if source.asked == asked]
        if not self.asking:
            raise ValueError(f"there are no queries of kind {asked} to learn a mean from")
        self.remover = ModalityGapRemover()
        for source in sources:
            self.remover.partial_fit(source.task.corpus)
        for side in [*(source.task.queries for source in self.asking), *queries]:
            self.remover.partial_fit(side)
        self.judged = judged

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
    """The paper's calibration, on the training splits that are there, for queries of a kind."""
    there = training_subsets(data.arguments.root)
    share = -(-N_CALIBRATION // len(there))
    return Calibration([data.training(each, share) for each in there], asked, further_queries(data, asked, share))


def training_subsets(root: Path | None) -> list[str]:
    """The training splits that are there."""
    folder = (root or Path("ROOT")) / TRAIN
    there = [subset for subset in SUBSETS if root is not None and (folder / subset).is_dir()]
    if not there:
        raise FileNotFoundError(
            f"{folder} holds none of {', '.join(SUBSETS)}: the paper's means come from their training splits, of which "
            "there is no published copy in one place; write yours there with grclip.datasets.write_mixbench"
        )
    return there


def further_queries(data: Data, asked: str, share: int) -> list[Items]:
    """Some queries of NFCorpus's training split, where texts are asked with and they are there."""
    root = data.arguments.root
    if asked != "query" or root is None or not (root / "nfcorpus" / "qrels" / "train.tsv").is_file():
        return []
    found = data.made("nfcorpus queries", lambda: sampled(beir_dataset(root, "nfcorpus", "train"), share, 1))
    return [found.task.queries]


METRICS: Mapping[str, Callable[[Qrels, Any], float]] = {
    "ndcg@10": lambda qrels, ranking: float(ndcg_score(qrels, ranking, k=10)),
    "ndcg@100": lambda qrels, ranking: float(ndcg_score(qrels, ranking, k=100)),
    "recall@1": lambda qrels, ranking: float(recall_score(qrels, ranking, k=1)),
}


def reference_ndcg(qrels: Qrels, ranking: Any, k: int = 10) -> float:
    """NDCG as the paper's code has it: the ideal ranking is made of the k retrieved documents alone, gain the grade."""
    grades = np.array(
        [[judged.get(int(row), 0) for row in line[:k]] for judged, line in zip(qrels, ranking, strict=True)]
    )
    discount = 1 / np.log2(np.arange(2, grades.shape[1] + 2))
    ideal = np.sort(grades, axis=1)[:, ::-1] @ discount
    return float(np.mean(np.divide(grades @ discount, ideal, out=np.zeros(len(grades)), where=ideal > 0)))


def ranked(pipeline: Pipeline, task: SearchTask, k: int = 100) -> np.ndarray:
    """The k best documents of each query, or all that there are."""
    fused = pipeline.transform(task)
    return np.asarray(ExactRetriever(min(k, len(task.corpus))).fit(fused).predict(fused.queries))


def scores_of(qrels: Qrels, ranking: np.ndarray, *, reference: bool = False) -> dict[str, float]:
    """Every metric of a ranking; on request NDCG@10 as the paper's code has it, too."""
    scores = {name: metric(qrels, ranking) for name, metric in METRICS.items()}
    return scores | {"reference ndcg@10": reference_ndcg(qrels, ranking)} if reference else scores
