"""Counts that were published, by which a copy that was cut short is told from a whole one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def check_published(place: Path, title: str, counts: Mapping[str, tuple[int, Sequence[int]]]) -> None:
    """Counts that are none of those published are an error that tells both; by what is counted: found, published."""
    other = {what: (found, known) for what, (found, known) in counts.items() if found not in known}
    if other:
        here = ", ".join(f"{found} {what}" for what, (found, _) in other.items())
        there = ", ".join(" or ".join(map(str, known)) for _, known in other.values())
        raise ValueError(
            f"{place} holds {here}, but {title} was published with {there}: is the copy whole? check_counts=False "
            "takes other data in this layout"
        )
