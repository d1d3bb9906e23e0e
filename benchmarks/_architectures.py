"""The models of the paper's Table 1 without weights, and what a forward pass of each costs.

Modules stand on torch's meta device, where a tensor has a shape and no numbers: a model of eight billion parameters
takes no memory, and its real ``forward`` runs in a second. torch's `FlopCounterMode` counts what it does: matrix
products, convolutions and attention, two operations for each multiply-accumulate, and the whole square of attention
even where a causal mask throws half of it away. Elementwise work (activations, norms, softmax) is not counted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from grclip._optional import optional_import

CLIPS = {
    "CLIP-B/16": "ViT-B-16",
    "CLIP-L/14": "ViT-L-14",
    "OpenCLIP-B/16": "ViT-B-16",
    "OpenCLIP-L/14": "ViT-L-14",
    "SigLIP-400m": "ViT-SO400M-14-SigLIP-384",
}
"""Dual encoders of Table 1, and what open_clip calls their architectures."""

PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
"""Heights and widths that LLaVA-NeXT cuts a picture to: config.json of llava-hf/llava-v1.6-mistral-7b-hf."""

LLAVA_TEXT = {
    "vocab_size": 32064,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "sliding_window": None,
}
"""Mistral-7B: ``text_config`` there, and what it leaves to the defaults of MistralConfig."""

LLAVA_VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
"""CLIP ViT-L/14 at 336 pixels: ``vision_config`` there."""

QWEN_TEXT = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
}
"""Qwen2-7B: config.json of Qwen/Qwen2-VL-7B-Instruct."""

QWEN_VISION = {
    "depth": 32,
    "embed_dim": 1280,
    "hidden_size": 3584,
    "num_heads": 16,
    "mlp_ratio": 4,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
"""``vision_config`` there, and what it leaves to the defaults of Qwen2VLVisionConfig."""

QWEN_PIXELS = {"min_pixels": 3136, "max_pixels": 12845056}
"""preprocessor_config.json of Qwen/Qwen2-VL-7B-Instruct."""


LLAVA_CODE = ".models.llava_next.modeling_llava_next"
QWEN_CODE = ".models.qwen2_vl.image_processing_qwen2_vl"


class Picture(NamedTuple):
    """What a picture costs before the language model, and how many of its tokens it becomes."""

    flops: int
    tokens: int


def transformers_module(name: str = "") -> Any:
    return optional_import(f"transformers{name}", "transformers", "benchmarks.compute")


def on_meta(build: Callable[[], nn.Module]) -> Any:
    """A module without numbers, as it is when it only encodes."""
    with torch.device("meta"):
        return build().eval().requires_grad_(False)


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def counted(call: Callable[[], Any]) -> tuple[int, Any]:
    """Floating-point operations of a call, and what it returns."""
    with FlopCounterMode(display=False) as counter:
        result = call()
    return int(counter.get_total_flops()), result


def parameters_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class DualEncoder:
    """A CLIP or SigLIP: one tower for texts, cut or padded to one length, and one for pictures of one size."""

    def __init__(self, architecture: str) -> None:
        open_clip = optional_import("open_clip", "open-clip", "benchmarks.compute")
        config = open_clip.get_model_config(architecture)
        kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
        self.width = int(config["embed_dim"])
        self.context_length, self.image_size = config["text_cfg"]["context_length"], config["vision_cfg"]["image_size"]
        self.module = on_meta(lambda: kind(**config))
        self.parameters = parameters_of(self.module)

    def text(self) -> int:
        """Operations for a text, which is the same whatever its length."""
        return counted(lambda: self.module.encode_text(empty(1, self.context_length, dtype=torch.long)))[0]

    def picture(self) -> int:
        """Operations for a picture, which is the same whatever its size."""
        return counted(lambda: self.module.encode_image(empty(1, 3, self.image_size, self.image_size)))[0]


class VisionLanguage(ABC):
    """A decoder that reads words and pictures in one sequence, without its language head."""

    def __init__(self, config: Any) -> None:
        transformers = transformers_module()
        self.module = on_meta(lambda: transformers.AutoModel.from_config(config, attn_implementation="sdpa"))
        self.width = int(config.get_text_config().hidden_size)
        self.parameters = parameters_of(self.module)

    def sequence(self, tokens: int) -> int:
        """Operations of the decoder for one sequence."""
        mask = empty(1, 1, tokens, tokens, dtype=torch.bool)  # given, as nothing can be read from one that is made
        inputs = {"inputs_embeds": empty(1, tokens, self.width), "attention_mask": mask, "use_cache": False}
        return counted(lambda: self.module.language_model(**inputs))[0]

    @abstractmethod
    def picture(self, height: int, width: int) -> Picture:
        """Operations from pixels to tokens of the decoder."""


class LlavaNext(VisionLanguage):
    """LLaVA-NeXT on Mistral-7B, the backbone of TIGER-Lab/VLM2Vec-LLaVa-Next."""

    def __init__(self) -> None:
        transformers = transformers_module()
        super().__init__(
            transformers.LlavaNextConfig(
                vision_config=transformers.CLIPVisionConfig(**LLAVA_VISION),
                text_config=transformers.MistralConfig(**LLAVA_TEXT),
                image_grid_pinpoints=PINPOINTS,
            )
        )

    def picture(self, height: int, width: int) -> Picture:
        """The whole picture in one crop, and its parts, by the best grid of crops, in others."""
        side = LLAVA_VISION["image_size"]
        crops = transformers_module(LLAVA_CODE).image_size_to_num_patches([height, width], PINPOINTS, side)
        pixels = empty(1, crops, 3, side, side)
        flops, found = counted(lambda: self.module.get_image_features(pixels, [[height, width]]))
        return Picture(flops, len(found.pooler_output[0]))


class Qwen2VL(VisionLanguage):
    """Qwen2-VL-7B, the backbone of TIGER-Lab/VLM2Vec-Qwen2VL-7B."""

    def __init__(self) -> None:
        transformers = transformers_module()
        super().__init__(transformers.Qwen2VLConfig(text_config=QWEN_TEXT, vision_config=QWEN_VISION))

    def picture(self, height: int, width: int) -> Picture:
        """A picture in about its own size: patches of 14 pixels, and a token for four of them."""
        rows, columns = self.grid(height, width)
        n_patches, vision = rows * columns, self.module.visual.config
        pixels = empty(n_patches, vision.in_channels * vision.temporal_patch_size * vision.patch_size**2)
        places = {"position_ids": empty(n_patches, 2, dtype=torch.long), "cu_seqlens": torch.tensor([0, n_patches])}
        grid = torch.tensor([[1, rows, columns]])
        flops, found = counted(lambda: self.module.visual(pixels, grid_thw=grid, **places))
        return Picture(flops, len(found.pooler_output))

    @staticmethod
    def grid(height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches."""
        patch = QWEN_VISION["patch_size"]
        token = patch * QWEN_VISION["spatial_merge_size"]
        height, width = transformers_module(QWEN_CODE).smart_resize(height, width, token, **QWEN_PIXELS)
        return height // patch, width // patch


VLMS: dict[str, Callable[[], VisionLanguage]] = {"VLM2Vec(LLaVANext)": LlavaNext, "VLM2Vec(Qwen)": Qwen2VL}
"""Vision-language models of Table 1."""
