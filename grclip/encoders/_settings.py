"""What decides a vector beside the weights, as text for the fingerprint, and where a library draws by chance."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

UNLIMITED = 1 << 20
"""From here on a tokenizer's limit is a way to say that it has none."""


def settings_of(part: Any) -> str:
    """What a part of a processor does, as text; names of files, and what versions of the library add, left out."""
    settings = json.loads(part.to_json_string())
    kept = {name: settings[name] for name in settings if settings[name] is not None and not name.startswith("_")}
    kept.pop("auto_map", None)
    return json.dumps(kept, sort_keys=True)


def architecture_of(config: Any) -> str:
    """What a configuration says that is not the library's default, as text; without types, versions and places."""
    return json.dumps(_told(json.loads(config.to_json_string(use_diff=True))), sort_keys=True)


def _told(settings: Any) -> Any:
    if not isinstance(settings, dict):
        return settings
    passing = ("transformers_version", "dtype", "torch_dtype", "auto_map", "architectures")
    return {k: _told(v) for k, v in settings.items() if not str(k).startswith("_") and k not in passing}


@contextmanager
def same_dice() -> Iterator[None]:
    """NumPy's global generator at one place, and back where it was: feature extractors draw from it."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
