"""The drawings of a report, for light and dark pages, each with a caption and its numbers in words."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from textwrap import fill
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from grclip import plots
from grclip._optional import optional_import
from grclip._report.measured import Numbers, Search
from grclip._report.words import and_list, in_percent, kind_name, three_places
from grclip.datasets.mixing import has_both
from grclip.diagnostics import (
    Curve,
    alpha_curve,
    calibration_size,
    replacement_curve,
)
from grclip.items import Items, SearchTask

ENOUGH_BOTH = 50
"""Documents with a text and something else that a U-curve is worth drawing of."""

STILL_APART = 1 / 3
"""Share of a distance of means beyond which two roles are still apart when means are removed."""

TITLE_WIDTH = 60
"""Letters of a line in the title of a drawing."""

CURVE_QUERIES = 500
"""Queries that the curves are measured on: each takes dozens of searches."""

LARGEST_SVG = 150_000
"""Bytes of a drawing beyond which a picture of it is smaller."""


@dataclass(frozen=True)
class Figure:
    """A drawing as data URIs for light and dark pages."""

    title: str
    caption: str
    alt: str
    light: str
    dark: str
    width: int
    height: int


@dataclass
class Figures:
    """The drawings of each section, and why some are missing."""

    shares: list[Figure] = field(default_factory=list)
    gap: list[Figure] = field(default_factory=list)
    curves: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def draw_figures(asked: Search, numbers: Numbers) -> Figures:
    """All drawings that the data allow; those that they do not are told in the notes."""
    figures = Figures()
    _try(figures, figures.shares, "the shares in the top k", partial(_draw_shares, asked, numbers))
    _try(figures, figures.gap, "the map of embeddings", partial(_draw_map, asked, numbers))
    histograms = Histograms(asked)
    for name in dict.fromkeys((next(iter(asked.methods)), list(asked.methods)[-1])):
        what = f"the histogram of similarities of “{name}”"
        _try(figures, figures.gap, what, partial(histograms.draw, name))
    some = asked.sampled(CURVE_QUERIES, numbers.judged)
    if len(some.task) < len(numbers.judged):
        figures.notes.append(f"The curves are measured on {len(some.task):,} of the queries, drawn at random.")
    _try(figures, figures.curves, "scores by share of documents without text", partial(_draw_replacement, some))
    if asked.calibration is not None:
        _try(figures, figures.curves, "the curve over alpha", partial(_draw_alpha, some))
        _try(figures, figures.curves, "scores by calibration rows", partial(_draw_calibration, some))
    return figures


def _try(figures: Figures, section: list[Figure], what: str, draw: Callable[[], Figure]) -> None:
    """A drawing, or a note why these data or methods have none."""
    try:
        section.append(draw())
    except ValueError as error:
        figures.notes.append(f"Left out: {what}. {str(error)[:1].upper()}{str(error)[1:]}.")


def _figure(title: str, caption: str, alt: str, display: Any, **again: Any) -> Figure:
    """A display, drawn in both themes."""
    light = _as_uri(display)
    dark = _as_uri(display.plot(theme="dark", **again))
    width, height = (round(100 * side) for side in display.figure_.get_size_inches())
    return Figure(title, caption, alt, light, dark, width, height)


def _as_uri(display: Any) -> str:
    """The figure of a display as SVG, or as PNG where that is smaller; the figure is closed."""
    matplotlib, pyplot = (optional_import(name, "plots", "a report") for name in ("matplotlib", "matplotlib.pyplot"))
    with matplotlib.rc_context({"svg.hashsalt": "grclip", "svg.fonttype": "path"}):
        content, kind = _saved(display.figure_, "svg", metadata={"Date": None}), "svg+xml"
        if len(content) > LARGEST_SVG:
            content, kind = _saved(display.figure_, "png", dpi=200), "png"
    pyplot.close(display.figure_)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _saved(figure: Any, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=form, **options)
    return file.getvalue()


def _draw_shares(asked: Search, numbers: Numbers) -> Figure:
    k, biases = asked.k, numbers.biases
    first = next(iter(biases.values()))
    told = "; ".join(
        f"{name}: "
        + ", ".join(f"{kind_name(kind)} {in_percent(bias.top_share[i])}" for i, kind in enumerate(bias.kinds))
        for name, bias in biases.items()
    )
    collection = ", ".join(
        f"{kind_name(kind)} {in_percent(first.corpus_share[i])}" for i, kind in enumerate(first.kinds)
    )
    return _figure(
        f"Kinds of documents in the top {k}",
        f"What the first {k} results are made of. A dashed line marks the share of a kind in the collection.",
        f"Bar chart of shares. Collection: {collection}. Top {k} by method: {told}.",
        plots.TopKShareDisplay.from_predictions(biases),
    )


def _draw_map(asked: Search, numbers: Numbers) -> Figure:
    remover = None
    if asked.remover is None or numbers.gap_after is None:
        display = plots.EmbeddingDisplay.from_predictions(asked.task, random_state=asked.random_state)
    else:
        name, place = asked.remover
        remover = asked.methods[name].steps[place][1]
        display = plots.EmbeddingDisplay.from_estimator(remover, asked.task, random_state=asked.random_state)
    panels = ["before", "after"] if remover is not None else ["as encoded"]
    told = "; ".join(f"{name}: {_centres(points)}" for name, points in zip(panels, display.points, strict=True))
    return _figure(
        "Map of the embeddings",
        "All vectors, flattened to the two directions in which they vary most. With a gap each role is a cloud of its "
        "own"
        + (": left, as encoded. Right, with the mean of each role removed." if remover is not None else ".")
        + _still_apart(numbers),
        f"Scatter plots of queries and documents by role. Distances of the centres of clouds, {told}.",
        display,
    )


def _still_apart(numbers: Numbers) -> str:
    """The pairs of roles of which much of the gap is left, and why."""
    if numbers.gap_after is None:
        return ""
    told = []
    for roles, old in numbers.gap.pairs.items():
        new = numbers.gap_after[roles]
        if new.distance > max(STILL_APART * old.distance, 2 * new.distance_by_chance):
            told.append(f"{and_list(roles)} (means {old.distance:.2f} apart before, {new.distance:.2f} after)")
    if not told:
        return ""
    return f" Still apart are {', '.join(told)}: the means that are removed were learned on other data than these."


def _centres(points: Mapping[str, NDArray]) -> str:
    """How far apart the clouds of a map lie."""
    roles = list(points)
    centres = {role: np.asarray(points[role]).mean(axis=0) for role in roles}
    pairs = [(a, b) for i, a in enumerate(roles) for b in roles[i + 1 :]]
    return ", ".join(f"{a} and {b} {np.linalg.norm(centres[a] - centres[b]):.2f}" for a, b in pairs)


@dataclass
class Histograms:
    """Histograms of similarities, whose captions are about one pair of kinds: that which stands worst in the first."""

    asked: Search
    pair: tuple[str, str] | None = None

    def draw(self, name: str) -> Figure:
        """The histogram of a method."""
        _check_fuse(self.asked, name)
        title = fill(f"Similarity to queries: {name}", TITLE_WIDTH)
        display = plots.SimilarityHistogramDisplay.from_estimator(
            self.asked.methods[name],
            self.asked.task,
            self.asked.qrels,
            random_state=self.asked.random_state,
            name=title,
        )
        middles = (display.edges[1:] + display.edges[:-1]) / 2
        unrelated = {pair: float(shares @ middles) for pair, shares in display.unrelated.items()}
        relevant = {pair: float(np.median(values)) for pair, values in (display.relevant or {}).items()}
        told = [f"unrelated {kind_name(kind)} {value:.2f} on average" for (_, kind), value in unrelated.items()]
        told += [f"relevant {kind_name(kind)} {value:.2f} in the median" for (_, kind), value in relevant.items()]
        return _figure(
            f"Similarities: {name}",
            "How similar documents are to queries: histograms of unrelated ones, and a tick for each relevant one. "
            + self._ahead(display, relevant),
            f"Histograms of similarities to queries: {', '.join(told)}.",
            display,
            name=title,
        )

    def _ahead(self, display: Any, relevant: Mapping[tuple[str, str], float]) -> str:
        """How many unrelated documents come before the median relevant one of the pair that is told of."""
        n_of = partial(_n_ahead, display, relevant, self.asked.task.corpus.kinds)
        if self.pair is None and relevant:
            self.pair = max(relevant, key=n_of)
        if self.pair is None or self.pair not in relevant:
            return "The further apart the two, the better the search."
        return _told_ahead(self.pair[1], n_of(self.pair), relevant[self.pair])


def _check_fuse(asked: Search, *names: str) -> None:
    """That methods have a step before the search that gives each row one vector."""
    first = SearchTask(asked.task.queries[:1], asked.task.corpus[:1])
    for name in names:
        method = asked.methods[name]
        fused = method[:-1].transform(first) if isinstance(method, Pipeline) and len(method) > 1 else first
        if not isinstance(fused, SearchTask) or isinstance(fused.queries, Items):
            raise ValueError(f"“{name}” is no pipeline that fuses each row into one vector before it searches")


def _n_ahead(
    display: Any, relevant: Mapping[tuple[str, str], float], kinds: NDArray[np.str_], pair: tuple[str, str]
) -> float:
    """How many unrelated documents of a collection are more similar to a query than the median relevant one."""
    return float(
        sum(
            shares @ np.clip((display.edges[1:] - relevant[pair]) / np.diff(display.edges), 0, 1) * (kinds == far).sum()
            for (asker, far), shares in display.unrelated.items()
            if asker == pair[0]
        )
    )


def _told_ahead(kind: str, n: float, median: float) -> str:
    """The number of unrelated documents ahead, in words."""
    one = "Fewer than one unrelated document scores" if n < 0.5 else "About 1 unrelated document scores"
    many = one if n < 1.5 else f"About {n:,.0f} unrelated documents score"
    return (
        f"Half of the relevant documents of the kind {kind_name(kind)} score below {median:.2f}. {many} more than that."
    )


def _draw_replacement(asked: Search) -> Figure:
    task, qrels = _with_both(asked)
    curve = replacement_curve(
        task, qrels, asked.methods, k=asked.k, modalities=asked.modalities, random_state=asked.random_state, n_repeats=3
    )
    told = "; ".join(f"{name}: {_ends(curve, name)}" for name in curve.scores)
    return _figure(
        "Scores by share of documents without text",
        f"A collection of the {len(task.corpus):,} documents that have both, of which each keeps its text or, with a "
        "growing chance, the other part. With a gap the curve sags in the middle, where kinds compete. “Pushed down” "
        "shows what is left if documents of the other kind come last throughout.",
        f"Lines of {curve.metric} over the share of documents without text. {told}.",
        plots.ReplacementCurveDisplay.from_predictions(curve),
    )


def _with_both(asked: Search) -> tuple[SearchTask, list[dict[int, float]]]:
    """The documents with a text and something else, and the queries for which one of them is relevant."""
    corpus, both = asked.task.corpus, np.flatnonzero(has_both(asked.task.corpus, asked.modalities))
    if len(both) < max(ENOUGH_BOTH, asked.k):
        raise ValueError(
            f"it needs {max(ENOUGH_BOTH, asked.k)} documents with both a text and another part; there are {len(both)}"
        )
    place = {int(row): i for i, row in enumerate(both)}
    own = [{place[row]: grade for row, grade in judged.items() if row in place} for judged in asked.qrels]
    queries = np.array([i for i, judged in enumerate(own) if any(grade > 0 for grade in judged.values())], dtype=int)
    if not len(queries):
        raise ValueError("no query has a relevant document with both a text and another part")
    task = SearchTask(asked.task.queries[queries], corpus[both])
    return task, [own[query] for query in queries]


def _draw_alpha(asked: Search) -> Figure:
    if not has_both(asked.task.corpus, asked.modalities).any():
        raise ValueError("it needs documents with both a text and another part; there are none")
    _check_fuse(asked, *asked.methods)
    curve = alpha_curve(asked.task, asked.qrels, asked.methods, calibration=asked.calibration, k=asked.k)
    told = "; ".join(f"{name}: {_ends(curve, name)}" for name in curve.scores)
    display = plots.AlphaCurveDisplay.from_predictions(curve)
    best = [
        f"“{name}” {display.best_[name]:g}" if name in display.best_ else f"“{name}” no difference"
        for name in curve.scores
    ]
    return _figure(
        "Weight of the text",
        "Documents with a text and another part get one vector, in which the text has weight alpha: 0 is the other "
        f"part alone, 1 the text alone. Best here: {', '.join(best)}.",
        f"Lines of {curve.metric} over alpha. {told}.",
        display,
    )


def _draw_calibration(asked: Search) -> Figure:
    assert asked.calibration is not None
    _check_fuse(asked, *asked.methods)
    if asked.remover is None and asked.spreads is None:
        raise ValueError("no method learns anything from calibration rows")
    size = calibration_size(
        asked.task,
        asked.qrels,
        asked.methods,
        asked.calibration,
        k=asked.k,
        n_repeats=3,
        random_state=asked.random_state,
    )
    told = "; ".join(f"{name}: {_ends(size.scores, name)}" for name in size.scores.scores)
    return _figure(
        "How many calibration rows are enough",
        "Means are learned from a calibration set. Scores, and the error of the means, for smaller and larger ones: "
        "where the lines go flat, more rows no longer help. An error is measurable for fewer rows than a role has.",
        f"Lines of {size.scores.metric} over the number of rows. {told}.",
        plots.CalibrationSizeDisplay.from_predictions(size),
    )


def _ends(curve: Curve, name: str) -> str:
    """The two ends of a curve, and its lowest point."""
    mean, values = curve.mean(name), curve.values
    low = int(np.nanargmin(mean))
    return (
        f"{three_places(mean[0])} at {values[0]:g}, lowest {three_places(mean[low])} at {values[low]:g}, "
        f"{three_places(mean[-1])} at {values[-1]:g}"
    )
