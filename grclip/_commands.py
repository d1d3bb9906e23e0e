"""The commands on files: ``grclip fit``, ``grclip transform`` and ``grclip info``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grclip._fit_files import SAMPLE, fit_files
from grclip._fuse import name_kind, name_kinds
from grclip._parquet import is_parquet, opened, told_by, told_by_rows
from grclip._transform_files import outputs_in, transform_files
from grclip.fusion import MultimodalFuser
from grclip.gap import ModalityGapRemover
from grclip.persistence import class_in
from grclip.pipelines import encoder_fingerprint, load_pipeline, pipeline_fingerprint

_COLUMN = "the column that holds the vectors of a role, e.g. text=text_embedding; once for each role"


def add_commands(commands: Any) -> None:
    """Add the commands to the parser of the command line."""
    fit = commands.add_parser(
        "fit",
        help="learn a calibrator from vectors in Parquet files",
        epilog="Columns are lists of float16, float32 or float64; a null is a missing part. Means come from all rows; "
        "spreads, with --equalize, from a sample.",
    )
    fit.add_argument("files", nargs="+", type=Path, metavar="FILE", help="documents, in Parquet")
    fit.add_argument("--output", type=Path, required=True, metavar="FILE", help="the calibrator: a safetensors file")
    _add_columns(fit, "--column", required=True)
    fit.add_argument("--queries", nargs="+", type=Path, default=[], metavar="FILE", help="queries, in Parquet")
    _add_columns(fit, "--query-column", text="the same for queries, in --queries or else in the files of documents")
    fit.add_argument("--alpha", type=float, default=0.5, help="weight of text beside the other parts (%(default)s)")
    fit.add_argument(
        "--weight",
        action="append",
        type=_weight,
        metavar="ROLE=NUMBER",
        help="of a role, instead of --alpha; only the ratio counts, e.g. title=2 and body=1; once for each role",
    )
    fit.add_argument("--equalize", action="store_true", help="put all kinds of documents on one scale; needs queries")
    fit.add_argument("--sample", type=int, default=SAMPLE, metavar="N", help="rows for the scale (%(default)s)")
    _add_columns(fit, "--modality", text="text, image, audio or video, of a role that is not known: sketch=image")
    _add_encoder(fit)
    fit.set_defaults(run=_fit)

    transform = commands.add_parser(
        "transform",
        help="fuse the vectors of Parquet files by a calibrator",
        usage="grclip transform IN OUT --calibrator FILE --column ROLE=NAME [...]\n"
        "       grclip transform IN [IN ...] --output-dir OUT --calibrator FILE --column ROLE=NAME [...]",
        epilog="The columns of parts are replaced by one of fused vectors; others are carried through. Killed or out "
        "of disk, the same command goes on where it was.",
    )
    transform.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="documents or queries, in Parquet; and the file to write"
    )
    transform.add_argument(
        "--output-dir", type=Path, metavar="OUT", help="a folder to write to instead, each file under its name"
    )
    transform.add_argument("--calibrator", type=Path, required=True, metavar="FILE", help="what grclip fit wrote")
    _add_columns(transform, "--column", required=True)
    transform.add_argument("--vectors", default="vector", metavar="NAME", help="column to write (%(default)s)")
    _add_encoder(transform)
    transform.set_defaults(run=_transform)

    info = commands.add_parser("info", help="say what a calibrator or a Parquet file holds")
    info.add_argument("file", type=Path, metavar="FILE")
    info.set_defaults(run=_info)


def _add_columns(command: Any, name: str, *, text: str = _COLUMN, required: bool = False) -> None:
    command.add_argument(
        name, action="append", type=_pair, required=required, default=None, metavar="ROLE=NAME", help=text
    )


def _add_encoder(command: Any) -> None:
    command.add_argument("--encoder", metavar="NAME", help="fingerprint of what made the vectors, if files do not say")


def _pair(text: str) -> tuple[str, str]:
    role, _, name = text.partition("=")
    if not (role and name):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form role=name, e.g. text=text_embedding")
    return role, name


def _weight(text: str) -> tuple[str, float]:
    role, number = _pair(text)
    try:
        return role, float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: {number!r} is no number") from None


def _by_role(option: str, pairs: Sequence[tuple[str, Any]] | None) -> dict[str, Any]:
    """Pairs as a dict; one role or column twice is an error."""
    found = dict(pairs or ())
    listed = ", ".join(f"{role}={value}" for role, value in pairs or ())
    if len(found) < len(pairs or ()):
        raise ValueError(f"{option} names a role twice: {listed}")
    if option.endswith("column") and len(set(found.values())) < len(found):
        raise ValueError(f"{option} names a column twice: {listed}")
    return found


def _fit(options: argparse.Namespace) -> None:
    pipeline = fit_files(
        options.files,
        _by_role("--column", options.column),
        options.output,
        queries=options.queries,
        query_columns=_by_role("--query-column", options.query_column),
        alpha=options.alpha,
        weights=_by_role("--weight", options.weight),
        modalities=_by_role("--modality", options.modality),
        equalize=options.equalize,
        sample=options.sample,
        encoder=options.encoder,
    )
    print(f"{options.output}: {pipeline_fingerprint(pipeline)}")
    _print_steps(pipeline)
    if not options.query_column:
        print("  no queries: this calibrator cannot transform queries; add --queries FILE --query-column query=COLUMN")


def _transform(options: argparse.Namespace) -> None:
    paths, outputs = _paths(options.files, options.output_dir)
    done = transform_files(
        paths,
        outputs,
        options.calibrator,
        _by_role("--column", options.column),
        vectors=options.vectors,
        encoder=options.encoder,
        folder=options.output_dir,
    )
    start = time.perf_counter()
    for output, (n_rows, there, note, kinds) in zip(outputs, done, strict=True):
        if note:
            print(f"grclip: {output}: {note}", file=sys.stderr)
        kept = f", {there:,} of them by an earlier run" if there else ""
        new = ", ".join(f"{kind} {n:,}" for kind, n in sorted(kinds.items()))
        print(
            f"{output}: {n_rows:,} rows{kept}{f' ({new})' if new else ''}; {time.perf_counter() - start:.1f} s",
            flush=True,
        )
        start = time.perf_counter()


def _paths(files: list[Path], folder: Path | None) -> tuple[list[Path], list[Path]]:
    """What is read, and what is written."""
    if folder is not None:
        return files, outputs_in(folder, files)
    if len(files) != 2:
        raise ValueError(f"name a file and the one to write, IN OUT, or files and --output-dir OUT; got {len(files)}")
    return files[:1], files[1:]


def _info(options: argparse.Namespace) -> None:
    if options.file.is_dir():
        raise ValueError(f"{options.file} is a folder; give a calibrator or a Parquet file")
    if not options.file.exists():
        raise FileNotFoundError(f"{options.file}: no such file")
    if is_parquet(options.file):
        _print_parquet(options.file)
    else:
        _print_calibrator(options.file)


def _print_calibrator(path: Path) -> None:
    try:
        kind = class_in(path)
    except ValueError as error:
        raise ValueError(f"{path} is neither a calibrator nor a Parquet file that can be read ({error})") from error
    if kind == "ModalityGapRemover":
        _print_means(path, ModalityGapRemover.load(path))
        return
    pipeline = load_pipeline(path)
    print(f"{path}\n  a fitted pipeline\n  fingerprint {pipeline_fingerprint(pipeline)}")
    print(f"  encoder     {encoder_fingerprint(pipeline) or 'unknown'}\n  width       {pipeline[0].n_features_in_}")
    _print_steps(pipeline)


def _print_means(path: Path, remover: ModalityGapRemover) -> None:
    print(f"{path}\n  the means of a ModalityGapRemover")
    print("  grclip transform takes what grclip fit wrote, or save_pipeline of a pipeline that fuses")
    print(f"  encoder     {remover.encoder_ or 'unknown'}\n  width       {remover.n_features_in_}")
    print(f"  degap       {_told_of(remover)}")


def _print_steps(pipeline: Any) -> None:
    for name, step in pipeline.steps:
        print(f"  {name:<11} {_told_of(step)}")


def _told_of(step: ModalityGapRemover | MultimodalFuser) -> str:
    """A fitted step in a line."""
    if isinstance(step, ModalityGapRemover):
        counts = ", ".join(f"{role or '(no role)'} {n:,}" for role, n in step.n_samples_seen_.items())
        return f"{step!r}, means of rows: {counts}"
    if not step.equalize:
        return f"{step!r}"
    spreads = sorted((name_kind(kind), value) for kind, value in step.spread_.items())
    told = ", ".join(f"{kind} {value:.4f}" for kind, value in spreads)
    return f"{step!r}, spreads: {told} (asked by {name_kinds(step.query_kinds_)})"


def _by_column(name: str, rows: dict[str, list[str]]) -> str:
    """Fingerprints that rows hold, and where."""
    return f"{', '.join(rows[name])} (column {name!r})" if rows[name] else ""


def _print_parquet(path: Path) -> None:
    with opened(path) as file:
        schema, metadata = file.schema_arrow, file.metadata
        told, rows = told_by(schema, str(path)), told_by_rows(file)
    print(f"{path}\n  Parquet, {metadata.num_rows:,} rows in {metadata.num_row_groups:,} row groups")
    unknown = "unknown: nobody said which made the vectors that these were fused from" if "roles" in told else "unknown"
    print(f"  encoder     {told.get('encoder') or _by_column('encoder', rows) or unknown}")
    if told.get("calibrator") is not None:
        _print_fused(told["vectors"], told)
    elif rows["calibrator"]:
        print(f"  calibrator  {_by_column('calibrator', rows)}")
    for column in schema if told.get("calibrator") is None else ():  # of a file that another program wrote again
        said = told_by(column, f"{path}: column {column.name!r}")
        if said.get("calibrator") is not None:
            _print_fused(column.name, said)
    for column in schema:
        print(f"  column      {column.name}: {column.type}")


def _print_fused(column: str, told: dict[str, Any]) -> None:
    print(f"  calibrator  {told['calibrator']}: made column {column!r} of {', '.join(told['roles'])}")
