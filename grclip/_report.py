"""One page about a search: what the modality gap does to it, and what closing the gap changes."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grclip import plots
from grclip._cases import (
    TOP,
    Card,
    Case,
    Column,
    Gallery,
    cards_of,
    choose,
    first_ranks,
    group_queries,
    make_case,
)
from grclip._columns import is_missing, is_raw
from grclip._optional import optional_import
from grclip._validation import check_k
from grclip.diagnostics import (
    Comparison,
    Curve,
    ModalityBias,
    ModalityGap,
    alpha_curve,
    calibration_size,
    compare,
    modality_bias,
    modality_gap,
    replacement_curve,
)
from grclip.diagnostics._search import check_methods, check_task, search
from grclip.items import Items, SearchTask, modalities_of

DEEPEST, MOST_RANKS = 1000, 5_000_000
"""Ranks of a query among which its relevant document is looked for, and those of all queries together."""

ENOUGH_BOTH = 50
"""Documents with a text and something else that a U-curve is worth drawing of."""

LARGEST_SVG = 150_000
"""Bytes of a drawing beyond which a picture of it is smaller."""

CHANCE = 0.05
"""The p-value from which on a difference is said to be what chance may bring."""

NOTHING, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"

_HERE = Path(__file__).parent

_INVISIBLE = (
    {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n\r"}
    | {0x7F: 0x2421}
    | dict.fromkeys([*range(0x80, 0xA0), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF], 0xFFFD)
)
"""Control characters by their pictures; what no page in UTF-8 can hold by a replacement character."""


@dataclass(frozen=True)
class Search:
    """What is reported on: the task, and the methods that search it."""

    task: SearchTask
    qrels: Sequence[Mapping[int, float]]
    methods: Mapping[str, Any]
    queries: Items | None
    documents: Items | None
    calibration: tuple[SearchTask, Any] | None
    k: int
    random_state: Any

    @property
    def modalities(self) -> Mapping[str, str]:
        """Modalities that the methods were told, of roles that are not known by name."""
        told = (_attribute(method, "modalities") for method in self.methods.values())
        return next((modalities for modalities in told if modalities), {})


@dataclass(frozen=True)
class Numbers:
    """All that is measured for the tables."""

    comparison: Comparison
    biases: Mapping[str, ModalityBias]
    gap: ModalityGap
    judged: NDArray[np.intp]

    def row(self, method: str, kind: str = "all") -> Mapping[str, Any]:
        """The scores of a method for one kind of relevant document."""
        return next(row for row in self.comparison.rows if row["method"] == method and row["kind"] == kind)


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


@dataclass(frozen=True)
class Studies:
    """The cases, what is shown in them, and how many there are of each group among all queries."""

    cases: Sequence[Case]
    totals: Mapping[str, int]
    queries: Mapping[int, Card]
    documents: Mapping[int, Card]
    gallery: Gallery
    depth: int


def report(
    task: SearchTask,
    qrels: Sequence[Mapping[int, float]],
    methods: Mapping[str, Any],
    items: SearchTask | Items | None = None,
    path: str | os.PathLike[str] = "report.html",
    *,
    k: int = 10,
    title: str | None = None,
    calibration: tuple[SearchTask, Sequence[Mapping[int, float]]] | None = None,
    n_cases: int = 30,
    random_state: Any = 0,
) -> Path:
    """Write one self-contained HTML page: scores, plots, and case studies before and after.

    Parameters
    ----------
    task : SearchTask
        Encoded queries and corpus, Items on both sides.
    qrels : list of dict
        Grades by document row, ``{row: grade}`` for each query. Queries without a relevant document are left out, and
        the page says how many.
    methods : dict of str to fitted pipeline
        Pipelines that end in `ExactRetriever`. The first is what others are compared with ("before"), the last is
        "after". With one alone, the page shows it by itself.
    items : SearchTask or Items, default=None
        Raw queries and corpus, or the raw corpus, of the same rows as task: strings, PIL images, paths of pictures. Of
        sound and video the file name is shown. None shows row numbers and kinds.
    path : str or path-like, default="report.html"
        The file to write; replaced if it exists, and left as it was if anything fails.
    k : int, default=10
        Ranks that count.
    title : str, default=None
        Heading of the page.
    calibration : tuple of SearchTask and list of dict, default=None
        Encoded task and qrels to fit on. With it, the page also has the curves over alpha and over the number of
        calibration rows, for which clones of the methods are fitted.
    n_cases : int, default=30
        Case studies, spread evenly over fixed, broken and unchanged queries; 0 for none.
    random_state : int or None, default=0
        Draws all that is random: resamples, corpora, rows of the maps.

    Returns
    -------
    pathlib.Path
        The file that was written.

    Raises
    ------
    TypeError
        If an argument is of another sort than said above, or items hold embeddings.
    ValueError
        If lengths differ, methods are empty or not fitted, k or n_cases is out of range, or nothing is relevant.
    OSError
        If there is no folder to write to, or path is a folder.
    ModuleNotFoundError
        If jinja2, matplotlib or Pillow is not installed.

    See Also
    --------
    grclip.diagnostics.compare : The scores of the page.
    grclip.plots.TopKShareDisplay : One of its plots.

    Notes
    -----
    The page loads nothing and runs one script of its own, which hides case studies that are filtered out. Texts of
    users are shown as text, whatever they hold. Pictures are shrunk to thumbnails; those that cannot be read are
    placeholders, and counted. Folders of files are not told.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> import grclip
    >>> from grclip import ExactRetriever, Items, ModalityGapRemover, MultimodalFuser, SearchTask
    >>> rng = np.random.default_rng(0)
    >>> topics, gap = rng.normal(size=(60, 8)), 3 * rng.normal(size=8)
    >>> text, image = topics + gap, topics - gap
    >>> text[::2], image[1::2] = np.nan, np.nan
    >>> task = SearchTask(Items({"query": topics + gap}), Items({"text": text, "image": image}))
    >>> qrels = [{i: 1} for i in range(60)]
    >>> methods = {"raw": make_pipeline(MultimodalFuser(), ExactRetriever()).fit(task),
    ...            "means removed": make_pipeline(ModalityGapRemover(), MultimodalFuser(), ExactRetriever()).fit(task)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = grclip.report(task, qrels, methods, path=Path(folder) / "report.html", n_cases=3)
    ...     page.name, "means removed" in page.read_text(encoding="utf-8")
    ('report.html', True)
    """
    file = _check_path(path)
    asked = _check_search(task, qrels, methods, items, calibration, k, random_state)
    n_cases = 0 if n_cases == 0 else check_k(n_cases, name="n_cases")
    if not isinstance(title, str | None):
        raise TypeError(f"title must be a str or None; got {title!r}")
    for module in ("jinja2", "matplotlib", "PIL"):
        optional_import(module, "plots", "a report")
    numbers = _gather(asked)
    page = _render(asked, numbers, _draw_figures(asked, numbers), _study(asked, numbers, n_cases), title)
    _write(file, page)
    return file


def _check_path(path: Any) -> Path:
    """The file to write, in a folder that exists."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a str or path-like; got {path!r}")
    file = Path(path)
    if file.is_dir():
        raise IsADirectoryError(
            f"path {str(file)!r} is a folder; name a file in it, e.g. {str(file / 'report.html')!r}"
        )
    folder = file.resolve().parent  # through a link, not over it
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r} to write {file.name!r} to; make it first")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"the folder {str(folder)!r} of path cannot be written to")
    return file


def _check_search(
    task: Any, qrels: Any, methods: Any, items: Any, calibration: Any, k: Any, random_state: Any
) -> Search:
    """The arguments, checked before any work."""
    judged = check_task(task, qrels) or []
    if not isinstance(methods, Mapping):
        raise TypeError(f"methods must be a dict from names to fitted pipelines; got {type(methods).__name__}")
    named = check_methods(methods)
    if not isinstance(random_state, Integral | None):
        raise TypeError(f"random_state must be an int or None; got {random_state!r}")
    if calibration is not None:
        is_pair = isinstance(calibration, tuple) and len(calibration) == 2 and isinstance(calibration[0], SearchTask)
        if not is_pair:
            raise TypeError(f"calibration must be a pair (SearchTask, qrels); got {type(calibration).__name__}")
        check_task(*calibration)
    queries, documents = _check_items(items, task)
    return Search(task, judged, named, queries, documents, calibration, check_k(k, len(task.corpus)), random_state)


def _check_items(items: Any, task: SearchTask) -> tuple[Items | None, Items | None]:
    """Raw queries and documents, as far as given."""
    sides = (items.queries, items.corpus) if isinstance(items, SearchTask) else (None, items)
    for name, side, encoded in zip(("queries", "corpus"), sides, (task.queries, task.corpus), strict=True):
        if side is None:
            continue
        if not isinstance(side, Items):
            raise TypeError(f"items must be a SearchTask of raw Items, raw Items or None; got {type(side).__name__}")
        if len(side) != len(encoded):
            raise ValueError(
                f"items have {len(side)} rows of the {name}, but task has {len(encoded)}; pass the raw rows of the "
                "same queries and documents"
            )
        vectors = [role for role in side if not is_raw(side[role])]
        if vectors:
            raise TypeError(
                f"role {vectors[0]!r} of items holds embeddings; items are what people can look at: texts, pictures, "
                "paths. Leave the role out where there is nothing to show"
            )
    return sides


def _gather(asked: Search) -> Numbers:
    """Everything for the tables."""
    comparison = compare(asked.task, asked.qrels, asked.methods, k=asked.k, random_state=asked.random_state)
    biases = {
        name: modality_bias(asked.task, rows, k=asked.k, random_state=asked.random_state)
        for name, rows in comparison.rankings.items()
    }
    gap = modality_gap(asked.task, asked.qrels, random_state=asked.random_state)
    judged = np.flatnonzero([any(grade > 0 for grade in judged.values()) for judged in asked.qrels])
    return Numbers(comparison, biases, gap, judged)


def _study(asked: Search, numbers: Numbers, n_cases: int) -> Studies:
    """Case studies by the first and the last method."""
    names = list(dict.fromkeys((next(iter(asked.methods)), list(asked.methods)[-1])))
    depth = min(max(MOST_RANKS // len(asked.task), asked.k, TOP), DEEPEST, len(asked.task.corpus))
    found = {name: search(asked.methods[name], asked.task, depth) for name in names}
    groups = group_queries([first_ranks(asked.qrels, rows) for _, rows in found.values()], numbers.judged)
    kinds = asked.task.corpus.kinds
    cases = [
        make_case(query, group, found, asked.qrels[query], kinds)
        for group, queries in choose(groups, n_cases).items()
        for query in queries
    ]
    gallery, modalities = Gallery(), asked.modalities
    shown = sorted({hit.row for case in cases for column in case.columns for hit in _hits(column)})
    documents = cards_of(asked.documents, asked.task.corpus, shown, "Document", modalities, gallery)
    queried = [case.query for case in cases]
    queries = cards_of(asked.queries, asked.task.queries, queried, "Query", modalities, gallery)
    totals = {name: len(queries_of) for name, queries_of in groups.items()}
    return Studies(cases, totals, queries, documents, gallery, depth)


def _hits(column: Column) -> list[Any]:
    """The documents that a column shows."""
    return [*column.hits, *([column.later] if column.later else [])]


def _attribute(method: Any, name: str) -> Any:
    """What the first step of a pipeline that has it knows."""
    steps = [step for _, step in getattr(method, "steps", [])]
    return next((value for step in steps if (value := getattr(step, name, None)) is not None), None)


def _tell(asked: Search, numbers: Numbers, studies: Studies) -> dict[str, Any]:
    """What was found, in plain words."""
    names = list(asked.methods)
    before, after, k = names[0], names[-1], asked.k
    first, last = numbers.row(before), numbers.row(after)
    lead = _crowded(numbers, before) if len(numbers.comparison.kinds) > 1 else "All documents are of one kind."
    totals = studies.totals
    if len(names) == 1:
        lead += f" NDCG@{k} is {_three(first['ndcg'])}."
        more, facts = [], [_fact(f"NDCG@{k}", _three(first["ndcg"]), "1 is best")]
        facts.append(_fact("Found in the top five", f"{totals['found']:,}", f"of {len(numbers.judged):,} queries"))
        line = "A query is found when its first relevant document is in the top five, and missed otherwise."
        subject = f"one search, “{before}”"
    else:
        lead += f" {_changed(first, last, after, k)}"
        more = [_chance(last, k), *_losses(numbers, before, after)]
        facts = _changes(numbers, totals, before, after)
        line = (
            "A query is fixed when its first relevant document comes into the top five, broken when it drops out, and "
            "unchanged when it stays on the same side of that line, even if its rank moves."
        )
        subject = f"a search before (“{before}”) and after (“{after}”)"
        subject += f", with {_and([f'“{name}”' for name in names[1:-1]])} in between" if len(names) > 2 else ""
    return {
        "lead": lead,
        "more": [sentence for sentence in more if sentence],
        "facts": facts,
        "line": line,
        "subject": subject,
        "meta": _meta(asked, numbers),
        "choice": _choice(numbers, studies, "changes of rank" if len(names) > 1 else "ranks"),
    }


def _choice(numbers: Numbers, studies: Studies, largest: str) -> str:
    """How many queries there are of each group, and which of them are shown."""
    counted = _and(
        [
            f"{total:,} are {name}" if i == 0 else f"{total:,} {name}"
            for i, (name, total) in enumerate(studies.totals.items())
        ]
    )
    n, n_shown = len(numbers.judged), len(studies.cases)
    some = (
        f"Shown are {n_shown:,}, spread evenly over the groups as far as these go, the largest {largest} first: "
        "extremes, not typical queries."
    )
    which = some if n_shown < n else f"All are shown, the largest {largest} of each group first."
    return f"Of {n:,} queries with a relevant document, {counted}." + (f" {which}" if n_shown else "")


def _crowded(numbers: Numbers, method: str) -> str:
    """Which kind is missing most from the top k, if any is missing beyond doubt."""
    bias, place = numbers.biases[method], _rarest(numbers.biases[method])
    top, share, kind = bias.top_share[place], bias.corpus_share[place], bias.kinds[place]
    first = f"With “{method}”, {_percent(top)} of the top {bias.k} are {_plural(kind)}"
    if np.isnan(bias.interval[place]).any():
        return f"{first}, as are {_percent(share)} of the collection."
    if not (bias.interval[place, 1] < share and top < 0.8 * share):
        return f"With “{method}”, no kind of document is crowded out of the top {bias.k}."
    return f"{first}, though {_percent(share)} of the collection {'is' if share < 0.5 else 'are'}."


def _rarest(bias: ModalityBias) -> int:
    """The kind whose share of the top k is the smallest part of its share of the collection."""
    return int(np.argmin(bias.top_share / bias.corpus_share))


def _changed(first: Mapping[str, Any], last: Mapping[str, Any], after: str, k: int) -> str:
    """How NDCG changes, without claiming what chance may have done."""
    old, new = _three(first["ndcg"]), _three(last["ndcg"])
    if last["ndcg_p"] >= CHANCE:
        same = f"is {old} as before" if old == new else f"is {new} instead of {old}, which may be chance"
        return f"With “{after}”, NDCG@{k} {same}."
    return f"NDCG@{k} {'rises' if last['ndcg'] > first['ndcg'] else 'falls'} from {old} to {new} with “{after}”."


def _chance(last: Mapping[str, Any], k: int) -> str:
    """What the test says."""
    n, p = last["n_queries"], last["ndcg_p"]
    verdict = "so chance does not explain it" if p < CHANCE else "so the two cannot be told apart"
    how = _p_value(p) if p < 0.001 else f"= {_p_value(p)}"
    return f"The difference in NDCG@{k} over {n:,} queries has p {how} (paired randomisation test), {verdict}."


def _losses(numbers: Numbers, before: str, after: str) -> list[str]:
    """The kinds that are found worse than before."""
    told = []
    for kind in numbers.comparison.kinds:
        old, new = numbers.row(before, kind), numbers.row(after, kind)
        if not new["note"] and new["ndcg"] < old["ndcg"] and new["ndcg_p"] < CHANCE:
            told.append(f"{_kind(kind)} (from {_three(old['ndcg'])} to {_three(new['ndcg'])})")
    return (
        [f"NDCG@{numbers.comparison.k} falls where the relevant document is of the kind {_and(told)}."] if told else []
    )


def _changes(numbers: Numbers, totals: Mapping[str, int], before: str, after: str) -> list[dict[str, str]]:
    """The three numbers to take home."""
    k, bias, place = numbers.comparison.k, numbers.biases, _rarest(numbers.biases[before])
    first, last = numbers.row(before), numbers.row(after)
    shares = [_percent(bias[name].top_share[place]) for name in (before, after)]
    name = _plural(bias[before].kinds[place])
    return [
        _fact(f"NDCG@{k}, before and after", f"{_three(first['ndcg'])} → {_three(last['ndcg'])}", "1 is best"),
        _fact(
            f"{name.capitalize()} in the top {k}",
            " → ".join(shares),
            f"{_percent(bias[before].corpus_share[place])} of the collection",
        ),
        _fact(
            "Queries fixed",
            f"{totals['fixed']:,}",
            f"{totals['broken']:,} broken, {totals['unchanged']:,} unchanged",
        ),
    ]


def _fact(name: str, figure: str, aside: str) -> dict[str, str]:
    return {"name": name, "figure": figure, "aside": aside}


def _meta(asked: Search, numbers: Numbers) -> str:
    """What was searched."""
    n_documents, kinds = len(asked.task.corpus), asked.task.corpus.kinds
    counted = ", ".join(f"{int((kinds == kind).sum()):,} {_kind(kind)}" for kind in numbers.comparison.kinds)
    encoder = f" Encoder: {asked.task.encoder}." if asked.task.encoder else ""
    return f"{len(asked.task):,} queries, {n_documents:,} documents ({counted}).{encoder}"


def _notes(asked: Search, numbers: Numbers, studies: Studies, figures: Figures) -> list[str]:
    """What was left out, and how to read the rest."""
    notes = [note[0].upper() + note[1:] + "." for note in numbers.comparison.notes]
    n_lost = len(studies.gallery.unreadable)
    if n_lost:
        shown = ", ".join(studies.gallery.unreadable[:TOP]) + (", …" if n_lost > TOP else "")
        notes.append(
            f"{n_lost} {'picture' if n_lost == 1 else 'pictures'} of the case studies cannot be read: {shown}."
        )
    if asked.documents is None:
        notes.append("Documents are shown by their rows and kinds: the report was made without items.")
    if asked.queries is None and studies.cases:
        notes.append("Queries are shown by their rows: pass a SearchTask of raw queries and corpus as items.")
    if asked.calibration is None:
        notes.append(
            "Left out: the curve over alpha, and scores by number of calibration rows. Both fit the methods again; "
            "report(..., calibration=(task, qrels)) says on what."
        )
    notes += figures.notes
    notes.append(
        "The score of a document is its dot product with the query. Scores of two methods are on different scales, and "
        "not to be compared."
    )
    notes.append("The p-values are not corrected for the number of rows in the table.")
    return notes


def _draw_figures(asked: Search, numbers: Numbers) -> Figures:
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
        f"{name}: " + ", ".join(f"{_kind(kind)} {_percent(bias.top_share[i])}" for i, kind in enumerate(bias.kinds))
        for name, bias in biases.items()
    )
    collection = ", ".join(f"{_kind(kind)} {_percent(first.corpus_share[i])}" for i, kind in enumerate(first.kinds))
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
    told = [f"unrelated {_kind(kind)} {value:.2f} on average" for (_, kind), value in unrelated.items()]
    told += [f"relevant {_kind(kind)} {value:.2f} in the median" for (_, kind), value in relevant.items()]
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
    return f"Half of the relevant documents of the kind {_kind(kind)} score below {median:.2f}. {many} more than that."


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
        f"{_three(mean[0])} at {values[0]:g}, lowest {_three(mean[low])} at {values[low]:g}, "
        f"{_three(mean[-1])} at {values[-1]:g}"
    )


def _render(asked: Search, numbers: Numbers, figures: Figures, studies: Studies, title: str | None) -> str:
    """The page."""
    jinja2 = optional_import("jinja2", "plots", "a report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "kind": _kind,
        "percent": _percent,
        "three": _three,
        "score": _score,
        "p_value": _p_value,
        "thousands": lambda number: f"{number:,}",
        "ranks": _ranks,
        "heading": _heading,
    }
    css, js = (jinja2.utils.markupsafe.Markup((_HERE / f"_report.{end}").read_text("utf-8")) for end in ("css", "js"))
    names = list(asked.methods)
    return environment.get_template("_report.html.jinja").render(
        css=css,
        js=js,
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(js.encode()).digest()).decode(),
        title=title or "What the modality gap does to this search",
        story=_tell(asked, numbers, studies),
        k=asked.k,
        before=names[0],
        n_methods=len(names),
        n_judged=len(numbers.judged),
        scores=_score_rows(numbers),
        shares=_share_rows(asked, numbers),
        gap_rows=_gap_rows(numbers.gap),
        gap_notes=numbers.gap.notes,
        share_figures=figures.shares,
        gap_figures=figures.gap,
        curves=figures.curves,
        notes=_notes(asked, numbers, studies, figures),
        cases=[_headed(case, names) for case in studies.cases],
        groups=_tallies(studies),
        queries=studies.queries,
        documents=studies.documents,
        gallery=studies.gallery,
        depth=studies.depth,
    )


def _printable(value: Any) -> Any:
    """A value that a page can hold, whatever text it comes from."""
    return value.translate(_INVISIBLE) if type(value) is str else value


def _score_rows(numbers: Numbers) -> list[tuple[str, list[dict[str, Any]]]]:
    """Rows of the table of scores by kind of relevant document, the best of each kind marked."""
    by_kind = []
    for kind in ("all", *numbers.comparison.kinds):
        rows = [dict(numbers.row(name, kind)) for name in numbers.comparison.methods]
        best = max(row["ndcg"] for row in rows)
        by_kind.append((kind, [{**row, "best": len(rows) > 1 and row["ndcg"] == best} for row in rows]))
    return by_kind


def _share_rows(asked: Search, numbers: Numbers) -> dict[str, Any]:
    """Shares of the kinds in the collection and in the top k."""
    kinds = asked.task.corpus.kinds
    rows = [
        {
            "kind": kind,
            "n": int((kinds == kind).sum()),
            "share": next(iter(numbers.biases.values())).corpus_share[i],
            "cells": [
                {"share": bias.top_share[i], "interval": _interval(bias.interval[i])}
                for bias in numbers.biases.values()
            ],
        }
        for i, kind in enumerate(numbers.comparison.kinds)
    ]
    return {"methods": list(numbers.biases), "rows": rows}


def _interval(ends: NDArray[np.float64]) -> str:
    """Both ends in percent, or nothing where there are none."""
    return "" if np.isnan(ends).any() else f"{_percent(ends[0]).removesuffix(' %')} to {_percent(ends[1])}"


def _gap_rows(gap: ModalityGap) -> list[dict[str, Any]]:
    """Rows of the table of the gap."""
    return [
        {
            "roles": f"{pair.roles[0]} and {pair.roles[1]}",
            "cells": [
                _three(pair.distance),
                _three(pair.paired_cosine),
                _three(pair.unpaired_cosine),
                _percent(pair.separability),
                _three(pair.spread),
                _three(pair.centred_spread),
            ],
        }
        for pair in gap.pairs.values()
    ]


def _headed(case: Case, names: Sequence[str]) -> dict[str, Any]:
    """A case with headings that say which column is which."""
    when = ("Before: ", "After: ") if len(names) > 1 else ("",)
    columns = [
        {"heading": f"{word}{column.method}", "hits": column.hits, "later": column.later, "rank": column.rank}
        for word, column in zip(when, case.columns, strict=True)
    ]
    return {"query": case.query, "group": case.group, "columns": columns}


def _tallies(studies: Studies) -> list[dict[str, Any]]:
    """The groups, with how many queries they have and how many are shown."""
    shown = [case.group for case in studies.cases]
    return [{"name": name, "total": total, "shown": shown.count(name)} for name, total in studies.totals.items()]


def _ranks(case: Mapping[str, Any]) -> str:
    """Where the first relevant document was, and is."""
    places = [f"rank {column['rank']:,}" if column["rank"] else "not found" for column in case["columns"]]
    return "Relevant document: " + (f"{places[0]} before, {places[1]} after" if len(places) > 1 else places[0])


def _heading(card: Card) -> str:
    """The query in a line."""
    if not card.texts or not card.texts[0].start.strip():
        return card.name
    return card.texts[0].start + ("…" if card.texts[0].rest else "")


def _kind(kind: str) -> str:
    return kind.replace("+", " + ")


def _plural(kind: str) -> str:
    """Documents of a kind."""
    one = {"text": "texts", "image": "images", "audio": "sounds", "video": "videos"}
    return one.get(kind) or f"documents with {_and(kind.split('+'))}"


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _percent(share: float) -> str:
    """A share in percent, with a decimal place where it is small; a dash where there is none."""
    if np.isnan(share):
        return NOTHING
    percent = 100 * float(share)
    return f"{percent:.0f} %" if percent >= 9.95 or percent == 0 else f"{percent:.1f} %"


def _three(value: float) -> str:
    """Three places, with a true minus sign; a dash for what is not measurable."""
    return NOTHING if np.isnan(value) else f"{value:.3f}".replace("-", MINUS)


def _score(value: float) -> str:
    return _three(value) if np.isfinite(value) else "none"


def _p_value(p: float | None) -> str:
    if p is None:
        return "reference"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _write(file: Path, page: str) -> None:
    """Write the page beside the old one, and put it in its place when it is complete."""
    target = file.resolve()
    partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
    try:
        partial.write_bytes(page.encode())
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
