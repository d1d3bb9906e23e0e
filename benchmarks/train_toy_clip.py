"""Train the very small CLIP that comes with grclip, on drawn scenes: ``python -m benchmarks.train_toy_clip FOLDER``.

2,500 steps of 128 pictures take about eleven minutes on one core of an AMD EPYC. The package has what the defaults
give. ``python -m benchmarks.toy FOLDER ...`` measures what came out; ``docs/benchmarks.md`` compares three seeds, and
another recipe, which closes the gap.

The loss is open_clip's contrastive loss and nothing else. Two things keep a gap: a temperature of 0.01, where the
training of large models ends and where it stays here, and captions that leave out a part of what is seen.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm, trange

from grclip.datasets.toy import Scene, alone, combinations, document_of, draw_scene, picture_of, query_of

MODEL: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64, "head_width": 32, "patch_size": None},
    "text_cfg": {"context_length": 48, "width": 96, "heads": 3, "layers": 2},
}
CONFIG, MERGES, WEIGHTS = "open_clip_config.json", "merges.txt.gz", "open_clip_model.safetensors"


def caption_of(scene: Scene, rng: np.random.RandomState, leave_out: float) -> str:
    """What a training picture is paired with: in query or in document style, often a part of what is seen."""
    if rng.random_sample() < 0.5:
        return document_of(scene, rng, leave_out)
    if rng.random_sample() >= leave_out:
        return query_of(scene, rng)
    names = [thing.name for thing in scene.things[:2]]
    rng.shuffle(names)
    return " and ".join(names[: rng.randint(1, 3)])


def draw_training_scenes(n: int, rng: np.random.RandomState) -> list[Scene]:
    """Scenes of combinations that are not held out; one in six shows only one of its things."""
    pool = combinations(held_out=False)
    scenes = [draw_scene(rng, pool[rng.randint(len(pool))], held_out=False) for _ in trange(n, desc="scenes")]
    return [alone(scene, rng.randint(2)) if rng.random_sample() < 1 / 6 else scene for scene in scenes]


def learn_merges(texts: list[str], n: int) -> list[tuple[str, str]]:
    """Byte pair encoding of lower-case English words: the most frequent pair first, ties by alphabet."""
    counts = Counter(word for text in texts for word in re.findall(r"[a-z]+", text.lower()))
    words = {word: (*word[:-1], word[-1] + "</w>") for word in counts}
    merges: list[tuple[str, str]] = []
    while len(merges) < n:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, symbols in words.items():
            for pair in pairwise(symbols):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = {word: _merge(symbols, best) for word, symbols in words.items()}
    return merges


def _merge(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    for symbol in symbols:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return tuple(out)


def write_model_files(folder: Path, texts: list[str]) -> None:
    """The files beside the weights: open_clip's configuration, and the merges of its own tokenizer."""
    merges = learn_merges(texts, 400)
    lines = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)])
    (folder / MERGES).write_bytes(gzip.compress(lines.encode(), mtime=0))
    text = MODEL["text_cfg"] | {"vocab_size": 514 + len(merges), "tokenizer_kwargs": {"bpe_path": MERGES}}
    config = {"model_cfg": MODEL | {"text_cfg": text}, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def learning_rate(step: int, steps: int, peak: float = 2e-3, warm_up: int = 200) -> float:
    """Linear warm-up, then half a cosine."""
    return peak * min(step / warm_up, 0.5 + 0.5 * math.cos(math.pi * step / steps))


def train(
    folder: Path, *, steps: int, seed: int, n_scenes: int, temperature: float, learned: bool, leave_out: float
) -> None:
    """Contrastive training and nothing else; writes a checkpoint that ``local-dir:FOLDER`` loads."""
    torch.manual_seed(seed)
    rng = np.random.RandomState(seed)
    folder.mkdir(parents=True, exist_ok=True)
    scenes = draw_training_scenes(n_scenes, rng)
    write_model_files(folder, [document_of(scene, rng) + " " + query_of(scene, rng) for scene in scenes])
    name = f"local-dir:{folder}"
    model, _, preprocess = open_clip.create_model_and_transforms(name, load_weights=False)
    tokenize = open_clip.get_tokenizer(name, bpe_path=str(folder / MERGES))
    pictures = torch.stack([preprocess(picture_of(scene, 128)) for scene in tqdm(scenes, desc="pictures")]).half()

    model.logit_scale.data.fill_(math.log(1 / temperature))
    model.logit_scale.requires_grad_(learned)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1, betas=(0.9, 0.98))
    contrastive = open_clip.ClipLoss()
    model.to(memory_format=torch.channels_last).train()
    for step in (progress := trange(1, steps + 1, desc="steps", mininterval=30)):
        rows = rng.choice(n_scenes, 128, replace=False)
        captions: Tensor = tokenize([caption_of(scenes[row], rng, leave_out) for row in rows])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        loss = contrastive(*model(pictures[rows].float().contiguous(memory_format=torch.channels_last), captions))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        progress.set_postfix(loss=f"{loss.item():.3f}", scale=f"{model.logit_scale.exp().item():.0f}", refresh=False)
    weights = {key: (value.half() if value.is_floating_point() else value) for key, value in model.state_dict().items()}
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / WEIGHTS)
    sums = (
        f"{hashlib.sha256((folder / file).read_bytes()).hexdigest()}  {file}\n" for file in (CONFIG, MERGES, WEIGHTS)
    )
    (folder / "SHA256SUMS").write_text("".join(sums))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=30_000)
    parser.add_argument("--temperature", type=float, default=0.01, help="of the softmax (0.01)")
    parser.add_argument("--learned", action="store_true", help="learn the temperature, rather than keep it")
    parser.add_argument("--leave-out", type=float, default=0.4, help="share of statements left out (0.4)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train(
        options.folder,
        steps=options.steps,
        seed=options.seed,
        n_scenes=options.scenes,
        temperature=options.temperature,
        learned=options.learned,
        leave_out=options.leave_out,
    )


if __name__ == "__main__":
    main()
