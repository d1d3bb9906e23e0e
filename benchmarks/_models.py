"""The models of the paper's Table 1, as encoders, and the toy model that stands in for them without a download."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grclip.encoders import OpenCLIPEncoder, TransformersEncoder, VLM2VecEncoder, toy_encoder
from grclip.encoders._base import BaseEncoder


@dataclass(frozen=True)
class Checkpoint:
    """A model as one of our encoders loads it."""

    family: Callable[..., BaseEncoder]
    name: str
    pretrained: str | None = None

    def encoder(self, **options: Any) -> BaseEncoder:
        """The encoder; nothing is loaded yet."""
        arguments = (self.name,) if self.pretrained is None else (self.name, self.pretrained)
        return self.family(*arguments, **options)


CHECKPOINTS: Mapping[str, Checkpoint] = {
    "CLIP-B/16": Checkpoint(OpenCLIPEncoder, "ViT-B-16", "openai"),
    "CLIP-L/14": Checkpoint(OpenCLIPEncoder, "ViT-L-14", "openai"),
    "OpenCLIP-B/16": Checkpoint(OpenCLIPEncoder, "ViT-B-16", "laion2b_s34b_b88k"),
    "OpenCLIP-L/14": Checkpoint(OpenCLIPEncoder, "ViT-L-14", "laion2b_s32b_b82k"),
    "SigLIP-400m": Checkpoint(TransformersEncoder, "google/siglip-so400m-patch14-384"),
    "VLM2Vec(LLaVANext)": Checkpoint(VLM2VecEncoder, "TIGER-Lab/VLM2Vec-LLaVa-Next"),
    "VLM2Vec(Qwen)": Checkpoint(VLM2VecEncoder, "TIGER-Lab/VLM2Vec-Qwen2VL-7B"),
    "CLAP": Checkpoint(TransformersEncoder, "laion/clap-htsat-unfused"),
    "X-CLIP": Checkpoint(TransformersEncoder, "microsoft/xclip-base-patch32"),
}
"""By name: those of Table 1, and one for sounds and one for videos.

The paper's list of checkpoints has lost its links; which of LAION's, and SigLIP at 384 pixels, is as in its code.
"""

TOY = "toy"
"""Comes with the package, knows drawn scenes only, and is in no table of the paper."""


def encoder_of(model: str, places: Mapping[str, str], **options: Any) -> BaseEncoder:
    """The encoder of a model, from a place of the user's own (a folder, or a name on the hub) where one is given."""
    if model == TOY:
        return toy_encoder(**options)
    checkpoint = CHECKPOINTS[model]
    if model not in places:
        return checkpoint.encoder(**options)
    place = places[model]
    if checkpoint.family is OpenCLIPEncoder and not place.startswith(("local-dir:", "hf-hub:")):
        place = f"{'local-dir' if Path(place).is_dir() else 'hf-hub'}:{place}"
    return checkpoint.family(place, **options)
