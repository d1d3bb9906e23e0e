"""What the paper reports: the figures of its Table 1, as numbers (``table1.csv`` beside this file)."""

from __future__ import annotations

import csv
from pathlib import Path

SUBSETS = ("Google_WIT", "MSCOCO", "OVEN", "VisualNews")
"""In the order of the table."""

METRICS = ("ndcg@10", "ndcg@100", "recall@1")
"""In the order of its cells."""

MODELS = (
    "CLIP-B/16",
    "CLIP-L/14",
    "OpenCLIP-B/16",
    "OpenCLIP-L/14",
    "SigLIP-400m",
    "VLM2Vec(LLaVANext)",
    "VLM2Vec(Qwen)",
)

PREFIX = {"raw": "", "means removed": "GR-"}
"""How the table writes a model under each of our methods; it has no row for one scale."""

Scores = dict[str, float]


def paper_table() -> dict[tuple[str, str, str], Scores]:
    """Scores by model, method and subset."""
    with open(Path(__file__).with_name("table1.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    methods = {f"{prefix}{model}": (model, method) for method, prefix in PREFIX.items() for model in MODELS}
    return {
        (*methods[row["method"]], row["subset"]): {metric: float(row[metric]) for metric in METRICS} for row in rows
    }
