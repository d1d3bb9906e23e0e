"""Tables of results, as text and as HTML."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

Row = Mapping[str, Any]


class Table(ABC):
    """A result that shows itself as a table: `rows`, one mapping a line, and `notes` below it."""

    rows: Sequence[Row]
    notes: Sequence[str]

    @property
    @abstractmethod
    def _title(self) -> str:
        """What is measured, in a line."""

    @property
    def _hidden(self) -> tuple[str, ...]:
        """Columns that are not shown."""
        return ()

    @property
    def _columns(self) -> list[str]:
        """Columns that are shown; that of notes only where there is one."""
        noted = any(row.get("note") for row in self.rows)
        return [name for name in self.rows[0] if name not in self._hidden and (name != "note" or noted)]

    def __str__(self) -> str:
        columns = self._columns
        cells = [columns, *([_cell(column, row[column]) for column in columns] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        left = [isinstance(self.rows[0][column], str) for column in columns]
        lines = [
            "  ".join(
                cell.ljust(width) if to_left else cell.rjust(width)
                for cell, width, to_left in zip(line, widths, left, strict=True)
            ).rstrip()
            for line in cells
        ]
        return "\n".join([self._title, *lines, *self.notes])

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._title}>"

    def _repr_html_(self) -> str:
        columns = self._columns
        head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_cell(column, row[column]))}</td>" for column in columns) + "</tr>"
            for row in self.rows
        )
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return (
            f"<table><caption>{escape(self._title)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            + notes
        )


def _cell(column: str, value: Any) -> str:
    """A number to three places; a dash where there is none, of which a note says why."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "-"
    if column.endswith("_p") and value < 0.001:
        return "<0.001"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
