"""What encoding and calibration cost in each model of the paper's Table 1: ``python -m benchmarks.compute``.

Counts floating-point operations on the real architectures without weights, offline and without their memory, and prints

- a table of operations for each query and document;
- the ratio of VLM2Vec to each dual encoder, beside the paper's "75x", and which of them come near it;
- the cost of calibration: in a document, and to learn means and spreads, as shares of encoding.

An operation is an addition or a multiplication, so a multiply-accumulate is two. Where the size of a picture matters,
in VLM2Vec, it is 640 by 480 pixels, and beside that the 1344 by 1344 that the paper's scripts made of every picture.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks._architectures import CLIPS, VLMS, DualEncoder, VisionLanguage
from grclip._optional import optional_import
from grclip._spread import SAMPLE
from grclip.encoders.vlm2vec import DOCUMENTS, JOINT, PROMPTS

CLAIM = 75
"""How many times less compute the paper's abstract says GR-CLIP takes than VLM2Vec."""

SIZES = {"640x480": (480, 640), "1344x1344": (1344, 1344)}
"""Heights and widths of pictures."""

QUERY = "A man rides a brown horse along the beach at sunset."
TEXT = 77
"""Tokens of a text document: as many as CLIP reads."""

LONG_TEXT = 267
"""Tokens of 200 words, at three words to four tokens; CLIP and SigLIP cut them off."""

TEXTS = ("query", "text", "200 words")
COLUMNS = (*TEXTS, "picture", "both", "1:1:1")
"""A text query; documents; and a document of a corpus that holds as many texts, pictures and both."""

ROWS = 10_000
"""Rows of a role that means are learned from, as in the paper's Appendix B."""

SHIFT = 4
"""Operations on each number of a part: squared and added up for the norm, divided by it, less the mean."""

FUSE = 4
"""Then: squared and added up to see which parts there are, times alpha, plus the others (which the first spares)."""

RESCALE = 3
"""And on each number of the sum: squared and added up, times the inverse of norm and spread."""


@dataclass(frozen=True)
class Model:
    """What a model costs: operations by column; `width` numbers in a vector."""

    parameters: int
    width: int
    flops: dict[str, float]


def tokens(text: str) -> int:
    """About how many tokens a prompt has: by CLIP's vocabulary, as open_clip brings no other; one for a line's end."""
    tokenizer = optional_import("open_clip.tokenizer", "open-clip", "benchmarks.compute").SimpleTokenizer()
    return len(tokenizer.encode(text)) + text.count("\n")


def with_corpus(flops: Mapping[str, float]) -> dict[str, float]:
    """The same with the mean of the kinds of documents."""
    return {**flops, "1:1:1": sum(flops[kind] for kind in ("text", "picture", "both")) / 3}


def dual_encoder(architecture: str) -> Model:
    """A text costs the same whatever its length, a picture whatever its size, and both what each does."""
    encoder = DualEncoder(architecture)
    text, picture = encoder.text(), encoder.picture()
    texts = dict.fromkeys(TEXTS, text)
    return Model(encoder.parameters, encoder.width, with_corpus({**texts, "picture": picture, "both": text + picture}))


def vision_language(encoder: VisionLanguage, height: int, width: int) -> Model:
    """Each item is one sequence, of its prompt, its words and the tokens of its picture."""
    picture = encoder.picture(height, width)
    words = {name: tokens(f"\n{DOCUMENTS[name].replace('{}', '')}") for name in ("image", JOINT)}
    flops = {
        "query": encoder.sequence(tokens(PROMPTS["query"].replace("{}", QUERY))),
        "text": encoder.sequence(TEXT),
        "200 words": encoder.sequence(LONG_TEXT),
        "picture": picture.flops + encoder.sequence(picture.tokens + words["image"]),
        "both": picture.flops + encoder.sequence(picture.tokens + words[JOINT] + TEXT),
    }
    return Model(encoder.parameters, encoder.width, with_corpus(flops))


def clips() -> dict[str, Model]:
    """The dual encoders of Table 1, those of one architecture counted once."""
    found = {architecture: dual_encoder(architecture) for architecture in dict.fromkeys(CLIPS.values())}
    return {name: found[architecture] for name, architecture in CLIPS.items()}


def vlms() -> dict[str, Model]:
    """The vision-language models of Table 1, by name and size of pictures."""
    encoders = {name: build() for name, build in VLMS.items()}
    return {
        f"{name}, {size}": vision_language(encoder, *pixels)
        for name, encoder in encoders.items()
        for size, pixels in SIZES.items()
    }


def ratios(large: Mapping[str, Model], small: Mapping[str, Model]) -> dict[str, dict[str, float]]:
    """How many times the operations of each small model a large one takes, by large model and column."""
    return {
        row_name(name, column): {other: model.flops[column] / small[other].flops[column] for other in small}
        for name, model in large.items()
        for column in COLUMNS
    }


def row_name(name: str, column: str) -> str:
    """A model and a column, with the size of pictures where one is read."""
    model, size = name.split(", ")
    return f"{model}, {column}" if column in TEXTS else f"{model}, {column} {size}"


def verdict(table: Mapping[str, Mapping[str, float]], claim: float = CLAIM) -> list[str]:
    """What the ratios say of the claim, a line each; OpenCLIP's are those of CLIP, and left out."""
    pairs = {
        f"{name} / {other}": ratio
        for name, row in table.items()
        for other, ratio in row.items()
        if not other.startswith("OpenCLIP")
    }
    low, high = min(pairs, key=pairs.__getitem__), max(pairs, key=pairs.__getitem__)
    near = sorted(pairs, key=lambda name: abs(math.log(pairs[name] / claim)))
    return [
        f"{len(pairs)} ratios, from {pairs[low]:,.1f} ({low}) to {pairs[high]:,.1f} ({high});",
        f"{sum(ratio >= claim for ratio in pairs.values())} of them are {claim:g} or more.",
        f"Nearest to {claim:g}: " + "; ".join(f"{name} {pairs[name]:.1f}" for name in near[:5]) + ".",
    ]


def calibration_flops(n_parts: int, width: int) -> int:
    """Operations to subtract means, fuse, normalise and divide by the spread: one document of so many parts."""
    return (n_parts * (SHIFT + FUSE) - 1 + RESCALE) * width


def learning_flops(width: int, rows: int = ROWS, sample: int = SAMPLE) -> int:
    """Operations to learn means of queries, texts and pictures, and spreads of texts, pictures and both."""
    means = 3 * rows * 2 * SHIFT * width  # the sum of unit rows, and then the rows less their mean
    fused = sample * sum(calibration_flops(parts, width) for parts in (1, 1, 1, 2))
    return means + fused + 3 * sample**2 * (2 * width + 3)  # three tables of dot products, and their variance


def calibration(model: Model) -> dict[str, float]:
    """Calibration as shares of encoding: of each kind of document, and of the rows that it is learned from."""
    one, two = (calibration_flops(parts, model.width) for parts in (1, 2))
    encoding = ROWS * (model.flops["query"] + model.flops["text"] + model.flops["picture"])
    return {
        "text": one / model.flops["text"],
        "picture": one / model.flops["picture"],
        "both": two / model.flops["both"],
        "learning": learning_flops(model.width) / encoding,
    }


def print_table(title: str, columns: Iterable[str], rows: Mapping[str, Iterable[str]]) -> None:
    """A Markdown table, numbers to the right."""
    columns = list(columns)
    print(f"\n{title}\n\n| | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")


def print_costs(models: Mapping[str, Model]) -> None:
    """Parameters and GFLOPs of each model, and how many times that is what the cheapest and the dearest CLIP take."""
    cheapest, dearest = "CLIP-B/16", "SigLIP-400m"
    columns = ("parameters (M)", *COLUMNS, f"1:1:1 / {cheapest}", f"1:1:1 / {dearest}")
    rows = {
        name: [
            f"{model.parameters / 1e6:,.0f}",
            *(f"{model.flops[column] / 1e9:,.1f}" for column in COLUMNS),
            *(f"{model.flops['1:1:1'] / models[other].flops['1:1:1']:,.2f}" for other in (cheapest, dearest)),
        ]
        for name, model in models.items()
    }
    print_table("GFLOPs of encoding one item", columns, rows)


def main(arguments: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to it")
    options = parser.parse_args(arguments)
    small, large = clips(), vlms()
    table, shares = ratios(large, small), {name: calibration(model) for name, model in small.items()}
    print_costs(small | large)
    rows = {name: [f"{value:,.1f}" for value in row.values()] for name, row in table.items()}
    print_table(f"VLM2Vec / each CLIP, which the paper says is {CLAIM}", small, rows)
    print("\n" + "\n".join(verdict(table)))
    rows = {name: [f"{share:.1e}" for share in row.values()] for name, row in shares.items()}
    print_table(f"Calibration / encoding; learning is from {ROWS:,} rows a role", next(iter(shares.values())), rows)
    if options.json:
        models = {name: asdict(model) for name, model in (small | large).items()}
        figures = {"claim": CLAIM, "models": models, "ratios": table, "calibration": shares}
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
