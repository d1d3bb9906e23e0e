"""What 10^9 documents take: ``python -m benchmarks.plan [--documents N] [--gpus N] [--cores N] ...``.

Prints bytes, operations, hours and cost of encoding, fitting, transforming and indexing, the size of the sample to fit
on, and what an index holds. All of it is arithmetic on the rates that are stated first: those of a core were measured
(``--measure`` does so anew on this machine, in seconds of processor time, which other work does not lengthen), those
of a GPU are its published peaks times a share that is assumed, prices are examples.

Documents are texts, pictures and both by turns (1:1:1), so that each has 4/3 parts, and vectors are float16.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import isfinite, log, sqrt
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

GFLOPS = {"text": 6.0, "picture": 35.1, "both": 41.1}
"""Of encoding by CLIP-B/16, whose vectors have 512 numbers: Compute, in docs/benchmarks.md."""

PEAKS = {"A100 80GB": (312e12, 2.04e12), "H100 SXM": (989e12, 3.35e12)}
"""Published: operations a second in bfloat16 without sparsity, and bytes a second of memory."""

GPU_MEMORY = 80e9

MEAN_ERRORS = {10: 0.184, 20: 0.131, 50: 0.079, 100: 0.048, 200: 0.026}
"""Distance of the mean of n of 290 photos to the mean of all: How many calibration rows, in docs/benchmarks.md."""

SMALLEST_SPREAD = 0.098
"""Standard deviation of a query's similarities to unrelated images: Spreads, in docs/benchmarks.md."""

PHOTOS = 290
HALF = 2  # bytes of a number in float16
LISTS, CODE, ROW_ID, TRAIN, ROUNDS = 2**18, 64, 8, 64, 10
"""IVF262144,PQ64: lists, bytes of a vector and of its row; rows a list, and rounds, that k-means learns from."""

LINKS, NODE = 32, 16
"""HNSW32: neighbours of a vector, twice as many on the ground level, of 4 bytes each; and bytes of higher levels, of
its level and of where its neighbours begin, on average."""

MEASURED = 512
"""Width that the rates of a core were measured at; other widths take as long a number."""

ODDS = 1e-6
"""How often the error of a mean may exceed what is said of it."""


@dataclass(frozen=True)
class Rates:
    """What one core does in a second, measured; `ray` is the share of it that a worker of Ray keeps."""

    fit: float
    transform: float
    read: float
    write: float
    decode: float
    flops: float
    ray: float


RATES = Rates(fit=990e3, transform=486e3, read=241e3, write=162e3, decode=279, flops=93e9, ray=0.29)
"""Documents a second (decode: pictures of 640 by 480; flops: operations of ViT-B-32), by ``--measure``; the share that
Ray keeps is the lower one, of fit, by ``benchmarks.ray_data``. What an encoder costs, in docs/benchmarks.md, has 256
pictures in 14.31 s on two cores: 79e9 a core, by the clock."""


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

    @property
    def embedding_bytes(self) -> float:
        """Of a document: 4/3 parts."""
        return 4 / 3 * HALF * self.width

    @property
    def vector_bytes(self) -> float:
        """Of a fused vector."""
        return HALF * self.width


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

    def cost(self, setting: Setting) -> float:
        """The cores, and the GPUs of a step that needs them, for as long as the slowest resource takes."""
        price = setting.cores * setting.core_price + (setting.gpus * setting.gpu_price if self.gpu_seconds else 0)
        return max(self.hours(setting).values()) * price


def stages(setting: Setting, rates: Rates) -> list[Stage]:
    """The four steps, and encoding without a GPU."""
    n, d = setting.documents, setting.width
    gpu = PEAKS[setting.gpu][0] * setting.share
    raw = 2 / 3 * (setting.text_bytes + setting.picture_bytes)
    encoding = n * 1e9 * sum(GFLOPS.values()) / 3
    decoding = n * 2 / 3 / rates.decode
    sample = min(setting.sample, n)
    wide = d / MEASURED
    handling = 1 / rates.read + 1 / rates.write
    training = ROUNDS * TRAIN * LISTS * LISTS * 2 * d
    assigning = n * (LISTS + 256) * 2 * d
    return [
        Stage("encode", n * raw, n * setting.embedding_bytes, encoding, decoding, encoding / gpu),
        Stage("encode on cores", n * raw, n * setting.embedding_bytes, encoding, decoding + encoding / rates.flops),
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
            f"{sqrt(1 / n):.2g}",
            f"{bound(n):.2g}",
            f"{sqrt(trace() / n):.2g}",
            f"{sqrt(trace() / n) / SMALLEST_SPREAD:.1%}",
        ]
        for n in sizes
    }


def indexes(setting: Setting) -> dict[str, list[str]]:
    """What indexes of all documents hold in memory, and how many of these GPUs, or machines of 512 GB, hold them."""
    vector = setting.vector_bytes
    sizes = {
        "exact, float16": vector,
        "HNSW32, float16": vector + 2 * LINKS * 4 + NODE,
        "IVF262144,PQ64": CODE + ROW_ID,
    }
    return {
        name: [
            f"{setting.documents * size / 1e12:,.2f}",
            "" if name.startswith("HNSW") else f"{-(-setting.documents * size // GPU_MEMORY):,.0f}",  # for CPUs only
            f"{-(-setting.documents * size // 512e9):,.0f}",
        ]
        for name, size in sizes.items()
    }


def figure(value: float) -> str:
    """Two digits, or a whole number."""
    return f"{value:,.2g}" if value < 10 else f"{value:,.0f}"


def amount(n: float) -> str:
    """10^6, or the number."""
    power = round(np.log10(n))
    return f"10^{power}" if n == 10**power else f"{n:,.0f}"


def table(title: str, columns: Sequence[str], rows: dict[str, list[str]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = [f"{title}\n", f"| | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items())]) + "\n"


def print_plan(setting: Setting, rates: Rates) -> None:
    """All tables."""
    measured = [figure(value) for value in vars(rates).values()]
    names = ["fit", "transform", "read", "write", "decode pictures", "encode (GFLOP)", "share on Ray"]
    measured[5] = f"{rates.flops / 1e9:,.0f}"
    print(table("One core, documents a second", names, {"measured": measured}))
    rows = {}
    for stage in stages(setting, rates):
        hours = stage.hours(setting)
        rows[stage.name] = [
            f"{stage.read / 1e12:,.3g}",
            f"{stage.written / 1e12:,.3g}",
            f"{stage.flops:.1e}",
            *map(figure, hours.values()),
            max(hours, key=hours.__getitem__),
            figure(stage.cost(setting)),
        ]
    has = f"{setting.gpus} x {setting.gpu}, {setting.cores} cores, {setting.storage / 1e9:g} GB/s of storage"
    columns = ["TB in", "TB out", "operations", "h storage", "h cores", "h GPUs", "limited by", "cost ($)"]
    print(table(f"{amount(setting.documents)} documents on {has}", columns, rows))
    kept = setting.documents * (setting.embedding_bytes + setting.vector_bytes) / 1e12
    print(f"Kept: {kept:,.2f} TB of embeddings and vectors, ${kept * setting.storage_price:,.0f} a month.\n")
    columns = ["RMS at most", f"above once in {amount(1 / ODDS)} at most", "RMS on photos", "of the smallest spread"]
    print(table("Error of the mean of n random rows of a role", columns, samples()))
    columns = ["TB", f"GPUs of {GPU_MEMORY / 1e9:g} GB", "machines of 512 GB"]
    print(table("Indexes in memory", columns, indexes(setting)))
    gpus = -(-setting.documents * setting.vector_bytes // GPU_MEMORY)
    scan = setting.documents * setting.vector_bytes / gpus / PEAKS[setting.gpu][1]
    print(f"An exact search reads all: {scan * 1e3:,.0f} ms a batch of queries on {gpus:,.0f} GPUs at their peak.")


def measure(documents: int = 30_000, width: int = MEASURED) -> Rates:
    """The rates of one core here, in seconds of processor time."""
    import torch

    from benchmarks.ray_data import COLUMNS, OPTIONS, draw, items_of
    from grclip import ModalityGapRemover, MultimodalFuser
    from grclip._optional import optional_import
    from grclip.scale._arrow import as_lists

    torch.set_num_threads(1)
    pq: Any = optional_import("pyarrow.parquet", "ray", "benchmarks.plan")
    pa: Any = optional_import("pyarrow", "ray", "benchmarks.plan")
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder, documents, width)
        items = items_of(pq.read_table(folder))
        remover, fuser = ModalityGapRemover().fit(items), MultimodalFuser()
        fuser.fit(items)
        fused = fuser.transform(remover.transform(items))
        vectors = pa.table({"vector": as_lists(fused)})
        per_document = {
            "fit": lambda: ModalityGapRemover().fit(items),
            "transform": lambda: as_lists(fuser.transform(remover.transform(items))),
            "read": lambda: items_of(pq.read_table(folder, columns=list(COLUMNS.values()))),
            "write": lambda: pq.write_table(vectors, folder / "out", **OPTIONS),
        }
        found = {what: documents / processor_seconds(call) for what, call in per_document.items()}
    return replace(RATES, **found, **measure_pictures())


def measure_pictures(pictures: int = 16) -> dict[str, float]:
    """Pictures a second that are decoded and brought to the size of CLIP, and operations of ViT-B-32."""
    import torch

    from benchmarks._architectures import DualEncoder
    from grclip._optional import optional_import

    open_clip: Any = optional_import("open_clip", "open-clip", "benchmarks.plan")
    image: Any = optional_import("PIL.Image", "open-clip", "benchmarks.plan")
    smooth = np.random.default_rng(0).integers(0, 256, size=(30, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    image.fromarray(smooth).resize((640, 480), image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32")
    read = lambda: [preprocess(image.open(io.BytesIO(buffer.getvalue())).convert("RGB")) for _ in range(pictures)]  # noqa: E731
    batch = torch.stack(read())
    with torch.inference_mode():
        seconds = processor_seconds(lambda: model.encode_image(batch))
    flops = DualEncoder("ViT-B-32").picture() * pictures / seconds
    return {"decode": pictures / processor_seconds(read), "flops": flops}


def processor_seconds(call: Callable[[], Any], repeats: int = 5) -> float:
    """Median seconds of processor time, after one call that does not count."""
    taken = []
    for _ in range(repeats + 1):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return median(taken[1:])


def main(arguments: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    standard = Setting()
    for name, value in vars(standard).items():
        choices = tuple(PEAKS) if name == "gpu" else None
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, choices=choices)
    parser.add_argument("--measure", action="store_true", help="with the rates of a core of this machine")
    options = vars(parser.parse_args(arguments))
    fresh = options.pop("measure")
    wrong = [name for name, value in options.items() if name != "gpu" and not (value > 0 and isfinite(value))]
    if wrong:
        parser.error(f"must be above 0: {', '.join(wrong)}")
    rates, setting = measure() if fresh else RATES, Setting(**options)
    print_plan(setting, rates)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
