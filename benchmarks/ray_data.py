"""Rows per second on a local Ray cluster, beside one process: ``python -m benchmarks.ray_data [--rows N] [--cpus N]``.

Draws documents of texts, pictures and both by turns (unit vectors of 512 numbers in float16, a gap between the kinds),
writes them as Parquet files, and then, each side in turn,

- fits a `ModalityGapRemover`: `grclip.scale.ray.fit` on `read_parquet`; and file after file through `partial_fit`;
- transforms and writes: `grclip.scale.ray.transform` and `write_parquet`; and file after file through the pipeline.

Both sides read the same files. The first round starts Ray's workers and is not counted. What the two sides wrote is
compared byte by byte, by id. The process has one thread, as each of Ray's workers has.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from sklearn.pipeline import Pipeline, make_pipeline

from grclip import Items, ModalityGapRemover, MultimodalFuser
from grclip._optional import optional_import
from grclip.scale._arrow import as_lists, parts_of_table, vectors
from grclip.scale.ray import fit, transform

COLUMNS = {"text": "text_embedding", "image": "image_embedding"}
FILES = 8
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
        pq.write_table(table, folder / f"{file}.parquet", row_group_size=16384, compression="none")


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
        pq.write_table(pa.table({"id": table.column("id"), "vector": fused}), out / file.name)


def transform_on_ray(folder: Path, pipeline: Pipeline, out: Path) -> None:
    """Ray's workers, a file or more at a time."""
    dataset = optional_import("ray.data", "ray", "benchmarks.ray_data").read_parquet(str(folder))
    transform(dataset, pipeline).select_columns(["id", "vector"]).write_parquet(str(out), mode="overwrite")


def seconds(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each call, by turns, after a round that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


def same_bytes(one: Path, other: Path) -> bool:
    """Whether two folders hold the same ids with the same bytes of vectors."""
    tables = [pq.read_table(folder).sort_by("id") for folder in (one, other)]
    ids = [table.column("id").to_pylist() for table in tables]
    found = [vectors(table.column("vector"), "vector") for table in tables]
    return ids[0] == ids[1] and len({None if x is None else x.tobytes() for x in found}) == 1


def measure(folder: Path, rows: int, repeats: int) -> dict[str, Any]:
    """Rows per second of both sides, and whether they agree."""
    source, here, there = (folder / name for name in ("source", "here", "there"))
    read = optional_import("ray.data", "ray", "benchmarks.ray_data").read_parquet
    fitted = seconds({"one process": lambda: fit_here(source), "Ray": lambda: fit(read(str(source)))}, repeats)
    one, other = fit_here(source), fit(read(str(source)))
    pipeline = make_pipeline(one, MultimodalFuser(alpha=0.3).fit(items_of(pq.read_table(source / "0.parquet"))))
    sides = {
        "one process": lambda: transform_here(source, pipeline, here),
        "Ray": lambda: transform_on_ray(source, pipeline, there),
    }
    transformed = seconds(sides, repeats)
    return {
        "rows per second": {
            "fit": {name: rows / taken for name, taken in fitted.items()},
            "transform": {name: rows / taken for name, taken in transformed.items()},
        },
        "largest difference of means": max(float(np.abs(other.means_[r] - one.means_[r]).max()) for r in one.means_),
        "same counts": other.n_samples_seen_ == one.n_samples_seen_,
        "same bytes": same_bytes(here, there),
    }


def main(arguments: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--cpus", type=int, default=2, help="workers of the local cluster (default: 2)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--store", type=int, default=1000, metavar="MB", help="object store (default: 1000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to it")
    options = parser.parse_args(arguments)
    if options.rows < FILES * 3 or options.repeats < 1:
        parser.error(f"--rows must be at least {FILES * 3}, and --repeats at least 1")
    torch.set_num_threads(1)
    ray: Any = optional_import("ray", "ray", "benchmarks.ray_data")
    ray.init(
        num_cpus=options.cpus,
        include_dashboard=False,
        object_store_memory=options.store * 10**6,
        configure_logging=False,
        log_to_driver=False,
    )
    optional_import("ray.data", "ray", "benchmarks.ray_data").DataContext.get_current().enable_progress_bars = False
    try:
        with tempfile.TemporaryDirectory() as name:
            for sub in ("source", "here", "there"):
                (Path(name) / sub).mkdir()
            draw(Path(name) / "source", options.rows, options.width)
            found = measure(Path(name), options.rows, options.repeats)
    finally:
        ray.shutdown()
    print(f"{options.rows:,} x {options.width} float16, {options.cpus} workers\n")
    print("| rows per second | one process | Ray | ratio |\n|---|---:|---:|---:|")
    for step, rates in found["rows per second"].items():
        one, other = rates["one process"], rates["Ray"]
        print(f"| {step} | {one:,.0f} | {other:,.0f} | {other / one:.2f} |")
    told = ("largest difference of means", "same counts", "same bytes")
    print("\n" + "; ".join(f"{name}: {found[name]}" for name in told))
    if options.json:
        options.json.write_text(json.dumps({**vars(options), **found}, indent=1, default=str) + "\n")
    return 0 if found["same counts"] and found["same bytes"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
