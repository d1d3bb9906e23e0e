"""What all encoders share: the parts to encode, and one batch loop around a model that is loaded once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from grclip._columns import as_column, describe, is_missing, is_raw
from grclip._doc_link import DocLinkMixin
from grclip._validation import check_k
from grclip.encoders._batches import PRECISIONS, Job, Options, Report, Task, run_job
from grclip.encoders._model import Model, local_folder, shared, state_of
from grclip.items import Items, SearchTask, modalities_of

Column = tuple[str, NDArray]


class BaseEncoder(DocLinkMixin, TransformerMixin, BaseEstimator, ABC):
    """A stateless transformer from raw parts to unit vectors; a family says how its models are loaded."""

    model_name: str
    device: Any
    precision: str
    batch_size: int
    num_workers: int
    output: str
    modalities: Mapping[str, str] | None
    on_error: str
    progress: bool | None

    _source: tuple[str, ...] = ()
    """The parameters that say which model is loaded."""

    @abstractmethod
    def _load(self, device: torch.device) -> Model:
        """The model, on a device."""

    def _files(self) -> Path | None:
        """Where the model lies, if it is on this machine."""
        return local_folder(self.model_name)

    def _prompt(self, role: str, model: Any) -> Any:
        """The instruction that goes with the values of a role: hashable, and read by the model's `prepare` alone."""
        return None

    def _columns(self, side: Mapping[str, Any]) -> dict[str, Column]:
        """Modality and raw values of each role."""
        columns = {role: as_column(role, side[role]) for role in side}
        for role, column in columns.items():
            if not is_raw(column):
                raise TypeError(
                    f"role {role!r} holds vectors already ({describe(column)}); an encoder takes texts, pictures, "
                    "sounds or videos: leave the role out, or begin the pipeline after the encoder"
                )
        modalities = modalities_of(columns, self.modalities)
        return {role: (modality, columns[role]) for role, modality in zip(columns, modalities, strict=True)}

    @property
    def fingerprint(self) -> str:
        """What tells this model's vectors from those of others: a digest of weights, architecture and preprocessing.

        Loads the model. Neither the device nor the precision changes it.
        """
        return self._model().fingerprint

    def __dir__(self) -> list[str]:
        """Names without the fingerprint: scikit-learn's display, and completion, ask for the value of each."""
        return [name for name in object.__dir__(self) if name != "fingerprint" and hasattr(self, name)]

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the parameters and the roles of X; nothing is learned, and the model is not loaded.

        Parameters
        ----------
        X : Items, SearchTask or dict of role to column
            Raw parts.
        y : object, default=None
            Not used.

        Returns
        -------
        Self
            The encoder.

        Raises
        ------
        TypeError
            If X is something else, or holds vectors.
        ValueError
            If a parameter has no such value, or a role has an unknown modality.
        """
        self._check_parameters()
        for side in _sides(X):
            self._columns(side)
        return self

    def transform(self, X: Any) -> Any:
        """Encode every part.

        Parameters
        ----------
        X : Items, SearchTask or dict of role to column
            Raw parts: strings; PIL images, paths, binary files or uint8 arrays; (samples, rate) or paths of sound
            files; frames or paths of videos; None where a part is missing. Columns of a dict may differ in length.

        Returns
        -------
        Items, SearchTask or dict of role to array
            As X, with a float32 array or tensor (n, d) for each role: rows of unit norm, NaN throughout for missing
            parts. Items carry the fingerprint of the model.

        Raises
        ------
        TypeError
            If a value is of a type that its role does not take, or X holds vectors.
        ValueError
            If the model lacks a modality, or a file is missing or broken and on_error is "raise".
        OSError
            If the model is neither on this machine nor to be had.
        """
        self._check_parameters()
        sides = [self._columns(side) for side in _sides(X)]
        model = self._model()
        vectors = self._encode(model, {role: part for side in sides for role, part in side.items()})
        encoded = [{role: vectors[role] for role in side} for side in sides]
        if isinstance(X, SearchTask):
            return SearchTask(*(Items(side, encoder=model.fingerprint) for side in encoded))
        return Items(encoded[0], encoder=model.fingerprint) if isinstance(X, Items) else encoded[0]

    def _encode(self, model: Model, columns: Mapping[str, Column]) -> dict[str, Any]:
        """Vectors of all rows of all roles."""
        jobs: dict[Task, Job] = {}
        for role, (modality, column) in columns.items():
            there = np.flatnonzero(~is_missing(column)).tolist()
            if there and modality not in model.modalities:
                raise ValueError(
                    f"role {role!r} is {modality}, but {model.name} encodes {' and '.join(model.modalities)} only; "
                    "choose another model, or leave the role out"
                )
            job = jobs.setdefault(Task(modality, self._prompt(role, model)), Job())
            job.add(role, column, there)
        options = Options(self.precision, self.batch_size, self.num_workers, self.on_error, self.progress)
        report = Report()
        device = model.device if self.output == "torch" else torch.device("cpu")
        found = {task: run_job(model, task, job, options, report, device) for task, job in jobs.items()}
        report.warn(model)
        width = next((vectors.shape[1] for vectors in found.values() if vectors is not None), None) or model.width
        parts = {
            role: torch.full((len(column), width), torch.nan, device=device) for role, (_, column) in columns.items()
        }
        for task, vectors in found.items():
            if vectors is not None:
                jobs[task].spread(vectors, parts)
        return parts if self.output == "torch" else {role: part.numpy() for role, part in parts.items()}

    def _model(self) -> Model:
        """The loaded model, which clones in this process share."""
        best = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(best if self.device is None else self.device)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        files = self._files()
        source = tuple(getattr(self, name) for name in self._source)
        self._held = shared((type(self), source, device, files and state_of(files)), lambda: self._load(device))
        return self._held

    def _check_parameters(self) -> None:
        check_k(self.batch_size, name="batch_size")
        if not isinstance(self.num_workers, Integral) or self.num_workers < 0:
            raise ValueError(f"num_workers must be a whole number of at least 0; got {self.num_workers!r}")
        for name, choices in (
            ("precision", tuple(PRECISIONS)),
            ("output", ("numpy", "torch")),
            ("on_error", ("raise", "skip")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {getattr(self, name)!r}")
        if self.progress not in (None, True, False):
            raise TypeError(f"progress must be True, False or None (where there is a terminal); got {self.progress!r}")

    def __getstate__(self) -> dict[str, Any]:
        """The parameters; the model stays behind."""
        return {name: value for name, value in super().__getstate__().items() if name != "_held"}

    def __sklearn_is_fitted__(self) -> bool:
        return True


def _sides(X: Any) -> list[Any]:
    """The Items of a task, or X itself."""
    if isinstance(X, SearchTask):
        if not isinstance(X.queries, Items):
            raise TypeError("this SearchTask holds arrays; an encoder takes Items of texts, pictures, sounds or videos")
        return [X.queries, X.corpus]
    if not isinstance(X, Items | Mapping):
        raise TypeError(
            f"X is {type(X).__name__}; an encoder takes Items or a SearchTask of raw parts, or a dict of columns, "
            "e.g. Items({'query': ['a red bicycle']}), or Items(frame) of a DataFrame"
        )
    return [X]
