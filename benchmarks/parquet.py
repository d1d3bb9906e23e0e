"""What the commands on Parquet cost, and what they withstand: ``python -m benchmarks.parquet``.

Draws documents in float16 (texts, images and both in equal parts), and runs ``grclip fit`` and ``grclip transform`` on
them, each as a process of its own, beside a process in which pyarrow reads the same file and writes it again untouched,
in the same pieces and with the same settings. Prints seconds, seconds of processors (which other jobs on the machine
change less), their ratios, and the peak of memory of each process. One that only imports grclip is measured beside.

``--kills N`` kills the transform N times with SIGKILL, at random moments after it has begun, starts it again each time,
and says whether the output equals that of an uninterrupted run byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import select
import signal
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from grclip._append import writer_options
from grclip._batch import BATCH

COLUMNS = {"text": "text_embedding", "image": "image_embedding"}
LINE, MEMORY = 2.0, 1000
"""Times the baseline, and megabytes, to stay under."""

LOADING = 0.2
"""Share of kills within a second from the start; the others come within a second after it has written a row group."""

COPY = """
import json, sys
import pyarrow.parquet as pq
source, target, rows, options = sys.argv[1:]
with pq.ParquetFile(source, pre_buffer=False, buffer_size=2**20) as file:
    with pq.ParquetWriter(target, file.schema_arrow, **json.loads(options)) as out:
        for batch in file.iter_batches(int(rows)):
            out.write_batch(batch)
"""
"""What the commands are held against: the file read and written again untouched, by pyarrow alone."""


MEASURE = """
import os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
_, status, usage = os.wait4(process.pid, 0)
print(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3, status)
"""
"""A small process that starts another: what the peak of a process counts begins with that of the one it came from."""


SERVER = """
import os, sys
from grclip.cli import main
for line in sys.stdin:
    process = os.fork()
    if not process:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(main(sys.argv[1:]))
    print(process, flush=True)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    print("ended", flush=True)
    next(sys.stdin)
    print(os.waitpid(process, 0)[1], flush=True)
"""
"""Starts the command for a line that it reads, in a new process that has loaded all, and says its number, and when it
has ended; it keeps the number until the next line, and then says how it ended."""


def draw(path: Path, n: int, d: int, seed: int = 0, rows: int = 20_000) -> None:
    """Documents about topics, a third of them texts, a third images, a third both; an id and a language beside."""
    rng = np.random.default_rng(seed)
    shifts = {role: rng.normal(size=d, scale=0.5).astype(np.float32) for role in COLUMNS}
    kind = pa.list_(pa.field("element", pa.float16()), d)
    fields = [pa.field("id", pa.int64()), *(pa.field(name, kind) for name in COLUMNS.values())]
    schema = pa.schema([*fields, pa.field("language", pa.string())])
    with pq.ParquetWriter(path, schema, **writer_options(schema, tuple(COLUMNS.values()))) as file:
        for start in range(0, n, rows):
            size = min(rows, n - start)
            ids = np.arange(start, start + size)
            columns = []
            for place, role in enumerate(COLUMNS):
                x = rng.standard_normal((size, d), dtype=np.float32) + shifts[role]
                x /= np.linalg.norm(x, axis=1, keepdims=True)
                flat = pa.array(x.astype(np.float16).ravel())
                columns.append(pa.FixedSizeListArray.from_arrays(flat, type=kind, mask=pa.array(ids % 3 == 1 - place)))
            languages = np.array(["en", "de", "fr"])[ids % 3]
            file.write_table(pa.table([pa.array(ids), *columns, pa.array(languages)], schema=schema))


def words(*given: object) -> list[str]:
    """A command line of grclip."""
    columns = [word for role, name in COLUMNS.items() for word in ("--column", f"{role}={name}")]
    return [sys.executable, "-m", "grclip.cli", *map(str, given), *columns]


def measure(command: Sequence[str]) -> dict[str, float]:
    """Seconds, seconds of processors, and peak of memory in MB of a process."""
    done = subprocess.run([sys.executable, "-c", MEASURE, *command], stdout=subprocess.PIPE, text=True, check=True)
    *figures, status = done.stdout.splitlines()[-1].split()
    if int(status):
        raise RuntimeError(f"{' '.join(command)} ended with {status}")
    return dict(zip(("seconds", "processor seconds", "peak MB"), map(float, figures), strict=True))


def digest(path: Path) -> str:
    """Of a file of any size."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def throughput(folder: Path, n: int, d: int, repeats: int) -> dict[str, object]:
    """Each command and the copy, by turns; the line is held against medians."""
    source, calibrator = folder / "docs.parquet", folder / "calibrator.safetensors"
    options = json.dumps(writer_options(pq.read_schema(source), tuple(COLUMNS.values())))
    commands = {
        "copy": [sys.executable, "-c", COPY, str(source), str(folder / "copy.parquet"), str(BATCH // (4 * d)), options],
        "fit": words("fit", source, "--output", calibrator),
        "transform": words("transform", source, folder / "out.parquet", "--calibrator", calibrator),
        "import": [sys.executable, "-c", "import grclip.cli"],
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            found[name].append(measure(command))
            print(f"{name}: {found[name][-1]}", flush=True)
            (folder / "copy.parquet").unlink(missing_ok=True)
    middle = {
        name: {figure: statistics.median(run[figure] for run in own) for figure in own[0]}
        for name, own in found.items()
    }
    ratios = {
        f"{name} / copy, {figure}": middle[name][figure] / middle["copy"][figure]
        for name in ("fit", "transform")
        for figure in ("seconds", "processor seconds")
    }
    peak = max(run["peak MB"] for name in ("fit", "transform") for run in found[name])
    met = peak < MEMORY and max(ratio for name, ratio in ratios.items() if name.endswith(", seconds")) <= LINE
    return {"rows": n, **middle, **ratios, "highest peak MB": peak, "within the line": met}


def lines_of(journal: Path) -> int:
    """Row groups that a journal speaks of, and one."""
    with suppress(FileNotFoundError):
        return journal.read_bytes().count(b"\n")
    return 0


def killed(folder: Path, kills: int, seed: int = 0, within: float = 1.0) -> dict[str, object]:
    """Kill a transform again and again, some seconds at most after a moment, and compare what comes out in the end."""
    rng, target = random.Random(seed), folder / "killed.parquet"
    command = words("transform", folder / "docs.parquet", target, "--calibrator", folder / "calibrator.safetensors")[3:]
    journal, n_kills, ends, whole = target.with_name(f".{target.name}.journal"), 0, [], digest(folder / "out.parquet")
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as server:
        while n_kills < kills:
            before, process = lines_of(journal), int(_answer(server))
            if rng.random() > LOADING:
                while lines_of(journal) == before and not _has_ended(server, 0.01):
                    pass
            _has_ended(server, rng.uniform(0, within))
            os.kill(process, signal.SIGKILL)  # not waited for yet, so it is there, or what is left of it
            if _status(server) == -signal.SIGKILL:
                n_kills += 1
                print(f"kill {n_kills}: {before} lines before, {lines_of(journal)} after", flush=True)
            else:
                ends.append(digest(target) == whole)
                target.unlink()
        _answer(server)
        _status(server)
    ids = pq.read_table(target, columns=["id"])["id"].to_numpy()
    return {
        "kills": n_kills,
        "outputs equal to the uninterrupted one": [*ends, digest(target) == whole],
        "every row once, in order": bool(
            len(ids) == pq.read_metadata(folder / "docs.parquet").num_rows and (np.diff(ids) == 1).all()
        ),
        "left over": sorted(path.name for path in folder.iterdir() if path.name.startswith(".")),
    }


def _answer(server: subprocess.Popen[bytes]) -> bytes:
    """What the server says to a line."""
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(b"\n")
    return server.stdout.readline()


def _has_ended(server: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether the process that the server started ends by itself within some seconds."""
    assert server.stdout is not None
    return bool(select.select([server.stdout], [], [], seconds)[0])


def _status(server: subprocess.Popen[bytes]) -> int:
    """How the process ended, as subprocess says it; it is an error if it failed by itself."""
    assert server.stdout is not None
    server.stdout.readline()
    status = os.waitstatus_to_exitcode(int(_answer(server)))
    if status not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the transform failed by itself, with status {status}; it said why on standard error")
    return status


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the files: some 8 GB for the default size; they stay there")
    parser.add_argument("--rows", type=int, default=2_000_000, help="documents (default: 2000000)")
    parser.add_argument("--width", type=int, default=512, help="numbers in a vector (default: 512)")
    parser.add_argument(
        "--repeats", type=int, default=1, help="runs of each; 0 where they were run before (default: 1)"
    )
    parser.add_argument("--kills", type=int, default=0, help="kill the transform so many times (default: 0)")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    if not (options.folder / "docs.parquet").exists():
        draw(options.folder / "docs.parquet", options.rows, options.width)
    if options.repeats:
        found = throughput(options.folder, options.rows, options.width, options.repeats)
        print(json.dumps(found, indent=2), flush=True)
    if options.kills:
        print(json.dumps(killed(options.folder, options.kills), indent=2))


if __name__ == "__main__":
    main()
