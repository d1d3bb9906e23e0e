"""Libraries that an extra brings: imported where they are used, with the command to install what is absent."""

from __future__ import annotations

import importlib
from typing import Any


def optional_import(module: str, extra: str, feature: str) -> Any:
    """A module of an optional library, or an error that names the extra to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise  # the library is there, and lacks something of its own
        raise ModuleNotFoundError(
            f"{feature} needs {error.name!r}, which is not installed; the extra {extra!r} brings it: "
            f'pip install "grclip[{extra}]"',
            name=error.name,
        ) from error
