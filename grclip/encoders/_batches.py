"""The batch loop: different values are opened, prepared and embedded once, and their vectors given to every row."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from grclip._validation import warn
from grclip.encoders._media import UnreadableError
from grclip.encoders._model import Model

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Task(NamedTuple):
    """What is encoded alike: values of one modality under one prompt."""

    modality: str
    prompt: Any


@dataclass(frozen=True)
class Options:
    """How the loop runs."""

    precision: str
    batch_size: int
    num_workers: int
    on_error: str
    progress: bool | None


class Job:
    """The different values of a task, and the places (role, row) that each stands for."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._rows: dict[str, tuple[Sequence[int], list[int]]] = {}
        self._index: dict[Any, int] = {}

    def add(self, role: str, column: NDArray, rows: Sequence[int]) -> None:
        """Note some rows of a role; equal strings and paths, and one and the same object, are one value."""
        numbers = []
        for value in column[rows]:
            number = self._index.setdefault(_identity(value), len(self.values))
            if number == len(self.values):
                self.values.append(value)
            numbers.append(number)
        self._rows[role] = rows, numbers

    @cached_property
    def places(self) -> list[list[tuple[str, int]]]:
        """The places of each value."""
        places: list[list[tuple[str, int]]] = [[] for _ in self.values]
        for role, (rows, numbers) in self._rows.items():
            for row, number in zip(rows, numbers, strict=True):
                places[number].append((role, row))
        return places

    def spread(self, vectors: Tensor, parts: Mapping[str, Tensor]) -> None:
        """Give each place the vector of its value."""
        for role, (rows, numbers) in self._rows.items():
            parts[role][rows] = vectors[numbers]


def _identity(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return tuple(map(_identity, value))
    return ("path", os.fspath(value)) if hasattr(value, "__fspath__") else id(value)


class Batch(NamedTuple):
    """One batch, ready for the model: values that could be opened, and those that could not."""

    rows: list[int]
    inputs: Any
    errors: dict[int, Exception]
    cut: list[int]


class Batches(Dataset[Batch]):
    """The batches of a job from a row on; a worker process of a DataLoader may read them."""

    def __init__(self, model: Model, task: Task, values: Sequence[Any], start: int, size: int) -> None:
        self.model, self.task, self.values, self.start, self.size = model, task, values, start, size

    def __len__(self) -> int:
        return -(-(len(self.values) - self.start) // self.size)

    def __getitem__(self, i: int) -> Batch:
        first = self.start + i * self.size
        opened: dict[int, Any] = {}
        errors: dict[int, Exception] = {}
        for row in range(first, min(first + self.size, len(self.values))):
            try:
                opened[row] = self.model.open(self.task.modality, self.values[row])
            except (UnreadableError, TypeError) as error:
                errors[row] = error.with_traceback(None)
        inputs = self._prepare(opened, errors)
        read = {row: self.model.text_of(self.task.modality, value, self.task.prompt) for row, value in opened.items()}
        cut = [row for row, text in read.items() if text is not None and self.model.is_cut(text)]
        return Batch(list(opened), inputs, errors, cut)

    def _prepare(self, opened: dict[int, Any], errors: dict[int, Exception]) -> Any:
        """The inputs of what was opened; a value that the model's own preprocessing refuses moves to the errors."""
        modality, prompt = self.task
        try:
            return self.model.prepare(modality, list(opened.values()), prompt) if opened else None
        except (ValueError, RuntimeError):
            found = len(errors)
            for row in list(opened):
                try:
                    self.model.prepare(modality, [opened[row]], prompt)
                except (ValueError, RuntimeError) as error:
                    errors[row] = UnreadableError(f"the model cannot take it: {error}")
                    del opened[row]
            if len(errors) == found:
                raise
            return self._prepare(opened, errors)


@dataclass
class Report:
    """What is told once, after all: texts that were cut, and parts that were skipped."""

    cut: list[tuple[str, int]] = field(default_factory=list)
    skipped: dict[tuple[str, int], str] = field(default_factory=dict)

    def warn(self, model: Model) -> None:
        """Warn of either, with the first few places."""
        if self.cut:
            listed = ", ".join(f"{role!r} row {row}" for role, row in self.cut[:5])
            many = "1 text is" if len(self.cut) == 1 else f"{len(self.cut)} texts are"
            warn(
                f"{many} cut, being longer than the {model.max_tokens} tokens that {model.name} reads "
                f"({listed}{', ...' if len(self.cut) > 5 else ''})"
            )
        if self.skipped:
            listed = "; ".join(f"role {role!r}, row {row}: {why}" for (role, row), why in [*self.skipped.items()][:5])
            more = f"; and {len(self.skipped) - 5} more" if len(self.skipped) > 5 else ""
            many = "1 part" if len(self.skipped) == 1 else f"{len(self.skipped)} parts"
            warn(f"{many} cannot be read, and missing from now on: {listed}{more}")


def run_job(
    model: Model, task: Task, job: Job, options: Options, report: Report, device: torch.device
) -> Tensor | None:
    """Unit vectors (n, d), on a device, of the values of a job; a row of NaN where one was skipped."""
    vectors: Tensor | None = None
    done, size = 0, options.batch_size
    hidden = None if options.progress is None else not options.progress
    delay = 0 if options.progress else 2  # seconds
    with tqdm(total=len(job.values), desc=f"encoding {task.modality}", delay=delay, disable=hidden) as bar:
        while done < len(job.values):
            workers = 0 if task.modality == "text" else options.num_workers  # tokens are not worth a process
            for batch in _load(Batches(model, task, job.values, done, size), workers):
                _check(batch, job, options.on_error)
                try:
                    found = _embed(model, task, batch, options.precision)
                except torch.OutOfMemoryError:
                    if len(batch.rows) == 1:
                        raise
                    size = len(batch.rows) // 2
                    break  # what is done stays done; the rest comes in smaller batches
                if found is not None:
                    _check_vectors(found, batch, job, options.precision)
                    if vectors is None:
                        vectors = torch.full((len(job.values), found.shape[1]), torch.nan, device=device)
                    vectors[batch.rows] = found.to(device)
                _note(batch, job, report)
                handled = len(batch.rows) + len(batch.errors)
                done += handled
                bar.update(handled)
    return vectors


def _load(batches: Batches, num_workers: int) -> Iterator[Batch]:
    """The batches one by one, prepared here or ahead in worker processes."""
    if not num_workers or len(batches) == 1:
        return (batches[i] for i in range(len(batches)))
    workers = min(num_workers, len(batches))
    own_dice = torch.Generator()  # a DataLoader would draw its seed from the user's
    return iter(DataLoader(batches, batch_size=None, num_workers=workers, collate_fn=_as_it_is, generator=own_dice))


def _as_it_is(batch: Any) -> Any:
    return batch


@torch.no_grad()
def _embed(model: Model, task: Task, batch: Batch, precision: str) -> Tensor | None:
    """Unit float32 vectors of a batch; None of an empty one."""
    if not batch.rows:
        return None
    dtype = PRECISIONS[precision]
    with torch.autocast(model.device.type, dtype) if dtype else nullcontext():
        vectors = model.embed(task.modality, model.to_device(batch.inputs))
    return torch.nn.functional.normalize(vectors.float(), dim=1)


def _check(batch: Batch, job: Job, on_error: str) -> None:
    """A value of a wrong type is an error; one that cannot be read is, unless such values are skipped."""
    for row, error in batch.errors.items():
        role, place = job.places[row][0]
        if isinstance(error, TypeError):
            raise TypeError(f"role {role!r}, row {place}: {error}") from error
        if on_error == "raise":
            others = f" (and {len(batch.errors) - 1} more near it)" if len(batch.errors) > 1 else ""
            raise ValueError(
                f"role {role!r}, row {place}: {error}{others}; on_error='skip' counts what cannot be read as missing"
            ) from error


def _check_vectors(vectors: Tensor, batch: Batch, job: Job, precision: str) -> None:
    """A vector of NaN would pass for a missing part."""
    broken = torch.nonzero(~torch.isfinite(vectors).all(dim=1)).flatten().tolist()
    if broken:
        role, row = job.places[batch.rows[broken[0]]][0]
        hint = f"; precision={precision!r} may overflow where 'bf16' and 'fp32' do not" if precision == "fp16" else ""
        raise ValueError(f"role {role!r}, row {row}: the model gives NaN or infinity for it{hint}")


def _note(batch: Batch, job: Job, report: Report) -> None:
    report.cut += [place for row in batch.cut for place in job.places[row]]
    report.skipped |= {place: str(error) for row, error in batch.errors.items() for place in job.places[row]}
