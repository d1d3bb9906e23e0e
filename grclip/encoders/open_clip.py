"""OpenAI CLIP, OpenCLIP, MetaCLIP, SigLIP, MobileCLIP and others, through open_clip."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grclip._optional import optional_import
from grclip.encoders._base import BaseEncoder
from grclip.encoders._model import PROBES, Model, hub_or_cache

LOCAL = "local-dir:"
PACKAGED = {"toy": Path(__file__).with_name("toy_clip")}
"""Checkpoints that come with the package."""


class OpenCLIPModel(Model):
    """A model of open_clip with its tokenizer and its preprocessing for inference."""

    modalities = ("text", "image")

    def __init__(self, name: str, module: Any, preprocess: Any, tokenizer: Any, config: dict[str, Any]) -> None:
        self.name, self.module, self.preprocess, self.tokenizer = name, module, preprocess, tokenizer
        self.max_tokens = tokenizer.context_length
        size = module.visual.preprocess_cfg["size"]
        self.size = tuple(size) if isinstance(size, tuple | list) else (size, size)
        shape = json.dumps(config | {"text_cfg": config["text_cfg"] | {"tokenizer_kwargs": None}}, sort_keys=True)
        self.preprocessing = f"{shape} {module.visual.preprocess_cfg} {tokenizer(list(PROBES)).tolist()}"

    def prepare(self, modality: str, values: Sequence[Any], prompt: Any) -> Tensor:
        if modality == "text":
            return self.tokenizer(list(values))
        return _stacked([self._pixels(value) for value in values])

    def _pixels(self, value: Any) -> Tensor:
        if not isinstance(value, Tensor):
            return self.preprocess(value)
        if value.shape != (3, *self.size):
            raise ValueError(f"a preprocessed picture is (3, {self.size[0]}, {self.size[1]}); got {list(value.shape)}")
        return value

    def embed(self, modality: str, inputs: Tensor) -> Tensor:
        return self.module.encode_text(inputs) if modality == "text" else self.module.encode_image(inputs)

    def count_tokens(self, text: str) -> int:
        if hasattr(self.tokenizer, "encode"):
            return len(self.tokenizer.encode(text)) + 2
        return len(self.tokenizer.tokenizer(text, verbose=False)["input_ids"])


def _stacked(values: Sequence[Tensor]) -> Tensor:
    """Tensors of one shape as one: a view where they are the rows of one tensor, one after the other, else a copy."""
    first, size = values[0], values[0].numel()
    rows_of_one = first._base is not None and all(
        value._base is first._base
        and value.dtype == first.dtype
        and value.storage_offset() == first.storage_offset() + i * size
        for i, value in enumerate(values)
    )
    if rows_of_one and all(value.is_contiguous() for value in values):
        return first.as_strided((len(values), *first.shape), (size, *first.stride()))
    return torch.stack(list(values))


class OpenCLIPEncoder(BaseEncoder):
    """Encode texts and pictures with a model of open_clip.

    Parameters
    ----------
    model_name : str
        Name of an architecture as open_clip gives it (``"ViT-B-32"``, ``"ViT-SO400M-14-SigLIP"``, ...);
        ``"hf-hub:owner/name"`` for a checkpoint on the Hugging Face hub, ``"local-dir:folder"`` for one on disk.
    pretrained : str, default=None
        Tag of its weights (``"laion2b_s34b_b79k"``, ``"openai"``, ...) or the path of a checkpoint; None where
        ``model_name`` says it all.
    device : str or torch.device, default=None
        Where the model runs; None takes a CUDA device where there is one, else the CPU.
    precision : {"fp32", "bf16", "fp16"}, default="fp32"
        Arithmetic of the model, by autocast. Vectors come out in float32 in any case.
    batch_size : int, default=64
        Values in one pass; halved for the rest of the work when a GPU runs out of memory.
    num_workers : int, default=0
        Processes that read and prepare the next batches meanwhile; 0 prepares in this one.
    output : {"numpy", "torch"}, default="numpy"
        Arrays, or tensors on the device of the model.
    modalities : dict of str to str, default=None
        Modality ("text" or "image") of roles that are not known by name.
    on_error : {"raise", "skip"}, default="raise"
        Whether a file that is missing or broken is an error, or a missing part listed in one warning.
    progress : bool, default=None
        Whether to show a progress bar; None shows one on a terminal for work of more than two seconds.

    Attributes
    ----------
    fingerprint : str
        What tells this model's vectors from those of others; goes into ``Items.encoder``. Reading it loads the model.

    Raises
    ------
    ValueError
        If open_clip has no such architecture or weights; raised when the model is first used.

    See Also
    --------
    toy_encoder : A very small model that comes with the package.
    TransformersEncoder : Models of the transformers library.

    Notes
    -----
    The model is loaded when it is first used, shared between clones in a process, and left out of pickles. Equal
    strings and paths are encoded once. Weights loaded from a tag or a hub name come from the cache of the Hugging
    Face hub, and are downloaded when they are not there. Where a tag's weights were trained with QuickGELU (OpenAI's,
    MetaCLIP's, DFN's), the model has it, whether or not the name of the architecture says so.

    Examples
    --------
    >>> from grclip import Items
    >>> from grclip.encoders import toy_encoder
    >>> encoder = toy_encoder()  # an OpenCLIPEncoder; OpenCLIPEncoder("ViT-B-32", "laion2b_s34b_b79k") works alike
    >>> encoder.transform(Items({"text": ["a red circle", None]}))["text"].shape
    (2, 128)
    """

    _source = ("model_name", "pretrained")

    def __init__(
        self,
        model_name: str,
        pretrained: str | None = None,
        *,
        device: str | torch.device | None = None,
        precision: str = "fp32",
        batch_size: int = 64,
        num_workers: int = 0,
        output: str = "numpy",
        modalities: Mapping[str, str] | None = None,
        on_error: str = "raise",
        progress: bool | None = None,
    ) -> None:
        self.model_name = model_name
        self.pretrained = pretrained
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.output = output
        self.modalities = modalities
        self.on_error = on_error
        self.progress = progress

    def _checkpoint(self) -> str:
        """The name as open_clip takes it; a model of the package is a local one."""
        return f"{LOCAL}{PACKAGED[self.model_name]}" if self.model_name in PACKAGED else self.model_name

    def _files(self) -> Path | None:
        name = self._checkpoint()
        if self.pretrained and ":" in name:
            raise ValueError(
                f"pretrained={self.pretrained!r} is not used with model_name={self.model_name!r}, which has weights"
            )
        if name.startswith(LOCAL):
            folder = Path(name.removeprefix(LOCAL)).resolve()
            if not folder.is_dir():
                raise FileNotFoundError(f"model_name={name!r}: no such folder")
            return folder
        weights = Path(self.pretrained or "")
        return weights.resolve() if weights.suffix and weights.is_file() else None  # tags have no suffix

    def _load(self, device: torch.device) -> Model:
        library = optional_import("open_clip", "open-clip", type(self).__name__)
        name, files = self._checkpoint(), self._files()
        if files is None:
            self._check_names(library)
        else:
            _verify(files)
        public = self.model_name + (f"/{self.pretrained}" if self.pretrained else "")
        # OpenAI's weights, and others, were trained with an activation that the architecture of that name lacks
        quick = files is None and library.get_pretrained_cfg(name, self.pretrained or "").get("quick_gelu", False)
        with hub_or_cache(public, local=name.startswith(LOCAL)):  # tokenizers may be there, too
            module, _, preprocess = library.create_model_and_transforms(
                name, self.pretrained, device=device, require_pretrained=True, force_quick_gelu=quick
            )
            tokenizer = library.get_tokenizer(name, **_own_merges(files))
            config = library.get_model_config(name) | ({"quick_gelu": True} if quick else {})
        known = self.model_name in PACKAGED or files is None
        return OpenCLIPModel(f"open_clip:{public if known else 'local'}", module, preprocess, tokenizer, config)

    def _check_names(self, library: Any) -> None:
        """That open_clip knows the architecture and the weights, before anything is looked for on a network."""
        if ":" in self.model_name:
            return
        _check_known("model_name", self.model_name, [*PACKAGED, *library.list_models()])
        tags = library.list_pretrained_tags_by_model(self.model_name)
        if self.pretrained is None:
            raise ValueError(
                f"model_name={self.model_name!r} needs pretrained weights, one of {', '.join(map(repr, tags))}"
            )
        _check_known("pretrained", self.pretrained, tags, f" for {self.model_name!r}")


def _check_known(name: str, value: Any, known: Sequence[str], where: str = "") -> None:
    if value not in known:
        near = difflib.get_close_matches(str(value), known, n=5, cutoff=0.4) or list(known)[:5]
        raise ValueError(
            f"{name}={value!r}: open_clip knows none of that name{where}, nor is it a file; near it: "
            f"{', '.join(map(repr, near)) or 'none'}"
        )


def _own_merges(folder: Path | None) -> dict[str, str]:
    """Merges that a checkpoint names by a relative path lie in its folder, not in the working directory."""
    config = folder / "open_clip_config.json" if folder and folder.is_dir() else None
    if config is None or not config.is_file():
        return {}
    text = json.loads(config.read_text())["model_cfg"]["text_cfg"]
    merges = (text.get("tokenizer_kwargs") or {}).get("bpe_path")
    return {"bpe_path": str(config.parent / merges)} if merges else {}


def _verify(folder: Path) -> None:
    """Files that a folder lists with checksums are as they were when it was written."""
    sums = folder / "SHA256SUMS"
    for line in sums.read_text().splitlines() if sums.is_file() else ():
        digest, name = line.split()
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            raise ValueError(
                f"{folder / name} is damaged: its checksum is not that in {sums}; install or copy it again"
            )
