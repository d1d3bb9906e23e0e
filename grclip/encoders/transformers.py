"""CLIP, SigLIP, SigLIP 2, AltCLIP, Chinese-CLIP, CLAP, X-CLIP and others, through Hugging Face transformers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from grclip._optional import optional_import
from grclip.encoders._base import BaseEncoder
from grclip.encoders._model import PROBES, Model, hub_or_cache
from grclip.encoders._settings import UNLIMITED, architecture_of, same_dice, settings_of

ARGUMENTS = {"text": "text", "image": "images", "audio": "audio"}
"""What a processor calls the values of a modality."""

ATTRIBUTES = {"text": "tokenizer", "image": "image_processor", "audio": "feature_extractor", "video": "video_processor"}
PARTS = {
    "text": "AutoTokenizer",
    "image": "AutoImageProcessor",
    "audio": "AutoFeatureExtractor",
    "video": "AutoImageProcessor",
}
"""The part of a processor for each modality, and what loads it where it comes alone."""


class TransformersModel(Model):
    """A model with ``get_text_features`` and its kin, and a processor, or a part of one, for each modality."""

    module: Any

    def __init__(self, name: str, module: Any, processors: Mapping[str, Any]) -> None:
        self.name, self.module, self.processors = name, module, processors
        self.modalities = tuple(processors)
        self.tokenizer = _part("text", processors)
        self._arguments = {
            modality: set(inspect.signature(getattr(module, f"get_{modality}_features")).parameters)
            for modality in processors
        }
        self.padded_to = self._fixed_length()
        self.max_tokens = self.padded_to or _limit(module, self.tokenizer)
        if "audio" in processors:
            self.sampling_rate = _part("audio", processors).sampling_rate
        if "video" in processors:
            config = getattr(module.config, "vision_config", module.config)
            self.n_frames = getattr(config, "num_frames", self.n_frames)
        tokens = self._texts(PROBES)["input_ids"].tolist()
        settings = [settings_of(_part(modality, processors)) for modality in processors if modality != "text"]
        shape = architecture_of(module.config)
        self.preprocessing = f"{shape} {tokens} {self.max_tokens} {self.n_frames} {' '.join(settings)}"

    def prepare(self, modality: str, values: Sequence[Any], prompt: Any) -> dict[str, Tensor]:
        match modality:
            case "text":
                inputs = self._texts(values)
            case "image":
                inputs = self._images(values)
            case "audio":
                inputs = _joined([self._sound(value) for value in values])
            case _:
                inputs = _joined([self._video(value) for value in values])
        # tokenizers make more than some models take, such as token types
        return {name: value for name, value in inputs.items() if name in self._arguments[modality]}

    def embed(self, modality: str, inputs: Any) -> Tensor:
        found = getattr(self.module, f"get_{modality}_features")(**inputs)
        vectors = found if isinstance(found, Tensor) else found.pooler_output  # a plain tensor before transformers 5
        vectors = vectors.squeeze(1) if vectors.ndim == 3 else vectors  # VideoPrism pools to a sequence of one
        if vectors.ndim != 2:
            raise ValueError(f"{self.name} gives {list(vectors.shape)} for {modality} values, not a vector each")
        return vectors

    def _process(self, modality: str, values: Any, **options: Any) -> Any:
        processor = self.processors[modality]
        if hasattr(processor, "tokenizer"):
            return processor(**{ARGUMENTS[modality]: values}, **options, return_tensors="pt")
        return processor(values, **options, return_tensors="pt")

    def _texts(self, values: Sequence[str]) -> Any:
        cut = {"truncation": True, "max_length": self.max_tokens} if self.max_tokens else {}
        return self._process("text", list(values), padding="max_length" if self.padded_to else True, **cut)

    def _fixed_length(self) -> int | None:
        """The length that all texts are padded to, where the model was trained so; it reads the padding, too."""
        if self.module.config.model_type == "siglip":  # the one whose processor does not do so by itself
            return _limit(self.module, self.tokenizer)
        padded, alone = (len(texts(text=["a"])["input_ids"][0]) for texts in (self.processors["text"], self.tokenizer))
        return padded if padded > alone else None

    def _images(self, values: Sequence[Any]) -> Any:
        pictures = [value for value in values if not isinstance(value, Tensor)]
        inputs = self._process("image", pictures) if pictures else {}
        if len(pictures) == len(values):
            return inputs
        ready = iter(inputs.get("pixel_values", ()))
        return {"pixel_values": torch.stack([v if isinstance(v, Tensor) else next(ready) for v in values])}

    def _sound(self, wave: NDArray) -> Any:
        """Alone and with the same dice: CLAP draws the part of a long sound to hear, and which of a batch is long."""
        with same_dice():
            return self._process("audio", [wave], sampling_rate=self.sampling_rate)

    def _video(self, frames: NDArray) -> Any:
        """By the part alone: it may be one for videos or one for pictures, which whole processors call differently."""
        inputs = _part("video", self.processors)(list(frames), return_tensors="pt")
        if "pixel_values" not in inputs:
            return inputs
        pixels = inputs["pixel_values"]
        return {"pixel_values": pixels.reshape(1, len(frames), *pixels.shape[-3:])}


class TransformersEncoder(BaseEncoder):
    """Encode texts, pictures, sounds and videos with a dual encoder of Hugging Face transformers.

    Any model with ``get_text_features`` and one or more of ``get_image_features``, ``get_audio_features`` and
    ``get_video_features``: CLIP, MetaCLIP 2, SigLIP, SigLIP 2, AltCLIP, Chinese-CLIP, CLAP, X-CLIP, and models that
    bring their own code.

    Parameters
    ----------
    model_name : str
        Name of a checkpoint on the Hugging Face hub (``"openai/clip-vit-base-patch32"``), or a folder that holds one.
    revision : str, default=None
        Branch, tag or commit on the hub; None takes the main branch.
    trust_remote_code : bool, default=False
        Whether to run Python code that comes with the checkpoint. Such code can do whatever you can: read it first,
        and name the ``revision`` that you have read.
    device : str or torch.device, default=None
        Where the model runs; None takes a CUDA device where there is one, else the CPU.
    precision : {"fp32", "bf16", "fp16"}, default="fp32"
        Arithmetic of the model, by autocast; weights are kept in float32. Vectors come out in float32 in any case.
    batch_size : int, default=64
        Values in one pass; halved for the rest of the work when a GPU runs out of memory.
    num_workers : int, default=0
        Processes that read and prepare the next batches meanwhile; 0 prepares in this one.
    output : {"numpy", "torch"}, default="numpy"
        Arrays, or tensors on the device of the model.
    modalities : dict of str to str, default=None
        Modality ("text", "image", "audio" or "video") of roles that are not known by name.
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
    FileNotFoundError
        If ``model_name`` is a path and nothing lies there; raised, like all of these, when the model is first used.
    OSError
        If the checkpoint is neither on this machine nor to be had.
    ValueError
        If it is no dual encoder, or brings code and ``trust_remote_code`` is False.

    See Also
    --------
    OpenCLIPEncoder : Models of open_clip.
    SentenceTransformerEncoder : Models of sentence-transformers.
    VLM2VecEncoder : Embeddings from vision-language models.

    Notes
    -----
    The model is loaded when it is first used, shared between clones in a process, and left out of pickles. Equal
    strings and paths are encoded once.

    Texts are cut at the length that the text tower has positions for, with a warning. They are padded to the longest
    of a batch; SigLIP and others whose processors pad to one length, as in their training, are given that.

    Sounds are brought to the sampling rate of the model. CLAP hears ten seconds; of a longer sound it draws a part,
    here always with the same dice, so that equal sounds have equal vectors. Of a video as many frames are taken, evenly
    spaced, as the configuration of the model says.

    Examples
    --------
    >>> from grclip import Items
    >>> from grclip.encoders import TransformersEncoder
    >>> encoder = TransformersEncoder("openai/clip-vit-base-patch32")
    >>> encoder.transform(Items({"text": ["a red circle", None]}))["text"].shape  # doctest: +SKIP
    (2, 512)
    """

    _source = ("model_name", "revision", "trust_remote_code")

    def __init__(
        self,
        model_name: str,
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
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
        self.revision = revision
        self.trust_remote_code = trust_remote_code
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.output = output
        self.modalities = modalities
        self.on_error = on_error
        self.progress = progress

    def _load(self, device: torch.device) -> Model:
        library = optional_import("transformers", "transformers", type(self).__name__)
        files = self._files()
        options = {"trust_remote_code": self.trust_remote_code} | ({"revision": self.revision} if self.revision else {})
        with hub_or_cache(self.model_name, local=files is not None):
            module = library.AutoModel.from_pretrained(self.model_name, **options).float().to(device)
            found = [modality for modality in PARTS if hasattr(module, f"get_{modality}_features")]
            processors = _load_processors(library, self.model_name, found, options) if "text" in found else {}
        if not processors:
            raise ValueError(
                f"model_name={self.model_name!r} is a {type(module).__name__}, which has no get_text_features: not a "
                "dual encoder; try SentenceTransformerEncoder, or VLM2VecEncoder for vision-language models"
            )
        return TransformersModel(f"transformers:{'local' if files else self.model_name}", module, processors)


def _load_processors(library: Any, name: str, modalities: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """The model's processor, and what it lacks by itself."""
    whole = library.AutoProcessor.from_pretrained(name, **options)
    return {
        modality: whole
        if hasattr(whole, ATTRIBUTES[modality])
        else getattr(library, PARTS[modality]).from_pretrained(name, **options)
        for modality in modalities
    }


def _part(modality: str, processors: Mapping[str, Any]) -> Any:
    return getattr(processors[modality], ATTRIBUTES[modality], processors[modality])


def _limit(module: Any, tokenizer: Any) -> int | None:
    """Tokens that the text tower reads: as many as it has positions for, or fewer if the tokenizer says so."""
    limits = [tokenizer.model_max_length, getattr(module.config.get_text_config(), "max_position_embeddings", None)]
    for name, table in module.named_modules():
        if name.endswith("position_embeddings") and getattr(table, "padding_idx", None) is not None:
            limits.append(table.num_embeddings - table.padding_idx - 1)  # RoBERTa's first positions are not for tokens
    return min((limit for limit in limits if limit and limit < UNLIMITED), default=None)


def _joined(inputs: Sequence[Any]) -> dict[str, Tensor]:
    return {name: torch.cat([one[name] for one in inputs]) for name in inputs[0]}
