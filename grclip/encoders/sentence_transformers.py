"""Text models, and models of several modalities, through sentence-transformers."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from grclip._optional import optional_import
from grclip.encoders._base import BaseEncoder
from grclip.encoders._model import PROBES, Model, hub_or_cache
from grclip.encoders._settings import UNLIMITED, architecture_of, same_dice, settings_of

TASK = "grclip_task"
"""Where prepared inputs carry their task to the model."""


class Instruction(NamedTuple):
    """How the values of a role are encoded: as queries or as documents, and after which words."""

    task: str = "document"
    prompt: str | None = None


class SentenceTransformersModel(Model):
    """A model of sentence-transformers."""

    takes_tensors = False

    def __init__(self, name: str, module: Any) -> None:
        self.name, self.module = name, module
        self.modalities = tuple(m for m in ("text", "image", "audio", "video") if m in module.modalities)
        self.tokenizer: Any = getattr(module[0], "tokenizer", None)
        limit = module.max_seq_length if callable(self.tokenizer) else None
        self.max_tokens = limit if limit and limit < UNLIMITED else None
        processor = getattr(module[0], "processor", None)
        parts = [getattr(processor, part, None) for part in ("image_processor", "feature_extractor", "video_processor")]
        self.sampling_rate = getattr(parts[1], "sampling_rate", self.sampling_rate)
        self.preprocessing = f"{self._in_words()} {' '.join(settings_of(part) for part in parts if part)}"

    def prepare(self, modality: str, values: Sequence[Any], prompt: Any) -> dict[str, Any]:
        task, words = prompt or Instruction()
        if modality == "audio":
            values = [{"array": value, "sampling_rate": self.sampling_rate} for value in values]
        if self.modalities != ("text",):  # else 'holiday.jpg' is a picture wherever there is such a file
            values = [{modality: value} for value in values]
        with same_dice():
            return {**self.module.preprocess(list(values), prompt=words, task=task), TASK: task}

    def embed(self, modality: str, inputs: Any) -> Tensor:
        features = {name: value for name, value in inputs.items() if name != TASK}
        return self.module(features, task=inputs[TASK])["sentence_embedding"][:, : self.module.truncate_dim]

    def text_of(self, modality: str, value: Any, prompt: Any) -> str | None:
        return (prompt.prompt or "" if prompt else "") + value if modality == "text" else None

    def instruction(self, task: str, names: Sequence[str]) -> Instruction:
        """The first of some prompts that the model has, else its default; as its encode_query and encode_document."""
        prompts = self.module.prompts
        name = next((name for name in names if name in prompts), self.module.default_prompt_name)
        return Instruction(task, prompts.get(name))

    def _in_words(self) -> str:
        """What the modules do beside their weights: the tokens of a text, how they are pooled, under which prompts."""
        probe = self.prepare("text", PROBES, None)
        tokens = {name: value.tolist() for name, value in probe.items() if isinstance(value, Tensor)}
        models = [m for m in self.module.modules() if hasattr(getattr(m, "config", None), "to_diff_dict")]
        shape = architecture_of(models[0].config) if models else ""
        after = [m for m in self.module.modules() if hasattr(m, "get_config_dict") and not hasattr(m, "tokenizer")]
        configs = [f"{type(m).__name__} {sorted(m.get_config_dict().items())}" for m in after]
        prompts = sorted(self.module.prompts.items()), self.module.default_prompt_name
        return f"{shape} {sorted(tokens.items())} {self.max_tokens} {configs} {prompts} {self.module.truncate_dim}"

    def __getstate__(self) -> dict[str, Any]:
        """What a worker process prepares batches with: the modules, which do that, with weights that hold nothing."""
        weights = [*self.module.parameters(), *self.module.buffers()]
        hollow = {id(weight): torch.empty_like(weight, device="meta") for weight in weights}
        return super().__getstate__() | {"module": copy.deepcopy(self.module, hollow)}


class SentenceTransformerEncoder(BaseEncoder):
    """Encode texts, and whatever else the model takes, with a model of sentence-transformers.

    Parameters
    ----------
    model_name : str
        Name of a model on the Hugging Face hub (``"all-MiniLM-L6-v2"``, ``"BAAI/bge-small-en-v1.5"``), or a folder
        that holds one.
    revision : str, default=None
        Branch, tag or commit on the hub; None takes the main branch.
    prompts : dict of str to str, default=None
        Words to put before the texts of a role, e.g. ``{"query": "query: ", "text": "passage: "}``; ``""`` puts none.
        For other roles, and by default, the model's own prompts: that for queries in the role ``query`` and roles
        that begin with ``query_``, that for documents in all others.
    trust_remote_code : bool, default=False
        Whether to run Python code that comes with the model. Such code can do whatever you can: read it first, and
        name the ``revision`` that you have read.
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
        If the model is neither on this machine nor to be had.
    ValueError
        If it brings code and ``trust_remote_code`` is False.

    See Also
    --------
    OpenCLIPEncoder : Models of open_clip.
    TransformersEncoder : Models of the transformers library.

    Notes
    -----
    The model is loaded when it is first used, shared between clones in a process, and left out of pickles. Equal
    strings and paths are encoded once for queries and once for documents, which a model may tell apart.

    Vectors are those of the library's ``encode_query`` and ``encode_document``, normalised. One thing differs: the
    library takes a string that looks like a URL or names a file, such as ``"holiday.jpg"``, for a picture, where here
    the role alone says what a value is.

    Relies on sentence-transformers 5.5.1 or later, where a value can be given with its modality.

    Examples
    --------
    >>> from grclip import Items
    >>> from grclip.encoders import SentenceTransformerEncoder
    >>> encoder = SentenceTransformerEncoder("sentence-transformers/all-MiniLM-L6-v2")
    >>> encoder.transform(Items({"text": ["a red circle", None]}))["text"].shape  # doctest: +SKIP
    (2, 384)
    """

    _source = ("model_name", "revision", "trust_remote_code")

    def __init__(
        self,
        model_name: str,
        *,
        revision: str | None = None,
        prompts: Mapping[str, str] | None = None,
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
        self.prompts = prompts
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
        library = optional_import("sentence_transformers", "sentence-transformers", type(self).__name__)
        files = self._files()
        options = {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        with hub_or_cache(self.model_name, local=files is not None):
            module = library.SentenceTransformer(str(self.model_name), device=str(device), **options).float()
        return SentenceTransformersModel(f"sentence_transformers:{'local' if files else self.model_name}", module)

    def _prompt(self, role: str, model: Any) -> Instruction:
        asked = role == "query" or role.startswith("query_")
        task, names = ("query", ("query",)) if asked else ("document", ("document", "passage", "corpus"))
        given = (self.prompts or {}).get(role)
        return Instruction(task, given) if given is not None else model.instruction(task, names)
