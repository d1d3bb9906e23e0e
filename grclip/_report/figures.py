"""The drawings of a report, for light and dark pages, each with a caption and its numbers in words."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grclip import plots
from grclip._columns import is_missing
from grclip._optional import optional_import
from grclip._report.measured import Numbers, Search
from grclip._report.words import in_percent, kind_name, three_places
from grclip.diagnostics import (
    Curve,
    alpha_curve,
    calibration_size,
    replacement_curve,
)
from grclip.items import SearchTask, modalities_of

ENOUGH_BOTH = 50
"""Documents with a text and something else that a U-curve is worth drawing of."""


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
    _try(figures, figures.gap, "the map of embeddings", partial(_draw_map, asked))
    for name in dict.fromkeys((next(iter(asked.methods)), list(asked.methods)[-1])):
        what = f"the histogram of similarities of “{name}”"
        _try(figures, figures.gap, what, partial(_draw_similarities, asked, name))
    _try(figures, figures.curves, "scores by share of images", partial(_draw_replacement, asked))
    if asked.calibration is not None:
        _try(figures, figures.curves, "the curve over alpha", partial(_draw_alpha, asked))
        _try(figures, figures.curves, "scores by calibration rows", partial(_draw_calibration, asked))
    return figures


def _try(figures: Figures, section: list[Figure], what: str, draw: Callable[[], Figure]) -> None:
    """A drawing, or a note why these data or methods have none."""
    try:
        section.append(draw())
    except (ValueError, TypeError) as error:
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
        f"What the first {k} results are made of, beside the collection. The closer a search comes to the collection, "
        "the less it matters to it what a document is made of.",
        f"Bar chart of shares. Collection: {collection}. Top {k} by method: {told}.",
        plots.TopKShareDisplay.from_predictions(biases),
    )


def _draw_map(asked: Search) -> Figure:
    remover = _remover(asked)
    if remover is None:
        display = plots.EmbeddingDisplay.from_predictions(asked.task, random_state=asked.random_state)
    else:
        display = plots.EmbeddingDisplay.from_estimator(remover, asked.task, random_state=asked.random_state)
    panels = ["before", "after"] if remover is not None else ["as encoded"]
    told = "; ".join(f"{name}: {_centres(points)}" for name, points in zip(panels, display.points, strict=True))
    return _figure(
        "Map of the embeddings",
        "All vectors, flattened to the two directions in which they vary most. With a gap each role is a cloud of its "
        "own" + (": left, as encoded. Right, with the mean of each role removed." if remover is not None else "."),
        f"Scatter plots of queries and documents by role. Distances of the centres of clouds, {told}.",
        display,
    )


def _remover(asked: Search) -> Any:
    """The first step of the last method that has learned means."""
    for name in reversed(list(asked.methods)):
        for _, step in getattr(asked.methods[name], "steps", []):
            if hasattr(step, "means_"):
                return step
    return None


def _centres(points: Mapping[str, NDArray]) -> str:
    """How far apart the clouds of a map lie."""
    roles = list(points)
    centres = {role: np.asarray(points[role]).mean(axis=0) for role in roles}
    pairs = [(a, b) for i, a in enumerate(roles) for b in roles[i + 1 :]]
    return ", ".join(f"{a} and {b} {np.linalg.norm(centres[a] - centres[b]):.2f}" for a, b in pairs)


def _draw_similarities(asked: Search, name: str) -> Figure:
    display = plots.SimilarityHistogramDisplay.from_estimator(
        asked.methods[name], asked.task, asked.qrels, random_state=asked.random_state
    )
    middles = (display.edges[1:] + display.edges[:-1]) / 2
    unrelated = {pair: float(shares @ middles) for pair, shares in display.unrelated.items()}
    relevant = {pair: float(np.median(values)) for pair, values in (display.relevant or {}).items()}
    told = [f"unrelated {kind_name(kind)} {value:.2f} on average" for (_, kind), value in unrelated.items()]
    told += [f"relevant {kind_name(kind)} {value:.2f} in the median" for (_, kind), value in relevant.items()]
    return _figure(
        f"Similarities: {name}",
        "How similar documents are to queries: histograms of unrelated ones, and a tick for each relevant one. "
        + _ahead(display, relevant, asked.task.corpus.kinds),
        f"Histograms of similarities to queries: {', '.join(told)}.",
        display,
    )


def _ahead(display: Any, relevant: Mapping[tuple[str, str], float], kinds: NDArray[np.str_]) -> str:
    """How many unrelated documents come before the median relevant one of the kind that stands worst."""
    worst: tuple[float, str, float] | None = None
    for (query, kind), median in relevant.items():
        above = {
            far: shares[display.edges[:-1] >= median].sum() * (kinds == far).sum()
            for (asker, far), shares in display.unrelated.items()
            if asker == query
        }
        n = float(sum(above.values()))
        if worst is None or n > worst[0]:
            worst = n, kind, median
    if worst is None:
        return "The further apart the two, the better the search."
    n, kind, median = worst
    many = "Fewer than one unrelated document scores" if n < 1 else f"About {n:,.0f} unrelated documents score"
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
        "Scores by share of images",
        f"A collection of the {len(task.corpus):,} documents that have both, of which each keeps its text or, with a "
        "growing chance, the other part. With a gap the curve sags in the middle, where kinds compete. “Pushed down” "
        "shows what is left if documents of the other kind come last throughout.",
        f"Lines of {curve.metric} over the share of documents without text. {told}.",
        plots.ReplacementCurveDisplay.from_predictions(curve),
    )


def _with_both(asked: Search) -> tuple[SearchTask, list[dict[int, float]]]:
    """The documents with a text and something else, and the queries for which one of them is relevant."""
    corpus = asked.task.corpus
    known = dict(zip(corpus.roles, modalities_of(corpus.roles, asked.modalities), strict=True))
    there = {
        is_text: [~is_missing(part) for role, part in corpus.items() if (known[role] == "text") == is_text]
        for is_text in (True, False)
    }
    if not all(there.values()):
        raise ValueError("it needs documents with both a text and another part, and there are roles of one sort alone")
    both = np.flatnonzero(np.any(there[True], axis=0) & np.any(there[False], axis=0))
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
    curve = alpha_curve(asked.task, asked.qrels, asked.methods, calibration=asked.calibration, k=asked.k)
    told = "; ".join(f"{name}: {_ends(curve, name)}" for name in curve.scores)
    best = ", ".join(f"{name} {curve.values[int(np.argmax(curve.mean(name)))]:g}" for name in curve.scores)
    return _figure(
        "Weight of the text",
        "Documents with a text and another part get one vector, in which the text has weight alpha: 0 is the other "
        f"part alone, 1 the text alone. Best here: {best}.",
        f"Lines of {curve.metric} over alpha. {told}.",
        plots.AlphaCurveDisplay.from_predictions(curve),
    )


def _draw_calibration(asked: Search) -> Figure:
    assert asked.calibration is not None
    size = calibration_size(
        asked.task, asked.qrels, asked.methods, asked.calibration, k=asked.k, random_state=asked.random_state
    )
    told = "; ".join(f"{name}: {_ends(size.scores, name)}" for name in size.scores.scores)
    return _figure(
        "How many calibration rows are enough",
        "Means are learned from a calibration set. Scores, and the error of the means, for smaller and larger ones: "
        "where the lines go flat, more rows no longer help.",
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
