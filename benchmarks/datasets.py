"""What loading a dataset costs: ``python -m benchmarks.datasets``.

Writes a folder in the layout of MixBench25 with 1,000 queries and 4,421 documents, as many as Google_WIT has, of which
two in three have a picture; loads it several times; and prints the median of the seconds that takes, and how many files
of pictures were opened.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from grclip.datasets import load_mixbench
from grclip.datasets._writing import write_file, write_qrels, write_records
from grclip.datasets.mixbench import PUBLISHED, QRELS

SUBSET = "Google_WIT"
REPEATS = 7
WORDS = "an article on a place of which there is a photograph taken from afar on a clear day "
PICTURE = bytes(range(256)) * 80
"""As large as a small photograph, and none: whoever decoded it would fail."""


def write_folder(root: Path) -> None:
    """A folder with as many queries and documents as Google_WIT has, in kinds 1:1:1."""
    n_queries, n_documents = PUBLISHED[SUBSET]
    folder = root / SUBSET
    texts = [f"{row}: {WORDS * (1 + row % 7)}" for row in range(n_documents)]
    images = [f"images/{row}.jpg" for row in range(n_documents)]
    for row in range(n_documents):
        if row % 3 != 0:
            write_file(folder / images[row], PICTURE)
    documents = [
        {
            "corpus_id": f"d{row}",
            "text": texts[row] if row % 3 != 1 else None,
            "image": images[row] if row % 3 != 0 else None,
        }
        for row in range(n_documents)
    ]
    write_records(folder / "mixed_corpus.jsonl", documents)
    queries = [{"query_id": f"q{row}", "text": texts[row], "image": None} for row in range(n_queries)]
    write_records(folder / "queries.jsonl", queries)
    write_qrels(folder / "qrels" / "qrels.tsv", QRELS, [{row: 1} for row in range(n_queries)])


@contextmanager
def opened_under(folder: Path) -> Iterator[list[str]]:
    """The files under a folder that are opened meanwhile; Python keeps the hook, which then does nothing."""
    files: list[str] = []
    watching = True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            name = os.fsdecode(arguments[0])
            if name.startswith(f"{folder}{os.sep}"):
                files.append(name)

    sys.addaudithook(hook)
    try:
        yield files
    finally:
        watching = False


def mixbench_cost() -> tuple[float, int]:
    """Median seconds of loading the folder, and files of pictures opened."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_folder(root)
        with opened_under(root / SUBSET / "images") as pictures:
            load_mixbench(SUBSET, root)
        seconds = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            load_mixbench(SUBSET, root)
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), len(pictures)


def main(arguments: Sequence[str] = ()) -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args(arguments)
    seconds, n_opened = mixbench_cost()
    size = f"{PUBLISHED[SUBSET][1]:,} documents in the layout of MixBench25"
    print(f"{size}: {seconds:.3f} s (median of {REPEATS}), {n_opened} pictures opened")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
