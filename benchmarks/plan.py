"""What 10^9 documents take: ``python -m benchmarks.plan [--documents N] [--gpus N] [--cores N] ...``.

Prints cost, hours, bytes and operations of encoding, fitting, transforming and indexing, what an index holds, and the
size of the sample to fit on. All of it is arithmetic on the rates that are printed last: those of a core were measured
(``--measure`` does so anew on this machine, in seconds of processor time: let it be idle, or they are lower), those
of a GPU are its published peaks times a share that is assumed, prices are examples. docs/scale_plan.md says the rest.

Documents are texts, pictures and both by turns (1:1:1), so that each has 4/3 parts, and vectors are float16.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil, isfinite, log, sqrt
from statistics import median

import numpy as np

from benchmarks._core_rates import MEASURED, RATES, Rates, measure

GFLOPS = {"text": 6.0, "picture": 35.1, "both": 41.1}
"""Of encoding by CLIP-B/16, whose vectors have 512 numbers: Compute, in docs/benchmarks.md."""

PEAKS = {"A100 80GB": (312e12, 2.04e12), "H100 SXM": (989e12, 3.35e12)}
"""Published: operations a second in bfloat16 without sparsity, and bytes a second of memory."""

GPU_MEMORY, MACHINE_MEMORY = 80e9, 512e9

MEAN_ERRORS = {10: 0.184, 20: 0.131, 50: 0.079, 100: 0.048, 200: 0.026}
"""Distance of the mean of n of 290 photos to the mean of all: How many calibration rows, in docs/benchmarks.md."""

SPREAD = 0.098
"""Standard deviation of a query's similarities to unrelated images, on these photos: Spreads, in docs/benchmarks.md."""

PHOTOS = 290
HALF = 2  # bytes of a number in float16
LISTS, CODE, ROW_ID, TRAIN, ROUNDS = 2**18, 64, 8, 64, 10
"""IVF262144,PQ64: lists, bytes of a vector and of its row; rows a list, and rounds, that k-means learns from."""

LINKS, NODE = 32, 16
"""HNSW32: neighbours of a vector, twice as many on the ground level, of 4 bytes each; and bytes of higher levels, of
its level and of where its neighbours begin, on average."""

ODDS = 1e-6
"""How often the error of a mean may exceed what is said of it."""


@dataclass(frozen=True)
class Setting:
    """What there is to do, what to do it with, and what that costs (prices are examples)."""

    documents: float = 1e9
    width: int = 512
    sample: float = 1e6
    gpu: str = "A100 80GB"
    share: float = 0.35
    gpus: int = 8
    cores: int = 128
    storage: float = 2.5e9
    text_bytes: float = 200
    picture_bytes: float = 100e3
    gpu_price: float = 2.0
    core_price: float = 0.04
    storage_price: float = 23.0
    filled: float = 0.8

    @property
    def embedding_bytes(self) -> float:
        """Of a document: 4/3 parts."""
        return 4 / 3 * HALF * self.width

    @property
    def vector_bytes(self) -> float:
        """Of a fused vector."""
        return HALF * self.width


HELP = {
    "documents": "documents: texts, pictures and both, 1:1:1",
    "width": "numbers of a vector, each of 2 bytes",
    "sample": "documents to fit on",
    "gpu": "kind of GPU",
    "share": "share of a GPU's published peak that is reached, above 0 to 1",
    "gpus": "number of GPUs",
    "cores": "number of cores",
    "storage": "bytes a second that storage reads and writes, in all",
    "text_bytes": "bytes of a text",
    "picture_bytes": "bytes of a picture as it is stored",
    "gpu_price": "dollars for an hour of a GPU",
    "core_price": "dollars for an hour of a core",
    "storage_price": "dollars for a TB kept for a month",
    "filled": "share of the memory of a GPU or a machine that an index may fill, above 0 to 1",
}


@dataclass(frozen=True)
class Stage:
    """One step: bytes in and out, operations, and seconds of one core and of one GPU."""

    name: str
    read: float
    written: float
    flops: float
    core_seconds: float
    gpu_seconds: float = 0.0

    def hours(self, setting: Setting) -> dict[str, float]:
        """How long each resource is busy, if all of it works on this."""
        return {
            "storage": (self.read + self.written) / setting.storage / 3600,
            "cores": self.core_seconds / setting.cores / 3600,
            "GPUs": self.gpu_seconds / setting.gpus / 3600,
        }

    def takes(self, setting: Setting) -> float:
        """Hours: of the resource that is busy longest."""
        return max(self.hours(setting).values())

    def cost(self, setting: Setting) -> float:
        """All cores, and all GPUs if the step needs any, for as long as it takes."""
        price = setting.cores * setting.core_price + (setting.gpus * setting.gpu_price if self.gpu_seconds else 0)
        return self.takes(setting) * price


def stages(setting: Setting, rates: Rates) -> list[Stage]:
    """The four steps, and the first without a GPU."""
    n, d = setting.documents, setting.width
    gpu = PEAKS[setting.gpu][0] * setting.share
    raw = 2 / 3 * (setting.text_bytes + setting.picture_bytes)
    encoding = n * 1e9 * sum(GFLOPS.values()) / 3
    decoding = n * 2 / 3 / rates.decode
    sample = min(setting.sample, n)
    wide = d / MEASURED
    handling = 1 / rates.read + 1 / rates.write
    training = ROUNDS * min(TRAIN * LISTS, n) * LISTS * 2 * d
    assigning = n * (LISTS + 256) * 2 * d
    return [
        Stage("encode", n * raw, n * setting.embedding_bytes, encoding, decoding, encoding / gpu),
        Stage(
            f"fit on {amount(sample)}",
            sample * setting.embedding_bytes,
            3 * 8 * d,
            8 * sample * 4 / 3 * d,
            sample * (1 / rates.fit + 1 / rates.read) / rates.ray * wide,
        ),
        Stage(
            "transform",
            n * setting.embedding_bytes,
            n * setting.vector_bytes,
            n * d * (8 * 4 / 3 + 2),
            n * (1 / rates.transform + handling) / rates.ray * wide,
        ),
        Stage(
            "index (IVF, PQ)",
            n * setting.vector_bytes,
            n * (CODE + ROW_ID),
            training + assigning,
            n / rates.read * wide,
            (training + assigning) / gpu,
        ),
        Stage("encode on cores", n * raw, n * setting.embedding_bytes, encoding, decoding + encoding / rates.flops),
    ]


def trace() -> float:
    """Trace of the covariance of unit image vectors, from the errors of means of n of 290, drawn without repeats."""
    return median(error**2 * n / (1 - n / PHOTOS) for n, error in MEAN_ERRORS.items())


def bound(n: float, odds: float = ODDS) -> float:
    """What the error of the mean of n unit rows exceeds with these odds at most, by McDiarmid's inequality."""
    return (1 + sqrt(2 * log(1 / odds))) / sqrt(n)


def samples(sizes: Iterable[float] = (1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e9)) -> dict[str, list[str]]:
    """How far the mean of n rows is from the mean of all: at most, hardly ever farther, and as measured on photos."""
    return {
        amount(n): [
            digits(sqrt(1 / n)),
            digits(bound(n)),
            digits(sqrt(trace() / n)),
            f"{digits(100 * sqrt(trace() / n) / SPREAD)} %",
        ]
        for n in sizes
    }


def indexes(setting: Setting) -> dict[str, list[str]]:
    """What indexes of all documents hold in memory, and how many GPUs, or machines, they fill as far as they may."""
    vector = setting.vector_bytes
    sizes = {
        "exact, float16": vector,
        "HNSW32, float16": vector + 2 * LINKS * 4 + NODE,
        "IVF262144,PQ64": CODE + ROW_ID,
    }
    return {
        name: [
            scaled(setting.documents * size, "B"),
            "" if name.startswith("HNSW") else f"{needed(setting, size, GPU_MEMORY):,}",  # for CPUs only
            f"{needed(setting, size, MACHINE_MEMORY):,}",
        ]
        for name, size in sizes.items()
    }


def needed(setting: Setting, size: float, memory: float) -> int:
    """Devices of so many bytes that hold so many bytes a document."""
    return ceil(setting.documents * size / (setting.filled * memory))


def figure(value: float) -> str:
    """Two digits, or a whole number."""
    if 0 < value < 0.01:
        return "under 0.01"
    return f"{value:,.2g}" if value < 10 else f"{value:,.0f}"


def digits(value: float) -> str:
    """Two digits, however small the number is."""
    return np.format_float_positional(value, precision=2, fractional=False, trim="-")


def scaled(value: float, unit: str) -> str:
    """Three digits of a number of bytes or operations: 66.8 TB."""
    power = next((power for power in range(6, 0, -1) if value >= 1000**power), 0)
    value /= 1000**power
    number = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{number} {('', *'kMGTPE')[power]}{unit}"


def duration(hours: float) -> str:
    """Hours, minutes or seconds; nothing for none."""
    seconds = 3600 * hours
    size, unit = next(((size, unit) for size, unit in ((3600, "h"), (60, "min")) if seconds >= size), (1, "s"))
    return f"{figure(seconds / size)} {unit}" if hours else ""


def amount(n: float) -> str:
    """10^6, or the number."""
    power = round(np.log10(n))
    return f"10^{power}" if n == 10**power else f"{n:,.0f}"


def table(title: str, columns: Sequence[str], rows: dict[str, list[str]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = [f"{title}\n", f"| | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items())]) + "\n"


def steps(setting: Setting, rates: Rates) -> dict[str, list[str]]:
    """Cost and duration of each step, what limits it, how long each resource is busy; and cost and duration of all."""
    *four, on_cores = stages(setting, rates)
    together = figure(sum(stage.cost(setting) for stage in four)), duration(sum(stage.takes(setting) for stage in four))
    return {
        **{stage.name: times(stage, setting) for stage in four},
        "all four": [*together, "", "", "", ""],
        on_cores.name: times(on_cores, setting),
    }


def times(stage: Stage, setting: Setting) -> list[str]:
    """One row of them."""
    hours = stage.hours(setting)
    limit = max(hours, key=hours.__getitem__)
    return [figure(stage.cost(setting)), duration(stage.takes(setting)), limit, *map(duration, hours.values())]


def amounts(setting: Setting, rates: Rates) -> dict[str, list[str]]:
    """Bytes and operations of each step."""
    return {
        stage.name: [scaled(stage.read, "B"), scaled(stage.written, "B"), scaled(stage.flops, "FLOP")]
        for stage in stages(setting, rates)[:4]
    }


def print_plan(setting: Setting, rates: Rates) -> None:
    """All tables."""
    has = f"{setting.gpus} x {setting.gpu}, {setting.cores} cores, {setting.storage / 1e9:g} GB/s of storage"
    columns = ["cost ($)", "takes", "limited by", "storage", "cores", "GPUs"]
    print(table(f"{amount(setting.documents)} documents on {has}", columns, steps(setting, rates)))
    print(table("Bytes and operations", ["read", "written", "operations"], amounts(setting, rates)))
    kept = setting.documents * (setting.embedding_bytes + setting.vector_bytes)
    price = figure(kept / 1e12 * setting.storage_price)
    print(f"Kept: {scaled(kept, 'B')} of embeddings and vectors, for {price} dollars a month.\n")
    columns = ["size", f"GPUs of {GPU_MEMORY / 1e9:g} GB", f"machines of {MACHINE_MEMORY / 1e9:g} GB"]
    print(table(f"Indexes in memory, filled to {100 * setting.filled:g} %", columns, indexes(setting)))
    gpus, bandwidth = needed(setting, setting.vector_bytes, GPU_MEMORY), PEAKS[setting.gpu][1]
    scan = 1e3 * setting.documents * setting.vector_bytes / gpus / bandwidth
    at = f"{gpus:,} GPUs that read {scaled(bandwidth, 'B')}/s each"
    print(f"An exact search reads all of it: {figure(scan)} ms a batch of queries on {at}.\n")
    columns = ["RMS at most", f"above once in {amount(1 / ODDS)} at most", "RMS on photos", f"of a spread of {SPREAD}"]
    print(table("Error of the mean of n random rows of a role", columns, samples()))
    measured = [figure(value) for value in vars(replace(rates, flops=rates.flops / 1e9)).values()]
    columns = ["fit", "transform", "read", "write", "pictures decoded", "GFLOPs of encoding", "share kept on Ray"]
    print(table("One core, documents a second", columns, {"measured": measured}).rstrip())


def main(arguments: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, value in vars(Setting()).items():
        choices = tuple(PEAKS) if name == "gpu" else None
        told = f"{HELP[name]} (default: {value if name == 'gpu' else f'{value:g}'})"
        option, metavar = f"--{name.replace('_', '-')}", None if choices else "N"
        parser.add_argument(option, type=type(value), default=value, choices=choices, metavar=metavar, help=told)
    parser.add_argument("--measure", action="store_true", help="with the rates of a core of this machine")
    options = vars(parser.parse_args(arguments))
    fresh = options.pop("measure")
    wrong = [name for name, value in options.items() if name != "gpu" and not (value > 0 and isfinite(value))]
    if wrong:
        parser.error(f"must be above 0: {', '.join(wrong)}")
    over = [name for name in ("share", "filled") if options[name] > 1]
    if over:
        parser.error(f"must be at most 1: {', '.join(over)}")
    rates, setting = measure() if fresh else RATES, Setting(**options)
    print_plan(setting, rates)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
