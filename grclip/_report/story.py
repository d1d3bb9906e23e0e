"""What was found, in plain words: honest where a score falls, and where chance may have done it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from grclip._report.cases import (
    TOP,
)
from grclip._report.figures import Figures
from grclip._report.measured import Numbers, Search, Studies
from grclip._report.words import and_list, counted, in_percent, kind_name, p_value, plural, three_places
from grclip.diagnostics import (
    ModalityBias,
)

CHANCE = 0.05
"""The p-value from which on a difference is said to be what chance may bring."""


def tell(asked: Search, numbers: Numbers, studies: Studies, note: str | None) -> dict[str, Any]:
    """What was found, in plain words."""
    names = list(asked.methods)
    before, after, k = names[0], names[-1], asked.k
    first, last = numbers.row(before), numbers.row(after)
    lead = _crowded(numbers, before) if len(numbers.comparison.kinds) > 1 else "All documents are of one kind."
    totals = studies.totals
    if len(names) == 1:
        lead += f" NDCG@{k} is {three_places(first['ndcg'])}."
        more, facts = [], [_fact(f"NDCG@{k}", three_places(first["ndcg"]), "1 is best")]
        facts.append(_fact("Found in the top five", f"{totals['found']:,}", f"of {_queries(len(numbers.judged))}"))
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
        subject += f", with {and_list([f'“{name}”' for name in names[1:-1]])} in between" if len(names) > 2 else ""
    return {
        "lead": lead,
        "more": [sentence for sentence in more if sentence],
        "facts": facts,
        "line": line,
        "subject": subject,
        "meta": _meta(asked, numbers),
        "calibrated": _calibrated(asked) if note is None else note,
        "familiar": _familiar(asked, numbers),
        "scale": _scale(asked, numbers),
        "choice": _choice(numbers, studies, "changes of rank" if len(names) > 1 else "ranks"),
    }


def _choice(numbers: Numbers, studies: Studies, largest: str) -> str:
    """How many queries there are of each group, and which of them are shown."""
    by_group = and_list(
        [
            f"{total:,} {'is' if total == 1 else 'are'} {name}" if i == 0 else f"{total:,} {name}"
            for i, (name, total) in enumerate(studies.totals.items())
        ]
    )
    n, n_shown = len(numbers.judged), len(studies.cases)
    some = (
        f"Shown {'is' if n_shown == 1 else 'are'} {n_shown:,}, spread evenly over the groups as far as these go, the "
        f"largest {largest} first: extremes, not typical queries."
    )
    which = some if n_shown < n else f"All are shown, the largest {largest} of each group first."
    return f"Of {_queries(n)} with a relevant document, {by_group}." + (f" {which}" if n_shown else "")


def _crowded(numbers: Numbers, method: str) -> str:
    """Which kind is missing most from the top k, if any is missing beyond doubt."""
    bias, place = numbers.biases[method], _rarest(numbers.biases[method])
    top, share, kind = bias.top_share[place], bias.corpus_share[place], bias.kinds[place]
    fair = min(share, bias.relevant_share[place])
    first = f"With “{method}”, {in_percent(top)} of the top {bias.k} are {plural(kind)}"
    if np.isnan(bias.interval[place]).any():
        return f"{first}, as are {in_percent(share)} of the collection."
    if not (bias.interval[place, 1] < fair and top < 0.8 * fair):
        return f"With “{method}”, no kind of document is crowded out of the top {bias.k}."
    return f"{first}, though {in_percent(share)} of the collection {'is' if share < 0.5 else 'are'}."


def _rarest(bias: ModalityBias) -> int:
    """The kind whose share of the top k is the smallest part of what is fair (of the collection, or the relevant)."""
    fair = np.minimum(bias.corpus_share, bias.relevant_share)
    return int(np.argmin(np.divide(bias.top_share, fair, out=np.full(len(fair), np.inf), where=fair > 0)))


def _changed(first: Mapping[str, Any], last: Mapping[str, Any], after: str, k: int) -> str:
    """How NDCG changes, without claiming what chance may have done."""
    old, new = three_places(first["ndcg"]), three_places(last["ndcg"])
    if last["ndcg_p"] >= CHANCE:
        same = f"is {old} as before" if old == new else f"is {new} instead of {old}, which may be chance"
        return f"With “{after}”, NDCG@{k} {same}."
    return f"NDCG@{k} {'rises' if last['ndcg'] > first['ndcg'] else 'falls'} from {old} to {new} with “{after}”."


def _chance(last: Mapping[str, Any], k: int) -> str:
    """What the test says."""
    n, p = last["n_queries"], last["ndcg_p"]
    verdict = "which chance alone is unlikely to bring about" if p < CHANCE else "so the two cannot be told apart"
    how = p_value(p) if p < 0.001 else f"= {p_value(p)}"
    return f"The difference in NDCG@{k} over {_queries(n)} has p {how} (paired randomisation test), {verdict}."


def _losses(numbers: Numbers, before: str, after: str) -> list[str]:
    """The kinds that are found worse than before."""
    told = []
    for kind in numbers.comparison.kinds:
        old, new = numbers.row(before, kind), numbers.row(after, kind)
        if not new["note"] and new["ndcg"] < old["ndcg"] and new["ndcg_p"] < CHANCE:
            told.append(f"{kind_name(kind)} (from {three_places(old['ndcg'])} to {three_places(new['ndcg'])})")
    return (
        [f"NDCG@{numbers.comparison.k} falls where the relevant document is of the kind {and_list(told)}."]
        if told
        else []
    )


def _changes(numbers: Numbers, totals: Mapping[str, int], before: str, after: str) -> list[dict[str, str]]:
    """The three numbers to take home."""
    k, bias, place = numbers.comparison.k, numbers.biases, _rarest(numbers.biases[before])
    first, last = numbers.row(before), numbers.row(after)
    shares = [in_percent(bias[name].top_share[place]) for name in (before, after)]
    name = plural(bias[before].kinds[place])
    return [
        _fact(
            f"NDCG@{k}, before and after", f"{three_places(first['ndcg'])} → {three_places(last['ndcg'])}", "1 is best"
        ),
        _fact(
            f"{name.capitalize()} in the top {k}",
            " → ".join(shares),
            f"{in_percent(bias[before].corpus_share[place])} of the collection",
        ),
        _fact(
            "Queries fixed",
            f"{totals['fixed']:,}",
            f"into the top five; {totals['broken']:,} broken, {totals['unchanged']:,} unchanged",
        ),
    ]


def _fact(name: str, figure: str, aside: str) -> dict[str, str]:
    return {"name": name, "figure": figure, "aside": aside}


def _meta(asked: Search, numbers: Numbers) -> str:
    """What was searched."""
    n_documents, kinds = len(asked.task.corpus), asked.task.corpus.kinds
    by_kind = ", ".join(f"{int((kinds == kind).sum()):,} {kind_name(kind)}" for kind in numbers.comparison.kinds)
    return f"{_queries(len(asked.task))}, {_documents(n_documents)} ({by_kind})."


def _calibrated(asked: Search) -> str:
    """What the calibration of the report is for."""
    if asked.calibration is None:
        return ""
    task = asked.calibration[0]
    return (
        f"Curves over alpha and calibration rows are fitted on {_queries(len(task))} and "
        f"{_documents(len(task.corpus))} given as calibration."
    )


def _familiar(asked: Search, numbers: Numbers) -> str:
    """That queries are scored which were calibrated on, if there are any."""
    n, of = len(np.intersect1d(asked.calibrated_on, numbers.judged)), len(numbers.judged)
    if not n:
        return ""
    seen = "all are" if n == of > 1 else f"{n:,} {'is' if n == 1 else 'are'}"
    return (
        f"Of {_queries(of)} that {'is' if of == 1 else 'are'} scored, {seen} in the calibration too: what is fitted on "
        "it is scored on queries that it was calibrated on, and may do worse on others."
    )


def _scale(asked: Search, numbers: Numbers) -> str:
    """What one scale means, with the spreads that a method has learned."""
    if asked.spreads is None:
        return ""
    name, spreads = asked.spreads
    kinds = {kind: spreads.get(frozenset(kind.split("+"))) for kind in numbers.comparison.kinds}
    told = [f"{three_places(spread)} for {plural(kind)}" for kind, spread in kinds.items() if spread]
    if not told:
        return ""
    return (
        "Similarities of some kinds of documents can vary more widely than those of others, even after the means are "
        "removed. Dividing document vectors by that spread puts all kinds on one scale. "
        f"“{name}” has learned the spreads {and_list(told)}."
    )


def _queries(n: int) -> str:
    return counted(n, "query", "queries")


def _documents(n: int) -> str:
    return counted(n, "document", "documents")


def notes_of(asked: Search, numbers: Numbers, studies: Studies, figures: Figures) -> list[str]:
    """What was left out, and how to read the rest."""
    notes = [note[0].upper() + note[1:] + "." for note in numbers.comparison.notes]
    n_lost = len(studies.gallery.unreadable)
    if n_lost:
        shown = ", ".join(studies.gallery.unreadable[:TOP]) + (", …" if n_lost > TOP else "")
        notes.append(f"{counted(n_lost, 'picture', 'pictures')} of the case studies cannot be read: {shown}.")
    if asked.documents is None:
        notes.append("Documents are shown by their rows and kinds: the report was made without items.")
    if asked.queries is None and studies.cases:
        notes.append("Queries are shown by their rows: pass a SearchTask of raw queries and corpus as items.")
    if studies.cases:
        notes.append("Rows are places in the corpus, and in the queries, that were searched, counted from 0.")
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
    if asked.task.encoder:
        notes.append(f"Encoder: {asked.task.encoder}.")
    return notes
