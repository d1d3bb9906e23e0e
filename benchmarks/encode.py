"""What the encoder costs beside a plain open_clip loop: ``python -m benchmarks.encode [--workers N]``.

Encodes 2,000 drawn pictures with the toy model and with a randomly initialised ViT-B-32, by OpenCLIPEncoder and by the
loop that everybody writes (a DataLoader over the pictures, batches through the model, vectors to unit length), with the
same batch size and worker processes; and the same pictures again as preprocessed tensors in memory, through a loop over
slices of one tensor. Both sides alternate; the figure is the ratio of their median times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from grclip.datasets import make_scenes
from grclip.encoders import OpenCLIPEncoder, toy_encoder

N_PICTURES, BATCH = 2000, 64


class Pictures(Dataset[Tensor]):
    """Pictures, preprocessed when asked for."""

    def __init__(self, pictures: Sequence[Any], preprocess: Callable[[Any], Tensor]) -> None:
        self.pictures, self.preprocess = pictures, preprocess

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int) -> Tensor:
        return self.preprocess(self.pictures[i])


@torch.no_grad()
def plain_loop(module: Any, batches: Any) -> Tensor:
    return torch.cat([torch.nn.functional.normalize(module.encode_image(batch), dim=1) for batch in batches])


def random_checkpoint(folder: Path, name: str) -> str:
    """A randomly initialised model of open_clip, on disk."""
    torch.manual_seed(0)
    weights = {key: value.contiguous() for key, value in open_clip.create_model(name).state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return f"local-dir:{folder}"


def ratio(ours: Callable[[], Any], plain: Callable[[], Any], repeats: int) -> tuple[float, float, float]:
    """Median seconds of both, and the ratio; they take turns, after a first round that is not counted."""
    times: dict[Callable[[], Any], list[float]] = {ours: [], plain: []}
    for turn in range(repeats + 1):
        for run in (ours, plain) if turn % 2 else (plain, ours):
            start = time.perf_counter()
            run()
            times[run].append(time.perf_counter() - start)
    one, other = (statistics.median(found[1:]) for found in times.values())
    return one, other, one / other


def measure(name: str, encoder: OpenCLIPEncoder, pictures: list[Any], workers: list[int], repeats: int) -> None:
    """Print a line for tensors in memory, and one for pictures with each number of worker processes."""
    encoder.set_params(batch_size=BATCH, progress=False)
    model: Any = encoder._model()
    dataset = Pictures(pictures, model.preprocess)
    tensor = torch.stack([dataset[i] for i in range(len(dataset))])
    found = torch.from_numpy(encoder.transform({"image": pictures})["image"])
    assert torch.allclose(found, plain_loop(model.module, tensor.split(BATCH)), atol=1e-4)

    def line(source: str, ours: Callable[[], Any], plain: Callable[[], Any]) -> None:
        one, other, quotient = ratio(ours, plain, repeats)
        print(f"| {name} | {source} | {one:.2f} s | {other:.2f} s | {quotient:.3f} |", flush=True)

    line(
        "tensors in memory",
        lambda: encoder.transform({"image": list(tensor)}),
        lambda: plain_loop(model.module, tensor.split(BATCH)),
    )

    def plain_pictures(n: int) -> Tensor:
        return plain_loop(model.module, DataLoader(dataset, BATCH, num_workers=n))

    for n in workers:
        encoder.set_params(num_workers=n)
        line(
            f"PIL images, {n} workers",
            lambda: encoder.transform({"image": pictures}),
            partial(plain_pictures, n),
        )


def main(arguments: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="worker processes (0 and 2)")
    parser.add_argument("--pictures", type=int, default=N_PICTURES)
    parser.add_argument("--models", nargs="+", default=["toy", "ViT-B-32"], help="toy, or names of open_clip")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (3); the toy model takes thrice as many")
    options = parser.parse_args(arguments)
    pictures = list(make_scenes(options.pictures, random_state=0)[0].corpus["image"])
    print("| model | pictures | OpenCLIPEncoder | plain loop | ratio |\n|---|---|---|---|---|")
    for name in options.models:
        if name == "toy":
            measure(name, toy_encoder(), pictures, options.workers, 3 * options.repeats)
        else:
            with tempfile.TemporaryDirectory() as folder:
                encoder = OpenCLIPEncoder(random_checkpoint(Path(folder), name))
                measure(f"{name}, random weights", encoder, pictures, options.workers, options.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
