"""Datasets of the Hugging Face hub, at one revision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from grclip._optional import optional_import


def hub_folder(repo: str, revision: str, patterns: Sequence[str]) -> Path:
    """The folder that holds some files of a dataset at a revision; what is there already is not downloaded again.

    Without a connection the folder is the one of an earlier download, which may lack files: whoever reads it checks.
    """
    if not isinstance(revision, str) or not revision.strip():
        raise ValueError(f"revision must be a commit, a branch or a tag; got {revision!r}")
    hub = optional_import("huggingface_hub", "datasets", f"downloading {repo}")
    errors = optional_import("huggingface_hub.errors", "datasets", f"downloading {repo}")
    download = partial(
        hub.snapshot_download, repo, repo_type="dataset", revision=revision, allow_patterns=list(patterns)
    )
    try:
        return Path(download())
    except errors.RevisionNotFoundError as error:
        raise ValueError(
            f"revision={revision!r}: {repo} has none of that name; a revision is a commit (40 hexadecimal digits), a "
            "branch or a tag"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        found = _earlier(download, errors)
        if found is not None:
            return found
        offline = optional_import("huggingface_hub.constants", "datasets", f"downloading {repo}").HF_HUB_OFFLINE
        raise OSError(
            f"{repo} at revision {revision} is not on this machine, and cannot be downloaded now "
            f"({type(error).__name__}); connect{', and unset HF_HUB_OFFLINE,' if offline else ''} to download it, or "
            f"{by_hand(repo, revision)}"
        ) from error
    except errors.HTTPError as error:
        raise OSError(
            f"the download of {repo} at revision {revision} stopped ({type(error).__name__}: {_first_line(error)}); "
            f"load it again, and it goes on there, or {by_hand(repo, revision)}"
        ) from error


def _earlier(download: Callable[..., str], errors: Any) -> Path | None:
    """The folder that an earlier download filled, or began to fill."""
    try:
        return Path(download(local_files_only=True))
    except errors.LocalEntryNotFoundError as error:
        unfinished = getattr(error, "snapshot_path", None)
        return None if unfinished is None else Path(unfinished)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")


def by_hand(repo: str, revision: str) -> str:
    """How to get a dataset into a folder."""
    return (
        f"get it elsewhere with `hf download {repo} --repo-type dataset --revision {revision} --local-dir FOLDER` and "
        "give that folder"
    )
