"""Operations of the models of Table 1, against published profiles, formulas, and the processors' own counts."""

import contextlib
import io
import json
import math
import re

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import compute
from benchmarks._architectures import PINPOINTS, QWEN_PIXELS, DualEncoder, LlavaNext, Qwen2VL
from grclip._kernels import fuse_rows, shift_rows, sum_rows

TABLE_1 = {
    "CLIP-B/16",
    "CLIP-L/14",
    "OpenCLIP-B/16",
    "OpenCLIP-L/14",
    "SigLIP-400m",
    "VLM2Vec(LLaVANext)",
    "VLM2Vec(Qwen)",
}

PROFILE = {
    "ViT-B-16": (149.62, 35.13, 5.96),
    "ViT-L-14": (427.62, 162.03, 13.3),
    "ViT-SO400M-14-SigLIP-384": (877.96, 670.35, 53.13),
}
"""Millions of parameters, GFLOPs of a picture and of a text: docs/model_profile.csv of open_clip, counted by fvcore."""

VIT_L_14_336 = 381.92e9
"""Operations of the picture tower of LLaVA-NeXT for one crop, from the same file."""


@pytest.fixture(scope="module")
def llava():
    return LlavaNext()


@pytest.fixture(scope="module")
def qwen():
    return Qwen2VL()


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """What the command prints, and what it writes."""
    file, printed = tmp_path_factory.mktemp("compute") / "compute.json", io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert compute.main(["--json", str(file)]) == 0
    return printed.getvalue(), json.loads(file.read_text())


@pytest.mark.parametrize("architecture", PROFILE)
def test_dual_encoders_cost_what_open_clip_publishes(architecture):
    encoder, (millions, picture, text) = DualEncoder(architecture), PROFILE[architecture]
    assert encoder.parameters / 1e6 == pytest.approx(millions, abs=0.01)
    assert encoder.picture() / 1e9 == pytest.approx(picture, abs=0.01)
    assert encoder.text() / 1e9 == pytest.approx(text, abs=0.01)


def test_modules_take_no_memory(llava, qwen):
    for module in (llava.module, qwen.module, DualEncoder("ViT-B-16").module):
        assert {tensor.device.type for tensor in (*module.parameters(), *module.buffers())} == {"meta"}


def test_vision_language_models_have_the_published_sizes(llava, qwen):
    assert (llava.parameters + 32064 * 4096) / 1e9 == pytest.approx(7.57, abs=0.01)  # with the language head
    assert (qwen.parameters + 152064 * 3584) / 1e9 == pytest.approx(8.29, abs=0.01)
    assert sum(p.numel() for p in qwen.module.visual.parameters()) / 1e6 == pytest.approx(675, abs=1)


@pytest.mark.parametrize(
    ("name", "layers", "width", "billions"),
    [("llava", 32, 4096, 7.24 - 2 * 32000 * 4096 / 1e9), ("qwen", 28, 3584, 6.53)],
)
@pytest.mark.parametrize("tokens", [77, 2000])
def test_a_sequence_costs_two_operations_a_parameter_and_the_square_of_attention(
    name, layers, width, billions, tokens, request
):
    decoder = request.getfixturevalue(name)
    attention = 4 * layers * width * tokens**2
    assert decoder.sequence(tokens) == pytest.approx(2 * billions * 1e9 * tokens + attention, rel=0.005)
    assert decoder.sequence(2 * tokens) - 2 * decoder.sequence(tokens) == 2 * attention


def test_llava_next_reads_the_whole_picture_and_four_crops(llava):
    pixels = PIL.Image.new("RGB", (640, 480))
    processor = transformers.LlavaNextImageProcessor(
        size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}, image_grid_pinpoints=PINPOINTS
    )
    crops = processor(pixels, return_tensors="pt")["pixel_values"].shape[1]
    projector = 2 * 24**2 * (1024 * 4096 + 4096 * 4096)
    picture = llava.picture(480, 640)
    assert crops == 5
    assert picture.flops == pytest.approx(crops * (VIT_L_14_336 + projector), rel=0.001)
    assert picture.tokens == 24**2 + 36 * (48 + 1)  # 672 by 504 of four crops, each row with its end
    assert llava.picture(1344, 1344).tokens == 24**2 + 48 * (48 + 1)
    assert llava.picture(1344, 1344).flops == picture.flops


@pytest.mark.parametrize("size", [(640, 480), (1344, 1344), (30, 20), (9000, 6000)])
def test_qwen2_vl_reads_as_many_patches_as_its_processor_makes(size, qwen):
    processor = transformers.Qwen2VLImageProcessor(
        size={"shortest_edge": QWEN_PIXELS["min_pixels"], "longest_edge": QWEN_PIXELS["max_pixels"]}
    )
    pixels = PIL.Image.fromarray(np.zeros(size[::-1], dtype=np.uint8)).convert("RGB")
    grid = processor(pixels, return_tensors="pt")["image_grid_thw"].tolist()
    picture = qwen.picture(*size[::-1])
    patches = math.prod(grid[0])
    assert [1, *qwen.grid(*size[::-1])] == grid[0]
    assert picture.tokens * 4 == patches
    blocks = sum(p.numel() for p in qwen.module.visual.blocks.parameters())
    merger = sum(p.numel() for p in qwen.module.visual.merger.parameters()) / 4
    analytic = 2 * (blocks + merger + 1280 * 2 * 3 * 14**2) * patches + 4 * 32 * 1280 * patches**2
    assert picture.flops == pytest.approx(analytic, rel=0.005)


def test_the_command_prints_every_model_of_table_1(command):
    printed, written = command
    costs = printed.split("\n\n")[1]
    assert {re.split(r", \d", line.split("|")[1].strip())[0] for line in costs.splitlines()[2:]} == TABLE_1
    assert {name.split(",")[0] for name in written["models"]} == TABLE_1
    assert written["claim"] == 75


def test_larger_models_and_longer_documents_cost_more(command):
    models = {name: model["flops"] for name, model in command[1]["models"].items()}
    sizes = ("CLIP-B/16", "CLIP-L/14", "SigLIP-400m", "VLM2Vec(Qwen), 640x480", "VLM2Vec(LLaVANext), 640x480")
    for column in ("picture", "both", "1:1:1"):
        assert sorted(sizes, key=lambda name: models[name][column]) == list(sizes)
    for name, flops in models.items():
        assert flops["query"] <= flops["text"] <= flops["200 words"]
        assert flops["text"] < flops["1:1:1"] < flops["picture"] < flops["both"], name
        assert flops["both"] >= flops["text"] + flops["picture"]
    for name in ("CLIP-B/16", "CLIP-L/14"):
        assert models[f"Open{name}"] == models[name]


def test_printed_ratios_are_those_of_the_printed_costs(command):
    printed, written = command
    large, small = written["models"]["VLM2Vec(Qwen), 1344x1344"], written["models"]["CLIP-L/14"]
    ratio = large["flops"]["both"] / small["flops"]["both"]
    row = next(line for line in printed.splitlines() if line.startswith("| VLM2Vec(Qwen), both 1344x1344"))
    assert row.split("|")[3].strip() == f"{ratio:,.1f}"
    assert written["ratios"]["VLM2Vec(Qwen), both 1344x1344"]["CLIP-L/14"] == ratio


def test_the_verdict_names_the_ratio_nearest_to_the_claim():
    table = {"a": {"CLIP": 10.0, "OpenCLIP": 75.0}, "b": {"CLIP": 70.0, "OpenCLIP": 75.0}, "c": {"CLIP": 300.0}}
    first, second, third = compute.verdict(table)
    assert first == "3 ratios, from 10.0 (a / CLIP) to 300.0 (c / CLIP);"
    assert second == "1 of them are 75 or more."
    assert third.startswith("Nearest to 75: b / CLIP 70.0; c / CLIP 300.0; a / CLIP")


OPERATIONS = {
    "mul": 1,
    "mul_": 1,
    "add": 1,
    "add_": 1,
    "sub": 1,
    "addcmul": 2,
    "addcmul_": 2,
    "mm": 2,
    "bmm": 2,
    "linalg_vector_norm": 2,
}


class Arithmetic(TorchDispatchMode):
    """Counts additions and multiplications of numbers, in the few operators that calibration uses."""

    def __init__(self):
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        sizes = [arg.numel() for arg in args if isinstance(arg, torch.Tensor)]
        self.flops += OPERATIONS.get(func._schema.name.removeprefix("aten::"), 0) * max(sizes, default=0)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("n_parts", [1, 2])
def test_calibration_does_as_many_operations_as_are_counted(n_parts):
    n, d = 64, 512
    parts = [torch.randn(n, d) for _ in range(n_parts)]
    weights = np.full((2**n_parts, n_parts), 1 / n_parts)
    with Arithmetic() as arithmetic:
        for part in parts:
            shift_rows(part, np.zeros(d), normalize=True, out=part)
        fuse_rows(parts, weights, np.ones(2**n_parts), out=torch.empty(n, d))
    assert compute.calibration_flops(n_parts, d) * n == pytest.approx(arithmetic.flops, rel=0.02)


def test_calibration_is_next_to_nothing(command):
    for name, shares in command[1]["calibration"].items():
        assert 0 < max(shares[kind] for kind in ("text", "picture", "both")) < 1e-6, name
        assert 0 < shares["learning"] < 1e-4, name


def test_learning_means_does_as_many_operations_as_are_counted():
    n, d = 64, 512
    part = torch.randn(n, d)
    with Arithmetic() as arithmetic:
        total, _ = sum_rows(part, normalize=True)
        shift_rows(part, -total / n, normalize=True, out=part)
    more = compute.learning_flops(d, rows=2 * n) - compute.learning_flops(d, rows=n)
    assert more == pytest.approx(3 * arithmetic.flops, rel=0.02)  # queries, texts and pictures


def test_learning_spreads_is_mostly_dot_products():
    pairs = compute.learning_flops(512, sample=2000) - compute.learning_flops(512, sample=1000)
    assert pairs == pytest.approx(3 * (2000**2 - 1000**2) * 2 * 512, rel=0.01)
