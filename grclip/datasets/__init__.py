"""Search tasks: published ones, drawn ones, and ways to mix their documents."""

from grclip.datasets._dataset import Dataset, Description
from grclip.datasets._mixbench_writing import write_mixbench
from grclip.datasets._msvd_writing import write_msvd
from grclip.datasets.beir import load_beir, write_beir
from grclip.datasets.clotho import load_clotho, write_clotho
from grclip.datasets.mixbench import load_mixbench
from grclip.datasets.mixing import keep_kinds, mix_kinds, paper_split, replace_parts
from grclip.datasets.msvd import load_msvd
from grclip.datasets.nights import load_nights, write_nights
from grclip.datasets.screenshots import render_screenshots
from grclip.datasets.toy import make_scenes

__all__ = [
    "Dataset",
    "Description",
    "keep_kinds",
    "load_beir",
    "load_clotho",
    "load_mixbench",
    "load_msvd",
    "load_nights",
    "make_scenes",
    "mix_kinds",
    "paper_split",
    "render_screenshots",
    "replace_parts",
    "write_beir",
    "write_clotho",
    "write_mixbench",
    "write_msvd",
    "write_nights",
]
