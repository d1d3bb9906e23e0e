"""VLM2Vec: vision-language models that read a text, a picture, or both in one sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grclip._columns import is_missing
from grclip._optional import optional_import
from grclip.encoders._base import BaseEncoder, Column
from grclip.encoders._media import check_text
from grclip.encoders._model import PROBES, Model, hub_or_cache
from grclip.encoders._settings import UNLIMITED, architecture_of, settings_of
from grclip.items import Items

JOINT = "text+image"
"""The modality of a text and a picture that are read in one sequence."""

BACKBONES = ("llava_next", "qwen2_vl")
"""What transformers calls the architectures that VLM2Vec was trained on and that it has classes for."""

PROMPTS = {"query": "Retrieve a relevant item that represents: {}\n"}
"""The prompts of roles that have their own."""

DOCUMENTS = {
    "text": "{}",
    "image": "Represent the given image.\n",
    JOINT: "Represent the given image with related text information: {}\n",
}
"""How VLM2Vec's own data (MMEB) write a candidate of each modality, after the picture's token and a new line."""

INPUTS = ("input_ids", "attention_mask", "pixel_values", "image_sizes", "image_grid_thw")
"""What the backbones take of what their processors make; positions are given apart, see `embed`."""


class VLM2VecModel(Model):
    """A vision-language model without its language head, and its processor."""

    modalities = ("text", "image", JOINT)
    takes_tensors = False

    def __init__(self, name: str, module: Any, processor: Any) -> None:
        self.name, self.module, self.processor = name, module, processor
        self.tokenizer = tokenizer = processor.tokenizer
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        limits = (tokenizer.model_max_length, module.config.get_text_config().max_position_embeddings)
        self.max_tokens = min((limit for limit in limits if limit < UNLIMITED), default=None)
        self._blank = "" if tokenizer("")["input_ids"] else "\n"  # a sequence has at least one token
        probe = self.prepare("text", PROBES, None)["input_ids"].tolist()
        settings = f"{architecture_of(module.config)} {settings_of(processor.image_processor)}"
        self.preprocessing = f"{probe} {self.max_tokens} {DOCUMENTS} {settings}"

    def open(self, modality: str, value: Any) -> Any:
        if modality == JOINT:
            return check_text(value[0]), self.open("image", value[1])
        return super().open(modality, value)

    def prepare(self, modality: str, values: Sequence[Any], prompt: Any) -> dict[str, Tensor]:
        match modality:
            case "text":
                texts, images = values, None
            case "image":
                texts, images = [""] * len(values), list(values)
            case _:
                texts, images = [text for text, _ in values], [image for _, image in values]
        template = DOCUMENTS[modality] if prompt is None else prompt
        words = [template.replace("{}", self._plain(text)) for text in texts]
        words = [f"{self.processor.image_token}\n{word}" if images else word or self._blank for word in words]
        inputs = self.processor(text=words, images=images, padding=True, return_tensors="pt")
        return {name: inputs[name] for name in INPUTS if name in inputs}

    def embed(self, modality: str, inputs: Any) -> Tensor:
        # VLM2Vec puts no <|vision_start|> before a picture, by which Qwen2-VL would have found it when it was trained:
        # so there, too, one token has one position after the other, not those of a grid.
        seen = inputs["attention_mask"].cumsum(dim=1)
        positions = (seen - 1).clamp(min=0)
        hidden = self.module(**inputs, position_ids=positions, use_cache=False).last_hidden_state
        last = seen.argmax(dim=1)  # the first of equal ones: padding on the right has seen as many
        return hidden[torch.arange(len(hidden), device=hidden.device), last]

    def text_of(self, modality: str, value: Any, prompt: Any) -> str | None:
        return value[0] if modality == JOINT else super().text_of(modality, value, prompt)

    def _plain(self, text: str) -> str:
        """A text as long as the model reads, in which no word passes for a picture or a video."""
        if self.max_tokens is not None and self.is_cut(text):
            room = self.max_tokens - self.tokenizer.num_special_tokens_to_add()
            text = self.tokenizer.decode(self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids[:room])
        for token in (getattr(self.processor, name, None) for name in ("image_token", "video_token")):
            text = text.replace(token, f"{token[0]} {token[1:]}") if token else text
        return text


class VLM2VecEncoder(BaseEncoder):
    r"""Encode texts, pictures, and texts with pictures, with a vision-language model trained as VLM2Vec.

    A text, a picture, or both are written into one sequence for a decoder, LLaVA-NeXT or Qwen2-VL. The hidden state of
    the last layer at the last token is the vector.

    Parameters
    ----------
    model_name : str
        Name of a checkpoint on the Hugging Face hub (``"TIGER-Lab/VLM2Vec-LLaVa-Next"``), or a folder that holds one.
    prompts : dict of str to str, default=None
        Templates by role, with ``{}`` where the text goes; those of pictures have none. Roles left out keep their
        own: ``"Retrieve a relevant item that represents: {}\n"`` for the role ``query``, and what VLM2Vec's data have
        for candidates in all others (see Notes). ``"{}"`` is the plain text.
    joint : bool, default=True
        Whether a row of Items with a text and a picture is read as one sequence. Its vector has a role of its own,
        named after both (``"text+image"``), and is missing in theirs; roles left without a row are dropped. Columns
        of a dict are not rows, and never read together.
    revision : str, default=None
        Branch, tag or commit on the hub; None takes the main branch.
    device : str or torch.device, default=None
        Where the model runs; None takes a CUDA device where there is one, else the CPU.
    precision : {"fp32", "bf16", "fp16"}, default="fp32"
        Arithmetic of the model, by autocast; "fp32" computes in the type of the weights, which is that of the
        checkpoint (bfloat16 in those of VLM2Vec). Vectors come out in float32 in any case.
    batch_size : int, default=8
        Values in one pass; halved for the rest of the work when a GPU runs out of memory.
    num_workers : int, default=0
        Processes that read and prepare the next batches meanwhile; 0 prepares in this one.
    output : {"numpy", "torch"}, default="numpy"
        Arrays, or tensors on the device of the model.
    modalities : dict of str to str, default=None
        Modality ("text" or "image") of roles that are not known by name.
    on_error : {"raise", "skip"}, default="raise"
        Whether a file that is missing or broken is an error, or a missing part listed in one warning; a text read
        together with such a picture is missing with it.
    progress : bool, default=None
        Whether to show a progress bar; None shows one on a terminal for work of more than two seconds.

    Attributes
    ----------
    fingerprint : str
        What tells this model's vectors from those of others; goes into ``Items.encoder``. Reading it loads the model.

    Raises
    ------
    FileNotFoundError
        If ``model_name`` is a path and nothing lies there; raised, like the next, when the model is first used.
    OSError
        If the checkpoint is neither on this machine nor to be had.
    ValueError
        If it is neither LLaVA-NeXT nor Qwen2-VL; if a template lacks the ``{}`` of its text, or has one and no text;
        if ``joint`` is True and a side has a text and a picture, and more roles of either kind.

    See Also
    --------
    TransformersEncoder : Dual encoders of the transformers library.
    MultimodalFuser : A weighted sum of text and picture, for encoders that read one at a time.

    Notes
    -----
    Prompts are those of the paper on mixed-modality search [2]_. Its queries have the default when documents of several
    kinds are searched; for a corpus of texts with pictures it sets
    ``prompts={"query": "Retrieve an image-description pair that represents: {}\n"}``. Documents are as in VLM2Vec's
    data, MMEB [1]_: the plain text; ``"Represent the given image.\n"``; and for both
    ``"Represent the given image with related text information: {}\n"``, unless the role of the text has a prompt. A
    picture comes first, as ``<image>`` or ``<|image_pad|>`` alone on a line: VLM2Vec was trained without Qwen2-VL's
    ``<|vision_start|>``, and so without the positions in a grid that go with it. Pictures go to the processor as they
    are; the paper's own scripts made all of them squares of 1344 pixels.

    A row read as one sequence has one vector, which ``alpha`` of `MultimodalFuser` leaves as it is. To calibrate, fit
    `ModalityGapRemover` on Items that have all kinds of rows that are searched, for a mean of each.

    Texts longer than the model has positions for are cut; the tokens of pictures and prompts are not.

    The model is loaded when it is first used, in the type of its weights and without its language head, shared between
    clones in a process, and left out of pickles. Equal strings and paths are encoded once for each prompt. Adapters
    (LoRA) are not merged here: the checkpoint has to hold whole weights, as VLM2Vec-LLaVa-Next does. Relies on
    transformers 5.

    References
    ----------
    .. [1] Z. Jiang, R. Meng, X. Yang, S. Yavuz, Y. Zhou and W. Chen, "VLM2Vec: Training Vision-Language Models for
       Massive Multimodal Embedding Tasks", ICLR 2025, arXiv:2410.05160.
    .. [2] B. Li et al., "Closing the Modality Gap for Mixed Modality Search", arXiv:2507.19054, Appendix E.

    Examples
    --------
    >>> from grclip import Items
    >>> from grclip.encoders import VLM2VecEncoder
    >>> encoder = VLM2VecEncoder("TIGER-Lab/VLM2Vec-LLaVa-Next")
    >>> documents = Items({"text": ["a red bicycle", "tea"], "image": ["bike.jpg", None]})
    >>> encoder.transform(documents).kinds.tolist()  # doctest: +SKIP
    ['text+image', 'text']
    """

    _source = ("model_name", "revision")

    def __init__(
        self,
        model_name: str,
        *,
        prompts: Mapping[str, str] | None = None,
        joint: bool = True,
        revision: str | None = None,
        device: str | torch.device | None = None,
        precision: str = "fp32",
        batch_size: int = 8,
        num_workers: int = 0,
        output: str = "numpy",
        modalities: Mapping[str, str] | None = None,
        on_error: str = "raise",
        progress: bool | None = None,
    ) -> None:
        self.model_name = model_name
        self.prompts = prompts
        self.joint = joint
        self.revision = revision
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
        options = {"revision": self.revision} if self.revision else {}
        with hub_or_cache(self.model_name, local=files is not None):
            backbone = library.AutoConfig.from_pretrained(self.model_name, **options).model_type
            if backbone in BACKBONES:
                kind = library.AutoModelForImageTextToText
                module = kind.from_pretrained(self.model_name, dtype="auto", **options).model.to(device)
                processor = library.AutoProcessor.from_pretrained(self.model_name, **options)
        if backbone not in BACKBONES:
            raise ValueError(
                f"model_name={str(self.model_name)!r} is of the kind {backbone!r}; VLM2VecEncoder takes those of "
                f"{' and '.join(BACKBONES)}; try TransformersEncoder for dual encoders"
            )
        return VLM2VecModel(f"vlm2vec:{'local' if files else self.model_name}", module, processor)

    def _prompt(self, role: str, model: Any) -> str | None:
        """The template of a role; of a joint one its own, else that of its text."""
        given = {**PROMPTS, **(self.prompts or {})}
        names = (role, *role.split("+"))
        return next((given[name] for name in names if "{}" in str(given.get(name))), given.get(role))

    def _columns(self, side: Mapping[str, Any]) -> dict[str, Column]:
        columns = super()._columns(side)
        if self.joint and isinstance(side, Items):
            columns = _join(columns)
        for role, (modality, _) in columns.items():
            prompt = self._prompt(role, None)
            has_text = modality != "image"
            if prompt is not None and (not isinstance(prompt, str) or ("{}" in prompt) != has_text):
                need = "a str with {} where the text goes" if has_text else "a str without {}, as it is a picture's"
                raise ValueError(f"prompts[{role!r}] is {prompt!r}; expected {need}")
        return columns


def _join(columns: dict[str, Column]) -> dict[str, Column]:
    """Rows with a text and a picture as pairs, in a role of their own; roles without a row are left out."""
    texts, images = ([role for role, (m, _) in columns.items() if m == modality] for modality in ("text", "image"))
    if not (texts and images):
        return columns
    if len(texts) + len(images) > 2:
        raise ValueError(
            "joint=True reads one text and one picture of a row together, but there are the texts "
            f"{', '.join(map(repr, texts))} and the pictures {', '.join(map(repr, images))}; use joint=False, or leave "
            "out roles"
        )
    (text,), (image,) = texts, images
    parts = {role: column.copy() for role, (_, column) in columns.items()}
    pairs = np.full(len(parts[text]), None, dtype=object)
    for row in np.flatnonzero(~is_missing(parts[text]) & ~is_missing(parts[image])):
        pairs[row] = (parts[text][row], parts[image][row])
        parts[text][row] = parts[image][row] = None
    joined = {role: (modality, parts[role]) for role, (modality, _) in columns.items()}
    joined["+".join(role for role in columns if role in (text, image))] = (JOINT, pairs)
    return {role: column for role, column in joined.items() if not is_missing(column[1]).all()} or columns
