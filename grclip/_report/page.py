"""The page: its template, and the rows of its tables."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grclip._optional import optional_import
from grclip._report.cases import (
    Card,
    Case,
)
from grclip._report.figures import Figures
from grclip._report.measured import Numbers, Search, Studies
from grclip._report.story import notes_of, tell
from grclip._report.words import in_percent, kind_name, p_value, printable, score_text, three_places

_HERE = Path(__file__).parent


def render(
    asked: Search, numbers: Numbers, figures: Figures, studies: Studies, title: str | None, note: str | None
) -> str:
    """The page."""
    jinja2 = optional_import("jinja2", "plots", "a report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "kind": kind_name,
        "percent": in_percent,
        "three": three_places,
        "score": score_text,
        "p_value": p_value,
        "thousands": lambda number: f"{number:,}",
        "ranks": _ranks,
        "heading": _heading,
    }
    css, js = (jinja2.utils.markupsafe.Markup((_HERE / f"page.{end}").read_text("utf-8")) for end in ("css", "js"))
    names = list(asked.methods)
    return environment.get_template("page.html.jinja").render(
        css=css,
        js=js,
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(js.encode()).digest()).decode(),
        title=title or "What the modality gap does to this search",
        story=tell(asked, numbers, studies, note),
        k=asked.k,
        before=names[0],
        n_methods=len(names),
        n_judged=len(numbers.judged),
        scores=_score_rows(numbers),
        shares=_share_rows(asked, numbers),
        gap_rows=_gap_rows(numbers),
        removed_by=asked.remover[0] if asked.remover and numbers.gap_after else "",
        gap_notes=numbers.gap.notes,
        share_figures=figures.shares,
        gap_figures=figures.gap,
        curves=figures.curves,
        notes=notes_of(asked, numbers, studies, figures),
        cases=[_headed(case, names) for case in studies.cases],
        groups=_tallies(studies),
        queries=studies.queries,
        documents=studies.documents,
        gallery=studies.gallery,
        depth=studies.depth,
    )


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
            "relevant": next(iter(numbers.biases.values())).relevant_share[i],
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
    return "" if np.isnan(ends).any() else f"{in_percent(ends[0]).removesuffix(' %')} to {in_percent(ends[1])}"


def _gap_rows(numbers: Numbers) -> list[dict[str, Any]]:
    """Rows of the table of the gap, with what is left of it where means were removed."""
    return [
        {
            "roles": f"{pair.roles[0]} and {pair.roles[1]}",
            "cells": [
                three_places(pair.distance),
                *([] if numbers.gap_after is None else [three_places(numbers.gap_after[pair.roles].distance)]),
                three_places(pair.paired_cosine),
                three_places(pair.unpaired_cosine),
                in_percent(pair.separability),
                three_places(pair.spread),
                three_places(pair.centred_spread),
            ],
        }
        for pair in numbers.gap.pairs.values()
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
