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
from functools import partial
from pathlib import Path

from benchmarks._curves import curve_parser, run
from benchmarks._reproduction import Calibration, Data, Judged, sampled
from benchmarks.ucurve import UCurve, add_repeats
from grclip.datasets import Dataset, load_clotho, load_msvd, load_nights

MODELS = {"MSVD": "X-CLIP", "Clotho": "CLAP", "NIGHTS": "CLIP-B/16"}
"""What encodes a dataset, unless another model of pictures does."""

N_CALIBRATION = 2_500
"""Rows of the training split."""

N_NIGHTS = 1_000
"""Pairs of NIGHTS that are searched, as many as in the paper, which does not say how it chose them."""

LOADERS: Mapping[str, tuple[Callable[[Path], Dataset], Callable[[Path], Dataset]]] = {
    "MSVD": (load_msvd, partial(load_msvd, split="train")),
    "Clotho": (load_clotho, partial(load_clotho, split="development")),
    "NIGHTS": (load_nights, partial(load_nights, split="train")),
}
"""What is searched, and its training split."""


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
        return data.made(dataset, lambda: searched(dataset, self.folder(dataset)))

    def calibrated(self, data: Data, dataset: str, how: str) -> Calibration | None:
        """The training split, or the data themselves; there is no other dataset of a kind."""
        if how == "cross-dataset":
            raise ValueError(f"there is no second dataset of the kind of {dataset} to learn from")
        if how != "training":
            return super().calibrated(data, dataset, how)
        _, training = LOADERS[dataset]
        folder = self.folder(dataset)
        rows = data.made(f"{dataset} training", lambda: sampled(training(folder), N_CALIBRATION, N_CALIBRATION))
        return Calibration([rows], rows.asked)

    def folder(self, dataset: str) -> Path:
        """Where a dataset lies."""
        return Path(self.arguments.root or "ROOT") / dataset.lower()


def searched(dataset: str, folder: Path) -> Dataset:
    """The split of a dataset that is searched: of NIGHTS as many pairs as in the paper, where there are more."""
    found = LOADERS[dataset][0](folder)
    more = dataset == "NIGHTS" and len(found.task) > N_NIGHTS
    return load_nights(folder, n=N_NIGHTS) if more else found


def main(argv: Sequence[str] = ()) -> int:
    made = curve_parser(__doc__, Media.datasets)
    add_repeats(made)
    made.set_defaults(models=list(MODELS.values()), calibrations=["training", "transductive"])
    arguments = made.parse_args(argv)
    return run(arguments, [Media(arguments, [("ndcg", 10)])])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
