"""Batch jobs on Parquet: means and spreads learned from files, and files of fused vectors."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from grclip import __version__
from grclip._append import AppendedParquet, beside, forget
from grclip._direction import Directions
from grclip._kernels import dtype_of, norm_limits, row_norms
from grclip._parquet import Source, arrow, as_lists, is_parquet, list_type, tell
from grclip._validation import check_k, few, warn
from grclip.fusion import MultimodalFuser
from grclip.gap import ModalityGapRemover
from grclip.items import Items, SearchTask, modalities_of
from grclip.pipelines import encoder_fingerprint, load_pipeline, pipeline_fingerprint, save_pipeline

BATCH = 2**22
"""Bytes of vectors, as they are in the file, that are read at once; pyarrow takes some ten times that to read them."""

GROUP = 8
"""Batches in a row group of the output."""

SAMPLE = 10_000
"""Rows of documents, and of queries, from which spreads are measured."""

_MODALITIES = ("text", "image", "audio", "video")
_UNCHECKED = "cannot check that one encoder made all vectors"
_SHOWN = 3  # warnings that are shown in full


class Written(NamedTuple):
    """What became of a file: rows, those that were there already, what to say, and the new rows of each kind."""

    n_rows: int
    there: int
    note: str
    kinds: Counter[str]


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
    made_by = _encoder([*documents, *asked], encoder)
    remover = ModalityGapRemover()
    sides = [_learn(remover, sources, made_by, sample) for sources in (documents, asked) if sources]
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
    _check_outputs([output], [*files, *queries])


def _check_outputs(outputs: Sequence[Path], read: Sequence[Path]) -> None:
    """That files can be written there, before the work is done."""
    sources = {(about.st_dev, about.st_ino) for about in (path.stat() for path in read if path.exists())}
    for output in outputs:
        if not output.resolve().parent.is_dir():
            raise FileNotFoundError(f"there is no folder {str(output.resolve().parent)!r} to write {output.name!r} to")
        if output.is_dir():
            raise IsADirectoryError(f"{output} is a folder; name a file in it to write to")
        if output.exists() and not output.is_file():
            raise FileExistsError(f"{output} is a device or a pipe, which would be replaced; name a file to write to")
        for written in (output, *beside(output)):
            if written.exists() and (written.stat().st_dev, written.stat().st_ino) in sources:
                raise ValueError(f"{written} is the file that is read; write to another")


def _encoder(sources: Sequence[Source], given: str | None) -> str | None:
    """The encoder of all files, as they say themselves, else as given; two are an error."""
    found = {source.path: source.encoder or given for source in sources}
    known = {name: path for path, name in found.items() if name is not None}
    if given is not None:
        known.setdefault(given, Path("--encoder"))
    if len(known) > 1:
        listed = ", ".join(f"{name!r} ({path})" for name, path in known.items())
        raise ValueError(f"vectors come from several encoders: {listed}; encode all with one, and fit once for each")
    silent = [str(path) for path, name in found.items() if name is None]
    for name, path in known.items() if silent else ():
        more = f" and {len(silent) - 1} more" if len(silent) > 1 else ""
        warn(f"{_UNCHECKED}: {path} says {name!r}, {silent[0]}{more} nothing; if it is the same, say --encoder NAME")
    return next(iter(known), None)


def _learn(remover: ModalityGapRemover, sources: Sequence[Source], encoder: str | None, sample: int) -> Items:
    """Take all rows of some files into the means; a sample of them."""
    n_rows = sum(source.n_rows for source in sources)
    if not n_rows:
        raise ValueError(f"{', '.join(str(source.path) for source in sources)}: no rows to learn from")
    drawn, first = _Sample.draw(sample, n_rows, seed=0), 0
    kinds: dict[str, tuple[np.dtype, int]] = {}
    for source in sources:
        warned = _Warned(source)
        for start, table in source.tables(list(source.columns.values()), _batch_rows(source)):
            parts = source.parts(table, start, {role: width for role, (_, width) in kinds.items()})
            kinds |= {role: (part.dtype, part.shape[1]) for role, part in parts.items() if role not in kinds}
            with warned.told(start), _explained(source, parts, start, len(table)):
                remover.partial_fit(Items(parts, encoder=encoder))
                _refuse_empty(source, parts, start, len(table))
            drawn.take(parts, first + start, len(table))
        warned.sum_up()
        first += source.n_rows
    for role, column in sources[0].columns.items():
        if role not in remover.means_:
            raise ValueError(f"column {column!r} (role {role!r}) holds no vector in any of {len(sources)} file(s)")
    return drawn.items(kinds, remover.encoder_)


def transform_file(
    path: Path,
    output: Path,
    calibrator: Path,
    columns: Mapping[str, str],
    *,
    vectors: str = "vector",
    encoder: str | None = None,
) -> Written:
    """Write a file with fused vectors in the place of parts."""
    [done] = transform_files([path], [output], calibrator, columns, vectors=vectors, encoder=encoder)
    return done


def transform_files(
    paths: Sequence[Path],
    outputs: Sequence[Path],
    calibrator: Path,
    columns: Mapping[str, str],
    *,
    vectors: str = "vector",
    encoder: str | None = None,
) -> Iterator[Written]:
    """The same for several files, one after the other; begun again, those that are finished are left as they are."""
    _check_outputs(outputs, [*paths, calibrator])
    pipeline, sources = _loaded(calibrator), [Source.open(path, columns) for path in paths]
    _check_roles(columns, pipeline, calibrator)
    _check_encoder(sources, encoder, calibrator, encoder_fingerprint(pipeline))
    for source in sources:
        _check_names(source, vectors)
    for path, output in zip(paths, outputs, strict=True):
        yield _write(Source.open(path, columns), output, pipeline, vectors, encoder, keep=len(paths) > 1)
    for output in outputs if len(paths) > 1 else ():
        forget(output)


def outputs_in(folder: Path, paths: Sequence[Path]) -> list[Path]:
    """A file for each input, under its name, in a folder that is made if it is not there."""
    names = [path.name for path in paths]
    again = [str(path) for path in paths if names.count(path.name) > 1]
    if again:
        raise ValueError(f"{' and '.join(again)} have one name, and would be written to one file in {folder}")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"--output-dir {folder} is a file; name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    return [folder / name for name in names]


def _write(
    source: Source, output: Path, pipeline: Pipeline, vectors: str, encoder: str | None, *, keep: bool
) -> Written:
    """Write a file of fused vectors, or what is missing of it."""
    path, width = source.path, int(pipeline[-1].n_features_in_)
    carried = _carried(source)
    schema, identity = _schema(source, pipeline, carried, vectors, source.encoder or encoder), _identity(path)
    n_rows = _batch_rows(source, width, source.bytes_of_row(carried))
    job = {
        "input": {**identity, "touched": path.stat().st_ctime_ns},  # moves with every write, and cannot be set
        "columns": dict(source.columns),
        "calibrator": pipeline_fingerprint(pipeline),
        "schema": hashlib.sha256(schema.serialize()).hexdigest(),
        "rows": [n_rows, GROUP],
        "versions": [__version__, arrow().__version__, np.__version__],
    }
    kinds = Counter[str]()
    with AppendedParquet(output, schema, job, plain=(vectors,)) as file:
        there = source.n_rows if file.finished else file.n_rows
        for table in () if file.finished else _fused(source, pipeline, carried, schema, n_rows, there, kinds):
            file.append(table)
        if _identity(path) != identity or not (file.finished or file.n_rows == source.n_rows):
            raise RuntimeError(f"{path} was changed while it was read; run again, which begins anew")
        file.finish(keep=keep)
        return Written(source.n_rows, there, file.note, kinds)


def _carried(source: Source) -> list[str]:
    """Columns that go through as they are."""
    return [name for name in source.schema.names if name not in source.columns.values()]


def _check_names(source: Source, vectors: str) -> None:
    """That each column of the output has a name of its own."""
    carried = _carried(source)
    twice = sorted({repr(name) for name in carried if carried.count(name) > 1})
    if twice:
        raise ValueError(f"{source.path} has more than one column {', '.join(twice)}: give each a name of its own")
    if vectors in carried:
        raise ValueError(
            f"{source.path} has a column {vectors!r}, which would be carried through: choose another by --vectors"
        )


def _loaded(calibrator: Path) -> Pipeline:
    """A pipeline that fuses; of other files, what they are, and what is wanted."""
    wanted = "--calibrator takes what grclip fit wrote, or save_pipeline of a pipeline that fuses"
    if not calibrator.exists():
        raise FileNotFoundError(f"{calibrator}: no such file; {wanted}")
    if is_parquet(calibrator):
        raise ValueError(f"{calibrator} is a Parquet file; {wanted}")
    try:
        pipeline = load_pipeline(calibrator)
    except ValueError as error:
        raise ValueError(f"{error}; {wanted}") from error
    if not isinstance(pipeline[-1], MultimodalFuser):
        raise ValueError(f"{calibrator} removes the gap, but does not fuse; {wanted}")
    return pipeline


def _check_roles(columns: Mapping[str, str], pipeline: Pipeline, calibrator: Path) -> None:
    """That the calibrator has a mean of each role."""
    for remover in pipeline:
        if isinstance(remover, ModalityGapRemover):
            unknown = [repr(role) for role in columns if role not in remover.means_]
            if unknown:
                known = ", ".join(map(repr, remover.means_))
                raise ValueError(
                    f"{calibrator} has no mean of role {', '.join(unknown)}, but of {known}; name roles in --column "
                    "as in fit, or fit on this one, too"
                )


def _other_roles(columns: Mapping[str, str], pipeline: Pipeline) -> list[str]:
    """Roles of the same side that the calibrator knows, and no column was named for."""
    asked = pipeline[-1].query_roles_
    known = pipeline[0].means_ if isinstance(pipeline[0], ModalityGapRemover) else ()
    return [role for role in known if role not in columns and (role in asked) == (not asked.isdisjoint(columns))]


def _check_encoder(sources: Sequence[Source], given: str | None, calibrator: Path, fitted: str | None) -> None:
    """That vectors come from the encoder of the calibrator, as far as both are known."""
    said = _encoder(sources, given)
    stated = [source.path for source in sources if (source.encoder or given) is not None]
    silent = [source.path for source in sources if (source.encoder or given) is None]
    if stated and fitted is not None and said != fitted:
        raise ValueError(
            f"{stated[0]} holds vectors of encoder {said!r}, but {calibrator} was fitted on those of {fitted!r}; means "
            "and spreads of one encoder are wrong for another: fit a new calibrator"
        )
    if not stated and fitted is not None:
        more = f" and {len(silent) - 1} more say" if len(silent) > 1 else " says"
        warn(f"{_UNCHECKED}: {calibrator} was fitted on {fitted!r}, but {silent[0]}{more} nothing; say --encoder NAME")
    elif stated and fitted is None:
        warn(f"{_UNCHECKED}: {stated[0]} says {said!r}, but {calibrator} does not know; fit it with --encoder NAME")


def _fused(
    source: Source, pipeline: Pipeline, carried: list[str], schema: Any, n_rows: int, start: int, kinds: Counter[str]
) -> Iterator[Any]:
    """Tables of what is carried through, and fused vectors; GROUP batches in each. Counts kinds of rows."""
    wanted, warned, held = [*carried, *source.columns.values()], _Warned(source), []
    directions, others = Directions(pipeline), _other_roles(source.columns, pipeline)
    widths = dict.fromkeys(source.columns, pipeline[-1].n_features_in_)
    encoder = encoder_fingerprint(pipeline)  # which was checked
    for first, table in source.tables(wanted, n_rows, start):
        parts = source.parts(table, first, widths)
        with warned.told(first), _explained(source, parts, first, len(table), others):
            fused = pipeline.transform(Items(parts, encoder=encoder))
        kinds.update(_kinds(parts, len(table)))
        for role, told in directions.look(parts).items():
            warn(f"{source.where(role)} {told}; if columns or files were exchanged, put --column right and run again")
        columns = [*(table.column(name) for name in carried), as_lists(fused)]
        held.append(arrow().table(columns, schema=schema))
        if len(held) == GROUP:
            yield arrow().concat_tables(held)
            held.clear()
    if held:
        yield arrow().concat_tables(held)
    warned.sum_up()


def _kinds(parts: Mapping[str, NDArray], n: int) -> dict[str, int]:
    """Rows of each kind; where values have been checked, one number tells whether a part is there."""
    codes = np.zeros(n, dtype=np.int64)
    for place, part in enumerate(parts.values()):
        codes |= (~np.isnan(part[:, 0])).astype(np.int64) << place
    found = np.unique(codes, return_counts=True)
    return {
        "+".join(role for place, role in enumerate(parts) if code >> place & 1): count
        for code, count in zip(*(some.tolist() for some in found), strict=True)
    }


def _schema(source: Source, pipeline: Pipeline, carried: list[str], vectors: str, encoder: str | None) -> Any:
    """The columns of the output, with what made its vectors."""
    pa = arrow()
    known = [dtype for dtype in map(source.dtype, source.columns) if dtype is not None]
    dtype = reduce(np.promote_types, known) if known else np.dtype(np.float32)
    kind = list_type(dtype, pipeline[-1].n_features_in_)
    fields = [*(source.schema.field(name) for name in carried), pa.field(vectors, kind)]
    return tell(
        pa.schema(fields, metadata=source.schema.metadata),
        encoder=encoder,  # which the calibrator's is only a guess at
        calibrator=pipeline_fingerprint(pipeline),
        vectors=vectors,
        roles=sorted(source.columns),
    )


def _batch_rows(source: Source, width: int | None = None, carried: int = 0) -> int:
    """Rows that are read at once: by the types of columns, the width, and what is carried through, if it is large."""
    known = {role: dtype.itemsize for role in source.columns if (dtype := source.dtype(role)) is not None}
    bytes_of_row = sum(size * (width or source.width(role) or 512) for role, size in known.items())
    return max(1, BATCH // max(1, bytes_of_row, carried))


def _identity(path: Path) -> dict[str, Any]:
    """What tells a file from another, or from itself after a change."""
    about = path.stat()
    with open(path, "rb") as file:
        file.seek(-8, os.SEEK_END)
        file.seek(-8 - int.from_bytes(file.read(4), "little"), os.SEEK_END)
        footer = hashlib.sha256(file.read()).hexdigest()
    return {"path": str(path.resolve()), "bytes": about.st_size, "changed": about.st_mtime_ns, "footer": footer}


class _Warned:
    """Warnings of batches, the first few with the rows they speak of, and then how many more there were."""

    def __init__(self, source: Source) -> None:
        self.source, self.n = source, 0

    @contextmanager
    def told(self, first: int) -> Iterator[None]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        for warning in caught:
            self.n += 1
            if self.n <= _SHOWN:
                warn(f"{self.source.path}, in rows counted from {first}: {warning.message}")

    def sum_up(self) -> None:
        if self.n > _SHOWN:
            warn(f"{self.source.path}: {self.n - _SHOWN} more such warnings, of other rows")


@contextmanager
def _explained(
    source: Source, parts: Mapping[str, NDArray], first: int, n: int, others: Sequence[str] = ()
) -> Iterator[None]:
    """Say of which file, column and rows an error is that came from a batch."""
    try:
        yield
    except ValueError as error:
        for role, part in parts.items():
            _refuse_values(source.where(role), part, first)
        _refuse_empty(source, parts, first, n, others)
        raise ValueError(f"{source.path}, in rows counted from {first}: {error}") from error


def _refuse_values(where: str, part: NDArray, first: int) -> None:
    """Rows that hold what is no number are an error."""
    norms = row_norms(part).numpy()
    for broken, what in (
        (norms < 0, "NaN beside numbers (a missing part is a null, or NaN throughout)"),
        (norms > norm_limits(dtype_of(part))[1], "inf, or numbers too large to square,"),
    ):
        if broken.any():
            rows = few(first + np.flatnonzero(broken))
            raise ValueError(f"{where} has {what} in {rows}; drop these rows or encode them again")


def _refuse_empty(source: Source, parts: Mapping[str, NDArray], first: int, n: int, others: Sequence[str] = ()) -> None:
    """Rows without any part are an error; where values have been checked, one number tells whether a row is there."""
    there = np.zeros(n, dtype=bool)
    for part in parts.values():
        there |= ~np.isnan(part[:, 0])
    if not there.all():
        listed = ", ".join(repr(column) for column in source.columns.values())
        more = f"; the calibrator also knows {', '.join(map(repr, others))}: --column {others[0]}=..." if others else ""
        raise ValueError(
            f"{source.path}: no part at all in {few(first + np.flatnonzero(~there))}: nothing in {listed}; leave these "
            f"rows out{more}"
        )
