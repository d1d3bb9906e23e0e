"""A calibrator learned from Parquet files: means of all rows, spreads of a sample."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from grclip._batch import Warned, batch_rows, check_outputs, explained, one_encoder, refuse_empty
from grclip._parquet import Source, arrow, is_parquet
from grclip._validation import check_k
from grclip.fusion import MultimodalFuser
from grclip.gap import ModalityGapRemover
from grclip.items import Items, SearchTask, modalities_of
from grclip.pipelines import save_pipeline

SAMPLE = 10_000
"""Rows of documents, and of queries, from which spreads are measured."""

_MODALITIES = ("text", "image", "audio", "video")


@dataclass
class _Sample:
    """Some rows of several files, drawn evenly beforehand, so that one pass collects them."""

    rows: NDArray[np.int64]
    taken: list[dict[str, NDArray]] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    @classmethod
    def draw(cls, n: int, n_rows: int, seed: int) -> _Sample:
        return cls(np.sort(np.random.default_rng(seed).choice(n_rows, min(n, n_rows), replace=False)))

    def take(self, parts: Mapping[str, NDArray], first: int, n: int) -> None:
        low, high = np.searchsorted(self.rows, (first, first + n))
        if low < high:
            at = self.rows[low:high] - first
            self.taken.append({role: part[at] for role, part in parts.items()})
            self.lengths.append(len(at))

    def items(self, kinds: Mapping[str, tuple[np.dtype, int]], encoder: str | None) -> Items:
        """The rows, NaN where a batch had no vector of a role."""
        columns = {
            role: np.concatenate(
                [
                    some.get(role, np.full((n, width), np.nan, dtype))
                    for some, n in zip(self.taken, self.lengths, strict=True)
                ]
            )
            for role, (dtype, width) in kinds.items()
        }
        return Items(columns, encoder=encoder)


def fit_files(
    files: Sequence[Path],
    columns: Mapping[str, str],
    output: Path,
    *,
    queries: Sequence[Path] = (),
    query_columns: Mapping[str, str] | None = None,
    alpha: float = 0.5,
    weights: Mapping[str, float] | None = None,
    modalities: Mapping[str, str] | None = None,
    equalize: bool = False,
    sample: int = SAMPLE,
    encoder: str | None = None,
) -> Pipeline:
    """Learn means of all rows, and spreads of a sample of them, in one pass; write the pipeline to a file."""
    query_columns = query_columns or {}
    fuser = MultimodalFuser(alpha, weights=weights or None, modalities=modalities or None, equalize=equalize)
    _check_fit(columns, query_columns, queries, fuser)
    _check_files(files, queries, output)
    check_k(sample, name="sample")
    documents = [Source.open(path, columns) for path in files]
    asked = [Source.open(path, query_columns) for path in (queries or files)] if query_columns else []
    made_by = one_encoder([*documents, *asked], encoder)
    remover = ModalityGapRemover()
    sides = [_learn(remover, sources, made_by, sample) for sources in (documents, asked) if sources]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rows of zeros, which were told by their places in the files
        centred = [remover.transform(side) for side in sides]
    fuser.fit(SearchTask(centred[1], centred[0]) if asked else centred[0])
    pipeline = Pipeline([("degap", remover), ("fuse", fuser)])
    save_pipeline(pipeline, output)
    return pipeline


def _check_fit(
    columns: Mapping[str, str],
    query_columns: Mapping[str, str],
    queries: Sequence[Path],
    fuser: MultimodalFuser,
) -> None:
    """What can be said before anything is read."""
    _check_modalities([*columns, *query_columns], fuser.modalities or {})
    shared = columns.keys() & query_columns.keys()
    if shared:
        raise ValueError(
            f"documents and queries share the role {min(shared)!r}; a mean is learned per role: --query-column "
            f"query_{min(shared)}=..."
        )
    if queries and not query_columns:
        raise ValueError("--queries needs to know its column: --query-column query=COLUMN")
    if fuser.equalize and not query_columns:
        raise ValueError("--equalize measures documents against queries: give --query-column, and --queries FILE")
    rows = [Items(dict.fromkeys(side, np.ones((1, 1)))) for side in (query_columns, columns) if side]
    clone(fuser).set_params(equalize=False).fit(SearchTask(*rows) if query_columns else rows[0])


def _check_modalities(roles: Sequence[str], given: Mapping[str, str]) -> None:
    """That the modality of each role is known, in words of the command line."""
    for role, modality in given.items():
        if modality not in _MODALITIES:
            raise ValueError(f"--modality {role}={modality}: expected one of {', '.join(_MODALITIES)}")
    for role in roles:
        try:
            modalities_of([role], given)
        except ValueError as error:
            raise ValueError(
                f"unknown modality of {role!r}; say which of {', '.join(_MODALITIES)} it is: --modality {role}=image"
            ) from error


def _check_files(files: Sequence[Path], queries: Sequence[Path], output: Path) -> None:
    """That no row counts twice, and that nothing is written over what is read."""
    for named in (files, queries):
        resolved = [path.resolve() for path in named]
        again = [str(path) for path, found in zip(named, resolved, strict=True) if resolved.count(found) > 1]
        if again:
            raise ValueError(f"{' and '.join(again)} are one file, whose rows would count twice; name it once")
    check_outputs([output], [*files, *queries])
    if output.exists() and is_parquet(output):
        raise FileExistsError(f"{output} is a Parquet file, which the calibrator would replace; name another")


def _learn(remover: ModalityGapRemover, sources: Sequence[Source], encoder: str | None, sample: int) -> Items:
    """Take all rows of some files into the means; a sample of them."""
    n_rows = sum(source.n_rows for source in sources)
    if not n_rows:
        raise ValueError(f"{', '.join(str(source.path) for source in sources)}: no rows to learn from")
    drawn, first = _Sample.draw(sample, n_rows, seed=0), 0
    kinds: dict[str, tuple[np.dtype, int]] = {}
    for source in sources:
        warned = Warned(source)
        for start, table in source.tables(list(source.columns.values()), batch_rows(source)):
            parts = source.parts(table, start, {role: width for role, (_, width) in kinds.items()})
            kinds |= {role: (part.dtype, part.shape[1]) for role, part in parts.items() if role not in kinds}
            with warned.told(start), explained(source, parts, start, len(table)):
                remover.partial_fit(Items(parts, encoder=encoder))
                refuse_empty(source, parts, start, len(table))
            drawn.take(parts, first + start, len(table))
        warned.sum_up()
        first += source.n_rows
    arrow().default_memory_pool().release_unused()  # some 50 MB that spreads would need beside
    for role, column in sources[0].columns.items():
        if role not in remover.means_:
            raise ValueError(f"column {column!r} (role {role!r}) holds no vector in any of {len(sources)} file(s)")
    return drawn.items(kinds, remover.encoder_)
