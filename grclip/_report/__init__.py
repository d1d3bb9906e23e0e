"""One page about a search: what the modality gap does to it, and what closing the gap changes."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from grclip._columns import is_raw
from grclip._optional import optional_import
from grclip._report.figures import draw_figures
from grclip._report.measured import Search, gather, study
from grclip._report.page import render
from grclip._validation import check_k
from grclip.diagnostics._search import check_calibration, check_judged, check_methods, check_task
from grclip.items import Items, SearchTask


def report(
    task: SearchTask,
    qrels: Sequence[Mapping[int, float]],
    methods: Mapping[str, Any],
    items: SearchTask | Items | None = None,
    path: str | os.PathLike[str] = "report.html",
    *,
    k: int = 10,
    title: str | None = None,
    note: str | None = None,
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
        Raw queries and corpus, or the raw corpus, of the same rows and roles as task: strings, PIL images, paths of
        pictures. Of sound and video the file name is shown. A role may be left out; None shows row numbers and kinds.
    path : str or path-like, default="report.html"
        The file to write; replaced if it exists, and left as it was if anything fails.
    k : int, default=10
        Ranks that count.
    title : str, default=None
        Heading of the page.
    note : str, default=None
        A sentence or two for the head of the page: what the methods were calibrated on, say. None tells what
        calibration, if given, is used for. After it the page says how many of the queries that are scored are in
        calibration too, if any.
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
        If lengths differ, items have a role that task lacks, methods are empty or not fitted, k or n_cases is out of
        range, or nothing is relevant.
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
    placeholders, and counted. Case studies tell the rows of queries and documents, and the names of their files, but
    no folders.

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
    for name, words in (("title", title), ("note", note)):
        if not isinstance(words, str | None):
            raise TypeError(f"{name} must be a str or None; got {words!r}")
    for module in ("jinja2", "matplotlib", "PIL"):
        optional_import(module, "plots", "a report")
    numbers = gather(asked)
    page = render(asked, numbers, draw_figures(asked, numbers), study(asked, numbers, n_cases), title, note)
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
    judged = check_judged(task, qrels)
    if not isinstance(methods, Mapping):
        raise TypeError(f"methods must be a dict from names to fitted pipelines; got {type(methods).__name__}")
    named = check_methods(methods)
    if not isinstance(random_state, Integral | None):
        raise TypeError(f"random_state must be an int or None; got {random_state!r}")
    if calibration is not None:
        check_calibration(calibration)
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
        if not set(side) <= set(encoded):
            raise ValueError(
                f"items have the roles {', '.join(map(repr, side))} in the {name}, but task has "
                f"{', '.join(map(repr, encoded))}; call each part of items by its role in task"
            )
        vectors = [role for role in side if not is_raw(side[role])]
        if vectors:
            raise TypeError(
                f"role {vectors[0]!r} of items holds embeddings; items are what people can look at: texts, pictures, "
                "paths. Leave the role out where there is nothing to show"
            )
    return sides


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
