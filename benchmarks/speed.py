"""What calibration, search and scoring cost: ``python -m benchmarks.speed [--device cuda] [--quick]``.

Each figure is a ratio to a reference of its own, measured in the same run and in turn with it, and says whether it
meets its line; memory is the peak of a process of its own. Ratios of a busy machine are noisy: the quartiles tell how
much.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from numpy.typing import NDArray

import grclip
from benchmarks._arguments import device, folder, new_file
from benchmarks._speed import HEADER, Row, Work, as_json, compare, noted, peak, python, row_of, seconds, three
from benchmarks.alpha_cv import against_grid_search
from grclip import ExactRetriever, Items, ModalityGapRemover, MultimodalFuser
from grclip._kernels import Array
from grclip.metrics import ndcg_score

MEMORY = """
import sys, torch
from grclip import ModalityGapRemover
from benchmarks._speed import three
roles = three(torch.randn(int(sys.argv[1]), int(sys.argv[2])))
remover = ModalityGapRemover().fit(roles)
remover.transform({role: x[:8] for role, x in roles.items()})
before = status("VmRSS")
out = remover.transform(roles)
print(status("VmHWM") - before - sum(x.nbytes for x in out.values()) / 1e6)
"""

MEMMAP = """
import sys
import numpy as np
from grclip import ModalityGapRemover
source, result, n, step = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
remover = ModalityGapRemover()
for start in range(0, n, step):
    remover.partial_fit(np.load(source, mmap_mode="r")[start : start + step])
for start in range(0, n, step):
    rows = slice(start, start + step)
    np.load(result, mmap_mode="r+")[rows] = remover.transform(np.load(source, mmap_mode="r")[rows])
print(status("VmHWM"))
"""


class Figures:
    """The rows of the table, by name; sizes are small with `quick`."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        quick = arguments.quick
        self.n, self.d = (3_000, 64) if quick else (200_000, 512)
        self.repeats: int = 2 if quick else max(7, arguments.repeats)
        self.few = min(7, self.repeats)
        self.queries, self.scored = (50, 200) if quick else (1_000, 10_000)
        self.chosen: dict[str, Any] = {"n_alphas": 5, "n_queries": 40, "n_documents": 90, "d": 128} if quick else {}
        self.bytes, self.step = (10**8, 50_000) if quick else (10**10, 50_000)
        self.sizes = ((1_000, 2_000), (64, 128)) if quick else ((10**4, 10**5, 10**6), (256, 512, 1024, 2048, 4096))
        self.device, self.folder = arguments.device, arguments.folder
        warm = 0.0 if quick else 5.0  # what is first written to costs more, on some machines for seconds
        self.compare = partial(compare, repeats=self.repeats, warm=warm, device=self.device)

    def rows(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Random rows away from the origin, as those of a role are."""
        generator = torch.Generator(self.device).manual_seed(0)
        x = torch.randn(self.n, self.d, generator=generator, device=self.device)
        return x.add_(0.3).to(dtype)

    def transform(self) -> Row:
        x = self.rows()
        remover = ModalityGapRemover().fit(three(x))
        return self.compare(
            "transform / clone()", 1.3, lambda: remover.transform(three(x)), x.clone, work=passes(x, 2, 2)
        )

    def in_place(self) -> Row:
        x = self.rows()
        out, remover = x.clone(), ModalityGapRemover(copy=False).fit(three(x))
        return self.compare(
            "transform in place / copy_",
            1.5,
            lambda: remover.transform(three(x)),
            lambda: out.copy_(x),
            work=passes(x, 3, 2),  # all rows are read once before the first is written, so that none is half changed
        )

    def fuse(self) -> Row:
        parts = {"text": self.rows(), "image": self.rows().flip(0)}
        parts["text"][::3], parts["image"][1::3] = torch.nan, torch.nan
        items = Items(parts)
        remover = ModalityGapRemover().fit(three(self.rows()))
        fuser = MultimodalFuser().fit(items)
        return self.compare(
            "remover and fuser / clone() of both parts",
            2.0,
            lambda: fuser.transform(remover.transform(items)),
            lambda: [x.clone() for x in parts.values()],
            work=passes(parts["text"], 7, 4),  # the fuser reads what the remover wrote of both, and writes one
        )

    def fit(self) -> Row:
        x = self.rows()
        return self.compare(
            "fit / sum(0)", 2.0, lambda: ModalityGapRemover().fit(three(x)), lambda: x.sum(0), work=passes(x, 1, 1)
        )

    def memory(self) -> Row:
        return peak("memory of transform beyond its output", 64, MEMORY, self.n, self.d)

    def numpy(self) -> Row:
        x = self.rows()
        remover, roles = ModalityGapRemover().fit(three(x)), three(x)
        viewed = three(x.numpy())
        return self.compare(
            "transform of NumPy / of torch",
            1.05,
            lambda: remover.transform(viewed),
            lambda: remover.transform(roles),
            work=passes(x, 2, 2),
        )

    def search(self) -> Row:
        """Against faiss, on the rows of one corpus and the threads that torch has."""
        return self.against_faiss("ExactRetriever / faiss IndexFlatIP")

    def search_whole(self) -> Row:
        """As on a processor that has no bfloat16; the bare product of torch is what it cannot be faster than."""
        before = torch.backends.mkldnn.enabled
        torch.backends.mkldnn.set_flags(_enabled=False)
        try:
            return self.against_faiss("ExactRetriever without bfloat16 / faiss IndexFlatIP", bare=True)
        finally:
            torch.backends.mkldnn.set_flags(_enabled=before)

    def against_faiss(self, name: str, *, bare: bool = False) -> Row:
        line = 1.0
        try:
            faiss = importlib.import_module("faiss")
        except ImportError:
            return Row(name, line, note="faiss is not installed")
        corpus = torch.nn.functional.normalize(self.rows()).numpy()
        queries = np.random.default_rng(1).standard_normal((self.queries, self.d), dtype=np.float32)
        faiss.omp_set_num_threads(torch.get_num_threads())
        index = faiss.IndexFlatIP(self.d)
        index.add(corpus)
        retriever = ExactRetriever(k=10).fit(corpus)
        same = (retriever.predict(queries) == index.search(queries, 10)[1]).mean()
        row = self.compare(
            name,
            line,
            lambda: retriever.predict(queries),
            lambda: index.search(queries, 10),
            work=products(queries, corpus),
        )
        note = f"{same:.2%} of the places hold the same row"
        if bare and row.reference:
            product = min(seconds(lambda: products_in_blocks(queries, corpus)) for _ in range(self.repeats))
            note += f"; torch's matrix product alone takes {product / row.reference:.2f} x of faiss"
        return replace(row, agree=bool(same == 1), note=note)

    def ndcg(self) -> Row:
        """Against the faster of both, each on what it reads, made beforehand."""
        name, line, rng = "NDCG@10 / the faster of ir_measures and ranx", 0.2, np.random.default_rng(0)
        ranking = rng.permuted(np.tile(np.arange(1_000), (self.scored, 1)), axis=1)[:, :100]
        judged = rng.permuted(np.tile(np.arange(1_000), (self.scored, 1)), axis=1)[:, :5].tolist()
        qrels = [dict(zip(rows, (1, 1, 2, 2, 3), strict=True)) for rows in judged]
        others = scorers(
            {str(i): {str(row): grade for row, grade in line.items()} for i, line in enumerate(qrels)},
            {str(i): {str(row): -float(at) for at, row in enumerate(line)} for i, line in enumerate(ranking.tolist())},
        )
        if not others:
            return Row(name, line, note="neither is installed")
        rows = {
            other: self.compare(name, line, lambda: ndcg_score(qrels, ranking), call) for other, call in others.items()
        }
        fastest = min(rows, key=lambda other: rows[other].reference or 0)
        absent = "".join(f"; {other} is not installed" for other in ("ir_measures", "ranx") if other not in rows)
        return noted(rows[fastest], f"against {fastest}{absent}")

    def alpha(self) -> Row:
        return against_grid_search(repeats=self.few, **self.chosen)

    def alpha_equalize(self) -> Row:
        """In fewer turns than the others: this grid search takes minutes, and hardly scatters."""
        return against_grid_search(repeats=min(3, self.repeats), equalize=True, **self.chosen)

    def imports(self) -> Row:
        ours, theirs = "import grclip", "import torch, sklearn"
        return self.compare(
            f"{ours} / {theirs}", 1.25, lambda: python(ours), lambda: python(theirs), repeats=self.few, warm=0.0
        )

    def memmap(self) -> Row:
        """In blocks, each of which opens the files anew: pages that are mapped count as resident."""
        n = self.bytes // (2 * self.d)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            source, result = Path(folder, "x.npy"), Path(folder, "result.npy")
            block = self.rows(torch.float16)[: self.step].cpu().numpy()
            for path in (source, result):
                np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(n, self.d)).flush()
            for start in range(0, n, len(block)):
                np.load(source, mmap_mode="r+")[start : start + len(block)] = block[: n - start]
            return peak(
                f"{self.bytes / 1e9:g} GB of float16, memmap to memmap", 1000, MEMMAP, source, result, n, self.step
            )

    def growth(self) -> dict[str, list[dict[str, float]]]:
        """Nanoseconds a number over rows at one width, and over widths at one amount of numbers."""
        lengths, widths = self.sizes
        measured = {"rows": [self.costs(n, self.d) for n in lengths]}
        return measured | {"widths": [self.costs(self.n * self.d // d, d) for d in widths]}

    def costs(self, n: int, d: int) -> dict[str, float]:
        x = torch.randn(n, d, device=self.device)
        items, remover = Items({"text": x, "image": x.flip(0)}), ModalityGapRemover().fit(three(x))
        fuser, retriever, queries = (
            MultimodalFuser().fit(items),
            ExactRetriever(k=10).fit(x),
            torch.randn(200, d, device=self.device),
        )
        calls: dict[str, Callable[[], Any]] = {
            "fit": lambda: ModalityGapRemover().fit(three(x)),
            "transform": lambda: remover.transform(three(x)),
            "fuse": lambda: fuser.transform(items),
            "search": lambda: retriever.predict(queries),
        }
        costs = {name: min(seconds(call, self.device) for _ in range(3)) for name, call in calls.items()}
        return {"n": n, "d": d, **{name: 1e9 * taken / (n * d) for name, taken in costs.items()}}


class DeviceFigures(Figures):
    """What is measured on an accelerator: against copies, reads and bare products there, in one precision."""

    def __init__(self, arguments: argparse.Namespace, dtype: torch.dtype) -> None:
        super().__init__(arguments)
        self.x, self.name = self.rows(dtype), str(dtype).removeprefix("torch.")

    def transform(self) -> Row:
        out, remover = torch.empty_like(self.x), ModalityGapRemover().fit(three(self.x))
        ours, figure = partial(remover.transform, three(self.x)), f"transform / copy_, {self.name}"
        return self.compare(figure, 1 / 0.8, ours, lambda: out.copy_(self.x), work=passes(self.x, 2, 2))

    def fit(self) -> Row:
        ours, figure = partial(ModalityGapRemover().fit, three(self.x)), f"fit / sum(0), {self.name}"
        return self.compare(figure, 1 / 0.7, ours, lambda: self.x.sum(0), work=passes(self.x, 1, 1))

    def search(self) -> Row:
        corpus = torch.nn.functional.normalize(self.x.float()).to(self.x.dtype)
        queries, retriever = corpus[: self.queries].clone(), ExactRetriever(k=10).fit(corpus)
        figure = f"ExactRetriever / product and topk, {self.name}"
        return self.compare(
            figure,
            1 / 0.7,
            lambda: retriever.predict(queries),
            lambda: (queries @ corpus.T).topk(10, dim=1),
            work=products(queries, corpus),
        )


FIGURES = (
    *("transform", "in_place", "fuse", "fit", "memory", "numpy", "search", "search_whole", "ndcg"),
    *("alpha", "alpha_equalize", "imports", "memmap"),
)
DEVICE_FIGURES = ("transform", "fit", "search")


def measure(arguments: argparse.Namespace) -> list[Row]:
    """The rows asked for, each printed when it is there."""
    torch.manual_seed(0)
    if torch.device(arguments.device).type == "cpu":
        figures: list[tuple[Figures, str]] = [(Figures(arguments), name) for name in FIGURES]
    else:
        dtypes = (torch.float32, torch.bfloat16)
        figures = [(DeviceFigures(arguments, dtype), name) for dtype in dtypes for name in DEVICE_FIGURES]
    rows: list[Row] = []
    for some, name in figures:
        if name in (arguments.figures or FIGURES):
            rows.append(getattr(some, name)())
            print(row_of(rows[-1]), flush=True)
    return rows


def passes(x: torch.Tensor, ours: int, reference: int) -> Work:
    """How often both sides read or write as many bytes as x has."""
    return Work(ours * x.nbytes, reference * x.nbytes)


def products(queries: Array, corpus: Array) -> Work:
    """All dot products, by both sides."""
    flops = 2 * len(queries) * corpus.shape[0] * corpus.shape[1]
    return Work(flops, flops, "GFLOP/s")


def products_in_blocks(queries: NDArray, corpus: NDArray, rows: int = 8192) -> None:
    """All dot products by torch, and nothing else."""
    q, x = torch.from_numpy(queries), torch.from_numpy(corpus)
    out = torch.empty(len(q), rows)
    for block in x.split(rows):
        torch.mm(q, block.T, out=out if len(block) == rows else None)


def scorers(qrels: dict[str, dict[str, int]], run: dict[str, dict[str, float]]) -> dict[str, Callable[[], Any]]:
    """NDCG@10 by the libraries that are installed."""
    found: dict[str, Callable[[], Any]] = {}
    with contextlib.suppress(ImportError):
        ir_measures = importlib.import_module("ir_measures")
        evaluator = ir_measures.evaluator([ir_measures.nDCG @ 10], qrels)
        found["ir_measures"] = lambda: evaluator.calc_aggregate(run)
    with contextlib.suppress(ImportError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        ranx = importlib.import_module("ranx")
        judged, ranked = ranx.Qrels(qrels), ranx.Run(run)
        ranx.evaluate(judged, ranked, "ndcg_burges@10")  # compiled here
        found["ranx"] = lambda: ranx.evaluate(judged, ranked, "ndcg_burges@10")
    return found


def about(chosen: str) -> dict[str, Any]:
    """Machine, date and versions."""
    cuda = torch.device(chosen).type == "cuda"
    model = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "date": date.today().isoformat(),
        "machine": torch.cuda.get_device_name(chosen) if cuda else (model or [platform.processor()])[0],
        "cores": joblib.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "load": _load(),
        "python": platform.python_version(),
        "grclip": grclip.__version__,
        **dict(_versions("torch", "numpy", "scipy", "scikit-learn", "faiss-cpu", "ir-measures", "ranx")),
    }


def _versions(*distributions: str) -> Iterator[tuple[str, str]]:
    """Versions of those that are installed."""
    for name in distributions:
        with contextlib.suppress(PackageNotFoundError):
            yield name, version(name)


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _load() -> float | None:
    """Processes that wanted a processor in the last minute, on average: more than there are means noise."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def print_growth(growth: dict[str, list[dict[str, float]]]) -> None:
    print(
        "\nNanoseconds a number, the best of three\n\n| rows | width | fit | transform | fuse | search |\n"
        + "|---:" * 6
        + "|"
    )
    for costs in [costs for some in growth.values() for costs in some]:
        cells = " | ".join(f"{costs[name]:.2f}" for name in ("fit", "transform", "fuse", "search"))
        print(f"| {costs['n']:,} | {costs['d']:,} | {cells} |")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    made.add_argument("--device", type=device, default="cpu", help="cpu (default) or cuda")
    made.add_argument("--threads", type=int, help="threads of torch and faiss; as torch chooses where left out")
    made.add_argument("--repeats", type=int, default=21, help="measurements of each side (21), at least 7")
    made.add_argument("--quick", action="store_true", help="small sizes, which tell whether it runs and nothing else")
    made.add_argument("--figures", nargs="+", choices=(*FIGURES, "growth"), help="only these")
    made.add_argument("--folder", type=folder, help="where the large files of memmap go for a while")
    made.add_argument("--json", type=new_file, metavar="FILE", help="write all figures to it")
    return made


def main(argv: Sequence[str] = ()) -> int:
    arguments = parser().parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    facts = about(arguments.device)
    print(", ".join(f"{name} {fact}" for name, fact in facts.items()), end="\n\n")
    print(HEADER, flush=True)
    rows = measure(arguments)
    growth = Figures(arguments).growth() if "growth" in (arguments.figures or ("growth",)) else {}
    if growth:
        print_growth(growth)
    if arguments.json:
        arguments.json.write_text(as_json(rows, growth, facts))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
