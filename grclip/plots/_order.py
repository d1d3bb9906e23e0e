"""Arguments of displays that came in another order than they are taken in."""

from __future__ import annotations

from typing import Any

from grclip.items import SearchTask


def check_order(methods: Any, order: str, expected: str = "a pipeline, or a dict from names to pipelines") -> None:
    """That what comes first is no task."""
    if isinstance(methods, SearchTask):
        first = order.split(",")[0]
        raise TypeError(f"{first} must be {expected}; got SearchTask: the order is from_estimator({order})")
