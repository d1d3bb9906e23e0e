"""Parquet files of fused vectors, each written so that it goes on where it was broken off."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from grclip import __version__
from grclip._append import AppendedParquet, forget
from grclip._batch import UNCHECKED, Warned, batch_rows, check_outputs, explained, one_encoder, place_of
from grclip._direction import Directions
from grclip._fuse import name_kind
from grclip._parquet import Source, arrow, as_lists, is_parquet, list_type, opened, tell, told_by
from grclip._validation import warn
from grclip.fusion import MultimodalFuser
from grclip.gap import ModalityGapRemover
from grclip.items import Items
from grclip.pipelines import encoder_fingerprint, load_pipeline, pipeline_fingerprint

GROUP = 16
"""Batches in a row group of the output."""


class Written(NamedTuple):
    """What became of a file: rows, those that were there already, what to say, and the new rows of each kind."""

    n_rows: int
    there: int
    note: str
    kinds: Counter[str]


def transform_files(
    paths: Sequence[Path],
    outputs: Sequence[Path],
    calibrator: Path,
    columns: Mapping[str, str],
    *,
    vectors: str = "vector",
    encoder: str | None = None,
    folder: Path | None = None,
) -> Iterator[Written]:
    """Write files with fused vectors in the place of parts; begun again, leave alone those that are finished.

    The folder, if one is named, is made once all has been checked.
    """
    check_outputs(outputs, [*paths, calibrator], folder)
    _check_replaced(outputs)
    pipeline, sources = _loaded(calibrator), [Source.open(path, columns) for path in paths]
    _check_roles(columns, pipeline, calibrator)
    _check_encoder(sources, encoder, calibrator, encoder_fingerprint(pipeline))
    for source in sources:
        _check_names(source, vectors)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    written: dict[tuple[int, int] | None, Path] = {}
    for path, output in zip(paths, outputs, strict=True):
        if (other := written.get(place_of(output))) is not None:
            raise ValueError(
                f"{output} and {other} are one file, by a link, or because the file system ignores capitals: "
                f"{path} would replace what was written; give it another name, or write it to another folder"
            )
        yield _write(Source.open(path, columns), output, pipeline, vectors, encoder, keep=len(paths) > 1)
        written[place_of(output)] = output
    for output in outputs if len(paths) > 1 else ():
        forget(output)


def _check_replaced(outputs: Sequence[Path]) -> None:
    """That nothing is written over but what was written by this command; of two files named by `*`, one is data."""
    for output in outputs:
        if output.exists() and output.stat().st_size and not _is_fused(output):
            raise FileExistsError(
                f"{output} is there, and grclip transform did not write it; name a file to write, or --output-dir for "
                "several to read; to replace it, remove it first"
            )


def _is_fused(path: Path) -> bool:
    """Whether a file is one that transform wrote."""
    with suppress(ValueError), opened(path) as file:
        return told_by(file.schema_arrow, str(path)).get("calibrator") is not None
    return False


def outputs_in(folder: Path, paths: Sequence[Path]) -> list[Path]:
    """A file for each input, under its name, in a folder that may not be there yet."""
    names = [path.name for path in paths]
    again = [str(path) for path in paths if names.count(path.name) > 1]
    if again:
        raise ValueError(f"{' and '.join(again)} have one name, and would be written to one file in {folder}")
    if os.path.lexists(folder) and not folder.is_dir():
        raise NotADirectoryError(f"--output-dir {folder} is a file, or a link to nothing; name a folder")
    return [folder / name for name in names]


def _write(
    source: Source, output: Path, pipeline: Pipeline, vectors: str, encoder: str | None, *, keep: bool
) -> Written:
    """Write a file of fused vectors, or what is missing of it."""
    path, width = source.path, int(pipeline[-1].n_features_in_)
    carried = _carried(source)
    schema, identity = _schema(source, pipeline, carried, vectors, source.encoder or encoder), _identity(path)
    n_rows = batch_rows(source, width, source.bytes_of_row(carried))
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
    said = one_encoder(sources, given)
    stated = [source.path for source in sources if (source.encoder or given) is not None]
    silent = [source.path for source in sources if (source.encoder or given) is None]
    if stated and fitted is not None and said != fitted:
        raise ValueError(
            f"{stated[0]} holds vectors of encoder {said!r}, but {calibrator} was fitted on those of {fitted!r}; means "
            "and spreads of one encoder are wrong for another: fit a new calibrator"
        )
    if not stated and fitted is not None:
        more = f" and {len(silent) - 1} more say" if len(silent) > 1 else " says"
        warn(f"{UNCHECKED}: {calibrator} was fitted on {fitted!r}, but {silent[0]}{more} nothing; say --encoder NAME")
    elif stated and fitted is None:
        warn(f"{UNCHECKED}: {stated[0]} says {said!r}, but {calibrator} does not know; fit it with --encoder NAME")


def _fused(
    source: Source, pipeline: Pipeline, carried: list[str], schema: Any, n_rows: int, start: int, kinds: Counter[str]
) -> Iterator[Any]:
    """Tables of what is carried through, and fused vectors; GROUP batches in each. Counts kinds of rows."""
    wanted, warned, held = [*carried, *source.columns.values()], Warned(source), []
    directions, others = Directions(pipeline), _other_roles(source.columns, pipeline)
    widths = dict.fromkeys(source.columns, pipeline[-1].n_features_in_)
    encoder = encoder_fingerprint(pipeline)  # which was checked
    for first, table in source.tables(wanted, n_rows, start):
        parts = source.parts(table, first, widths)
        with warned.told(first), explained(source, parts, first, len(table), others):
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
        name_kind(role for place, role in enumerate(parts) if code >> place & 1): count
        for code, count in zip(*(some.tolist() for some in found), strict=True)
    }


def _schema(source: Source, pipeline: Pipeline, carried: list[str], vectors: str, encoder: str | None) -> Any:
    """The columns of the output; what made the vectors is said of the file, and of the column, since Ray keeps that."""
    pa = arrow()
    known = [dtype for dtype in map(source.dtype, source.columns) if dtype is not None]
    dtype = reduce(np.promote_types, known) if known else np.dtype(np.float32)
    told = {
        "encoder": encoder,  # which the calibrator's is only a guess at
        "calibrator": pipeline_fingerprint(pipeline),
        "vectors": vectors,
        "roles": sorted(source.columns),
    }
    fused = tell(pa.field(vectors, list_type(dtype, pipeline[-1].n_features_in_)), **told)
    fields = [*(source.schema.field(name) for name in carried), fused]
    return tell(pa.schema(fields, metadata=source.schema.metadata), **told)


def _identity(path: Path) -> dict[str, Any]:
    """What tells a file from another, or from itself after a change."""
    about = path.stat()
    with open(path, "rb") as file:
        file.seek(-8, os.SEEK_END)
        file.seek(-8 - int.from_bytes(file.read(4), "little"), os.SEEK_END)
        footer = hashlib.sha256(file.read()).hexdigest()
    return {"path": str(path.resolve()), "bytes": about.st_size, "changed": about.st_mtime_ns, "footer": footer}
