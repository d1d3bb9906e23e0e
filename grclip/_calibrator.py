"""Calibrators from files, for the search of a folder: means, and how parts are weighted and scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from grclip._validation import warn
from grclip.fusion import MultimodalFuser
from grclip.gap import ModalityGapRemover
from grclip.items import Items
from grclip.persistence import class_in
from grclip.pipelines import load_pipeline

QUERY = "query"
"""The role of the words that are searched for."""

_WANTED = (
    "--calibrator takes what grclip fit or ModalityGapRemover.save wrote, or save_pipeline of a ModalityGapRemover, "
    "alone or with a MultimodalFuser behind it"
)


@dataclass(frozen=True)
class Calibrator:
    """What was learned elsewhere; the fuser is None where a file holds means alone."""

    path: Path
    remover: ModalityGapRemover
    fuser: MultimodalFuser | None = None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read means, or a pipeline of means and a fuser."""
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file; {_WANTED}")
        try:
            kind = class_in(path)
        except ValueError as error:
            raise ValueError(f"{error}; {_WANTED}") from error
        if kind == "ModalityGapRemover":
            return cls(path, ModalityGapRemover.load(path))
        steps = [step for _, step in load_pipeline(path).steps]
        if list(map(type, steps)) not in ([ModalityGapRemover], [ModalityGapRemover, MultimodalFuser]):
            raise ValueError(f"{path} holds {', '.join(type(step).__name__ for step in steps)}; {_WANTED}")
        return cls(path, *steps)

    def check_means(self, roles: Sequence[str]) -> None:
        """That there is a mean of the words and of each role of the documents."""
        unknown = [repr(role) for role in (QUERY, *roles) if role not in self.remover.means_]
        if unknown:
            known = ", ".join(repr(role) if role else "one bare array" for role in self.remover.means_)
            raise ValueError(
                f"{self.path} has no mean of role {', '.join(unknown)}, but of {known}; words have the role {QUERY!r}, "
                "and files 'text' and 'image': fit with --column text=NAME --column image=NAME and --query-column "
                f"{QUERY}=NAME"
            )

    def weighting(self, roles: Sequence[str]) -> dict[str, Any]:
        """How the fuser weights parts of these roles, as parameters of another; nothing of means alone."""
        if self.fuser is None:
            return {}
        weights = {role: weight for role, weight in (self.fuser.weights or {}).items() if role in roles}
        return {"alpha": self.fuser.alpha, "weights": weights or None, "modalities": self.fuser.modalities}

    def scales(self, corpus: Items) -> bool:
        """Whether the fuser has spreads of all kinds of documents, asked by words; says so if not."""
        if self.fuser is None or not self.fuser.equalize:
            return False
        lacking = sorted({kind for kind in corpus.kinds if frozenset(kind.split("+")) not in self.fuser.spread_})
        if frozenset({QUERY}) not in self.fuser.query_kinds_:
            told = f"measured with other queries than {QUERY!r} alone"
        elif lacking:
            told = f"without any of kind {', '.join(lacking)}"
        else:
            return True
        warn(f"spreads of {self.path} are not used ({told}), but those of this folder, if it has enough documents")
        return False


def fuser_like(calibrator: Calibrator | None, roles: Sequence[str]) -> MultimodalFuser:
    """A fuser, not fitted, that weighs parts of these roles as that of the file does, if there is one."""
    return MultimodalFuser(**(calibrator.weighting(roles) if calibrator is not None else {}))
