"""What runs in Ray's workers: one block of rows in, one out, with errors that say where they are."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from grclip import __version__
from grclip._optional import optional_import
from grclip._parquet import arrow
from grclip.gap import ModalityGapRemover
from grclip.items import Items
from grclip.scale._arrow import (
    as_lists,
    check_columns,
    check_new,
    has_rows,
    mixed,
    one_name,
    parts_of_table,
    raw_values,
    repeated,
    where,
    with_column,
)

EMBEDDING = "{}_embedding"
"""The column of a role's embeddings."""


class Encoder:
    """An actor: an encoder with its model loaded."""

    def __init__(self, encoder: Any, encoder_column: str, version: str = __version__) -> None:
        refuse_other_version(version)
        self.encoder, self.encoder_column = encoder, encoder_column
        if hasattr(type(encoder), "fingerprint"):  # of the class, because an AttributeError in loading has to be told
            encoder.fingerprint  # noqa: B018 (loads the model, once for all batches)

    def __call__(self, table: Any, *, columns: Mapping[str, str], id_column: str | None) -> Any:
        """The batch with embeddings beside its raw values."""
        with located(table, columns, id_column):
            check_columns(table.schema, columns)
            check_new(table.schema, map(EMBEDDING.format, columns))
            items = Items({role: raw_values(table.column(name)) for role, name in columns.items()})
            before, encoded = one_name(table, self.encoder_column), self.encoder.transform(items)
            check_encoded(encoded, items)
            if before is not None and encoded.encoder is not None and before != encoded.encoder:
                raise ValueError(mixed(self.encoder_column, before, encoded.encoder))
        for role, part in encoded.items():
            table = with_column(table, EMBEDDING.format(role), as_lists(part))
        return with_column(table, self.encoder_column, repeated(encoded.encoder or before, len(table)))


def check_encoded(encoded: Any, items: Items) -> None:
    """That an encoder gave a row of embeddings for each part."""
    shapes = {role: np.shape(part) for role, part in encoded.items()} if isinstance(encoded, Items) else {}
    if shapes.keys() != set(items) or any(len(shape) != 2 or shape[0] != len(items) for shape in shapes.values()):
        raise TypeError(
            f"the encoder gave {encoded!r} for {items!r}; expected Items of the same roles and rows, with embeddings "
            "of shape (n, d)"
        )


def fit_block(
    table: Any,
    *,
    columns: Mapping[str, str],
    normalize: bool,
    encoder_column: str | None,
    id_column: str | None,
    version: str = __version__,
) -> Any:
    """The state of a remover fitted on a block, or the error that it raised; nothing where there is no row."""
    refuse_other_version(version)
    state = problem = None
    try:
        with located(table, columns, id_column):
            parts = parts_of_table(table, columns)
            if any(has_rows(part) for part in parts.values()):
                items = Items(parts, encoder=one_name(table, encoder_column))
                state = pickle.dumps(ModalityGapRemover(normalize=normalize).fit(items).to_state())
    except (TypeError, ValueError) as error:  # told as a row, because Ray would tell it in words of its own
        problem = pickle.dumps(error)
    pa: Any = arrow()
    return pa.table({"state": pa.array([state], pa.binary()), "problem": pa.array([problem], pa.binary())})


def transform_batch(
    table: Any,
    *,
    pipeline: Any,
    fingerprint: str,
    columns: Mapping[str, str],
    output: str,
    encoder_column: str | None,
    calibrator_column: str | None,
    id_column: str | None,
    version: str = __version__,
) -> Any:
    """The batch with fused vectors in the place of the embeddings."""
    refuse_other_version(version)
    fitted = optional_import("ray", "ray", "grclip.scale.ray").get(pipeline)
    with located(table, columns, id_column):
        check_new(table.schema, [output] if calibrator_column is None else [output, calibrator_column])
        items = Items(parts_of_table(table, columns), encoder=one_name(table, encoder_column))
        fused = fitted.transform(items)
    table = table.drop_columns(sorted(set(columns.values()))).append_column(output, as_lists(fused))
    if calibrator_column is None:
        return table
    return table.append_column(calibrator_column, repeated(fingerprint, len(table)))


def refuse_other_version(version: str) -> None:
    """Workers with another grclip may make other vectors under the same fingerprint."""
    if version != __version__:
        raise RuntimeError(
            f"this worker ({socket.gethostname()}) has grclip {__version__}, but the process that gave it the work has "
            f"{version}: install the same on all machines"
        )


@contextmanager
def located(table: Any, columns: Mapping[str, str], id_column: str | None) -> Iterator[None]:
    """Add to an error which columns and rows of which batch it is about."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{error}; {where(table, columns, id_column)}") from error
    except Exception as error:  # of an encoder's libraries: kept as it is
        error.add_note(where(table, columns, id_column))
        raise
