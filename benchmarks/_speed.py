"""Two sides measured in turn, peaks of memory in a process of their own, and the table of both."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from grclip._kernels import Array

PEAK = "/proc/self/status"
"""Where Linux tells how much memory a process has, and has had at most."""


class Work(NamedTuple):
    """What both sides cannot do without: bytes read and written, or, in GFLOP/s, additions and multiplications."""

    ours: float
    reference: float
    unit: str = "GB/s"


@dataclass(frozen=True)
class Row:
    """One figure: `value` in `unit`, which meets its line where it is at most `line` and both sides agree.

    `ours` and `reference` are median seconds, `spread` the quartiles of the ratio from one turn to the next, and `best`
    the ratio of the shortest times, which other work on the machine disturbs least. `agree` is False where both sides
    should find the same and do not.
    """

    figure: str
    line: float
    value: float | None = None
    unit: str = "x"
    ours: float | None = None
    reference: float | None = None
    spread: tuple[float, float] | None = None
    best: float | None = None
    work: Work | None = None
    agree: bool = True
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the line is met; None where nothing was measured."""
        return None if self.value is None else self.value <= self.line and self.agree

    @property
    def rates(self) -> tuple[float, float] | None:
        """Work a second of ours and of the reference, in the unit of the work; None where it is not known."""
        if self.work is None or self.ours is None or self.reference is None:
            return None
        return self.work.ours / self.ours / 1e9, self.work.reference / self.reference / 1e9


def compare(
    figure: str,
    line: float,
    ours: Callable[[], Any],
    reference: Callable[[], Any],
    *,
    repeats: int,
    warm: float = 0.0,
    device: str = "cpu",
    work: Work | None = None,
) -> Row:
    """The ratio of both sides' medians, each measured `repeats` times in turn.

    Turns before that do not count: one, and more until `warm` seconds have passed.
    """
    start = time.perf_counter()
    while True:
        ours()
        reference()
        if time.perf_counter() - start >= warm:
            break
    sides: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for call, times in zip((ours, reference), sides, strict=True):
            times.append(seconds(call, device))
    medians = [statistics.median(times) for times in sides]
    ratios = [a / b for a, b in zip(*sides, strict=True)]
    quartiles = statistics.quantiles(ratios, n=4, method="inclusive") if repeats > 1 else ratios * 3
    best = min(sides[0]) / min(sides[1])
    spread = (quartiles[0], quartiles[2])
    return Row(figure, line, medians[0] / medians[1], "x", medians[0], medians[1], spread, best, work)


def seconds(call: Callable[[], Any], device: str = "cpu") -> float:
    """How long a call takes, with all that it leaves to the device."""
    cuda = torch.device(device).type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    result = call()
    if cuda:
        torch.cuda.synchronize(device)
    taken = time.perf_counter() - start
    del result
    return taken


def python(code: str, *arguments: object) -> str:
    """What a new Python prints that runs `code`."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def peak(figure: str, line: float, code: str, *arguments: object, note: str = "") -> Row:
    """Megabytes that a new Python prints; it finds `status("VmHWM")`, its peak of resident memory, defined."""
    if not os.path.exists(PEAK):
        return Row(figure, line, unit="MB", note=f"needs {PEAK}")
    status = (
        "def status(name):\n"
        f"    lines = open({PEAK!r}).read().splitlines()\n"
        "    return next(int(text.split()[1]) for text in lines if text.startswith(name + ':')) * 1024 / 1e6\n"
    )
    return Row(figure, line, float(python(status + code, *arguments)), "MB", note=note)


HEADER = """\
| figure | measured | quartiles | of the best | ours, reference (ms) | rate: ours | reference | line | met |
|---|---:|---:|---:|---:|---:|---:|---:|---|"""


def row_of(row: Row) -> str:
    """The row in Markdown."""
    value = "—" if row.value is None else f"{row.value:.3g} {row.unit}"
    spread = "—" if row.spread is None else f"{row.spread[0]:.3g} to {row.spread[1]:.3g}"
    best = "—" if row.best is None else f"{row.best:.3g}"
    both = "—" if row.ours is None or row.reference is None else f"{row.ours * 1e3:.1f}, {row.reference * 1e3:.1f}"
    rates = " | ".join(["—"] * 2 if row.work is None else [f"{rate:.3g} {row.work.unit}" for rate in row.rates or ()])
    met = {True: "yes", False: "no", None: "not measured"}[row.met] + (f" ({row.note})" if row.note else "")
    return f"| {row.figure} | {value} | {spread} | {best} | {both} | {rates} | {row.line:g} {row.unit} | {met} |"


def as_json(rows: Iterable[Row], growth: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """All that was measured."""
    figures = [{**vars(row), "rates": row.rates, "met": row.met} for row in rows]
    return json.dumps({"about": dict(about), "figures": figures, "growth": dict(growth)}, indent=1) + "\n"


def noted(row: Row, note: str) -> Row:
    """The row with a further note."""
    return replace(row, note="; ".join(filter(None, (row.note, note))))


def three(x: Array) -> dict[str, Array]:
    """The rows of x as those of three roles."""
    third = -(-len(x) // 3)
    return {"query": x[:third], "text": x[third : 2 * third], "image": x[2 * third :]}
