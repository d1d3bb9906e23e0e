"""Figure 5 of the paper: the U-curve with videos, sounds, and pictures to ask with: ``python -m benchmarks.media``.

MSVD (captions ask for captions and videos), Clotho (captions ask for captions and sounds) and NIGHTS (pictures ask for
titles and pictures), each with its own model: X-CLIP, CLAP and CLIP-B/16. Texts of the corpus are replaced, with
probability p, by what they describe; raw vectors, pushed down, means removed and one scale, as in
``benchmarks.ucurve``.

Means and spreads come from 2,500 rows of the training split, as in the paper's Appendix B, and from the data themselves
(transductive). The paper's ViCLIP is in none of the libraries that we read; X-CLIP stands in for it. Its second
captions and its titles were chosen and written by a language model; ours are chosen by number, or the prompts of
NIGHTS.

What cannot be measured here is listed at the end with what is missing. ``--toy 40`` runs NIGHTS on drawn scenes, and
the others where ``--checkpoint CLAP=FOLDER X-CLIP=FOLDER`` says with which models.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._arguments import prepare
from benchmarks._calibration import N_OTHERS, Calibration
from benchmarks._curves import curve_parser, run
from benchmarks._data import Data, Judged, sampled
from benchmarks.ucurve import UCurve, add_repeats
from grclip.datasets import Dataset, load_clotho, load_msvd, load_nights

MODELS = {"MSVD": "X-CLIP", "Clotho": "CLAP", "NIGHTS": "CLIP-B/16"}
"""What encodes a dataset, unless another model of pictures does."""

N_NIGHTS = 1_000
"""Pairs of NIGHTS that are searched, as many as in the paper, which does not say how it chose them."""

LOADERS: Mapping[str, tuple[Callable[..., Dataset], str, str]] = {
    "MSVD": (load_msvd, "test", "train"),
    "Clotho": (load_clotho, "validation", "development"),
    "NIGHTS": (load_nights, "test", "train"),
}
"""What reads a dataset, the split that is searched, and the one that means are taken of."""


class Media(UCurve):
    """Scores along p where documents have sounds or videos, or pictures ask."""

    name = "media"
    title = "Figure 5: texts replaced with probability p, by modality"
    datasets = tuple(LOADERS)

    def serves(self, model: str, dataset: str) -> bool:
        """Whether a model encodes what a dataset holds: sounds and videos have one each."""
        special = {MODELS[name] for name in ("MSVD", "Clotho")}
        return model == MODELS[dataset] if dataset != "NIGHTS" else model not in special

    def judged(self, data: Data, dataset: str) -> Judged:
        """The split that is searched."""
        return data.made(dataset, lambda: self.loaded(dataset, LOADERS[dataset][1], N_NIGHTS))

    def calibrated(self, data: Data, dataset: str, how: str) -> Calibration | None:
        """The training split, or the data themselves; there is no other dataset of a kind."""
        if how != "training":
            return super().calibrated(data, dataset, how)
        name = f"{dataset} {LOADERS[dataset][2]}"
        rows = data.made(name, lambda: sampled(self.loaded(dataset, LOADERS[dataset][2], N_OTHERS), N_OTHERS, N_OTHERS))
        return Calibration([rows], rows.asked)

    def loaded(self, dataset: str, split: str, n: int) -> Dataset:
        """A split of a dataset; of NIGHTS, whose pictures are many, as many pairs as are needed."""
        load, folder = LOADERS[dataset][0], Path(self.arguments.root or "ROOT") / dataset.lower()
        options: dict[str, Any] = {"split": split, "check_counts": not self.arguments.unpublished}
        if dataset != "NIGHTS" or self.arguments.toy:
            return load(folder, **options)
        return load(folder, n=n, **options)


def main(argv: Sequence[str] = ()) -> int:
    made = curve_parser(__doc__, Media.datasets, list(MODELS.values()), ["training", "transductive"])
    add_repeats(made)
    arguments = prepare(made, argv)
    return run(arguments, [Media(arguments, [("ndcg", 10)])])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
