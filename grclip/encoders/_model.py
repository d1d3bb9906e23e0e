"""A loaded model: what each family gives the batch loop, how it is shared in a process, and its fingerprint."""

from __future__ import annotations

import hashlib
import logging
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from grclip._optional import optional_import
from grclip.encoders._media import check_text, open_audio, open_image, open_video

PROBES = ("A photo of 2 cats, e.g. outside.", "naïve Größe, 東京 привет! ☂", "aaaa  BBBB\t0.5%")
"""Texts whose tokens tell tokenizers apart."""

SAMPLED = 1 << 16
"""Numbers of each weight that enter the fingerprint, evenly spaced: training changes them all."""


class Model(ABC):
    """One loaded model of a family; `prepare` may run in worker processes, `embed` runs where the weights are."""

    name: str
    """The family and, where there is one, the public name of the model: ``open_clip:ViT-B-32/openai``."""
    module: Any
    """A torch.nn.Module with the methods of its library."""
    modalities: tuple[str, ...]
    preprocessing: str
    """Everything beside the weights that decides the vectors, in words: architecture, tokens, preparation."""
    tokenizer: Any
    max_tokens: int | None = None
    takes_tensors: bool = True
    """Whether a picture may come as a tensor that the preprocessing has been through."""
    sampling_rate: int = 48_000
    n_frames: int = 8

    @abstractmethod
    def prepare(self, modality: str, values: Sequence[Any], prompt: Any) -> Any:
        """The inputs of a batch of opened values: a tensor, or tensors by name."""

    @abstractmethod
    def embed(self, modality: str, inputs: Any) -> Tensor:
        """Vectors (n, d) of prepared inputs, of any length."""

    def count_tokens(self, text: str) -> int:
        """Tokens of a text with its beginning and end, where nothing is cut."""
        return len(self.tokenizer(text, verbose=False)["input_ids"])

    def open(self, modality: str, value: Any) -> Any:
        """A raw value, read from where it lies."""
        match modality:
            case "text":
                return check_text(value)
            case "image" if isinstance(value, Tensor) and not self.takes_tensors:
                raise TypeError(
                    "expected a picture, a path or an array of pixels, which the model prepares; got a tensor"
                )
            case "image":
                return open_image(value)
            case "audio":
                return open_audio(value, self.sampling_rate)
            case _:
                return open_video(value, self.n_frames)

    def text_of(self, modality: str, value: Any, prompt: Any) -> str | None:
        """The text that the tokenizer reads of an opened value, where it reads one."""
        return value if modality == "text" else None

    def is_cut(self, text: str) -> bool:
        """Whether a text has more tokens than the model reads; no tokenizer makes more tokens than bytes."""
        limit = self.max_tokens
        return limit is not None and len(text.encode()) > limit - 2 and self.count_tokens(text) > limit

    @cached_property
    def fingerprint(self) -> str:
        """The family, and a digest of weights, architecture and preprocessing; equal wherever the files lie."""
        digest = hashlib.sha256(self.preprocessing.encode())
        for name, weight in sorted(self.module.state_dict().items()):
            step = -(-weight.numel() // SAMPLED) or 1
            sample = weight.detach().flatten()[::step].to("cpu", torch.float64).contiguous()
            digest.update(f"{name}{tuple(weight.shape)}".encode() + sample.numpy().tobytes())
        return f"{self.name.partition(':')[0]}@{digest.hexdigest()[:16]}"

    @cached_property
    def width(self) -> int:
        """Length of the vectors."""
        return int(self.embed("text", self.to_device(self.prepare("text", ["a"], None))).shape[1])

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    def __getstate__(self) -> dict[str, Any]:
        """What a worker process prepares batches with: all but the weights."""
        return {name: value for name, value in vars(self).items() if name != "module"}

    def to_device(self, inputs: Any) -> Any:
        """Prepared inputs where the weights are."""
        if isinstance(inputs, Tensor):
            return inputs.to(self.device, non_blocking=True)
        return {name: self.to_device(value) if isinstance(value, Tensor) else value for name, value in inputs.items()}


_LOADED: WeakValueDictionary[Hashable, Model] = WeakValueDictionary()
_LATEST: deque[Model] = deque(maxlen=1)  # outlives the clone that loaded it
_LOCK = threading.Lock()


def shared(key: Hashable, load: Callable[[], Model]) -> Model:
    """The model of a key: one for all who hold it, and the latest for whoever comes next."""
    with _LOCK:
        model = _LOADED.get(key)
        if model is None:
            model = _LOADED[key] = load()
            model.module.eval().requires_grad_(False)
        _LATEST.append(model)
        return model


def release_models() -> None:
    """Let go of the model that was used last, so that its memory is free once no encoder holds it.

    Encoders hold the model that they have used, and the last one stays loaded for whatever clone comes next. To free
    the memory of a GPU, drop the encoders, call this, and empty torch's cache.

    Examples
    --------
    >>> from grclip.encoders import release_models, toy_encoder
    >>> encoder = toy_encoder()
    >>> vectors = encoder.transform({"text": ["a red circle"]})
    >>> del encoder
    >>> release_models()
    """
    with _LOCK:
        _LATEST.clear()


def state_of(path: Path) -> tuple[tuple[str, int, int], ...]:
    """What tells whether the files of a local model have changed."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)


def local_folder(model_name: str) -> Path | None:
    """The folder of a model on this machine; None of a name on the hub."""
    folder = Path(model_name)
    if folder.is_dir():
        return folder
    if folder.is_absolute() or len(folder.parts) > 2 or str(model_name).startswith((".", "~")):
        raise FileNotFoundError(f"model_name={str(model_name)!r}: no such folder")
    return None


@contextmanager
def hub_or_cache(name: str, *, local: bool) -> Iterator[None]:
    """Load by name from the hub, or from the cache alone where the hub is out of reach: one error, and at once.

    What is local needs neither.
    """
    if local:
        yield
        return
    constants = optional_import("huggingface_hub.constants", "open-clip", "loading a model by name")
    offline = constants.HF_HUB_OFFLINE
    logging.getLogger().addFilter(_is_not_of_open_clip)
    try:
        constants.HF_HUB_OFFLINE = offline or not _reaches_hub(constants.ENDPOINT)
        yield
    except (OSError, RuntimeError) as error:
        if not constants.HF_HUB_OFFLINE or not _is_of_files(error):
            raise
        why = "HF_HUB_OFFLINE is set" if offline else f"{constants.ENDPOINT} cannot be reached"
        raise OSError(
            f"cannot load {name}: not all of it is on this machine, and {why}. Connect once to download it, or copy "
            "the model's folder here and give its path (with open_clip as 'local-dir:FOLDER'); what was downloaded is "
            f"in {constants.HF_HUB_CACHE}. The model 'toy' needs no download"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = offline
        logging.getLogger().removeFilter(_is_not_of_open_clip)


def _is_of_files(error: BaseException | None) -> bool:
    """Whether an error is, or hides, one of a file that was not found; open_clip hides them in RuntimeErrors."""
    return error is not None and (isinstance(error, OSError) or _is_of_files(error.__cause__ or error.__context__))


def _reaches_hub(endpoint: str) -> bool:
    """Whether the hub answers within three seconds, through whatever proxy is set."""
    session = optional_import("huggingface_hub.utils", "open-clip", "loading a model by name").get_session()
    try:
        status = session.head(endpoint, timeout=3).status_code
    except Exception:  # of whichever HTTP library the hub's client uses
        return False
    return status < 500 and status not in (403, 407)  # a proxy that lets nothing through answers, too


def _is_not_of_open_clip(record: logging.LogRecord) -> bool:
    """open_clip logs through the root logger what it then raises, and what it loads."""
    return "open_clip" not in record.pathname or record.levelno >= logging.CRITICAL
