"""What loading a dataset, and drawing its texts as pages, costs: ``python -m benchmarks.datasets``.

Writes a folder in the layout of MixBench25 with 1,000 queries and 4,421 documents, as many as Google_WIT has, of which
two in three have a picture; loads it several times; and prints the median of the seconds that takes, and how many files
of pictures were opened. Then draws abstracts of 200 to 250 words to PNG files on one core, twice: the second time they
are there.
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

import numpy as np

from grclip import Items
from grclip.datasets import load_mixbench, render_screenshots
from grclip.datasets._writing import write_file, write_qrels, write_records
from grclip.datasets.mixbench import KINDS, PUBLISHED, QRELS

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
    n_texts, n_pictures = KINDS[SUBSET]["text"], KINDS[SUBSET]["image"]  # in this order, and then both
    images = [f"images/{row}.jpg" if row >= n_texts else None for row in range(n_documents)]
    for image in images:
        if image is not None:
            write_file(folder / image, PICTURE)
    documents = [
        {"corpus_id": f"d{row}", "text": None if 0 <= row - n_texts < n_pictures else texts[row], "image": images[row]}
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


def abstracts(n: int) -> list[str]:
    """Texts of 200 to 250 words of various lengths, no two alike."""
    rng = np.random.default_rng(0)
    vocabulary = ["".join(rng.choice(list("aeionrstlcdmpu"), size)) for size in rng.integers(2, 12, 3000)]
    return [f"{row}. {' '.join(rng.choice(vocabulary, rng.integers(200, 251)))}." for row in range(n)]


def pages_cost(n: int) -> tuple[float, float, float]:
    """Seconds of drawing n abstracts, megabytes of their files, and seconds of finding them there."""
    documents, seconds = Items({"text": abstracts(n)}), []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            start = time.perf_counter()
            pages = render_screenshots(documents, folder=folder)["screenshot"]
            seconds.append(time.perf_counter() - start)
        size = sum(Path(page).stat().st_size for page in pages) / 1e6
    return seconds[0], size, seconds[1]


def main(arguments: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pages", type=int, default=5000, help="abstracts to draw (default: 5,000)")
    n_pages = parser.parse_args(arguments).pages
    seconds, n_opened = mixbench_cost()
    size = f"{PUBLISHED[SUBSET][1]:,} documents in the layout of MixBench25"
    print(f"{size}: {seconds:.3f} s (median of {REPEATS}), {n_opened} pictures opened")
    drawn, megabytes, found = pages_cost(n_pages)
    print(f"{n_pages:,} abstracts drawn as pages: {drawn:.1f} s, {megabytes:.0f} MB; found there again: {found:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
