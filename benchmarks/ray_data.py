"""Rows per second on a local Ray cluster, beside one process: ``python -m benchmarks.ray_data [--rows N] [--cpus N]``.

Draws documents of texts, pictures and both by turns (unit vectors of 512 numbers in float16, a gap between the kinds),
writes them as Parquet files, and then, each side in turn,

- fits a `ModalityGapRemover`: `grclip.scale.ray.fit` on `read_parquet`; and file after file through `partial_fit`;
- transforms and writes: `grclip.scale.ray.transform` and `write_parquet`; and file after file through the pipeline.

Both sides read the same files, with one thread a process, as each of Ray's workers has. The first round starts Ray's
workers and is not counted. A job on a few rows tells what starting one takes; "share" is the processor time of the one
process over that of all of Ray's, without the start, which other work on the machine disturbs little. What the two
sides wrote is compared byte by byte, by id.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from sklearn.pipeline import Pipeline, make_pipeline

from grclip import Items, ModalityGapRemover, MultimodalFuser
from grclip._optional import optional_import
from grclip._parquet import as_vectors
from grclip.scale._arrow import as_lists, parts_of_table
from grclip.scale.ray import fit, transform

COLUMNS = {"text": "text_embedding", "image": "image_embedding"}
FILES = 8
OPTIONS: dict[str, Any] = {"use_dictionary": False, "compression": "none"}
"""Of Parquet: numbers of embeddings neither repeat nor compress, and looking for it takes most of the time."""

ENCODER = "drawn@1"


def draw(folder: Path, rows: int, width: int) -> None:
    """Files of documents in kinds 1:1:1."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(2, width)) / np.sqrt(width)
    for file, ids in enumerate(np.array_split(rng.permutation(rows), FILES)):
        table = pa.table({"id": ids, "encoder": [ENCODER] * len(ids)})
        for name, mean, absent in zip(COLUMNS.values(), means, (1, 2), strict=True):
            x = rng.normal(size=(len(ids), width), scale=1 / np.sqrt(width)) + mean
            x[ids % 3 == absent] = np.nan
            x /= np.linalg.norm(x, axis=1, keepdims=True)
            table = table.append_column(name, as_lists(x.astype(np.float16)))
        pq.write_table(table, folder / f"{file}.parquet", row_group_size=16384, **OPTIONS)


def items_of(table: pa.Table) -> Items:
    return Items(parts_of_table(table, COLUMNS), encoder=ENCODER)


def fit_here(folder: Path) -> ModalityGapRemover:
    """One process, file after file."""
    remover = ModalityGapRemover()
    for file in sorted(folder.glob("*.parquet")):
        remover.partial_fit(items_of(pq.read_table(file)))
    return remover


def transform_here(folder: Path, pipeline: Pipeline, out: Path) -> None:
    """One process, file after file."""
    for file in sorted(folder.glob("*.parquet")):
        table = pq.read_table(file)
        fused = as_lists(pipeline.transform(items_of(table)))
        pq.write_table(pa.table({"id": table.column("id"), "vector": fused}), out / file.name, **OPTIONS)


def transform_on_ray(folder: Path, pipeline: Pipeline, out: Path) -> None:
    """Ray's workers, a file or more at a time, into an empty folder: Ray writes beside what is there."""
    for old in out.glob("*"):
        old.unlink()
    dataset = optional_import("ray.data", "ray", "benchmarks.ray_data").read_parquet(str(folder))
    found = transform(dataset, pipeline).select_columns(["id", "vector"])
    found.write_parquet(str(out), **OPTIONS)


def busy() -> float:
    """Seconds of processor time of this process and of all below it, as Linux tells: Ray's daemons and workers are."""
    parent, ticks = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # one that has ended since
            fields = stat.read_text().rpartition(")")[2].split()
            parent[int(stat.parent.name)] = int(fields[1])
            ticks[int(stat.parent.name)] = sum(map(int, fields[11:15]))
    ours = {os.getpid()}
    while more := {process for process, above in parent.items() if above in ours} - ours:
        ours |= more
    return sum(ticks[process] for process in ours) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """Median seconds of a call: on the clock, and of the processors."""

    clock: float
    processor: float

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.clock - other.clock, self.processor - other.processor)


def costs(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, Cost]:
    """Of each call, by turns, after a round that does not count."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            clock, processor = time.perf_counter(), busy()
            call()
            taken[name].append((time.perf_counter() - clock, busy() - processor))
    return {name: Cost(*map(statistics.median, zip(*times[1:], strict=True))) for name, times in taken.items()}


def same_bytes(one: Path, other: Path) -> bool:
    """Whether two folders hold the same ids with the same bytes of vectors."""
    tables = [pq.read_table(folder).sort_by("id") for folder in (one, other)]
    ids = [table.column("id").to_pylist() for table in tables]
    found = [as_vectors(table.column("vector"), "vector") for table in tables]
    return ids[0] == ids[1] and len({None if x is None else x.tobytes() for x in found}) == 1


def measure(folder: Path, rows: int, width: int, repeats: int) -> dict[str, Any]:
    """What both sides take, for all rows and for a few, and whether they agree."""
    for name in ("source", "few", "here", "there", "nowhere"):
        (folder / name).mkdir()
    source, few = folder / "source", folder / "few"
    draw(source, rows, width)
    draw(few, FILES * 3, width)
    read = optional_import("ray.data", "ray", "benchmarks.ray_data").read_parquet
    one, other = fit_here(source), fit(read(str(source)))
    pipeline = make_pipeline(one, MultimodalFuser(alpha=0.3).fit(items_of(pq.read_table(few))))
    steps: dict[str, dict[str, Callable[[], Any]]] = {
        "fit": {
            "one process": lambda: fit_here(source),
            "Ray": lambda: fit(read(str(source))),
            "start": lambda: fit(read(str(few))),
        },
        "transform": {
            "one process": lambda: transform_here(source, pipeline, folder / "here"),
            "Ray": lambda: transform_on_ray(source, pipeline, folder / "there"),
            "start": lambda: transform_on_ray(few, pipeline, folder / "nowhere"),
        },
    }
    return {
        "costs": {step: costs(calls, repeats) for step, calls in steps.items()},
        "largest difference of means": max(float(np.abs(other.means_[r] - one.means_[r]).max()) for r in one.means_),
        "same counts": other.n_samples_seen_ == one.n_samples_seen_,
        "same bytes": same_bytes(folder / "here", folder / "there"),
    }


def table(found: dict[str, dict[str, Cost]], rows: int) -> str:
    """Rows per second of both, and how much of a second of a processor is left of it on Ray."""
    lines = [
        "| | one process (rows/s) | Ray (rows/s) | start of a job (s) | Ray after its start (rows/s) | share |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for step, cost in found.items():
        one, ray, start = cost["one process"], cost["Ray"], cost["start"]
        beyond = ray - start
        cells = (rows / one.clock, rows / ray.clock, start.clock)
        lines.append("| {} | {:,.0f} | {:,.0f} | {:.1f} |".format(step, *cells) + _after_start(one, beyond, rows))
    return "\n".join(lines)


def _after_start(one: Cost, beyond: Cost, rows: int) -> str:
    """The last two cells, empty where so few rows take no longer than the start."""
    if min(beyond.clock, beyond.processor) <= 0:
        return " | |"
    return f" {rows / beyond.clock:,.0f} | {one.processor / beyond.processor:.2f} |"


def main(arguments: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000, help="documents (default: 200000)")
    parser.add_argument("--width", type=int, default=512, help="numbers of a vector (default: 512)")
    parser.add_argument("--cpus", type=int, default=2, help="workers of the local cluster (default: 2)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count (default: 3)")
    parser.add_argument(
        "--store", type=int, default=1000, metavar="MB", help="size of the object store (default: 1000)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to it")
    options = parser.parse_args(arguments)
    if options.rows < FILES * 3 or options.repeats < 1:
        parser.error(f"--rows must be at least {FILES * 3}, and --repeats at least 1")
    torch.set_num_threads(1)
    ray: Any = optional_import("ray", "ray", "benchmarks.ray_data")
    ray.init(
        "local",
        num_cpus=options.cpus,
        include_dashboard=False,
        object_store_memory=options.store * 10**6,
        configure_logging=False,
        log_to_driver=False,
    )
    optional_import("ray.data", "ray", "benchmarks.ray_data").DataContext.get_current().enable_progress_bars = False
    try:
        with tempfile.TemporaryDirectory() as name:
            found = measure(Path(name), options.rows, options.width, options.repeats)
    finally:
        ray.shutdown()
    print(f"{options.rows:,} x {options.width} float16, {options.cpus} workers\n")
    print(table(found["costs"], options.rows))
    told = ("largest difference of means", "same counts", "same bytes")
    print("\n" + "; ".join(f"{name}: {found[name]}" for name in told))
    if options.json:
        options.json.write_text(json.dumps({**vars(options), **found}, indent=1, default=_plain) + "\n")
    return 0 if found["same counts"] and found["same bytes"] else 1


def _plain(value: Any) -> Any:
    return asdict(value) if isinstance(value, Cost) else str(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
